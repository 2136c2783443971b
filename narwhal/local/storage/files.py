"""Object bytes on disk: `objects/<bucket>/<ab>/<sha256 of the key>/<version>`.

A version's file never changes once it is in place. Bytes arrive in `tmp/`, are synced, and are
renamed into place before the row names them; the old version's file goes after the row has
switched. Whatever a key contains, only its hash reaches the file system.

A crash in between leaves a file that no row names. So every such step first writes a note into
`unsettled/`, and `leftovers` hands the notes of dead processes to the sweeper, which compares the
key's files with its row.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from narwhal.local.storage import errors

FLUSH_BYTES = 1024 * 1024  # gathered in memory before a thread writes them
READ_BYTES = 256 * 1024
_PLAIN_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERSION = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class Note:
    """Keys whose files may not agree with their rows."""

    path: Path
    bucket: str
    keys: tuple[str, ...]


class Step:
    """One change of files and rows; `uncertain` keeps its note for the sweeper."""

    uncertain = False


class TempFile:
    """Bytes on their way in: counted, hashed, written in pieces of about 1 MiB by threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._file: BinaryIO = path.open("xb")
        self._pending: list[bytes] = []
        self._pending_size = 0

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pending.append(data)
        self._pending_size += len(data)
        self.size += len(data)
        if self._pending_size >= FLUSH_BYTES:
            await asyncio.to_thread(self._flush)

    async def finish(self) -> str:
        """Put everything on the disk and return the ETag: the MD5 in quotes."""
        await asyncio.to_thread(self._close)
        return f'"{self._md5.hexdigest()}"'

    def discard(self) -> None:
        """Forget the bytes, unless they have been renamed into place."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        self._md5.update(data)
        with disk_errors():
            self._file.write(data)

    def _close(self) -> None:
        self._flush()
        with disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class FileStore:
    """The folder that holds the bytes of every object."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "objects"
        self.tmp = root / "tmp"
        self.notes = root / "unsettled"
        for folder in (self.objects, self.tmp, self.notes):
            folder.mkdir(parents=True, exist_ok=True)
        self._busy_versions: set[str] = set()
        self._busy_notes: set[Path] = set()
        self._busy_temps: set[Path] = set()

    def path(self, bucket: str, key: str, version: str | None) -> Path:
        """Return where a version's bytes are."""
        if not version or not _VERSION.fullmatch(version):
            raise errors.no_such_key()  # a row that this server did not write
        return self._folder(bucket, key) / version

    # -- arriving

    @contextlib.contextmanager
    def incoming(self) -> Iterator[TempFile]:
        """Give a temporary file for as long as the block runs."""
        file = TempFile(self.tmp / uuid4().hex)
        self._busy_temps.add(file.path)
        try:
            yield file
        finally:
            file.discard()
            self._busy_temps.discard(file.path)

    @contextlib.contextmanager
    def changing(
        self, bucket: str, keys: Iterable[str], versions: Iterable[str] = ()
    ) -> Iterator[Step]:
        """Note that the files of `keys` change; `versions` are the ones being put in place."""
        note = self.notes / uuid4().hex
        step, named = Step(), set(versions)
        self._busy_notes.add(note)
        self._busy_versions |= named
        try:
            with disk_errors():
                note.write_text(json.dumps({"bucket": bucket, "keys": list(keys)}))
            yield step
        except asyncio.CancelledError:
            step.uncertain = True  # the commit may have been on its way
            raise
        except errors.StorageError as error:
            step.uncertain = step.uncertain or error.uncertain
            raise
        finally:
            if not step.uncertain:
                note.unlink(missing_ok=True)
            self._busy_notes.discard(note)
            self._busy_versions -= named

    async def place(self, source: Path, bucket: str, key: str, version: str) -> None:
        """Rename synced bytes into place."""
        await asyncio.to_thread(self._put, source, self.path(bucket, key, version), os.replace)

    async def link(self, source: Path, bucket: str, key: str, version: str) -> None:
        """Give bytes a second name without copying them, where the file system can."""
        await asyncio.to_thread(self._put, source, self.path(bucket, key, version), _link)

    async def remove(self, bucket: str, key: str, version: str | None) -> None:
        """Delete a version's bytes and the folders they leave empty; absent is fine."""
        if version and _VERSION.fullmatch(version):
            await asyncio.to_thread(self._remove, self.path(bucket, key, version))

    # -- cleaning

    def sweep_temps(self) -> int:
        """Delete temporary files that no upload is writing; return how many."""
        stale = [path for path in self.tmp.iterdir() if path not in self._busy_temps]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def leftovers(self) -> list[Note]:
        """Return the notes of steps that ended without knowing how."""
        found = []
        for path in self.notes.iterdir():
            if path in self._busy_notes:
                continue
            try:
                content = json.loads(path.read_text())
                found.append(Note(path, content["bucket"], tuple(content["keys"])))
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)  # cut off before anything had changed
            except FileNotFoundError:
                continue
        return found

    def keep_only(self, bucket: str, key: str, version: str | None) -> int:
        """Delete a key's files but `version` and those being written; return how many."""
        folder = self._folder(bucket, key)
        if not folder.is_dir():
            return 0
        stale = [
            path
            for path in folder.iterdir()
            if path.name != version and path.name not in self._busy_versions
        ]
        for path in stale:
            self._remove(path)
        return len(stale)

    # -- inside

    def _bucket_folder(self, bucket: str) -> Path:
        plain = _PLAIN_BUCKET.fullmatch(bucket) is not None
        return self.objects / (bucket if plain else "~" + _sha256(bucket))

    def _folder(self, bucket: str, key: str) -> Path:
        # the bucket is hashed too: folders that differ in case only may be one on some disks
        name = _sha256(f"{bucket}/{key}")
        return self._bucket_folder(bucket) / name[:2] / name

    def _put(self, source: Path, target: Path, how: Callable[[Path, Path], None]) -> None:
        with disk_errors():
            for attempt in range(5):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    how(source, target)
                    break
                except FileNotFoundError:
                    if not source.exists():  # overwritten or deleted meanwhile
                        raise errors.no_such_key() from None
                    if attempt == 4:  # a concurrent delete may prune the folder in between
                        raise
            _sync_folder(target.parent)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.objects:
                return
            try:
                parent.rmdir()
            except OSError:
                return


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links here
        shutil.copyfile(source, target)
        with target.open("rb") as copy:
            os.fsync(copy.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a full disk into the answer 507."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full() from error
        raise


def etag_of(path: Path) -> str:
    """Return the ETag of a whole file: its MD5 in quotes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return f'"{digest.hexdigest()}"'


def sync_file(path: Path) -> None:
    """Put a file's bytes on the disk for good."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
