"""Bytes in and out: ranges, conditions, limits, forms cut anywhere, and memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.requests import Request

from narwhal.local.storage.bodies import open_body
from narwhal.local.storage.errors import StorageError
from tests.local.storage.serving import (
    MEBI,
    ProcessServer,
    ThreadServer,
    bearer,
    files_of,
    token,
    upload_metadata,
)

MakeBucket = Callable[..., str]
DIGITS = b"0123456789"


@pytest.fixture
def digits(service: httpx.Client, make_bucket: MakeBucket) -> str:
    """Return the path of an object of ten digits."""
    path = f"/object/{make_bucket()}/digits"
    service.post(path, content=DIGITS).raise_for_status()
    return path


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", DIGITS, "bytes 0-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
        ("bytes=9-9", b"9", "bytes 9-9/10"),
    ],
)
def test_a_range_is_served(
    service: httpx.Client, digits: str, header: str, expected: bytes, content_range: str
) -> None:
    answer = service.get(digits, headers={"range": header})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == content_range
    assert answer.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-4", "bytes=-0", "bytes=-", "lines=1-2"])
def test_a_range_outside_is_416(service: httpx.Client, digits: str, header: str) -> None:
    answer = service.get(digits, headers={"range": header})
    assert answer.status_code == 416
    assert answer.json() == {
        "statusCode": "416",
        "error": "invalid_range",
        "message": "invalid range provided",
        "code": "InvalidRange",
    }


def test_several_ranges_or_a_stale_condition_give_all(service: httpx.Client, digits: str) -> None:
    assert service.get(digits, headers={"range": "bytes=0-1,3-4"}).content == DIGITS
    stale = {"range": "bytes=0-1", "if-range": '"other"'}
    assert service.get(digits, headers=stale).content == DIGITS


def test_what_the_client_has_is_not_sent_again(service: httpx.Client, digits: str) -> None:
    first = service.get(digits)
    assert first.headers["etag"] == f'"{hashlib.md5(DIGITS).hexdigest()}"'
    same = service.get(digits, headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert service.get(digits, headers={"if-none-match": '"x"'}).status_code == 200
    since = {"if-modified-since": first.headers["last-modified"]}
    assert service.get(digits, headers=since).status_code == 304
    before = {"if-modified-since": "Mon, 01 Jan 2024 00:00:00 GMT"}
    assert service.get(digits, headers=before).status_code == 200


def test_an_empty_object_can_be_kept(service: httpx.Client, make_bucket: MakeBucket) -> None:
    path = f"/object/{make_bucket()}/empty"
    service.post(path, content=b"").raise_for_status()
    answer = service.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert service.get(path, headers={"range": "bytes=0-"}).status_code == 416


def test_sizes_are_limited_by_bucket_and_server(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    small, plain = make_bucket(file_size_limit="1kb"), make_bucket()

    def pieces(size: int) -> Iterator[bytes]:
        for _ in range(0, size, 10_000):
            yield b"x" * min(size, 10_000)

    too_large = {
        "statusCode": "413",
        "error": "Payload too large",
        "message": "The object exceeded the maximum allowed size",
        "code": "EntityTooLarge",
    }
    service.post(f"/object/{small}/a", content=b"x" * 1000).raise_for_status()
    for options in (
        {"content": b"x" * 1001},
        {"content": pieces(50_000)},  # chunked: nobody says how much
        {"files": {"file": ("b", b"x" * 1001)}},
    ):
        assert service.post(f"/object/{small}/b", **options).json() == too_large
    answer = service.post(f"/object/{plain}/b", content=pieces(41_000_000))
    assert answer.json() == too_large
    assert len(files_of(server, small)) == 1
    assert list((server.config.storage_dir / "tmp").iterdir()) == []
    for value in (50_000_000, "50mb"):
        answer = service.post("/bucket", json={"name": "big", "file_size_limit": value})
        assert answer.json()["statusCode"] == "413"
    answer = service.post("/bucket", json={"name": "big", "file_size_limit": "lots"})
    assert answer.json()["statusCode"] == "400"


def test_types_are_limited_by_the_bucket(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(allowed_mime_types=["image/*", "text/plain"])
    for kind in ("image/png", "text/plain", "text/plain;charset=UTF-8"):
        answer = service.put(f"/object/{bucket}/a", content=b"", headers={"content-type": kind})
        assert answer.status_code == 200, kind
    for kind in ("text/html", "application/pdf", "rubbish"):
        answer = service.put(f"/object/{bucket}/a", content=b"", headers={"content-type": kind})
        assert answer.json() == {
            "statusCode": "415",
            "error": "invalid_mime_type",
            "message": f"mime type {kind} is not supported",
            "code": "InvalidMimeType",
        }


FORM = (
    b"--b\r\n"
    b'Content-Disposition: form-data; name="cacheControl"\r\n\r\n'
    b"60\r\n"
    b"--b\r\n"
    b'Content-Disposition: form-data; name="metadata"\r\n\r\n'
    b'{"k": "v"}\r\n'
    b"--b\r\n"
    b'Content-Disposition: form-data; name=""; filename="blob"\r\n'
    b"Content-Type: text/plain\r\n\r\n"
    b"one\r\n--bb\r\n--\r\n-b-two\r\n"
    b"--b--\r\n"
)
FORM_FILE = b"one\r\n--bb\r\n--\r\n-b-two"


def read_form(pieces: list[bytes]) -> tuple[bytes, str, str, Any]:
    """Return the file's bytes, type, cache control and metadata of a form sent in `pieces`."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    async def run() -> tuple[bytes, str, str, Any]:
        scope = {
            "type": "http",
            "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
        }
        body = await open_body(Request(scope, receive))
        data = b"".join([chunk async for chunk in body.chunks])
        return data, body.mime_type, body.cache_control, body.user_metadata

    return asyncio.run(run())


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 64, 1000])
def test_a_form_may_be_cut_anywhere(step: int) -> None:
    pieces = [FORM[start : start + step] for start in range(0, len(FORM), step)]
    assert read_form(pieces) == (FORM_FILE, "text/plain", "max-age=60", {"k": "v"})


def test_a_form_that_ends_early_is_refused() -> None:
    for end in (5, 60, 200, len(FORM) - 40, len(FORM) - 6):
        with pytest.raises(StorageError) as error:
            read_form([FORM[:end]])
        assert error.value.status == 400


def test_a_form_without_a_file_or_with_too_many_fields_is_refused() -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    for form in (b"--b--\r\n", field + b"--b--\r\n", field * 20 + b"--b--\r\n"):
        with pytest.raises(StorageError) as error:
            read_form([form])
        assert error.value.status == 400


def test_a_field_cannot_fill_the_memory() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    with pytest.raises(StorageError) as error:
        read_form([head, *[b"x" * 100_000] * 20])
    assert error.value.status == 413


def test_a_client_that_goes_away_leaves_nothing(
    server: ThreadServer, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    port = int(server.config.api_url.split(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"POST /storage/v1/object/{bucket}/a HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {token('service_role')}\r\n"
            f"content-length: 3000000\r\n\r\n".encode()
        )
        connection.sendall(b"x" * 2_000_000)
        deadline = time.monotonic() + 5
        while not list((server.config.storage_dir / "tmp").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    deadline = time.monotonic() + 5
    while list((server.config.storage_dir / "tmp").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert files_of(server, bucket) == []


def test_downloads_survive_an_overwrite(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    path = f"/object/{make_bucket()}/a"
    old, new = b"o" * 20_000_000, b"n" * 10
    service.post(path, content=old).raise_for_status()
    with service.stream("GET", path) as answer:
        pieces = answer.iter_raw(65536)
        first = next(pieces)
        with httpx.Client(base_url=server.url, headers=bearer(token("service_role"))) as other:
            other.put(path, content=new).raise_for_status()
        assert first + b"".join(pieces) == old
    assert service.get(path).content == new


def test_overwrites_and_downloads_at_once_never_mix_or_fail(
    service: httpx.Client, make_bucket: MakeBucket, server: ThreadServer
) -> None:
    bucket = make_bucket()
    path = f"/object/{bucket}/a"
    service.post(path, content=b"0" * 1000).raise_for_status()
    problems: list[str] = []

    def write(digit: int) -> None:
        with httpx.Client(base_url=server.url, headers=bearer(token("service_role"))) as client:
            for _ in range(15):
                answer = client.put(path, content=b"%d" % digit * 1000)
                if answer.status_code != 200:
                    problems.append(answer.text)

    def read() -> None:
        with httpx.Client(base_url=server.url, headers=bearer(token("service_role"))) as client:
            for _ in range(40):
                answer = client.get(path)
                if answer.status_code != 200 or len(set(answer.content)) != 1:
                    problems.append(answer.text[:100])

    threads = [threading.Thread(target=write, args=(digit,)) for digit in (1, 2, 3)]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(files_of(server, bucket)) == 1


@pytest.mark.parametrize("way", ["raw", "form", "tus"])
def test_200_mb_go_through_in_little_memory(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket, way: str
) -> None:
    bucket = make_bucket()
    size = 200 * MEBI
    piece = os.urandom(MEBI)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // MEBI):
            yield piece

    head = b'--b\r\nContent-Disposition: form-data; name=""; filename="f"\r\n\r\n'

    async def form() -> AsyncIterator[bytes]:
        yield head
        async for data in pieces():
            yield data
        yield b"\r\n--b--\r\n"

    async def upload(client: httpx.AsyncClient) -> None:
        if way == "raw":
            answer = await client.post(f"/object/{bucket}/big", content=pieces())
        elif way == "form":
            kind = {"content-type": "multipart/form-data; boundary=b"}
            answer = await client.post(f"/object/{bucket}/big", content=form(), headers=kind)
        else:
            names = upload_metadata(bucketName=bucket, objectName="big")
            tus = {"tus-resumable": "1.0.0", "upload-length": str(size), "upload-metadata": names}
            made = await client.post("/upload/resumable", headers=tus)
            answer = await client.patch(
                made.headers["location"],
                content=pieces(),
                headers={
                    "tus-resumable": "1.0.0",
                    "upload-offset": "0",
                    "content-type": "application/offset+octet-stream",
                },
            )
        answer.raise_for_status()

    async def download(client: httpx.AsyncClient) -> int:
        received = 0
        async with client.stream("GET", f"/object/{bucket}/big") as answer:
            async for data in answer.aiter_raw():
                received += len(data)
        return received

    async def run(process: psutil.Process, url: str) -> tuple[int, int]:
        peak = process.memory_info().rss
        start = peak
        done = asyncio.Event()

        async def watch() -> None:
            nonlocal peak
            while not done.is_set():
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        headers = bearer(token("service_role"))
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            await upload(client)
            received = await download(client)
        done.set()
        await watching
        return peak - start, received

    with ProcessServer(tmp_path, storage_url) as served:
        httpx.get(f"{served.url}/bucket", headers=bearer(token("service_role")))  # warm
        growth, received = asyncio.run(run(psutil.Process(served.pid), served.url))
        assert received == size
        assert growth < 50 * MEBI
