"""Favourites, what was opened last, counters, downloads, tags and comments."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import SECRET, Calls, World

CALLS: Calls = {
    "add_comment": lambda w: {"node": w.file, "body": "So?", "mentions": [w.stranger]},
    "add_comment reply": lambda w: {"node": w.file, "body": "So?", "reply_to": w.more["comment"]},
    "begin_download": lambda w: {"file_id": w.file},
    "begin_download version": lambda w: {"file_id": w.file, "version_id": w.version},
    "delete_comment": lambda w: {"id": w.more["comment"]},
    "edit_comment": lambda w: {"id": w.more["comment"], "body": "No."},
    "list_favourites": lambda w: {},
    "list_recent": lambda w: {},
    "list_tags": lambda w: {},
    "record_view": lambda w: {"node": w.file},
    "record_view folder": lambda w: {"node": w.folder},
    "resolve_comment": lambda w: {"id": w.more["comment"]},
    "set_favourite": lambda w: {"node": w.file},
    "set_favourite folder": lambda w: {"node": w.folder, "is_favourite": False},
    "tag_nodes": lambda w: {"ids": [w.file], "add": ["new"]},
    "tag_nodes folder": lambda w: {"ids": [w.folder, w.file], "remove": [SECRET]},
}

PERSONAL = {"public.node_user_state"}
HARMLESS = {"list_favourites", "list_recent", "list_tags"}
# one's own favourites are no writing
READING = {
    "begin_download",
    "list_favourites",
    "list_recent",
    "list_tags",
    "record_view",
    "set_favourite",
}
OPEN = {"begin_download", "list_tags"}
BARE = {
    "list_favourites",
    "list_recent",
    "record_view",
    "record_view folder",
    "set_favourite",
    "set_favourite folder",
}


def fill(drive: Drive, world: World) -> None:
    """A tag, a comment, a view; favourites of the owner's, and of the account that is closed."""
    for user in (world.owner, world.closed):
        drive.rpc(user, "set_favourite", node=world.folder)
    drive.rpc(world.owner, "record_view", node=world.file)
    drive.rpc(world.owner, "tag_nodes", ids=[world.file], add=[SECRET])
    comment = drive.rpc(world.owner, "add_comment", node=world.file, body=f"A {SECRET}!")
    world.more["comment"] = comment["id"]
