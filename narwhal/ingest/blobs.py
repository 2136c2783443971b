"""Bytes of files, from Storage to a worker's disk and out of Storage for good."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
from storage3 import SyncStorageClient

from narwhal.ingest.services import using

CACHE_BYTES = 1024**3


@dataclass(frozen=True)
class Blob:
    """A downloaded object; `sha256` is of the bytes on disk, hex."""

    path: Path
    size: int
    sha256: str


class BlobStore:
    """Storage through its own API with the service key; keeps the last downloads on disk.

    The stages of one file follow each other, usually in one worker, so its bytes travel once.
    Keys are never written twice, so a cached object cannot be stale.
    """

    def __init__(self, supabase_url: str, service_role_key: str, folder: Path) -> None:
        self.url = f"{supabase_url}/storage/v1"
        self.headers = {
            "apikey": service_role_key,
            "authorization": f"Bearer {service_role_key}",
        }
        self.folder = folder
        self.cached: OrderedDict[str, Blob] = OrderedDict()
        self.in_use: dict[str, int] = {}
        self.lock = threading.Lock()

    def fetch(self, bucket: str, key: str) -> Blob:
        """Download an object in pieces, never whole in memory.

        Raises ServiceError when Storage is not there, httpx.HTTPError for what it refuses.

        The caller calls `release(key)` when it has read the file.
        """
        with self.lock:
            self.in_use[key] = self.in_use.get(key, 0) + 1
            blob = self.cached.get(key)
            if blob is not None:
                self.cached.move_to_end(key)
                return blob
        try:
            with using("storage"):
                blob = self._download(bucket, key)
        except BaseException:
            self.release(key)
            raise
        with self.lock:
            self.cached[key] = blob
        return blob

    def release(self, key: str) -> None:
        """Let the cache drop this object when it needs the space."""
        with self.lock:
            self.in_use[key] -= 1
            if not self.in_use[key]:
                del self.in_use[key]
            total = sum(blob.size for blob in self.cached.values())
            for old in list(self.cached):
                if total <= CACHE_BYTES:
                    break
                if old not in self.in_use:
                    dropped = self.cached.pop(old)
                    total -= dropped.size
                    dropped.path.unlink(missing_ok=True)

    def _download(self, bucket: str, key: str) -> Blob:
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self.folder / f"{name}.{threading.get_ident()}"
        digest = hashlib.sha256()
        size = 0
        # the SDK's download() holds the whole object in memory, so this one call is made by hand
        with (
            httpx.stream(
                "GET",
                f"{self.url}/object/authenticated/{bucket}/{quote(key)}",
                headers=self.headers,
                timeout=60,
            ) as response,
            path.open("wb") as file,
        ):
            response.raise_for_status()
            for piece in response.iter_bytes(1024 * 1024):
                digest.update(piece)
                size += len(piece)
                file.write(piece)
        return Blob(path, size, digest.hexdigest())

    def store(self, bucket: str, key: str, data: bytes, content_type: str) -> None:
        """Write an object under a key that was never used before; raises ServiceError."""
        with using("storage"):
            SyncStorageClient(self.url, self.headers).from_(bucket).upload(
                key, data, {"content-type": content_type, "cache-control": "31536000"}
            )

    def remove(self, bucket: str, keys: list[str]) -> None:
        """Delete objects; those that are gone already do not matter."""
        SyncStorageClient(self.url, self.headers).from_(bucket).remove(keys)

    def move(self, bucket: str, key: str, new_key: str) -> None:
        """Give an object another key; signed URLs of the old one are dead from then on."""
        SyncStorageClient(self.url, self.headers).from_(bucket).move(key, new_key)
