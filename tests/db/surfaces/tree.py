"""Renaming, moving and copying."""

from __future__ import annotations

from tests.db.surfaces import Calls

CALLS: Calls = {
    "copy_nodes": lambda w: {"ids": [w.file]},
    "copy_nodes folder": lambda w: {"ids": [w.folder], "on_conflict": "rename"},
    "list_folder recursive": lambda w: {"folder": w.folder, "recursive": True},
    "list_folder everything": lambda w: {"recursive": True},
    "move_nodes": lambda w: {"ids": [w.file]},
    "move_nodes folder": lambda w: {"ids": [w.folder]},
    "rename_node": lambda w: {"id": w.file, "name": "new.txt"},
    "rename_node folder": lambda w: {"id": w.folder, "name": "new"},
}

HARMLESS = {"list_folder everything"}
BARE = {"list_folder everything"}
OPEN = {"copy_nodes"}  # into their own root
