"""A folder of this computer that the drive follows, by looking at it again and again.

What was sent is remembered in a small file, so that a watcher that was stopped finds out what has
changed meanwhile. Nothing is ever changed on this side.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from narwhal.drive import Drive, sha256_of
from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.session import write_private

IGNORED_NAMES = frozenset({"Thumbs.db", "desktop.ini"})
IGNORED_BEGINNINGS = (".", "~$")  # hidden, locks of office programs
IGNORED_ENDINGS = ("~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp")
RETRY_S = 30.0
FATAL = ("NOT_AUTHENTICATED", "NOT_CONFIGURED")


@dataclass(frozen=True)
class Seen:
    """What a look at the folder tells of a file; another inode, size or time is another content."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Known:
    """What was sent of a file, and which file of the drive it is."""

    file_id: str
    sha256: str
    seen: Seen


@dataclass(frozen=True)
class Event:
    """What was done about a file, or what went wrong: `error` is one of the error codes."""

    what: str
    path: str
    file_id: str | None = None
    was: str | None = None
    error: str | None = None
    message: str | None = None


def is_ignored(name: str) -> bool:
    """Whether a file is hidden, or half of one that somebody is writing."""
    return (
        name in IGNORED_NAMES
        or name.startswith(IGNORED_BEGINNINGS)
        or name.lower().endswith(IGNORED_ENDINGS)
    )


class Watcher:
    """Makes a folder of the drive follow `root`; call `step` again and again."""

    def __init__(self, drive: Drive, root: Path, folder: str) -> None:
        self.drive = drive
        self.root = root.resolve()
        self.folder = folder.strip("/")
        place = "\0".join([drive.account(), str(self.root), self.folder])
        name = hashlib.sha256(place.encode()).hexdigest()[:16]
        self.state = drive.settings.home / f"watch-{name}.json"
        self.known = self._load()
        self.seen: dict[str, Seen] | None = None
        self._retry_at: dict[str, float] = {}

    def step(self) -> Iterator[Event]:
        """Look once, and do what is due; what changed since the look before is left for the next.

        Raises NarwhalError when the folder is not there: then nothing counts as deleted.
        """
        now, before = self._look(), self.seen
        self.seen = now
        if before is None:
            return
        still = {path for path, seen in now.items() if before.get(path) == seen}
        gone = {path for path in self.known if path not in now and path not in before}
        for path in sorted(still):
            known = self.known.get(path)
            if known is not None and known.seen == now[path]:
                continue
            if known is not None:
                yield from self._try(path, partial(self._send, path, now[path], known))
                continue
            was = next((old for old in sorted(gone) if self.known[old].seen == now[path]), None)
            if was is None:
                yield from self._try(path, partial(self._send, path, now[path], None))
            else:
                gone.remove(was)
                yield from self._try(path, partial(self._rename, was, path))
        for path in sorted(gone):
            yield from self._try(path, partial(self._trash, path))

    def is_in_step(self) -> bool:
        """Whether the last look found the folder as the drive has it."""
        return self.seen == {path: known.seen for path, known in self.known.items()}

    def _look(self) -> dict[str, Seen]:
        def refuse(error: OSError) -> None:
            raise NarwhalError(
                f"{error.filename} cannot be read: {error.strerror}",
                "Nothing in it was taken for deleted. Is it mounted, and yours to read?",
                error="NOT_READABLE",
            )

        found = {}
        for folder, folders, names in os.walk(self.root, onerror=refuse):
            folders[:] = [name for name in folders if not is_ignored(name)]
            for name in names:
                path = Path(folder) / name
                if is_ignored(name) or path.is_symlink() or not path.is_file():
                    continue
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue  # gone between the two
                key = path.relative_to(self.root).as_posix()
                found[key] = Seen(stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return found

    def _try(self, path: str, act: Callable[[], Event | None]) -> Iterator[Event]:
        """Do something about a file; what fails is told, and tried again after a while."""
        if time.monotonic() < self._retry_at.get(path, 0.0):
            return
        try:
            event = act()
        except FileNotFoundError:
            return  # deleted meanwhile: the next look finds that
        except Exception as error:
            failure = as_narwhal_error(error)
            if failure is None or failure.error in FATAL:
                raise
            self._retry_at[path] = time.monotonic() + RETRY_S
            yield Event("failed", path, error=failure.error, message=failure.message)
        else:
            self._retry_at.pop(path, None)
            self._save()
            if event is not None:
                yield event

    def _send(self, path: str, seen: Seen, known: Known | None) -> Event | None:
        local = self.root / path
        sha256 = sha256_of(local)
        if known is not None and known.sha256 == sha256:
            self.known[path] = Known(known.file_id, sha256, seen)  # touched, not changed
            return None
        folder_id = self._folder_of(path)
        if known is None:
            same = self._same(folder_id, local.name, sha256)
            if same is not None:  # sent before, by whatever means
                self.known[path] = Known(same, sha256, seen)
                return None
        try:
            sent = self.drive.upload(
                local,
                folder_id,
                on_conflict="version",
                resume=True,
                file_id=known.file_id if known else None,
            )
        except Exception as error:
            if known is None or not _is_gone(error):
                raise
            del self.known[path]  # deleted in the drive, and changed here since: it comes back
            return self._send(path, seen, None)
        self.known[path] = Known(sent.file_id, sha256, seen)
        return Event("uploaded" if known is None else "changed", path, sent.file_id)

    def _rename(self, was: str, path: str) -> Event | None:
        known = self.known[was]
        old, new = Path(was), Path(path)
        try:
            if old.parent != new.parent:
                self.drive.rpc(
                    "move_nodes", {"ids": [known.file_id], "target": self._folder_of(path)}
                )
            if old.name != new.name:
                self.drive.rpc("rename_node", {"id": known.file_id, "name": new.name})
        except Exception as error:
            if not _is_gone(error):
                raise
            del self.known[was]
            return self._send(path, known.seen, None)
        self.known[path] = self.known.pop(was)
        return Event("renamed", path, known.file_id, was=was)

    def _trash(self, path: str) -> Event | None:
        file_id = self.known[path].file_id
        try:
            self.drive.rpc("trash_nodes", {"ids": [file_id]})
        except Exception as error:
            if not _is_gone(error):
                raise
        del self.known[path]
        return Event("trashed", path, file_id)

    def _folder_of(self, path: str) -> str | None:
        inside = Path(path).parent.as_posix()
        place = "/".join(part for part in (self.folder, inside) if part not in ("", "."))
        return self.drive.folder_id(place, create=True)

    def _same(self, folder_id: str | None, name: str, sha256: str) -> str | None:
        """The file of this name in a folder of the drive, when it holds this content."""
        node = self.drive.child(folder_id, name)
        if node is None or node["kind"] != "file":
            return None
        versions = self.drive.details(str(node["id"]))["versions"]
        return str(node["id"]) if versions and versions[0]["sha256"] == sha256 else None

    def _load(self) -> dict[str, Known]:
        try:
            rows = json.loads(self.state.read_text(encoding="utf-8"))
            return {
                path: Known(row["file_id"], row["sha256"], Seen(**row["seen"]))
                for path, row in rows.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NarwhalError(
                f"{self.state} is damaged", "Remove it: what is in the drive is found again."
            ) from error

    def _save(self) -> None:
        rows = {path: asdict(known) for path, known in self.known.items()}
        write_private(self.state, json.dumps(rows, ensure_ascii=False))


def _is_gone(error: Exception) -> bool:
    failure = as_narwhal_error(error)
    return failure is not None and failure.error == "NOT_FOUND"
