"""Renaming, moving and copying."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from tests.db.surfaces import Calls

CALLS: Calls = {
    "copy_nodes": lambda w: {"ids": [w.file]},
    "copy_nodes folder": lambda w: {"ids": [w.folder], "on_conflict": "rename"},
    "list_folder recursive": lambda w: {"folder": w.folder, "recursive": True},
    "list_folder everything": lambda w: {"recursive": True},
    "move_nodes": lambda w: {"ids": [w.file]},
    "move_nodes folder": lambda w: {"ids": [w.folder]},
    "search_files": lambda w: {"query": "walrus notes"},
    "search_files everything": lambda w: {},
    "search_files folder": lambda w: {"filters": Jsonb({"folder_id": w.folder})},
    "set_metadata": lambda w: {"file_id": w.file, "metadata": {"a": 1}},
    "rename_node": lambda w: {"id": w.file, "name": "new.txt"},
    "rename_node folder": lambda w: {"id": w.folder, "name": "new"},
}

HARMLESS = {"list_folder everything", "search_files", "search_files everything"}
BARE = {"list_folder everything"}
READING = {"search_files"}
OPEN = {"copy_nodes", "search_files"}  # a copy goes into their own root
