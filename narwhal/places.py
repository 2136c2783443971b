"""Where a path of the drive leads: names are looked up by listing, as the user, level by level.

A place is a path such as `/Projects/Plan.pdf`, or the id of a node. What others have shared is
under `/Shared with me`; an item of one's own with that name comes first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from narwhal.errors import NarwhalError

Json = dict[str, Any]
SHARED = "Shared with me"


class Places:
    """Finds nodes by path; folders that were found once are not looked up again."""

    def __init__(
        self,
        children: Callable[[str | None], Iterator[Json]],
        shared: Callable[[], Iterator[Json]],
        details: Callable[[str], Json],
    ) -> None:
        self._children = children
        self._shared = shared
        self._details = details
        self._folders: dict[tuple[str | None, str], Json] = {}

    def find(self, place: str) -> Json | None:
        """Return the node at a place; None for the top level itself."""
        if node_id := as_id(place):
            return self._details(node_id)
        node, missing = self.walk(split_path(place))
        if missing:
            raise not_there(f"there is no {place!r} in the drive")
        return node

    def walk(self, names: list[str]) -> tuple[Json | None, list[str]]:
        """Follow names from the top as far as they exist; the node reached, the names left."""
        node, left = self._start(names)
        while left:
            child = self.child(str(node["id"]) if node else None, left[0])
            if child is None:
                break
            node, left = child, left[1:]
        return node, left

    def _start(self, names: list[str]) -> tuple[Json | None, list[str]]:
        """Begin at the top level, or at an item that somebody has shared."""
        if not names or not same_name(names[0], SHARED) or self.child(None, names[0]):
            return None, names
        item = _only(names[1], self._shared()) if len(names) > 1 else None
        if item is None:
            raise not_there(f"no item is meant by {'/'.join(names)!r}")
        return item, names[2:]

    def child(self, parent: str | None, name: str) -> Json | None:
        """Return what has this name in a folder, None when nothing has."""
        key = (parent, folded(name))
        if key not in self._folders:
            found = _only(name, self._children(parent))
            if found is None or found["kind"] != "folder":
                return found
            self._folders[key] = found
        return self._folders[key]


def not_there(what: str) -> NarwhalError:
    """Say that a path leads nowhere."""
    return NarwhalError(what, "List what is there: narwhal ls", error="NOT_FOUND", status=404)


def as_id(place: str) -> str | None:
    """Return a place that is a node's id as such; a path begins with a slash when it looks so."""
    try:
        return str(UUID(place)) if len(place) == 36 else None
    except ValueError:
        return None


def split_path(path: str) -> list[str]:
    """Split 'a/b/c' into names; empty parts count for nothing."""
    return [part for part in path.split("/") if part]


def is_shared_root(path: str) -> bool:
    """Whether a path is `/Shared with me` itself."""
    names = split_path(path)
    return len(names) == 1 and same_name(names[0], SHARED)


def folded(name: str) -> str:
    """Fold a name for comparing; Postgres decides, this only saves it a refused call."""
    return unicodedata.normalize("NFC", name).lower()


def same_name(one: str, other: str) -> bool:
    """Whether two names could not stand in one folder."""
    return folded(one) == folded(other)


def _only(name: str, items: Iterable[Json]) -> Json | None:
    """Return the item of this name; several people may have shared items that are called alike."""
    found = [item for item in items if same_name(str(item["name"]), name)]
    if len(found) > 1:
        ids = ", ".join(str(item["id"]) for item in found)
        raise NarwhalError(
            f"{len(found)} shared items are called {name!r}",
            f"Give the id instead of the path: {ids}",
            error="AMBIGUOUS",
            status=409,
        )
    return found[0] if found else None
