"""Groups and workspaces."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import SECRET, Calls, World

CALLS: Calls = {
    "add_group_member": lambda w: {
        "group_id": w.more["group"],
        "member": {"email": "new@example.test"},
    },
    "add_workspace_member": lambda w: {
        "workspace_id": w.more["workspace"],
        "member": {"email": "new@example.test"},
    },
    "create_group": lambda w: {"name": "new"},
    "create_workspace": lambda w: {"name": "new"},
    "delete_group": lambda w: {"id": w.more["group"]},
    "delete_workspace": lambda w: {"id": w.more["workspace"]},
    "list_group_members": lambda w: {"group_id": w.more["group"]},
    "list_workspace_members": lambda w: {"workspace_id": w.more["workspace"]},
    "list_workspaces": lambda w: {},
    "remove_group_member": lambda w: {"id": w.more["group member"]},
    "remove_workspace_member": lambda w: {"id": w.more["workspace member"]},
    "rename_group": lambda w: {"id": w.more["group"], "name": "new"},
    "update_workspace_member": lambda w: {"id": w.more["workspace member"], "level": "edit"},
}

PERSONAL = {
    "public.groups",
    "public.group_members",
    "public.workspaces",
    "public.workspace_members",
}
HARMLESS = {"create_group", "create_workspace", "list_workspaces"}
READING = {"list_group_members", "list_workspace_members", "list_workspaces"}
BARE = {"create_group", "create_workspace", "list_workspaces"}
FOREIGN = set(CALLS) - BARE


def fill(drive: Drive, world: World) -> None:
    """A group and a workspace of the owner's, each with somebody who has not come yet."""
    rpc = drive.rpc
    world.more["group"] = rpc(world.owner, "create_group", name=f"{SECRET} fans")["id"]
    world.more["group member"] = rpc(
        world.owner,
        "add_group_member",
        group_id=world.more["group"],
        member={"email": "nobody@example.test"},
    )["id"]
    made = rpc(world.owner, "create_workspace", name=f"{SECRET} watchers")
    world.more["workspace"], world.more["workspace root"] = made["id"], made["root_id"]
    world.more["workspace member"] = rpc(
        world.owner,
        "add_workspace_member",
        workspace_id=made["id"],
        member={"email": "nobody@example.test"},
        level="view",
    )["id"]
