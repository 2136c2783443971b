"""Upload bodies as streams: multipart forms and raw bytes, never whole in memory."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from narwhal.local.storage import errors

MAX_METADATA_BYTES = 1024 * 1024
MAX_FIELDS = 10


@dataclass(frozen=True)
class UploadBody:
    """A file still arriving; `declared_length` is the whole request's, a form's frame included."""

    chunks: AsyncIterator[bytes]
    mime_type: str
    cache_control: str
    user_metadata: dict[str, Any] | None
    declared_length: int | None
    is_form: bool


async def open_body(request: Request) -> UploadBody:
    """Read a request up to the file's first byte."""
    headers = request.headers
    content_type = headers.get("content-type", "")
    length = headers.get("content-length", "")
    declared = int(length) if length.isdecimal() else None
    if content_type.lower().startswith("multipart/form-data"):
        form = _Form(request.stream(), content_type)
        await form.read_fields()
        seconds = form.fields.get("cacheControl")
        metadata = form.fields.get("metadata", form.fields.get("userMetadata"))
        return UploadBody(
            chunks=form.chunks(),
            mime_type=form.fields.get("contentType") or form.file_type,
            cache_control=f"max-age={seconds}" if seconds else "no-cache",
            user_metadata=parse_user_metadata(metadata),
            declared_length=declared,
            is_form=True,
        )
    return UploadBody(
        chunks=request.stream(),
        mime_type=content_type or "application/octet-stream",
        cache_control=headers.get("cache-control", "no-cache"),
        user_metadata=decode_user_metadata(headers.get("x-metadata")),
        declared_length=declared,
        is_form=False,
    )


def decode_user_metadata(header: str | None) -> dict[str, Any] | None:
    """Return the object in an `x-metadata` header (base64 of JSON), None when there is none."""
    if header is None:
        return None
    try:
        return parse_user_metadata(base64.b64decode(header + "==", altchars=b"-_").decode())
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def parse_user_metadata(text: str | None) -> dict[str, Any] | None:
    """Return the JSON object in `text`; what is not one is ignored, as the real server does."""
    if text is None:
        return None
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise errors.too_large("The user_metadata exceeded the maximum allowed size")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _Form:
    """A multipart/form-data body read part by part: fields, then one file, the rest skipped."""

    def __init__(self, stream: AsyncIterator[bytes], content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise errors.invalid_request("Multipart: Boundary not found")
        self.fields: dict[str, str] = {}
        self.file_type = "application/octet-stream"
        self._stream = stream
        self._data: list[bytes] = []  # of the file, not yet handed on
        self._field: bytearray | None = None
        self._field_name = ""
        self._headers: dict[str, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._in_file = self._file_seen = self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise errors.invalid_request(f"Multipart: {error}") from error

    async def read_fields(self) -> None:
        """Read until the file begins."""
        while not self._file_seen:
            if not await self._more():
                raise errors.invalid_request("No content provided")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes; raise when the form is cut off."""
        while True:
            for chunk in self._data:
                yield chunk
            self._data.clear()
            if not await self._more():
                break
        if not self._ended:
            raise errors.invalid_request("Unexpected end of form")

    async def _more(self) -> bool:
        async for chunk in self._stream:
            if chunk:
                try:
                    self._parser.write(chunk)
                except FormParserError as error:
                    raise errors.invalid_request(f"Malformed form: {error}") from error
                return True
        return False

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        part_type = self._headers.get("content-type", b"").decode("latin-1")
        is_file = b"filename" in options or part_type == "application/octet-stream"
        if is_file and not self._file_seen:
            self._in_file = self._file_seen = True
            self.file_type = part_type or self.file_type
        elif not is_file:
            if len(self.fields) >= MAX_FIELDS:
                raise errors.invalid_request("reach fields limit")
            self._field = bytearray()
            self._field_name = options.get(b"name", b"").decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._data.append(data[start:end])
        elif self._field is not None:
            self._field += data[start:end]
            if len(self._field) > MAX_METADATA_BYTES:
                raise errors.too_large("The user_metadata exceeded the maximum allowed size")

    def _on_part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field_name] = self._field.decode("utf-8", "replace")
        self._in_file, self._field = False, None

    def _on_end(self) -> None:
        self._ended = True
