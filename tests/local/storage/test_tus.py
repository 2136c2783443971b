"""Resumable uploads with tuspy and by hand: creation, resuming, conflicts, expiry, refusals."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from tests.local.storage.serving import (
    Served,
    ThreadServer,
    bearer,
    files_of,
    token,
    upload_metadata,
)

MakeBucket = Callable[..., str]
TUS = {"tus-resumable": "1.0.0"}
BODY = {"content-type": "application/offset+octet-stream"}


@pytest.fixture
def own(make_bucket: MakeBucket) -> str:
    """Return a bucket in which users may write below their own id."""
    return make_bucket("own")


class Tus:
    """TUS requests by hand, as one user."""

    def __init__(self, server: Served, headers: dict[str, str], sign: str = "") -> None:
        self.endpoint = f"{server.url}/upload/resumable{sign}"
        self.headers = headers | TUS
        self.client = httpx.Client(timeout=30)

    def create(
        self, bucket: str, key: str, size: int | None, content: bytes | None = None, **more: str
    ) -> httpx.Response:
        metadata = {"bucketName": bucket, "objectName": key} | more
        headers = self.headers | {"upload-metadata": upload_metadata(**metadata)}
        headers |= {"upload-defer-length": "1"} if size is None else {"upload-length": str(size)}
        return self.client.post(
            self.endpoint, headers=headers | (BODY if content else {}), content=content
        )

    def patch(self, url: str, offset: int, content: Any, **more: str) -> httpx.Response:
        headers = self.headers | BODY | {"upload-offset": str(offset)} | more
        return self.client.patch(url, headers=headers, content=content)

    def head(self, url: str) -> httpx.Response:
        return self.client.head(url, headers=TUS)


def send_part(url: str, headers: dict[str, str], offset: int, declared: int, data: bytes) -> Any:
    """Begin a PATCH of `declared` bytes, send some, and return the open connection."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port))
    head = {**headers, **TUS, **BODY, "upload-offset": str(offset), "host": "x"}
    lines = [f"{name}: {value}" for name, value in head.items()]
    connection.sendall(
        f"PATCH {parts.path} HTTP/1.1\r\ncontent-length: {declared}\r\n".encode()
        + "\r\n".join(lines).encode()
        + b"\r\n\r\n"
        + data
    )
    return connection


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def part_of(server: Served, url: str) -> Path:
    """Return the file in which an upload's bytes gather."""
    name = url.rpartition("/")[2]
    version = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode().rpartition("/")[2]
    return server.config.storage_dir / "tus" / f"{version}.part"


def test_tuspy_uploads_in_chunks(
    server: ThreadServer, own: str, service: httpx.Client, superuser: Any, user: str
) -> None:
    data = os.urandom(1_300_000)
    client = TusClient(f"{server.url}/upload/resumable", headers=bearer(token(sub=user)))
    metadata = {
        "bucketName": own,
        "objectName": f"{user}/big.bin",
        "contentType": "text/plain",
        "cacheControl": "77",
        "metadata": '{"k": "v"}',
    }
    uploader = client.uploader(file_stream=io.BytesIO(data), chunk_size=500_000, metadata=metadata)
    uploader.upload()
    assert uploader.url.startswith(f"{server.url}/upload/resumable/")
    answer = service.get(f"/object/{own}/{user}/big.bin")
    assert answer.content == data
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["cache-control"] == "max-age=77"
    row = superuser.execute(
        "select owner_id, user_metadata, metadata ->> 'size', version from storage.objects"
        " where bucket_id = %s",
        (own,),
    ).fetchone()
    assert row is not None
    assert row[:3] == (user, {"k": "v"}, "1300000")
    assert files_of(server, own)[0].name == row[3]
    assert not part_of(server, uploader.url).exists()


def test_tuspy_resumes_where_it_stopped(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    data = os.urandom(900_000)
    client = TusClient(f"{server.url}/upload/resumable", headers=bearer(token(sub=user)))
    metadata = {"bucketName": own, "objectName": f"{user}/a"}
    first = client.uploader(file_stream=io.BytesIO(data), chunk_size=300_000, metadata=metadata)
    first.upload(stop_at=600_000)
    second = client.uploader(
        file_stream=io.BytesIO(data), chunk_size=300_000, metadata=metadata, url=first.url
    )
    assert second.offset == 600_000
    second.upload()
    assert service.get(f"/object/{own}/{user}/a").content == data


def test_an_empty_file_is_made_by_the_creation(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    answer = tus.create(own, f"{user}/empty", 0)
    assert answer.status_code == 201
    assert answer.headers["tus-complete"] == "1"
    assert service.get(f"/object/{own}/{user}/empty").content == b""


def test_creation_may_bring_bytes(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    part = tus.create(own, f"{user}/part", 10, b"01234")
    assert (part.status_code, part.headers["upload-offset"]) == (201, "5")
    assert "upload-expires" in part.headers
    head = tus.head(part.headers["location"])
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("5", "10")
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["upload-metadata"].startswith("bucketName ")
    done = tus.patch(part.headers["location"], 5, b"56789")
    assert (done.status_code, done.headers["upload-offset"]) == (204, "10")
    assert done.headers["tus-complete"] == "1"
    assert service.get(f"/object/{own}/{user}/part").content == b"0123456789"
    assert tus.head(part.headers["location"]).headers["upload-offset"] == "10"
    whole = tus.create(own, f"{user}/whole", 3, b"abc")
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, "3")
    assert service.get(f"/object/{own}/{user}/whole").content == b"abc"


def test_the_length_may_come_later(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    url = tus.create(own, f"{user}/a", None).headers["location"]
    assert tus.head(url).headers["upload-defer-length"] == "1"
    assert tus.patch(url, 0, b"abc").headers["upload-offset"] == "3"
    done = tus.patch(url, 3, b"de", **{"upload-length": "5"})
    assert done.headers["tus-complete"] == "1"
    assert service.get(f"/object/{own}/{user}/a").content == b"abcde"


def test_what_the_server_can_do(http: httpx.Client) -> None:
    for path in ("/upload/resumable", "/upload/resumable/", "/upload/resumable/sign"):
        answer = http.options(path)
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-max-size"] == "40000000"
        assert answer.headers["tus-extension"] == (
            "creation,creation-with-upload,creation-defer-length,termination,expiration"
        )


def test_malformed_requests_are_told_so_in_plain_text(
    server: ThreadServer, own: str, user: str
) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    key = f"{user}/a"
    url = tus.create(own, key, 5).headers["location"]
    client, names = tus.client, upload_metadata(bucketName=own, objectName=key)
    auth = bearer(token(sub=user))
    missing = f"{server.url}/upload/resumable/{'x' * 20}"
    cases: list[tuple[httpx.Response, int, str]] = [
        (client.post(tus.endpoint, headers=auth), 412, "Tus-Resumable Required"),
        (client.head(url), 412, ""),
        (
            client.post(tus.endpoint, headers=auth | TUS | {"upload-length": "5"}),
            400,
            "Metadata header is required",
        ),
        (
            client.post(tus.endpoint, headers=auth | TUS | {"upload-metadata": names}),
            400,
            "Upload-Length or Upload-Defer-Length header required",
        ),
        (
            client.patch(url, headers=auth | TUS | {"upload-offset": "0"}, content=b"x"),
            400,
            "Invalid content-type",
        ),
        (client.patch(url, headers=auth | TUS | BODY), 400, "Upload-Offset header required"),
        (tus.patch(url, 3, b"x"), 409, "Upload-Offset conflict"),
        (tus.patch(url, 0, b"123456"), 413, "upload's size exceeded"),
        (tus.patch(url, 0, iter([b"1234", b"56"])), 413, "upload's size exceeded"),
        (tus.create(own, key, 40_000_001), 413, "Maximum size exceeded"),
        (tus.create("absent", key, 5), 404, "Bucket not found"),
        (tus.create(own, "bäd", 5), 400, "Invalid key: bäd"),
        (tus.patch(missing, 0, b"x"), 404, "The file for this url was not found"),
        (tus.head(missing), 404, ""),
        (tus.create(own, "someone/a", 5), 403, "new row violates row-level security policy"),
    ]
    for answer, status, text in cases:
        assert (answer.status_code, answer.text) == (status, text)
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["tus-resumable"] == "1.0.0"
    # nothing of it moved the upload, except bytes that came before the excess
    assert int(tus.head(url).headers["upload-offset"]) in (0, 4)


def test_an_existing_object_needs_upsert(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    service.post(f"/object/{own}/{user}/a", content=b"old").raise_for_status()
    tus = Tus(server, bearer(token(sub=user)))
    answer = tus.create(own, f"{user}/a", 3)
    assert (answer.status_code, answer.text) == (409, "The resource already exists")
    tus = Tus(server, bearer(token(sub=user)) | {"x-upsert": "true"})
    url = tus.create(own, f"{user}/a", 3).headers["location"]
    assert service.get(f"/object/{own}/{user}/a").content == b"old"
    assert tus.patch(url, 0, b"new").status_code == 204
    assert service.get(f"/object/{own}/{user}/a").content == b"new"
    assert len(files_of(server, own)) == 1


def test_limits_and_types_of_the_bucket_hold(server: ThreadServer, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(file_size_limit=10, allowed_mime_types=["image/png"])
    tus = Tus(server, bearer(token("service_role")))
    assert tus.create(bucket, "a", 11, contentType="image/png").status_code == 413
    answer = tus.create(bucket, "a", 5, contentType="text/plain")
    assert (answer.status_code, answer.text) == (415, "mime type text/plain is not supported")
    url = tus.create(bucket, "a", None, contentType="image/png").headers["location"]
    assert tus.patch(url, 0, b"x" * 11).status_code == 413
    assert tus.patch(url, 0, b"x", **{"upload-length": "11"}).status_code == 413


def test_every_patch_asks_again(server: ThreadServer, own: str, superuser: Any, user: str) -> None:
    mine, stranger = bearer(token(sub=user)), bearer(token(sub=str(uuid.uuid4())))
    tus = Tus(server, mine)
    url = tus.create(own, f"{user}/a", 10).headers["location"]
    assert tus.patch(url, 0, b"01234").status_code == 204
    answer = Tus(server, stranger).patch(url, 5, b"56789")
    assert (answer.status_code, answer.text) == (403, "new row violates row-level security policy")
    expired = bearer(token(sub=user, exp=int(time.time()) - 5))
    answer = Tus(server, expired).patch(url, 5, b"56789")
    assert (answer.status_code, answer.text) == (403, '"exp" claim timestamp check failed')
    assert tus.head(url).headers["upload-offset"] == "5"  # as before, and no token is asked
    superuser.execute("alter policy own_insert on storage.objects with check (false)")
    try:
        assert tus.patch(url, 5, b"56789").status_code == 403
    finally:
        superuser.execute(
            "alter policy own_insert on storage.objects with check (bucket_id like 'own-%'"
            " and (storage.foldername(name))[1] = (select auth.uid())::text)"
        )
    assert tus.patch(url, 5, b"56789").status_code == 204


def test_a_guard_refuses_at_creation_or_at_the_end(
    server: ThreadServer, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    tus = Tus(server, bearer(token("service_role")))
    answer = tus.create(bucket, "no-ticket", 5)
    assert (answer.status_code, answer.text) == (403, "narwhal/NO_TICKET: no ticket")
    assert answer.headers["content-type"].startswith("text/plain")
    url = tus.create(bucket, "over-quota", 5).headers["location"]
    answer = tus.patch(url, 0, b"01234")
    assert (answer.status_code, answer.text) == (403, "narwhal/QUOTA_EXCEEDED: no room")
    assert files_of(server, bucket) == []
    assert not part_of(server, url).exists()
    assert tus.head(url).status_code == 404
    client = TusClient(tus.endpoint, headers=bearer(token("service_role")))
    metadata = {"bucketName": bucket, "objectName": "no-ticket"}
    with pytest.raises(TusCommunicationError) as error:
        client.uploader(file_stream=io.BytesIO(b"1"), metadata=metadata).upload()
    assert error.value.status_code == 403
    assert b"narwhal/NO_TICKET" in error.value.response_content
    metadata["objectName"] = "over-quota"
    with pytest.raises(TusUploadFailed) as failed:
        client.uploader(file_stream=io.BytesIO(b"1"), metadata=metadata).upload()
    assert failed.value.status_code == 403


def test_a_database_that_was_away_at_the_end_costs_nothing(
    server: ThreadServer, make_bucket: MakeBucket, superuser: Any, service: httpx.Client
) -> None:
    bucket = make_bucket()
    tus = Tus(server, bearer(token("service_role")))
    url = tus.create(bucket, "away", 5).headers["location"]
    superuser.execute("insert into app.away default values")
    try:
        assert tus.patch(url, 0, b"01234").status_code == 500
        assert tus.head(url).status_code == 500  # not: offset = length, which reads as success
    finally:
        superuser.execute("delete from app.away")
    head = tus.head(url)
    assert (head.status_code, head.headers["upload-offset"]) == (200, "5")
    assert service.get(f"/object/{bucket}/away").content == b"01234"
    assert len(files_of(server, bucket)) == 1


def test_an_upload_can_be_given_up_until_it_is_done(
    server: ThreadServer, own: str, user: str
) -> None:
    mine = bearer(token(sub=user))
    tus = Tus(server, mine)
    url = tus.create(own, f"{user}/a", 5).headers["location"]
    other = bearer(token(sub=str(uuid.uuid4()))) | TUS
    assert tus.client.delete(url, headers=other).status_code == 403
    assert tus.client.delete(url, headers=mine | TUS).status_code == 204
    assert tus.head(url).status_code == 404
    assert not part_of(server, url).exists()
    done = tus.create(own, f"{user}/a", 3, b"abc").headers["location"]
    assert tus.client.delete(done, headers=mine | TUS).status_code == 409
    assert len(files_of(server, own)) == 1


def test_the_location_is_what_the_client_called(server: ThreadServer, own: str, user: str) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    port = server.config.api_url.rpartition(":")[2]
    for number, (more, expected) in enumerate(
        [
            (
                {"host": f"localhost:{port}"},
                f"http://localhost:{port}/storage/v1/upload/resumable/",
            ),
            (
                {
                    "x-forwarded-proto": "https",
                    "x-forwarded-host": "drive.example",
                    "x-forwarded-port": "443",
                    "x-forwarded-prefix": "/api/storage/v1/",
                },
                "https://drive.example/api/storage/v1/upload/resumable/",
            ),
            (
                {"x-forwarded-host": "drive.example:80", "x-forwarded-port": "54321"},
                "http://drive.example:54321/storage/v1/upload/resumable/",
            ),
        ]
    ):
        tus.headers = bearer(token(sub=user)) | TUS | more
        assert tus.create(own, f"{user}/{number}", 5).headers["location"].startswith(expected)
    tus.headers |= {"x-forwarded-host": "evil.example/path?"}
    assert tus.create(own, f"{user}/x", 5).status_code == 400


def test_a_signed_upload_token_opens_a_resumable_upload(
    server: ThreadServer, own: str, http: httpx.Client, superuser: Any, user: str
) -> None:
    made = http.post(f"/object/upload/sign/{own}/{user}/a", headers=bearer(token(sub=user))).json()
    signature = {"x-signature": made["token"]}
    tus = Tus(server, signature, sign="/sign")
    url = tus.create(own, f"{user}/a", 6).headers["location"]
    assert url.startswith(f"{server.url}/upload/resumable/sign/")
    assert tus.patch(url, 0, b"abc").status_code == 204
    assert Tus(server, {}).patch(url, 3, b"def").status_code == 400  # no signature
    assert tus.patch(url, 3, b"def").status_code == 204
    row = superuser.execute("select owner_id from storage.objects where bucket_id = %s", (own,))
    assert row.fetchone() == (user,)
    assert tus.create(own, f"{user}/b", 3).text == "Invalid signature"
    assert tus.create(own, f"{user}/a", 3).status_code == 409
    assert Tus(server, signature).create(own, f"{user}/a", 3).status_code == 403


def test_a_cut_patch_keeps_what_arrived(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    data = os.urandom(5_000_000)
    tus = Tus(server, bearer(token(sub=user)))
    url = tus.create(own, f"{user}/a", len(data)).headers["location"]
    connection = send_part(url, bearer(token(sub=user)), 0, len(data), data[:3_200_000])
    wait_for(lambda: part_of(server, url).stat().st_size >= 1_000_000)
    connection.close()
    wait_for(lambda: tus.head(url).headers["upload-offset"] == "3200000")
    done = tus.patch(url, 3_200_000, data[3_200_000:])
    assert done.headers["tus-complete"] == "1"
    assert service.get(f"/object/{own}/{user}/a").content == data


def test_of_two_writers_one_wins_and_the_bytes_are_its_own(
    server: ThreadServer, own: str, service: httpx.Client, user: str
) -> None:
    tus = Tus(server, bearer(token(sub=user)))
    size = 6_000_000
    url = tus.create(own, f"{user}/a", size).headers["location"]
    statuses: list[int] = []

    def slowly(digit: bytes) -> Iterator[bytes]:
        for _ in range(60):
            yield digit * 100_000
            time.sleep(0.01)

    def write(digit: bytes) -> None:
        writer = Tus(server, bearer(token(sub=user)))
        with contextlib.suppress(httpx.WriteError):
            statuses.append(writer.patch(url, 0, slowly(digit)).status_code)

    threads = [threading.Thread(target=write, args=(digit,)) for digit in (b"1", b"2", b"3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409, 423}
    content = service.get(f"/object/{own}/{user}/a").content
    assert len(content) == size
    assert len(set(content)) == 1


def test_a_silent_holder_gives_way(
    server: ThreadServer,
    own: str,
    service: httpx.Client,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("narwhal.local.storage.tus_store.STALLED_SECONDS", 0.5)
    tus = Tus(server, bearer(token(sub=user)))
    url = tus.create(own, f"{user}/a", 10).headers["location"]
    silent = send_part(url, bearer(token(sub=user)), 0, 10, b"01234")
    wait_for(lambda: tus.head(url).headers["upload-offset"] in ("0", "5"))
    time.sleep(0.7)  # nothing comes: the network is gone, and the server has not been told
    head = tus.head(url)
    assert (head.status_code, head.headers["upload-offset"]) == (200, "5")
    assert b"423" in silent.recv(100)
    silent.close()
    assert tus.patch(url, 5, b"56789").status_code == 204
    assert service.get(f"/object/{own}/{user}/a").content == b"0123456789"


def test_an_expired_url_is_gone_and_swept(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket, superuser: Any
) -> None:
    bucket = make_bucket()
    with ThreadServer(tmp_path, storage_url, upload_lifetime=1.0, sweep_interval=0.2) as served:
        tus = Tus(served, bearer(token("service_role")))
        url = tus.create(bucket, "a", 10, b"01234").headers["location"]
        assert tus.head(url).status_code == 200
        finished = tus.create(bucket, "b", 1, b"1").headers["location"]
        time.sleep(1.2)
        for answer in (tus.head(url), tus.patch(url, 5, b"56789")):
            assert answer.status_code == 410
        wait_for(lambda: not part_of(served, url).exists())
        assert tus.head(url).status_code == 410
        assert tus.head(finished).status_code == 200
        assert [path.read_bytes() for path in files_of(served, bucket)] == [b"1"]
