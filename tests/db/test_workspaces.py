"""Workspaces: owners that several people share."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.invariants import UNBALANCED
from tests.db.looks import quota_of

LEVELS = ["view", "comment", "edit", "manage", "owner"]


@pytest.fixture
def workspace(db: Database, drive: Drive) -> tuple[uuid.UUID, Any]:
    """Its first owner, and what create_workspace answered."""
    owner = db.create_user(full_name="Ola")
    return owner, drive.rpc(owner, "create_workspace", name="Atlas")


def _add(drive: Drive, by: uuid.UUID, made: Any, user: uuid.UUID, level: str) -> Any:
    return drive.rpc(
        by,
        "add_workspace_member",
        workspace_id=made["id"],
        member={"user_id": str(user)},
        level=level,
    )


def test_it_has_a_root_a_quota_and_its_maker_as_owner(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    assert made.keys() == {"id", "root_id", "name"}
    (listed,) = drive.rpc(owner, "list_workspaces")["items"]
    assert (listed["name"], listed["level"], listed["members"]) == ("Atlas", "owner", 1)
    assert listed["storage_limit"] == 5 * 2**30
    drive.file(owner, "plan.txt", "the walrus swims", folder_id=made["root_id"])
    assert quota_of(db, made["id"])[0] == 10
    assert quota_of(db, str(owner))[0] == 0  # type: ignore[arg-type]
    assert drive.rpc(owner, "rename_node", id=made["root_id"], name="Atlas 2")
    assert drive.rpc(owner, "list_workspaces")["items"][0]["name"] == "Atlas 2"


@pytest.mark.parametrize("level", LEVELS)
def test_members_have_their_level_on_everything(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any], level: str
) -> None:
    owner, made = workspace
    folder = drive.rpc(owner, "create_folder", name="deep", parent=made["root_id"])["id"]
    member = db.create_user()
    _add(drive, owner, made, member, level)
    assert drive.rpc(member, "effective_access", node=folder)["level"] == level
    why = drive.rpc(member, "why_access", user=member, node=folder)
    assert [(w["via"], w["level"], w["workspace"]["name"]) for w in why["chain"]] == [
        ("workspace", level, "Atlas")
    ]
    for call, arguments, needed in (
        ("create_folder", {"name": "new", "parent": folder}, "edit"),
        ("share_node", {"node": folder, "grantee": {"email": "x@example.test"}}, "manage"),
    ):
        if LEVELS.index(level) >= LEVELS.index(needed):
            drive.rpc(member, call, **arguments)  # type: ignore[arg-type]
        else:
            with refused("FORBIDDEN"):
                drive.rpc(member, call, **arguments)  # type: ignore[arg-type]


def test_nobody_gives_or_takes_above_their_own_level(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    manager, editor, third = (db.create_user() for _ in range(3))
    own = drive.rpc(owner, "list_workspace_members", workspace_id=made["id"])["items"][0]["id"]
    managing = _add(drive, owner, made, manager, "manage")["id"]
    editing = _add(drive, manager, made, editor, "edit")["id"]
    with refused("FORBIDDEN"):
        _add(drive, manager, made, third, "owner")
    with refused("FORBIDDEN"):
        drive.rpc(manager, "remove_workspace_member", id=own)
    with refused("FORBIDDEN"):
        drive.rpc(manager, "update_workspace_member", id=own, level="view")
    with refused("FORBIDDEN"):
        _add(drive, editor, made, third, "view")
    with refused("FORBIDDEN"):
        drive.rpc(editor, "remove_workspace_member", id=managing)
    with refused("INVALID_ARGUMENT", field="level"):
        _add(drive, owner, made, third, "king")
    assert drive.rpc(manager, "update_workspace_member", id=editing, level="manage")
    for call, arguments in (
        ("list_workspace_members", {"workspace_id": made["id"]}),
        ("remove_workspace_member", {"id": managing}),
        ("update_workspace_member", {"id": managing, "level": "view"}),
    ):
        with refused("NOT_FOUND"):
            drive.rpc(third, call, **arguments)


def test_the_last_owner_stays(db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]) -> None:
    owner, made = workspace
    own = drive.rpc(owner, "list_workspace_members", workspace_id=made["id"])["items"][0]["id"]
    for call, arguments in (
        ("remove_workspace_member", {"id": own}),
        ("update_workspace_member", {"id": own, "level": "manage"}),
    ):
        with refused("CONFLICT_STATE"):
            drive.rpc(owner, call, **arguments)
    second = db.create_user()
    _add(drive, owner, made, second, "owner")
    assert drive.rpc(owner, "remove_workspace_member", id=own) == {"removed": True}
    assert drive.rpc(owner, "list_workspaces")["items"] == []


def test_a_removed_member_loses_everything_at_once(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    member = db.create_user()
    row = _add(drive, owner, made, member, "manage")["id"]
    brought = drive.upload(member, "mine.txt", folder_id=made["root_id"])
    ticket = drive.ticket(member, "late.txt", folder_id=made["root_id"])
    link = drive.rpc(member, "create_share_link", node=made["root_id"])
    drive.rpc(owner, "remove_workspace_member", id=row)
    with db.as_user(member):
        for table in ("nodes", "file_versions", "workspaces", "workspace_members"):
            assert db.all(f"select id from public.{table}") == [], table  # type: ignore[arg-type]
        assert db.all("select name from storage.objects") == []
        # control: their own
        assert db.all("select id from public.owners") == [member]
    assert (
        db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "aborted"
    )
    assert quota_of(db, made["id"])[1] == 0
    with refused("GONE", reason="revoked"):
        drive.rpc(None, "open_share_link", token=link["token"])
    assert drive.rpc(owner, "file_details", file_id=brought["file_id"])["level"] == "owner"


def test_a_lowered_member_cannot_end_uploads_that_are_under_way(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    member = db.create_user()
    row = _add(drive, owner, made, member, "edit")["id"]
    ticket = drive.ticket(member, "late.txt", folder_id=made["root_id"])
    drive.rpc(owner, "update_workspace_member", id=row, level="comment")
    assert (
        db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "aborted"
    )


def test_the_root_folder_stays(drive: Drive, workspace: tuple[uuid.UUID, Any]) -> None:
    owner, made = workspace
    other = drive.rpc(owner, "create_workspace", name="Other")
    for call, arguments in (
        ("trash_nodes", {"ids": [made["root_id"]]}),
        ("purge_nodes", {"ids": [made["root_id"]]}),
        ("move_nodes", {"ids": [made["root_id"]], "target": None}),
        ("move_nodes", {"ids": [made["root_id"]], "target": other["root_id"]}),
    ):
        with refused("CONFLICT_STATE"):
            drive.rpc(owner, call, **arguments)  # type: ignore[arg-type]


def test_one_person_makes_so_many_workspaces_and_no_more(db: Database, drive: Drive) -> None:
    db.all("update private.settings set value = '2' where key = 'workspaces.per_user'")
    owner = db.create_user()
    for name in ("one", "two"):
        drive.rpc(owner, "create_workspace", name=name)
    with refused("CONFLICT_STATE", limit=2):
        drive.rpc(owner, "create_workspace", name="three")
    with refused("INVALID_ARGUMENT", field="name"):
        drive.rpc(owner, "create_workspace", name="a/b")


def test_a_deleted_workspace_is_gone_at_once_and_leaves_nothing(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    manager = db.create_user()
    _add(drive, owner, made, manager, "manage")
    ticket = drive.file(owner, "plan.txt", "the walrus swims", folder_id=made["root_id"])
    drive.rendition(ticket["version_id"])
    old = drive.file(owner, "old.txt", "the walrus dives", folder_id=made["root_id"])
    drive.rpc(owner, "trash_nodes", ids=[old["file_id"]])
    drive.ticket(manager, "late.txt", folder_id=made["root_id"])
    other = drive.file(owner, "own.txt", "the walrus sleeps")
    with refused("FORBIDDEN"):
        drive.rpc(manager, "delete_workspace", id=made["id"])
    assert drive.rpc(owner, "delete_workspace", id=made["id"]) == {"deleted": True, "nodes": 4}
    assert quota_of(db, made["id"])[:2] == (0, 0)
    for user in (owner, manager):
        assert drive.rpc(user, "list_workspaces")["items"] == []
        with refused("NOT_FOUND"):
            drive.rpc(user, "file_details", file_id=ticket["file_id"])
    with refused("NOT_FOUND"):
        drive.rpc(owner, "delete_workspace", id=made["id"])
    assert db.all(UNBALANCED) == []
    with db.as_role("narwhal_worker"):
        while db.one("select private.purge_batch(2)"):
            pass
    assert db.all("select id::text from public.nodes") == [other["file_id"]]
    assert db.all("select id from public.owners where kind = 'workspace'") == []
    assert db.one("select count(*) from private.blobs") == 1
    assert db.one("select count(*) from private.object_deletions") == 3


def test_the_next_in_rank_becomes_owner_when_the_last_ones_account_goes(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    editor, older, younger = (db.create_user() for _ in range(3))
    for user, level in ((editor, "edit"), (older, "manage"), (younger, "manage")):
        _add(drive, owner, made, user, level)
    db.all(
        "update public.workspace_members set created_at = now() - interval '1 day'"
        " where user_id = %s",
        older,
    )
    drive.file(owner, "plan.txt", "the walrus swims", folder_id=made["root_id"])
    db.all("delete from auth.users where id = %s", owner)
    levels = db.all("select user_id, level from public.workspace_members")
    assert dict(levels) == {editor: "edit", older: "owner", younger: "manage"}
    assert drive.search(younger, "walrus", embedding=None)["hits"]
    assert db.all(UNBALANCED) == []


def test_a_workspace_goes_with_the_account_of_its_only_member(
    db: Database, drive: Drive, workspace: tuple[uuid.UUID, Any]
) -> None:
    owner, made = workspace
    drive.file(owner, "plan.txt", "the walrus swims", folder_id=made["root_id"])
    db.all("delete from auth.users where id = %s", owner)
    assert db.all("select id from public.workspaces") == []
    drive.clean_up()
    for table in ("public.nodes", "public.owners", "private.blobs", "private.text_vectors"):
        assert db.one(f"select count(*) from {table}") == 0, table  # type: ignore[arg-type]
