"""Resumable uploads: TUS 1.0.0 with creation, termination and expiration.

Every POST and PATCH asks the database first, as a normal upload does, and the last byte commits the
object the same way. With `/sign` in the path the token of a signed upload URL takes the caller's
place.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from narwhal.local.storage import errors
from narwhal.local.storage.bodies import parse_user_metadata
from narwhal.local.storage.context import Call
from narwhal.local.storage.files import FLUSH_BYTES, disk_errors, etag_of, sync_file
from narwhal.local.storage.names import check_mime_type
from narwhal.local.storage.rows import find_bucket, find_object, probe_write
from narwhal.local.storage.signing import UPLOAD
from narwhal.local.storage.tus_store import Hold, Upload, check_target, parse_metadata
from narwhal.local.storage.writing import commit_version, object_metadata

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,termination,expiration"
BODY_TYPE = "application/offset+octet-stream"
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]+")
_PREFIX = re.compile(r"[A-Za-z0-9.\-_~/]*")


async def options(call: Call) -> Response:
    """OPTIONS: what this server can do."""
    headers = {
        "Tus-Resumable": VERSION,
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(call.context.config.max_file_size),
    }
    return Response(status_code=204, headers=headers)


async def create(call: Call) -> Response:
    """POST: open an upload, and take the first bytes when the request brings some."""
    _require_version(call.request)
    header = call.headers.get("upload-metadata", "")
    if not header:
        raise errors.invalid_request("Metadata header is required")
    size, deferred = _length(call.request, "upload-length"), call.headers.get("upload-defer-length")
    if (size is None) == (deferred is None) or deferred not in (None, "1"):
        raise errors.invalid_request("Upload-Length or Upload-Defer-Length header required")
    metadata = parse_metadata(header)
    bucket, key = metadata.get("bucketName", ""), metadata.get("objectName", "")
    check_target(bucket, key)
    limits = await find_bucket(call.session, bucket)
    if size is not None and size > call.context.size_limit(limits, key):
        raise _maximum_exceeded()
    seconds = metadata.get("cacheControl", "")
    now = time.time()
    upload = Upload(
        version=str(uuid4()),
        bucket=bucket,
        key=key,
        size=size,
        metadata_header=header,
        mime_type=metadata.get("contentType"),
        cache_control=f"max-age={seconds}" if seconds.isdecimal() else "no-cache",
        user_metadata=parse_user_metadata(metadata.get("metadata")),
        owner=None,
        created_at=now,
        expires_at=now + call.uploads.lifetime,
    )
    if upload.mime_type is not None:
        check_mime_type(upload.mime_type, limits["allowed_mime_types"])
    upload.owner = await _authorise(call, upload)
    call.uploads.create(upload)
    headers = {"Location": _location(call.request, upload)}
    async with call.uploads.hold(upload) as hold:
        if call.headers.get("content-type") == BODY_TYPE:
            await _append(call, hold, upload, 0)
        headers |= await _progress(call, upload)
    return Response(status_code=201, headers=headers)


async def patch(call: Call) -> Response:
    """PATCH: append at `Upload-Offset`; the last byte makes the object."""
    _require_version(call.request)
    upload = _find(call)
    if call.headers.get("content-type") != BODY_TYPE:
        raise errors.invalid_request("Invalid content-type")
    offset = _length(call.request, "upload-offset")
    if offset is None:
        raise errors.invalid_request("Upload-Offset header required")
    owner = await _authorise(call, upload)
    async with call.uploads.hold(upload) as hold:
        upload = _find(call)  # as the last holder left it
        if owner != upload.owner:
            upload.owner = owner
            call.uploads.save(upload)
        if offset != call.uploads.offset(upload):
            raise errors.StorageError(409, "TusError", "Upload-Offset conflict")
        await _declare_length(call, upload)
        await _append(call, hold, upload, offset)
        headers = await _progress(call, upload)
    return Response(status_code=204, headers=headers)


async def head(call: Call) -> Response:
    """HEAD: where to continue. The URL itself is the capability; no token is asked."""
    _require_version(call.request)
    upload = _find(call)
    if call.uploads.is_receiving(upload) and call.uploads.offset(upload) != upload.size:
        headers = _state(call, upload)
    else:
        # an upload whose last byte is here but whose object is not (a crash, a database that was
        # away) is completed now: clients take offset = length for success
        async with call.uploads.hold(upload):
            upload = _find(call)
            headers = await _progress(call, upload)
    headers |= {"Cache-Control": "no-store"}
    if upload.size is None:
        headers["Upload-Defer-Length"] = "1"
    else:
        headers["Upload-Length"] = str(upload.size)
    headers["Upload-Metadata"] = upload.metadata_header
    return Response(status_code=200, headers=headers)


async def terminate(call: Call) -> Response:
    """DELETE: give an unfinished upload up."""
    _require_version(call.request)
    upload = _find(call)
    if not upload.finished:
        await _authorise(call, upload)
    async with call.uploads.hold(upload):
        upload = _find(call)
        if upload.finished:
            raise errors.StorageError(
                409, "TusError", "Cannot terminate an already completed upload"
            )
        call.uploads.discard(upload)
    return Response(status_code=204, headers={"Tus-Resumable": VERSION})


async def override(call: Call) -> Response:
    """POST on an upload's URL: some networks let nothing else through."""
    handlers = {"PATCH": patch, "HEAD": head, "DELETE": terminate}
    handler = handlers.get(call.headers.get("x-http-method-override", "").upper())
    if handler is None:
        raise errors.StorageError(405, "TusError", "Method not allowed")
    return await handler(call)


def _is_signed(request: Request) -> bool:
    return "/upload/resumable/sign" in request.scope["path"]


def _find(call: Call) -> Upload:
    return call.uploads.find(call.request.path_params["upload"])


async def _authorise(call: Call, upload: Upload) -> str | None:
    """Test that the caller may write the object now; return as whose it will be written."""
    upsert = call.headers.get("x-upsert") == "true"
    owner = call.session.caller.owner
    if _is_signed(call.request):
        token = call.headers.get("x-signature", "")
        if not token:
            raise errors.invalid_signature("Missing x-signature header")
        grant = call.signer.verify(token, f"{upload.bucket}/{upload.key}", UPLOAD)
        upsert, owner = grant.upsert, grant.owner
    await probe_write(
        call.session,
        upload.bucket,
        upload.key,
        metadata={"mimetype": upload.mime_type, "contentLength": upload.size},
        user_metadata=upload.user_metadata,
        owner=owner,
        upsert=upsert,
    )
    return owner


async def _declare_length(call: Call, upload: Upload) -> None:
    """Take a deferred length from a PATCH."""
    size = _length(call.request, "upload-length")
    if size is None or upload.size == size:
        return
    if upload.size is not None:
        raise errors.invalid_request("Upload-Length cannot be changed")
    limits = await find_bucket(call.session, upload.bucket)
    if size > call.context.size_limit(limits, upload.key):
        raise _maximum_exceeded()
    upload.size = size
    call.uploads.save(upload)


async def _append(call: Call, hold: Hold, upload: Upload, offset: int) -> None:
    """Append the body; what has arrived stays, whatever cuts it off."""
    room = upload.size
    if room is None:
        room = call.context.size_limit(await find_bucket(call.session, upload.bucket), upload.key)
    beyond = errors.too_large("upload's size exceeded")
    declared = _length(call.request, "content-length")
    if declared is not None and offset + declared > room:
        raise beyond
    part = call.uploads.part(upload)
    with _Appender(part) as file:
        async with contextlib.aclosing(hold.receive(call.request.stream())) as chunks:
            async for chunk in chunks:
                offset += len(chunk)
                if offset > room:
                    raise beyond
                await file.write(chunk)


class _Appender:
    """Writes to the end of a part file; whatever happens, the bytes it took are written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._pending: list[bytes] = []
        self._pending_size = 0

    def __enter__(self) -> _Appender:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.closing(self._file):
            self._flush()

    async def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= FLUSH_BYTES:
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_size = 0
        with disk_errors():
            while data:
                data = data[self._file.write(data) :]


def _state(call: Call, upload: Upload) -> dict[str, str]:
    """Return the headers that tell how far an upload is."""
    headers = {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(call.uploads.offset(upload)),
    }
    if not upload.finished:
        headers["Upload-Expires"] = formatdate(upload.expires_at, usegmt=True)
    return headers


async def _progress(call: Call, upload: Upload) -> dict[str, str]:
    """Make the object when every byte is here; return the upload's state."""
    if not upload.finished and call.uploads.offset(upload) == upload.size:
        await _complete(call, upload)
        return _state(call, upload) | {"Tus-Complete": "1"}
    return _state(call, upload)


async def _complete(call: Call, upload: Upload) -> None:
    """Commit the object. A refusal by the database ends the upload; a passing failure does not."""
    uploads, part = call.uploads, call.uploads.part(upload)
    if await _committed(call, upload):
        uploads.finish(upload)  # the process died between the commit and this
        return
    await asyncio.to_thread(sync_file, part)
    etag = await asyncio.to_thread(etag_of, part)
    try:
        await commit_version(
            call.session,
            call.files,
            part,
            bucket=upload.bucket,
            key=upload.key,
            version=upload.version,
            metadata=object_metadata(
                etag,
                upload.size or 0,
                upload.mime_type or "application/octet-stream",
                upload.cache_control,
            ),
            user_metadata=upload.user_metadata,
            owner=upload.owner,
            keep_source=True,
        )
    except errors.StorageError as error:
        if error.refused:
            uploads.discard(upload)
        raise
    uploads.finish(upload)


async def _committed(call: Call, upload: Upload) -> bool:
    try:
        row = await find_object(call.session, upload.bucket, upload.key, as_service=True)
    except errors.StorageError as error:
        if error.code == "NoSuchKey":
            return False
        raise
    return bool(row["version"] == upload.version)


def _require_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise errors.StorageError(412, "TusError", "Tus-Resumable Required")


def _length(request: Request, name: str) -> int | None:
    """Return a header that counts bytes; None when it is absent."""
    value = request.headers.get(name)
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,16}", value):
        raise errors.invalid_request(f"Invalid {name}")
    return int(value)


def _maximum_exceeded() -> errors.StorageError:
    return errors.too_large("Maximum size exceeded")


def _location(request: Request, upload: Upload) -> str:
    """Return the upload's URL as the client sees this server, through whatever stands before it."""
    headers = request.headers
    scheme = headers.get("x-forwarded-proto", "") or request.url.scheme
    host = headers.get("x-forwarded-host", "") or headers.get("host", "")
    port = headers.get("x-forwarded-port", "")
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/") or request.scope["root_path"]
    if (
        scheme not in ("http", "https")
        or not _HOST.fullmatch(host)
        or not _PREFIX.fullmatch(prefix)
    ):
        raise errors.invalid_request("Invalid X-Forwarded-Host header")
    if headers.get("x-forwarded-host") and port.isdecimal() and port not in ("80", "443"):
        host = re.sub(r":\d+$", "", host) + f":{port}"
    signed = "/sign" if _is_signed(request) else ""
    return f"{scheme}://{host}{prefix}/upload/resumable{signed}/{upload.url_id}"
