"""Downloads and object info: whole files and ranges, streamed from disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from narwhal.local.storage import errors
from narwhal.local.storage.context import Call
from narwhal.local.storage.files import READ_BYTES
from narwhal.local.storage.names import check_bucket_name, check_key
from narwhal.local.storage.rows import Row, find_bucket, find_object, iso
from narwhal.local.storage.signing import DOWNLOAD

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# an object may be overwritten between reading its row and opening its file
_OPEN_ATTEMPTS = 5


async def get_object(call: Call) -> Response:
    """GET /object/:bucket/* and /object/authenticated/:bucket/*."""
    row = await _visible(call)
    return await _send(call, row)


async def get_public(call: Call) -> Response:
    """GET /object/public/:bucket/*: only of a public bucket, no token asked."""
    row = await _public(call)
    return await _send(call, row)


async def get_signed(call: Call) -> Response:
    """GET /object/sign/:bucket/*?token=: the token alone decides."""
    row, expires_at = await _signed(call)
    return await _send(call, row, expires_at=expires_at)


async def head_signed(call: Call) -> Response:
    """HEAD /object/sign/:bucket/*?token=."""
    row, _ = await _signed(call)
    return Response(status_code=200, headers=_head(row))


async def head_object(call: Call) -> Response:
    """HEAD of an object: what GET would send, from the row alone."""
    row = await _visible(call)
    return Response(status_code=200, headers=_head(row))


async def head_public(call: Call) -> Response:
    """HEAD /object/public/:bucket/*."""
    row = await _public(call)
    return Response(status_code=200, headers=_head(row))


async def info(call: Call) -> Response:
    """GET /object/info/:bucket/* and /object/info/authenticated/:bucket/*."""
    return _info(await _visible(call))


async def info_public(call: Call) -> Response:
    """GET /object/info/public/:bucket/*."""
    return _info(await _public(call))


def _names(request: Request) -> tuple[str, str]:
    bucket, key = request.path_params["bucket"], request.path_params["key"]
    check_bucket_name(bucket)
    check_key(key)
    return bucket, key


async def _visible(call: Call) -> Row:
    """Return the row that the caller may see; without a token a private bucket does not exist."""
    bucket, key = _names(call.request)
    found = await find_bucket(call.session, bucket)
    if not call.session.caller.authenticated and not found["public"]:
        raise errors.no_such_bucket()
    return await find_object(call.session, bucket, key, as_service=bool(found["public"]))


async def _public(call: Call) -> Row:
    bucket, key = _names(call.request)
    found = await find_bucket(call.session, bucket)
    if not found["public"]:
        raise errors.no_such_bucket()
    return await find_object(call.session, bucket, key, as_service=True)


async def _signed(call: Call) -> tuple[Row, int]:
    """Return the row of a signed URL, and when the URL expires (Unix seconds)."""
    bucket, key = _names(call.request)
    token = call.request.query_params.get("token", "")
    grant = call.signer.verify(token, f"{bucket}/{key}", DOWNLOAD)
    return await find_object(call.session, bucket, key, as_service=True), grant.expires_at


def _info(row: Row) -> Response:
    metadata = row["metadata"] or {}
    body = {
        "id": str(row["id"]),
        "name": row["name"],
        "version": row["version"],
        "bucket_id": row["bucket_id"],
        "size": metadata.get("size"),
        "content_type": metadata.get("mimetype"),
        "cache_control": metadata.get("cacheControl"),
        "etag": metadata.get("eTag"),
        "metadata": row["user_metadata"],
        "last_modified": iso(row["updated_at"]),
        "created_at": iso(row["created_at"]),
    }
    return JSONResponse(body)


def _head(row: Row) -> dict[str, str]:
    """Return the headers that describe a version."""
    metadata = row["metadata"] or {}
    kind = str(metadata.get("mimetype") or "application/octet-stream")
    if "text/html" in kind:
        kind = "text/plain"  # nobody's page is served from the API's own origin
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": kind,
        "Content-Length": str(metadata.get("size", 0)),
        "Cache-Control": str(metadata.get("cacheControl") or "no-cache"),
        "X-Robots-Tag": "none",
    }
    if metadata.get("eTag"):
        headers["ETag"] = str(metadata["eTag"])
    if modified := _last_modified(metadata):
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    return {name: _header_safe(value) for name, value in headers.items()}


def _header_safe(value: str) -> str:
    return re.sub(r"[^\x20-\x7e\xa0-\xff]", "", value)


def _last_modified(metadata: Row) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(metadata.get("lastModified")))
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(microsecond=0)


async def _send(call: Call, row: Row, *, expires_at: int | None = None) -> Response:
    row, file, size = await _open(call, row)
    try:
        headers = _head(row)
        if expires_at is not None:
            del headers["Cache-Control"]
            headers["Expires"] = format_datetime(
                datetime.fromtimestamp(expires_at, UTC), usegmt=True
            )
        if (name := call.request.query_params.get("download")) is not None:
            headers["Content-Disposition"] = _attachment(name)
        if _unchanged(call.request, row["metadata"] or {}):
            file.close()
            del headers["Content-Length"], headers["Content-Type"]
            return Response(status_code=304, headers=headers)
        span = _range(call.request, size, headers.get("ETag"))
    except BaseException:
        file.close()
        raise
    first, last = span or (0, size - 1)
    headers["Content-Length"] = str(last - first + 1)
    if span:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(
        _stream(file, first, last - first + 1), status_code=206 if span else 200, headers=headers
    )


async def _open(call: Call, row: Row) -> tuple[Row, BinaryIO, int]:
    """Open a row's file; when it has just been replaced, follow the row to the new one."""
    bucket, key = row["bucket_id"], row["name"]
    for _ in range(_OPEN_ATTEMPTS):
        path = call.files.path(bucket, key, row["version"])
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            fresh = await find_object(call.session, bucket, key, as_service=True)
            if fresh["version"] == row["version"]:
                break
            row = fresh
        else:
            return row, file, file.seek(0, 2)
    raise errors.no_such_key()


async def _stream(file: BinaryIO, start: int, length: int) -> AsyncIterator[bytes]:
    try:
        file.seek(start)
        while length > 0:
            chunk = await asyncio.to_thread(file.read, min(READ_BYTES, length))
            if not chunk:
                return
            length -= len(chunk)
            yield chunk
    finally:
        file.close()


def _attachment(name: str) -> str:
    if not name:
        return "attachment;"
    encoded = quote(name, safe="!'()*-._~")  # JavaScript's encodeURIComponent
    return f"attachment; filename={encoded}; filename*=UTF-8''{encoded}"


def _unchanged(request: Request, metadata: Row) -> bool:
    etag = metadata.get("eTag")
    if (wanted := request.headers.get("if-none-match")) is not None:
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return "*" in tags or etag in tags
    since, modified = request.headers.get("if-modified-since"), _last_modified(metadata)
    if since is None or modified is None:
        return False
    try:
        return modified <= parsedate_to_datetime(since).astimezone(UTC)
    except (ValueError, TypeError):
        return False


def _range(request: Request, size: int, etag: str | None) -> tuple[int, int] | None:
    """Return the first and last byte asked for; None means all of them."""
    header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if header is None or "," in header or (condition is not None and condition != etag):
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        raise errors.invalid_range()
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
    else:
        first, last = max(size - int(match[2]), 0), size - 1
    if first > last:
        raise errors.invalid_range()
    return first, last
