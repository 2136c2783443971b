"""Downloads: files and trees, resumed where they stopped, checked, and put in place in one step.

The bytes come by signed URLs of the Storage API, which take a Range. What has arrived of a version
is in `.<version id>.part` beside its target: versions never change, so a part stays good.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any, Literal

import httpx

from narwhal.drive import Drive
from narwhal.errors import NarwhalError
from narwhal.places import folded

Json = dict[str, Any]
SIGNED_S = 60  # a URL is used at once; a part that takes longer goes on
ATTEMPTS = 5
PAUSE_S = 0.5
BLOCK = 1024 * 1024
TIMEOUT = httpx.Timeout(30, read=60)
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)")


@dataclass(frozen=True)
class Fetched:
    """What became of one file of the drive."""

    path: str
    file_id: str
    version_id: str
    name: str
    size: int
    sha256: str | None
    state: Literal["downloaded", "resumed", "complete"]


def targets(drive: Drive, nodes: list[Json], folder: Path) -> Iterator[tuple[Json, Path]]:
    """Yield every file among some nodes and below them with the local path that it gets.

    Folders are made on the way. No name of the drive leads out of `folder`, and no link in it is
    followed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    portable = not _takes_any_name(folder)
    taken: set[str] = set()
    for node in nodes:
        yield from _below(drive, node, folder, portable, taken)


def fetch(
    drive: Drive,
    node: Json,
    target: Path,
    *,
    version_id: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Fetched:
    """Download one file to `target`, from wherever an earlier attempt stopped.

    A target that holds this version already is left alone; anything else there is only replaced
    with `overwrite`. `progress` is told the bytes that arrived and their total.
    """
    version = _version(drive, node, version_id)
    if os.path.lexists(target):
        if _is_complete(target, version):
            return _fetched(node, target, version, "complete")
        if target.is_dir() or not overwrite:
            raise NarwhalError(
                f"{target} exists and holds something else",
                "Move it away, or replace it: --overwrite"
                if not target.is_dir()
                else "Move it away, or choose another folder with --to.",
                error="LOCAL_CONFLICT",
                status=409,
            )
    part = target.parent / f".{version['id']}.part"
    with _locked(part) as file:
        resumed = file.seek(0, os.SEEK_END) > 0
        _Transfer(drive, node, version, progress or _silent).run(file)
        if not _matches(file, version):
            # what had arrived before was damaged, or the object is
            file.truncate(0)
            if resumed:
                resumed = False
                _Transfer(drive, node, version, progress or _silent).run(file)
            if not _matches(file, version):
                part.unlink()
                raise NarwhalError(
                    f"what arrived of {node['name']!r} is not what was uploaded",
                    "Try again; if it stays so, the object is damaged: narwhal reconcile",
                    error="CHECKSUM_MISMATCH",
                )
        os.fsync(file.fileno())
        moment = _moment(version)
        os.utime(part, (moment, moment))
        part.replace(target)
    return _fetched(node, target, version, "resumed" if resumed else "downloaded")


class _Transfer:
    """Fills a part file with what is missing of a version."""

    def __init__(
        self, drive: Drive, node: Json, version: Json, progress: Callable[[int, int], None]
    ) -> None:
        self.drive = drive
        self.file_id = str(node["id"])
        self.version_id = str(version["id"])
        self.size = int(version["size"])
        self.progress = progress

    def run(self, file: BufferedRandom) -> None:
        place: Json | None = None
        failures = 0
        while (offset := file.seek(0, os.SEEK_END)) != self.size:
            if offset > self.size:
                file.truncate(0)
                continue
            try:
                if place is None:  # the right to it is asked for, and noted, once
                    place = self._begin()
                self._receive(file, offset, self._sign(place))
            except (httpx.TransportError, NarwhalError) as error:
                if isinstance(error, NarwhalError) and error.error != "DOWNLOAD_REFUSED":
                    raise
                arrived = file.seek(0, os.SEEK_END) > offset
                failures = 1 if arrived else failures + 1
                if failures >= ATTEMPTS:
                    raise
                if isinstance(error, NarwhalError):
                    place = None  # its key may have changed
                time.sleep(PAUSE_S * 2 ** (failures - 1))
        self.progress(self.size, self.size)

    def _begin(self) -> Json:
        arguments = {"file_id": self.file_id, "version_id": self.version_id}
        return self.drive.call("begin_download", arguments)

    def _sign(self, place: Json) -> str:
        bucket = self.drive.client.storage.from_(place["bucket"])
        return str(bucket.create_signed_url(place["key"], SIGNED_S)["signedUrl"])

    def _receive(self, file: BufferedRandom, offset: int, url: str) -> None:
        headers = {"accept-encoding": "identity"}
        if offset:
            headers["range"] = f"bytes={offset}-"
        with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
            if answer.status_code == 200 and offset:  # the whole of it after all
                file.truncate(0)
                file.seek(0)
            elif answer.status_code not in (200, 206):
                raise NarwhalError(
                    f"the download was refused with status {answer.status_code}",
                    "Run it again; it goes on where it stopped.",
                    error="DOWNLOAD_REFUSED",
                    status=answer.status_code,
                )
            for block in answer.iter_raw(BLOCK):
                file.write(block)
                self.progress(file.tell(), self.size)


def local_name(name: str, *, portable: bool = False) -> str:
    """Return a drive's name as a local one: a single part of a path, whatever it holds.

    With `portable` also as Windows wants it. What is illegal becomes the look-alike of full width.
    """
    forbidden = '/\\<>:"|?*' if portable else "/"
    safe = "".join(
        chr(ord(c) + 0xFEE0) if c in forbidden else ("�" if ord(c) < 32 or c == "\x7f" else c)
        for c in name
    )
    if portable:
        safe = re.sub(r"[. ]+$", lambda found: "_" * len(found[0]), safe)
        safe = f"_{safe}" if RESERVED.match(safe) else safe
    return f"_{safe}" if safe in ("", ".", "..") else safe


def _below(
    drive: Drive, node: Json, folder: Path, portable: bool, taken: set[str]
) -> Iterator[tuple[Json, Path]]:
    path = folder / _free(local_name(str(node["name"]), portable=portable), taken)
    if node["kind"] == "file":
        yield node, path
        return
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise NarwhalError(
            f"{path} is in the way of a folder",
            "Move it away, or choose another folder with --to.",
            error="LOCAL_CONFLICT",
            status=409,
        )
    path.mkdir(exist_ok=True)
    inside: set[str] = set()
    for child in drive.children(str(node["id"])):
        yield from _below(drive, child, path, portable, inside)


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no other node of the folder has got."""
    stem, dot, extension = name.rpartition(".")
    candidate, number = name, 1
    while folded(candidate) in taken:
        number += 1
        candidate = f"{stem} ({number}){dot}{extension}" if stem else f"{name} ({number})"
    taken.add(folded(candidate))
    return candidate


def _takes_any_name(folder: Path) -> bool:
    """Whether the file system under a folder takes what Windows does not."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".narwhal-", suffix='<>:"\\|?*. '):
            return True
    except OSError:
        return False


def _version(drive: Drive, node: Json, version_id: str | None) -> Json:
    """Return the version that is meant: the given one, else the one that a frontend shows."""
    details = drive.details(str(node["id"]))
    versions: list[Json] = details["versions"]
    wanted = version_id or details["head_version_id"]
    for version in versions:
        if version["id"] == wanted or wanted is None:
            return version
    raise NarwhalError(
        f"{node['name']!r} has no such version" if versions else f"{node['name']!r} has no content",
        f"List them: narwhal versions list {node['id']}",
        error="NOT_FOUND",
        status=404,
    )


def _fetched(
    node: Json, target: Path, version: Json, state: Literal["downloaded", "resumed", "complete"]
) -> Fetched:
    return Fetched(
        path=str(target),
        file_id=str(node["id"]),
        version_id=str(version["id"]),
        name=str(node["name"]),
        size=int(version["size"]),
        sha256=version["sha256"],
        state=state,
    )


def _is_complete(target: Path, version: Json) -> bool:
    """Whether a local file is this version; by its time as long as no worker has read the hash."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != version["size"]:
        return False
    if version["sha256"] is None:
        return abs(target.stat().st_mtime - _moment(version)) < 1
    with target.open("rb") as file:
        return _sha256(file) == str(version["sha256"])


def _matches(file: BufferedRandom, version: Json) -> bool:
    file.flush()
    if file.seek(0, os.SEEK_END) != version["size"]:
        return False
    return version["sha256"] is None or _sha256(file) == str(version["sha256"])


def _sha256(file: BufferedReader | BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _moment(version: Json) -> float:
    return datetime.fromisoformat(str(version["created_at"])).timestamp()


def _locked(part: Path) -> BufferedRandom:
    """Open a part for one process; a link in its place is not followed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = open(os.open(part, flags, 0o666), "r+b")  # noqa: PTH123, SIM115 - the caller closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass  # the other command is at it, or has just put it in place
    file.close()
    raise NarwhalError(
        "this file is being downloaded by another command",
        "Wait for it, or stop it; then run this again.",
        error="LOCKED",
        status=423,
    )


def _silent(done: int, total: int) -> None:
    pass
