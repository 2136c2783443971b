"""What is remembered of unfinished uploads: the ticket and the upload URL, by fingerprint."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from narwhal.session import write_private

KEEP_S = 7 * 24 * 3600  # longer than any ticket lives


class Ledger:
    """A small JSON file, safe for several commands at once; survives a kill at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was stored under a fingerprint."""
        entry = self._read().get(key)
        return dict(entry["ticket"]) if entry else None

    def put(self, key: str, ticket: dict[str, Any]) -> None:
        """Store a ticket (with its `upload_url`, once there is one)."""
        with self._changing() as entries:
            entries[key] = {"at": time.time(), "ticket": ticket}

    def forget(self, key: str) -> None:
        """Drop a fingerprint; dropping an unknown one is harmless."""
        with self._changing() as entries:
            entries.pop(key, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self._read()
            before = json.dumps(entries)
            oldest = time.time() - KEEP_S
            for key in [key for key, entry in entries.items() if entry["at"] < oldest]:
                del entries[key]
            yield entries
            after = json.dumps(entries)
            if after != before:
                write_private(self.path, after)

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
