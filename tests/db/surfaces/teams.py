"""Groups and workspaces."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {}
PERSONAL = {
    "public.groups",
    "public.group_members",
    "public.workspaces",
    "public.workspace_members",
}


def fill(drive: Drive, world: World) -> None:
    """A group and a workspace of the owner's, with nobody else in them."""
    world.more["group"] = str(
        drive.db.one("insert into public.groups (name) values ('walrus fans') returning id")
    )
    drive.db.all(
        "insert into public.group_members (group_id, user_id, is_manager) values (%s, %s, true)",
        world.more["group"],
        world.owner,
    )
    world.more["workspace"] = str(
        drive.db.one(
            "insert into public.owners (id, kind, storage_limit)"
            " values (gen_random_uuid(), 'workspace', 1000) returning id"
        )
    )
    drive.db.all("insert into public.workspaces (id) values (%s)", world.more["workspace"])
    drive.db.all(
        "insert into public.workspace_members (workspace_id, user_id, level)"
        " values (%s, %s, 'owner')",
        world.more["workspace"],
        world.owner,
    )
