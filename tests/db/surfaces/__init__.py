"""What clients can reach, by capability: how to fill its tables, and one call of each function.

Each module of this package has `CALLS` (name of a public function, and what tells calls of the
same function apart, to its arguments), and where its tables need rows `fill(drive, world)`; what is
there before anybody is, `prepare(db)` makes. It may also name exceptions:

COMMON    tables that are the same for everybody who is signed in
PERSONAL  tables whose rows stay a person's own even when a folder is shared
HARMLESS  calls that answer everybody who is signed in, with nothing of the owner's
EMPTY     calls that find nothing of what is not visible
READING   functions that the role viewer may call
OPEN      functions that somebody with the level view may call, and then sees the owner's text
BARE      calls that answer somebody with the level view without the owner's text
FOREIGN   calls about what is not below the shared folder: with the level view there, NOT_FOUND
BEARER    calls that answer whoever holds a secret; anybody may make them
PRIVILEGED  calls that need a permission which nobody in these tests has
"""

from __future__ import annotations

import importlib
import pkgutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

SECRET = "walrus"
GHOST = uuid.uuid4()  # signed in, and deleted since


@dataclass
class World:
    """An owner with a file, a folder, a ticket and a share; and people who see what they may."""

    owner: uuid.UUID
    peer: uuid.UUID  # may view the folder
    stranger: uuid.UUID
    closed: uuid.UUID  # had a file of their own, and the share, until the account was closed
    folder: str = ""
    file: str = ""
    version: str = ""
    upload: str = ""
    key: str = ""
    open_key: str = ""
    token: str = ""  # of a link
    # ids of what the capabilities add, by name
    more: dict[str, str] = field(default_factory=dict)
    # what everybody saw when nothing was there
    before: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def outsiders(self) -> dict[str, uuid.UUID | None]:
        """People who must see nothing."""
        return {"stranger": self.stranger, "anon": None, "ghost": GHOST, "closed": self.closed}

    @property
    def secrets(self) -> list[str]:
        """What must not show up with them."""
        ids = [str(self.owner), self.folder, self.file, self.version, self.upload]
        return [SECRET, *ids, *self.more.values()]


Calls = dict[str, Callable[[World], dict[str, Any]]]

MODULES: list[ModuleType] = [
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
]


def gather(name: str) -> set[str]:
    """One kind of exception of all capabilities."""
    return {entry for module in MODULES for entry in getattr(module, name, ())}


def calls() -> Calls:
    """Every call of every capability."""
    found: Calls = {}
    for module in MODULES:
        assert not found.keys() & module.CALLS.keys(), module.__name__
        found |= module.CALLS
    return found
