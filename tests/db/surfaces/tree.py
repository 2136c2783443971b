"""Renaming, moving and copying."""

from __future__ import annotations

from tests.db.surfaces import Calls

CALLS: Calls = {
    "move_nodes": lambda w: {"ids": [w.file]},
    "move_nodes folder": lambda w: {"ids": [w.folder]},
    "rename_node": lambda w: {"id": w.file, "name": "new.txt"},
    "rename_node folder": lambda w: {"id": w.folder, "name": "new"},
}
