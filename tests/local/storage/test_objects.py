"""What the official Python client does with objects, and what the rows and files say after it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from storage3.exceptions import StorageApiError

from tests.local.storage.serving import ThreadServer, files_of, raw, sdk, token

MakeBucket = Callable[..., str]


def row(superuser: psycopg.Connection[Any], bucket: str, key: str) -> dict[str, Any]:
    cursor = superuser.cursor(row_factory=psycopg.rows.dict_row)
    found = cursor.execute(
        "select * from storage.objects where bucket_id = %s and name = %s", (bucket, key)
    ).fetchone()
    assert found is not None
    return found


def test_an_upload_writes_the_row_and_the_bytes_that_supabase_would_write(
    server: ThreadServer, make_bucket: MakeBucket, superuser: Any, user: str
) -> None:
    bucket = make_bucket("own")
    client = sdk(server, token(sub=user)).from_(bucket)
    answer = client.upload(
        f"{user}/a b/c.txt",
        b"hello",
        {"content-type": "text/plain", "cache-control": "60", "metadata": {"mine": "yes"}},
    )
    assert answer.full_path == f"{bucket}/{user}/a b/c.txt"
    found = row(superuser, bucket, f"{user}/a b/c.txt")
    etag = f'"{hashlib.md5(b"hello").hexdigest()}"'
    modified = found["metadata"].pop("lastModified")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", modified)
    assert found["metadata"] == {
        "eTag": etag,
        "size": 5,
        "mimetype": "text/plain",
        "cacheControl": "max-age=60",
        "contentLength": 5,
        "httpStatusCode": 200,
    }
    assert found["user_metadata"] == {"mine": "yes"}
    assert (found["owner_id"], str(found["owner"])) == (user, user)
    assert [path.read_bytes() for path in files_of(server, bucket)] == [b"hello"]
    assert files_of(server, bucket)[0].name == found["version"]


def test_an_overwrite_keeps_the_id_and_leaves_one_file(
    server: ThreadServer, make_bucket: MakeBucket, superuser: Any
) -> None:
    bucket = make_bucket()
    client = sdk(server, token("service_role")).from_(bucket)
    client.upload("a.txt", b"one")
    before = row(superuser, bucket, "a.txt")
    client.upload("a.txt", b"two!", {"upsert": "true"})
    after = row(superuser, bucket, "a.txt")
    assert after["id"] == before["id"]
    assert after["version"] != before["version"]
    assert [path.read_bytes() for path in files_of(server, bucket)] == [b"two!"]
    assert client.download("a.txt") == b"two!"


def test_a_second_upload_of_a_key_is_a_duplicate(
    server: ThreadServer, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    client = sdk(server, token("service_role")).from_(bucket)
    client.upload("a.txt", b"one")
    with pytest.raises(StorageApiError) as error:
        client.upload("a.txt", b"two")
    assert (error.value.status, error.value.code) == ("409", "Duplicate") or (
        error.value.to_dict()["statusCode"] == 409
    )
    assert client.download("a.txt") == b"one"
    assert len(files_of(server, bucket)) == 1


def test_put_creates_what_is_missing(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    answer = service.put(f"/object/{bucket}/new.bin", content=b"x")
    assert answer.json().keys() == {"Id", "Key"}
    assert service.get(f"/object/{bucket}/new.bin").content == b"x"


def test_a_move_keeps_the_id_and_the_bytes(
    server: ThreadServer, make_bucket: MakeBucket, superuser: Any
) -> None:
    bucket, other = make_bucket(), make_bucket()
    client = sdk(server, token("service_role")).from_(bucket)
    client.upload("a.txt", b"one", {"metadata": {"k": "v"}})
    before = row(superuser, bucket, "a.txt")
    client.move("a.txt", "folder/b.txt")
    moved = row(superuser, bucket, "folder/b.txt")
    assert moved["id"] == before["id"]
    assert moved["version"] != before["version"]
    assert (moved["metadata"]["eTag"], moved["user_metadata"]) == (
        before["metadata"]["eTag"],
        {"k": "v"},
    )
    assert client.download("folder/b.txt") == b"one"
    assert len(files_of(server, bucket)) == 1
    client._request(  # type: ignore[attr-defined]
        "POST",
        ["object", "move"],
        json={
            "bucketId": bucket,
            "sourceKey": "folder/b.txt",
            "destinationBucket": other,
            "destinationKey": "b.txt",
        },
    )
    assert files_of(server, bucket) == []
    assert sdk(server, token("service_role")).from_(other).download("b.txt") == b"one"


def test_a_move_onto_another_object_is_refused_and_harms_neither(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    bucket = make_bucket()
    for name in ("a", "b"):
        service.post(f"/object/{bucket}/{name}", content=name.encode())
    answer = service.post(
        "/object/move", json={"bucketId": bucket, "sourceKey": "a", "destinationKey": "b"}
    )
    assert answer.json()["statusCode"] == "409"
    assert [service.get(f"/object/{bucket}/{name}").text for name in ("a", "b")] == ["a", "b"]
    assert len(files_of(server, bucket)) == 2


def test_a_copy_is_an_object_of_its_own(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    bucket = make_bucket()
    service.post(
        f"/object/{bucket}/a.txt",
        content=b"one",
        headers={"content-type": "text/plain", "cache-control": "max-age=5"},
    )
    answer = service.post(
        "/object/copy", json={"bucketId": bucket, "sourceKey": "a.txt", "destinationKey": "b.txt"}
    ).json()
    assert answer["Key"] == f"{bucket}/b.txt"
    assert answer["Id"] == answer["id"]
    assert answer["metadata"]["mimetype"] == "text/plain"
    service.delete(f"/object/{bucket}/a.txt").raise_for_status()
    again = service.get(f"/object/{bucket}/b.txt")
    assert (again.content, again.headers["cache-control"]) == (b"one", "max-age=5")
    assert len(files_of(server, bucket)) == 1


def test_a_copy_may_take_another_type(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a", content=b"one", headers={"content-type": "text/plain"})
    service.post(
        "/object/copy",
        json={
            "bucketId": bucket,
            "sourceKey": "a",
            "destinationKey": "b",
            "copyMetadata": False,
            "metadata": {"mimetype": "text/csv"},
        },
    ).raise_for_status()
    assert service.get(f"/object/{bucket}/b").headers["content-type"] == "text/csv"


def test_removing_deletes_rows_and_bytes_and_omits_what_is_not_there(
    server: ThreadServer, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    client = sdk(server, token("service_role")).from_(bucket)
    client.upload("a", b"1")
    client.upload("b/c", b"2")
    gone = client.remove(["a", "b/c", "never"])
    assert sorted(item["name"] for item in gone) == ["a", "b/c"]
    assert files_of(server, bucket) == []
    assert client.remove(["a"]) == []
    assert not any((server.config.storage_dir / "unsettled").iterdir())


def test_more_than_a_thousand_or_none_cannot_be_removed(
    service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    for prefixes in ([], ["x"] * 1001):
        answer = service.request("DELETE", f"/object/{bucket}", json={"prefixes": prefixes})
        assert (answer.status_code, answer.json()["statusCode"]) == (400, "400")


def test_a_key_can_say_anything_and_touches_no_other_path(
    server: ThreadServer, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    root = server.config.storage_dir
    before = set(root.parent.glob("*"))
    keys = ["a/..%2F..%2F..%2Fetc", "..%2F..%2Fx", "%2Fabs", "a%2F%2Fb", "...", "con", ".", "a/."]
    for number, key in enumerate(keys):
        assert raw(server, "POST", f"/object/{bucket}/{key}", b"%d" % number)[0] == 200
    for number, key in enumerate(keys):
        assert raw(server, "GET", f"/object/{bucket}/{key}") == (200, b"%d" % number)
    assert set(root.parent.glob("*")) == before
    assert {path.name for path in root.iterdir()} == {"objects", "tmp", "tus", "unsettled"}
    assert len(files_of(server, bucket)) == len(keys)


@pytest.mark.parametrize("name", ["..", ".", "con.", "a b!'()*", "x" * 100])
def test_a_bucket_may_have_any_legal_name(
    server: ThreadServer, service: httpx.Client, name: str
) -> None:
    service.post("/bucket", json={"name": name}).raise_for_status()
    root = server.config.storage_dir
    path = f"/object/{quote(name)}/key"
    assert raw(server, "POST", path, b"1")[0] == 200
    assert raw(server, "GET", path) == (200, b"1")
    assert {path.name for path in root.iterdir()} == {"objects", "tmp", "tus", "unsettled"}
    assert raw(server, "DELETE", path)[0] == 200


@pytest.mark.parametrize("key", ["café.txt", "a\nb", "a\n", "a%b", "a\\b", "a~b", "x" * 1025])
def test_other_characters_are_no_key(
    service: httpx.Client, make_bucket: MakeBucket, key: str
) -> None:
    bucket = make_bucket()
    answer = service.post(
        f"/object/{bucket}/" + "".join(f"%{byte:02X}" for byte in key.encode()), content=b"1"
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "statusCode": "400",
        "error": "InvalidKey",
        "message": f"Invalid key: {key}",
        "code": "InvalidKey",
    }


def test_info_head_and_exists_agree(
    server: ThreadServer, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    client = sdk(server, token("service_role")).from_(bucket)
    client.upload("a/b.txt", b"hello", {"content-type": "text/plain", "metadata": {"x": 1}})
    info = client.info("a/b.txt")
    head = service.head(f"/object/{bucket}/a/b.txt")
    assert info["name"] == "a/b.txt"
    assert (info["size"], info["content_type"], info["metadata"]) == (5, "text/plain", {"x": 1})
    assert head.headers["content-length"] == "5"
    assert head.headers["etag"] == info["etag"]
    assert head.headers["x-robots-tag"] == "none"
    assert client.exists("a/b.txt")
    assert not client.exists("a/c.txt")


def test_html_is_not_served_as_a_page(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a.html", content=b"<b>", headers={"content-type": "text/html"})
    assert service.get(f"/object/{bucket}/a.html").headers["content-type"] == "text/plain"


def test_a_public_bucket_needs_no_token(
    http: httpx.Client, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket, private = make_bucket(public=True), make_bucket()
    for name in (bucket, private):
        service.post(f"/object/{name}/a.txt", content=b"one")
    assert http.get(f"/object/public/{bucket}/a.txt").content == b"one"
    assert http.get(f"/object/{bucket}/a.txt").content == b"one"
    assert http.head(f"/object/public/{bucket}/a.txt").headers["content-length"] == "3"
    assert http.get(f"/object/info/public/{bucket}/a.txt").json()["size"] == 3
    for path in ("object/public", "object", "object/info", "object/info/public"):
        answer = http.get(f"/{path}/{private}/a.txt")
        assert (answer.status_code, answer.json()["message"]) == (400, "Bucket not found")


def test_download_names_the_file(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    service.post(f"/object/{bucket}/a.txt", content=b"one")
    named = service.get(f"/object/{bucket}/a.txt", params={"download": "ü b.txt"})
    assert named.headers["content-disposition"] == (
        "attachment; filename=%C3%BC%20b.txt; filename*=UTF-8''%C3%BC%20b.txt"
    )
    bare = service.get(f"/object/{bucket}/a.txt?download")
    assert bare.headers["content-disposition"] == "attachment;"
