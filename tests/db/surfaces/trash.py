"""Trash and versions."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import SECRET, Calls, World

CALLS: Calls = {
    "empty_trash": lambda w: {},
    "list_trash": lambda w: {},
    "purge_nodes": lambda w: {"ids": [w.file]},
    "purge_nodes folder": lambda w: {"ids": [w.folder]},
    "purge_nodes trashed": lambda w: {"ids": [w.more["trashed"]]},
    "purge_version": lambda w: {"file_id": w.more["versioned"], "version_id": w.more["no 1"]},
    "restore_nodes": lambda w: {"ids": [w.more["trashed"]]},
    "restore_version": lambda w: {"file_id": w.more["versioned"], "version_id": w.more["no 1"]},
    "trash_nodes": lambda w: {"ids": [w.file]},
    "trash_nodes folder": lambda w: {"ids": [w.folder]},
}

HARMLESS = {"empty_trash", "list_trash"}
READING = {"list_trash"}
BARE = {"empty_trash", "list_trash"}


def fill(drive: Drive, world: World) -> None:
    """A file with two versions, and one in the trash."""
    folder = world.folder
    first = drive.file(world.owner, f"{SECRET} 3.txt", f"{SECRET} one", folder_id=folder)
    drive.file(world.owner, f"{SECRET} 3.txt", f"{SECRET} two", file_id=first["file_id"])
    world.more |= {"versioned": first["file_id"], "no 1": first["version_id"]}
    trashed = drive.file(world.owner, f"{SECRET} 4.txt", f"{SECRET} gone", folder_id=folder)
    drive.rpc(world.owner, "trash_nodes", ids=[trashed["file_id"]])
    world.more["trashed"] = trashed["file_id"]
