"""Unfinished resumable uploads: `tus/<version>.json` describes, `tus/<version>.part` has the bytes.

The offset of an upload is the size of its part file, nothing else, so that it is right after a
crash. A finished upload keeps its description, without bytes, until it expires, for clients that
missed the last answer; an expired one keeps it for another day, to answer 410.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from narwhal.local.storage import errors
from narwhal.local.storage.names import check_bucket_name, check_key

_VERSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOMBSTONE_SECONDS = 24 * 3600
# a holder that has received nothing for so long gives way: its client is probably gone
STALLED_SECONDS = 4.0
LOCK_WAIT_SECONDS = 8.0


@dataclass
class Upload:
    """One resumable upload; `size` is None until the client tells it, times are Unix seconds."""

    version: str
    bucket: str
    key: str
    size: int | None
    metadata_header: str
    mime_type: str | None
    cache_control: str
    user_metadata: dict[str, Any] | None
    owner: str | None
    created_at: float
    expires_at: float
    finished: bool = False

    @property
    def url_id(self) -> str:
        """The last segment of the upload's URL."""
        text = f"{self.bucket}/{self.key}/{self.version}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @property
    def expired(self) -> bool:
        """Whether its time is over; a finished one has none."""
        return not self.finished and time.time() >= self.expires_at


class Hold:
    """The exclusive right to one upload."""

    def __init__(self) -> None:
        self.receiving = False
        self.stop = asyncio.Event()
        self.released = asyncio.Event()
        self.last_progress = time.monotonic()

    @property
    def stalled(self) -> bool:
        """Whether it waits for bytes that do not come."""
        return self.receiving and time.monotonic() - self.last_progress > STALLED_SECONDS

    async def receive(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield a body's chunks until it ends; raise 423 when another request takes over."""
        self.receiving, self.last_progress = True, time.monotonic()
        stopping = asyncio.ensure_future(self.stop.wait())
        chunk: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                # not a bare await: a silent client must not hold the upload for ever
                chunk = asyncio.ensure_future(anext(stream, None))
                await asyncio.wait((chunk, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not chunk.done():
                    raise errors.locked("Another request took this upload over")
                if (data := chunk.result()) is None:
                    return
                self.last_progress = time.monotonic()
                if data:
                    yield data
        finally:
            self.receiving = False
            stopping.cancel()
            if chunk is not None and chunk.cancel():
                with contextlib.suppress(asyncio.CancelledError):
                    await chunk


class TusStore:
    """The folder of unfinished uploads, and the locks on them."""

    def __init__(self, root: Path, lifetime: float) -> None:
        self.folder = root / "tus"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lifetime = lifetime
        self._holds: dict[str, Hold] = {}

    def part(self, upload: Upload) -> Path:
        """Return where the bytes received so far are."""
        return self.folder / f"{upload.version}.part"

    def offset(self, upload: Upload) -> int:
        """Return how many bytes have arrived."""
        if upload.finished:
            return upload.size or 0
        try:
            return self.part(upload).stat().st_size
        except FileNotFoundError:
            raise _unknown() from None

    def create(self, upload: Upload) -> None:
        """Keep a new upload."""
        self.part(upload).touch(exist_ok=False)
        self.save(upload)

    def save(self, upload: Upload) -> None:
        """Keep a changed description; it is replaced whole or not at all."""
        path = self.folder / f"{upload.version}.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(upload)))
        fresh.replace(path)

    def find(self, url_id: str) -> Upload:
        """Return the upload of a URL; raise 404 when there is none, 410 when it has expired."""
        try:
            text = base64.urlsafe_b64decode(url_id + "=" * (-len(url_id) % 4)).decode("ascii")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise _unknown() from None
        name, _, version = text.rpartition("/")
        bucket, _, key = name.partition("/")
        upload = self._load(version) if _VERSION.fullmatch(version) else None
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise _unknown()
        if upload.expired:
            raise errors.StorageError(410, "NoSuchUpload", "The file for this url no longer exists")
        return upload

    def finish(self, upload: Upload) -> None:
        """Remember that the object exists now; the bytes are its own."""
        upload.finished, upload.size = True, self.offset(upload)
        self.save(upload)
        self.part(upload).unlink(missing_ok=True)

    def discard(self, upload: Upload) -> None:
        """Forget an upload and its bytes."""
        self.part(upload).unlink(missing_ok=True)
        (self.folder / f"{upload.version}.json").unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def hold(self, upload: Upload) -> AsyncIterator[Hold]:
        """Take the upload for one request; raise 423 when another one keeps it busy for 8 s."""
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while (other := self._holds.get(upload.version)) is not None:
            if other.stalled:
                other.stop.set()
            if time.monotonic() >= deadline:
                raise errors.locked("The upload is locked by another request")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(other.released.wait(), timeout=0.1)
        mine = self._holds[upload.version] = Hold()
        try:
            yield mine
        finally:
            del self._holds[upload.version]
            mine.released.set()

    def is_receiving(self, upload: Upload) -> bool:
        """Whether somebody is sending bytes to it right now."""
        hold = self._holds.get(upload.version)
        return hold is not None and hold.receiving and not hold.stalled

    def sweep(self) -> int:
        """Delete the bytes of expired uploads and old descriptions; return how many uploads."""
        swept = 0
        now = time.time()
        for path in self.folder.iterdir():
            version = path.stem
            if version in self._holds:
                continue
            if path.suffix == ".new":
                path.unlink(missing_ok=True)
                continue
            upload = self._load(version)
            if upload is None:
                # a part whose description never came; a description that cannot be read
                path.unlink(missing_ok=True)
            elif now >= upload.expires_at:
                part = self.part(upload)
                swept += part.exists()
                part.unlink(missing_ok=True)
                if path.suffix == ".json" and now >= upload.expires_at + TOMBSTONE_SECONDS:
                    path.unlink(missing_ok=True)
        return swept

    def _load(self, version: str) -> Upload | None:
        try:
            return Upload(**json.loads((self.folder / f"{version}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def parse_metadata(header: str) -> dict[str, str]:
    """Return the pairs of an `Upload-Metadata` header; raise for what is not base64 of text."""
    values: dict[str, str] = {}
    for pair in header.split(","):
        name, _, value = pair.strip().partition(" ")
        if not name:
            continue
        try:
            values[name] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise errors.invalid_request("Invalid Upload-Metadata header") from None
    return values


def check_target(bucket: str, key: str) -> None:
    """Raise unless an upload may be named so."""
    check_bucket_name(bucket)
    check_key(key)


def _unknown() -> errors.StorageError:
    return errors.StorageError(404, "NoSuchUpload", "The file for this url was not found")
