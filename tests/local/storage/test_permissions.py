"""Who may do what: tokens, roles, policies and triggers, and what a refusal looks like."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from tests.local.storage.serving import SECRET, ThreadServer, bearer, files_of, token

MakeBucket = Callable[..., str]
RLS = {
    "statusCode": "403",
    "error": "Unauthorized",
    "message": "new row violates row-level security policy",
    "code": "AccessDenied",
}


def unsigned() -> str:
    return jwt.encode({"role": "service_role"}, key="", algorithm="none")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "Invalid Compact JWS"),
        ("Bearer rubbish", "Invalid Compact JWS"),
        (
            f"Bearer {token('service_role', exp=int(time.time()) - 5)}",
            '"exp" claim timestamp check failed',
        ),
        (
            f"Bearer {jwt.encode({'role': 'service_role'}, 'x' * 32)}",
            "signature verification failed",
        ),
        (f"Bearer {unsigned()}", '"alg" (Algorithm) Header Parameter value not allowed'),
        (f"Bearer {token('postgres')}", "Invalid role: postgres"),
        (f"Bearer {token('supabase_storage_admin')}", "Invalid role: supabase_storage_admin"),
        (f"Bearer {jwt.encode({'role': ['service_role']}, SECRET)}", "Invalid role"),
    ],
)
def test_a_bad_token_is_refused_everywhere_but_where_anybody_may_read(
    http: httpx.Client, make_bucket: MakeBucket, header: str, message: str
) -> None:
    bucket = make_bucket()
    headers = {"authorization": header}
    for method, path, options in (
        ("GET", "/bucket", {}),
        ("POST", f"/object/{bucket}/a", {"content": b"1"}),
        ("POST", f"/object/list/{bucket}", {"json": {"prefix": ""}}),
        ("DELETE", f"/object/{bucket}", {"json": {"prefixes": ["a"]}}),
        ("GET", f"/object/authenticated/{bucket}/a", {}),
        ("POST", "/bucket", {"json": {"name": "mine"}}),
    ):
        answer = http.request(method, path, headers=headers, **options)
        assert answer.status_code == 400, path
        assert answer.json()["statusCode"] == "403"
        assert answer.json()["error"] == "Unauthorized"
        assert answer.json()["message"].startswith(message)
    for path in (f"/object/{bucket}/a", f"/object/info/{bucket}/a"):
        answer = http.get(path, headers=headers)
        assert answer.json()["message"] == "Bucket not found"
    upload = http.post("/upload/resumable", headers=headers | {"tus-resumable": "1.0.0"})
    assert (upload.status_code, upload.headers["content-type"][:10]) == (403, "text/plain")


def test_a_token_without_a_role_is_anonymous(http: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket("own")
    answer = http.post(f"/object/{bucket}/a", content=b"1", headers=bearer(token(role=None)))
    assert answer.json() == RLS


def test_policies_see_the_caller(http: httpx.Client, make_bucket: MakeBucket, user: str) -> None:
    bucket, stranger = make_bucket("own"), str(uuid.uuid4())
    mine, theirs = bearer(token(sub=user)), bearer(token(sub=stranger))
    http.post(f"/object/{bucket}/{user}/a", content=b"1", headers=mine).raise_for_status()
    assert http.post(f"/object/{bucket}/{user}/b", content=b"1", headers=theirs).json() == RLS

    assert http.get(f"/object/{bucket}/{user}/a", headers=mine).content == b"1"
    for path in (f"/object/{bucket}/{user}/a", f"/object/info/{bucket}/{user}/a"):
        assert http.get(path, headers=theirs).json()["code"] == "NoSuchKey"
    sign = {"json": {"expiresIn": 60}}
    answer = http.post(f"/object/sign/{bucket}/{user}/a", headers=theirs, **sign)
    assert answer.json()["code"] == "NoSuchKey"

    listing = {"json": {"prefix": user}}
    assert http.post(f"/object/list/{bucket}", headers=theirs, **listing).json() == []
    assert len(http.post(f"/object/list/{bucket}", headers=mine, **listing).json()) == 1

    removal = {"json": {"prefixes": [f"{user}/a"]}}
    assert http.request("DELETE", f"/object/{bucket}", headers=theirs, **removal).json() == []
    answer = http.delete(f"/object/{bucket}/{user}/a", headers=theirs)
    assert (answer.json()["statusCode"], answer.json()["message"]) == ("403", "Access denied")
    move = {"bucketId": bucket, "sourceKey": f"{user}/a", "destinationKey": f"{stranger}/a"}
    for action in ("move", "copy"):
        answer = http.post(f"/object/{action}", headers=theirs, json=move)
        assert answer.json()["code"] == "NoSuchKey"
        answer = http.post(f"/object/{action}", headers=mine, json=move)
        assert answer.json() == RLS
    assert (
        http.get(f"/object/{bucket}/{user}/a", headers=mine).content == b"1"
    )  # all that for nought


def test_policies_see_request_headers(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket("own")
    service.post(f"/object/{bucket}/x/a", content=b"1").raise_for_status()
    anon = bearer(token("anon"))
    assert http.get(f"/object/{bucket}/x/a", headers=anon).json()["code"] == "NoSuchKey"
    granted = anon | {"x-share-grant": "open sesame"}
    assert http.get(f"/object/{bucket}/x/a", headers=granted).content == b"1"


def test_an_insert_only_bucket_takes_new_objects_but_no_upserts(
    http: httpx.Client, make_bucket: MakeBucket, server: ThreadServer, user: str
) -> None:
    bucket = make_bucket("drop")
    headers = bearer(token(sub=user))
    upsert = headers | {"x-upsert": "true"}
    assert http.post(f"/object/{bucket}/a", content=b"1", headers=upsert).json() == RLS
    assert http.put(f"/object/{bucket}/a", content=b"1", headers=headers).json() == RLS
    assert files_of(server, bucket) == []
    assert http.post(f"/object/{bucket}/a", content=b"1", headers=headers).status_code == 200
    assert http.post(f"/object/{bucket}/a", content=b"2", headers=upsert).json() == RLS
    assert [path.read_bytes() for path in files_of(server, bucket)] == [b"1"]


def test_a_probe_runs_as_the_caller_and_the_commit_as_the_service(
    http: httpx.Client, make_bucket: MakeBucket, superuser: Any, user: str
) -> None:
    bucket = make_bucket("own")
    key = f"{user}/watched"
    http.post(
        f"/object/{bucket}/{key}",
        content=b"12345",
        headers=bearer(token(sub=user)) | {"content-type": "text/plain"},
    ).raise_for_status()
    seen = superuser.execute(
        "select version, role, subject, operation, metadata from app.seen where name = %s", (key,)
    ).fetchall()
    assert len(seen) == 1  # the probe's row went with the probe
    version, role, subject, operation, metadata = seen[0]
    assert (role, subject, operation) == ("service_role", "", "storage.object.upload")
    assert version != "1"
    assert metadata["size"] == 5


def test_the_probe_has_a_length_and_no_size(
    storage_url: str, http: httpx.Client, make_bucket: MakeBucket, superuser: Any, user: str
) -> None:
    bucket = make_bucket("own")
    superuser.execute(
        """
        create or replace function app.tg_objects__tell() returns trigger language plpgsql
        security definer set search_path = '' as $$
        begin
            raise exception using errcode = '42501', message = format('%s|%s|%s|%s',
                new.version, new.metadata, current_setting('request.jwt.claim.role', true),
                auth.uid());
        end $$;
        create trigger _050_tell before insert on storage.objects for each row
        when (new.name like '%tell%') execute function app.tg_objects__tell();
        """
    )
    answer = http.post(
        f"/object/{bucket}/{user}/tell",
        content=b"12345",
        headers=bearer(token(sub=user)) | {"content-type": "text/plain"},
    )
    assert answer.json()["message"] == (
        f'1|{{"mimetype": "text/plain", "contentLength": 5}}|authenticated|{user}'
    )


def test_a_guard_that_refuses_is_heard_and_leaves_nothing(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    bucket = make_bucket()
    for key, message in (
        ("no-ticket", "narwhal/NO_TICKET: no ticket"),
        ("over-quota", "narwhal/QUOTA_EXCEEDED: no room"),
    ):
        answer = service.post(f"/object/{bucket}/{key}", content=b"x" * 100_000)
        assert answer.status_code == 400
        assert answer.json() == {
            "statusCode": "403",
            "error": "Unauthorized",
            "message": message,
            "code": "AccessDenied",
        }
        assert files_of(server) == [] or files_of(server, bucket) == []
        assert list((server.config.storage_dir / "tmp").iterdir()) == []
        assert list((server.config.storage_dir / "unsettled").iterdir()) == []


def test_a_refused_overwrite_keeps_the_old_version(
    service: httpx.Client, make_bucket: MakeBucket, superuser: Any, server: ThreadServer
) -> None:
    bucket = make_bucket()
    superuser.execute("alter table storage.objects disable trigger _100_refuse")
    service.post(f"/object/{bucket}/over-quota", content=b"old").raise_for_status()
    superuser.execute("alter table storage.objects enable trigger _100_refuse")
    answer = service.put(f"/object/{bucket}/over-quota", content=b"new")
    assert answer.json()["message"] == "narwhal/QUOTA_EXCEEDED: no room"
    assert service.get(f"/object/{bucket}/over-quota").content == b"old"
    assert len(files_of(server, bucket)) == 1


def test_other_database_errors_lose_their_text(
    service: httpx.Client, make_bucket: MakeBucket
) -> None:
    answer = service.post(f"/object/{make_bucket()}/odd-code", content=b"1")
    assert answer.status_code == 500
    assert answer.json()["message"] == "database error, code: PT413"


def test_rows_cannot_be_deleted_in_sql(
    service: httpx.Client, make_bucket: MakeBucket, cluster: Any, storage_database: str
) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a", content=b"1").raise_for_status()
    with psycopg.connect(cluster.url("postgres", storage_database)) as connection:
        for table in ("objects", "buckets"):
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege) as error,
                connection.transaction(),
            ):
                connection.execute(f"delete from storage.{table}")
            assert error.value.diag.message_primary == (
                "Direct deletion from storage tables is not allowed. Use the Storage API instead."
            )
        connection.execute("set local storage.allow_delete_query = 'true'")
        gone = connection.execute("delete from storage.objects where bucket_id = %s", (bucket,))
        assert gone.rowcount == 1


def test_a_signed_url_opens_one_object_and_nothing_else(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    for key in ("a", "b"):
        service.post(f"/object/{bucket}/{key}", content=key.encode())
    url = service.post(f"/object/sign/{bucket}/a", json={"expiresIn": 60}).json()["signedURL"]
    assert url.startswith(f"/object/sign/{bucket}/a?token=")
    answer = http.get(url)
    assert answer.content == b"a"
    assert "expires" in answer.headers
    assert "cache-control" not in answer.headers
    assert http.head(url).headers["content-length"] == "1"
    signed = url.partition("token=")[2]

    other = http.get(f"/object/sign/{bucket}/b", params={"token": signed})
    assert (other.json()["code"], other.json()["message"]) == (
        "InvalidSignature",
        "Invalid signature",
    )
    for path, options in (
        ("/bucket", {}),
        (f"/object/authenticated/{bucket}/a", {}),
    ):
        answer = http.get(path, headers=bearer(signed), **options)
        assert answer.json()["message"] == "signature verification failed"
    put = http.put(f"/object/upload/sign/{bucket}/a", params={"token": signed}, content=b"x")
    assert put.json()["code"] == "InvalidSignature"

    # the other way round: a bearer token, even of the service, opens no signed URL
    forged = token("service_role", url=f"{bucket}/a", scope="download")
    answer = http.get(f"/object/sign/{bucket}/a", params={"token": forged})
    assert answer.json()["code"] == "InvalidJWT"
    assert SECRET not in answer.text


def test_a_signed_url_expires_and_dies_with_its_object(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a", content=b"a")
    short = service.post(f"/object/sign/{bucket}/a", json={"expiresIn": 1}).json()["signedURL"]
    long = service.post(f"/object/sign/{bucket}/a", json={"expiresIn": 60}).json()["signedURL"]
    time.sleep(1.5)
    answer = http.get(short)
    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["message"]) == (
        "InvalidJWT",
        '"exp" claim timestamp check failed',
    )
    move = {"bucketId": bucket, "sourceKey": "a", "destinationKey": "b"}
    service.post("/object/move", json=move).raise_for_status()
    assert http.get(long).json()["code"] == "NoSuchKey"


def test_many_urls_are_signed_at_once(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a", content=b"a")
    body = {"expiresIn": 60, "paths": ["a", "nope"]}
    found, missing = service.post(f"/object/sign/{bucket}", json=body).json()
    assert http.get(found["signedURL"]).content == b"a"
    assert missing == {
        "error": "Either the object does not exist or you do not have access to it",
        "path": "nope",
        "signedURL": None,
    }


def test_a_signed_upload_is_its_makers(
    http: httpx.Client, make_bucket: MakeBucket, superuser: Any, user: str
) -> None:
    bucket, mine = make_bucket("own"), bearer(token(sub=user))
    refused = http.post(f"/object/upload/sign/{bucket}/someone/a", headers=mine)
    assert refused.json() == RLS
    made = http.post(f"/object/upload/sign/{bucket}/{user}/a", headers=mine).json()
    assert made["url"] == f"/object/upload/sign/{bucket}/{user}/a?token={made['token']}"
    answer = http.put(made["url"], content=b"one")
    assert answer.json() == {"Key": f"{bucket}/{user}/a"}
    owner = superuser.execute(
        "select owner_id from storage.objects where bucket_id = %s", (bucket,)
    ).fetchone()
    assert owner == (user,)
    again = http.put(made["url"], content=b"two")
    assert again.json()["error"] == "Duplicate"
    answer = http.put(f"/object/upload/sign/{bucket}/{user}/b?token={made['token']}", content=b"x")
    assert answer.json()["code"] == "InvalidSignature"
    assert http.get("/bucket", headers=bearer(made["token"])).json()["statusCode"] == "403"


def test_a_signed_upload_is_probed_as_its_makers(
    http: httpx.Client, make_bucket: MakeBucket, superuser: Any, user: str
) -> None:
    """A guard that looks for the owner's ticket finds the owner, though no user calls."""
    bucket = make_bucket("own")
    made = http.post(f"/object/upload/sign/{bucket}/{user}/a", headers=bearer(token(sub=user)))
    superuser.execute(
        """
        create or replace function app.tg_objects__owner() returns trigger language plpgsql
        security definer set search_path = '' as $$
        begin
            raise exception using errcode = '42501', message = format('%s %s', new.version,
                new.owner_id);
        end $$;
        create trigger _040_owner before insert on storage.objects for each row
        when (new.name like '%/a') execute function app.tg_objects__owner();
        """
    )
    try:
        assert http.put(made.json()["url"], content=b"1").json()["message"] == f"1 {user}"
    finally:
        superuser.execute("drop trigger _040_owner on storage.objects")


def test_only_the_service_empties_a_bucket(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    bucket = make_bucket()
    for number in range(3):
        service.post(f"/object/{bucket}/{number}", content=b"1")
    answer = http.post(f"/bucket/{bucket}/empty", headers=bearer(token()))
    assert (answer.status_code, answer.json()["message"]) == (403, "Access denied: Invalid role")
    not_empty = service.delete(f"/bucket/{bucket}")
    assert (not_empty.json()["statusCode"], not_empty.json()["error"]) == (
        "409",
        "ResourceNotEmpty",
    )
    service.post(f"/bucket/{bucket}/empty").raise_for_status()
    assert files_of(server, bucket) == []
    assert service.delete(f"/bucket/{bucket}").json() == {"message": "Successfully deleted"}
    assert service.get(f"/bucket/{bucket}").json()["error"] == "Bucket not found"


def test_buckets_follow_row_security(http: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    mine = bearer(token(sub=str(uuid.uuid4())))
    assert http.get("/bucket", headers=mine).json() == []
    assert http.get(f"/bucket/{bucket}", headers=mine).json()["statusCode"] == "404"
    assert http.post("/bucket", headers=mine, json={"name": "x"}).json() == RLS
    for method, options in (("PUT", {"json": {"public": True}}), ("DELETE", {})):
        answer = http.request(method, f"/bucket/{bucket}", headers=mine, **options)
        assert answer.json()["statusCode"] == "404"
