"""Links, and the pictures that their holders see too."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {
    "create_share_link": lambda w: {"node": w.file},
    "link_history": lambda w: {"id": w.more["link"]},
    "list_share_links": lambda w: {"node": w.folder},
    "open_share_link": lambda w: {"token": w.token},
    "revoke_share_link": lambda w: {"id": w.more["link"]},
    "revoke_share_link hard": lambda w: {"id": w.more["link"], "hard": True},
}

PERSONAL = {"public.share_links"}
READING = {"link_history", "list_share_links", "open_share_link"}
OPEN = {"open_share_link"}
BEARER = {"open_share_link"}


def fill(drive: Drive, world: World) -> None:
    """A link to the owner's folder, and a thumbnail of the file."""
    made = drive.rpc(world.owner, "create_share_link", node=world.folder)
    world.more["link"], world.token = made["id"], made["token"]
    world.more["thumbnail"] = str(drive.rendition(world.version))
