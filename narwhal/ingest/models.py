"""Which spaces a worker has the models of: it claims jobs of no others.

A job whose model is missing here is not at fault, and must not be given up after three errors; it
waits for a worker that has the model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from narwhal.ingest.pipeline import space_encoder

RETRY_S = 300.0

log = logging.getLogger("narwhal.worker")


class Models:
    """What can be embedded here; read by all threads of a worker, written by one."""

    def __init__(self) -> None:
        self.space_ids: tuple[int, ...] = ()
        self.local = threading.Event()
        """Set when models that need no network were looked for."""
        self.all = threading.Event()
        """Set when the others were, too."""
        self._found: dict[tuple[object, ...], bool] = {}
        self._retry_at: dict[tuple[object, ...], float] = {}

    def look(self, spaces: Iterable[dict[str, Any]]) -> None:
        """Find out which of these spaces have their model here; what failed, after a while again.

        A model of the hub may have to be downloaded: those come last.
        """
        text = [space for space in spaces if space["kind"] == "text"]
        known = []
        for needs_network in (False, True):
            for space in text:
                if _is_of_the_hub(space) is needs_network and self._has(space):
                    known.append(int(space["id"]))
            gone = set(self.space_ids) - {int(space["id"]) for space in text}
            self.space_ids = tuple(sorted({*self.space_ids, *known} - gone))
            (self.all if needs_network else self.local).set()

    def _has(self, space: dict[str, Any]) -> bool:
        key = (space["model"], space["revision"], space["dimension"])
        if self._found.get(key) or time.monotonic() < self._retry_at.get(key, 0.0):
            return self._found[key]
        try:
            space_encoder(space)
        except Exception as error:  # whatever it is, jobs of this space are not for this worker
            log.warning("jobs of the space %s are left to others: %s", space["name"], error)
            self._found[key] = False
            self._retry_at[key] = time.monotonic() + RETRY_S
        else:
            self._found[key] = True
        return self._found[key]


def _is_of_the_hub(space: dict[str, Any]) -> bool:
    model = str(space["model"]).removeprefix("sentence-transformers/")
    return "/" in model and not Path(model).expanduser().is_dir()
