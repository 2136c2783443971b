"""Sharing with people and groups."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {
    "effective_access": lambda w: {"node": w.file},
    "list_shares": lambda w: {"node": w.file},
    "people": lambda w: {"ids": [w.owner]},
    "share_node": lambda w: {"node": w.file, "grantee": {"email": "new@example.test"}},
    "shared_with_me": lambda w: {},
    "unshare_node": lambda w: {"share_id": w.more["share"]},
    "why_access": lambda w: {"user": w.owner, "node": w.file},
}

HARMLESS = {"people", "shared_with_me"}
READING = {"effective_access", "list_shares", "people", "shared_with_me", "why_access"}
OPEN = {"shared_with_me"}
BARE = {"effective_access", "people"}


def fill(drive: Drive, world: World) -> None:
    """A share of the folder with somebody who has no account."""
    world.more["share"] = drive.rpc(
        world.owner, "share_node", node=world.folder, grantee={"email": "pending@example.test"}
    )["id"]
