"""Groups: who manages them, who is in them, and what that opens."""

from __future__ import annotations

import uuid

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused


@pytest.fixture
def team(db: Database, drive: Drive) -> tuple[uuid.UUID, uuid.UUID, str]:
    """A manager, a member, and their group."""
    manager, member = db.create_user(full_name="Mia"), db.create_user(full_name="Max")
    group = drive.rpc(manager, "create_group", name="Team / one")["id"]
    drive.rpc(manager, "add_group_member", group_id=group, member={"user_id": str(member)})
    return manager, member, group


def _row(drive: Drive, user: uuid.UUID, group: str, of: uuid.UUID) -> str:
    items = drive.rpc(user, "list_group_members", group_id=group)["items"]
    return next(i["id"] for i in items if i.get("user", {}).get("id") == str(of))  # type: ignore[no-any-return]


def test_members_see_the_group_and_one_anothers_public_facts(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    drive.rpc(manager, "add_group_member", group_id=group, member={"email": " New@Example.test "})
    items = drive.rpc(member, "list_group_members", group_id=group)["items"]
    items.sort(key=lambda i: str(i.get("user", {}).get("full_name", "")), reverse=True)
    assert [(i.get("user", i.get("email")), i["is_manager"], i["is_me"]) for i in items] == [
        ({"id": str(manager), "full_name": "Mia", "avatar_url": None}, True, False),
        ({"id": str(member), "full_name": "Max", "avatar_url": None}, False, True),
        ("new@example.test", False, False),
    ]
    with db.as_user(member):
        assert db.all("select name from public.groups") == ["Team / one"]


def test_an_address_is_answered_alike_with_and_without_an_account(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, _, group = team
    db.create_user("known@example.test")
    answers = [
        drive.rpc(manager, "add_group_member", group_id=group, member={"email": email})
        for email in ("known@example.test", "unknown@example.test")
    ]
    for answer in answers:
        del answer["id"], answer["created_at"], answer["email"]
    assert answers[0] == answers[1]


def test_only_managers_change_it_and_nobody_else_knows_it(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    row = _row(drive, manager, group, manager)
    for user, error in ((member, "FORBIDDEN"), (db.create_user(), "NOT_FOUND")):
        for call, arguments in {
            "rename_group": {"id": group, "name": "x"},
            "delete_group": {"id": group},
            "add_group_member": {"group_id": group, "member": {"email": "a@example.test"}},
            "remove_group_member": {"id": row},
        }.items():
            with refused(error):
                drive.rpc(user, call, **arguments)  # type: ignore[arg-type]
    assert drive.rpc(manager, "rename_group", id=group, name="Two")["name"] == "Two"


@pytest.mark.parametrize(
    "person",
    [
        {},
        {"email": "no address"},
        {"email": "a@b"},
        {"email": "a b@example.test"},
        {"email": None},
        {"email": 5},
        {"user_id": "x"},
        {"name": "x"},
        {"email": "a@example.test", "user_id": str(uuid.uuid4())},
    ],
)
def test_what_names_nobody_is_refused(
    drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str], person: dict[str, object]
) -> None:
    manager, _, group = team
    with refused("INVALID_ARGUMENT") as details:
        drive.rpc(manager, "add_group_member", group_id=group, member=person)
    assert details["field"].startswith("member")


def test_an_id_that_nobody_has_is_not_found(
    drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, _, group = team
    with refused("NOT_FOUND"):
        drive.rpc(
            manager, "add_group_member", group_id=group, member={"user_id": str(uuid.uuid4())}
        )


def test_a_member_may_leave_and_the_last_manager_may_not(
    drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    own = _row(drive, manager, group, manager)
    with refused("CONFLICT_STATE"):
        drive.rpc(manager, "remove_group_member", id=own)
    with refused("CONFLICT_STATE"):
        drive.rpc(
            manager,
            "add_group_member",
            group_id=group,
            member={"user_id": str(manager)},
            is_manager=False,
        )
    drive.rpc(
        manager,
        "add_group_member",
        group_id=group,
        member={"user_id": str(member)},
        is_manager=True,
    )
    assert drive.rpc(manager, "remove_group_member", id=own)["removed"]
    with refused("NOT_FOUND"):
        drive.rpc(manager, "list_group_members", group_id=group)


def test_a_viewer_may_leave_but_not_manage(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    db.all("update public.user_profiles set role = 'viewer' where id in (%s, %s)", manager, member)
    with refused("FORBIDDEN"):
        drive.rpc(manager, "rename_group", id=group, name="x")
    assert drive.rpc(member, "remove_group_member", id=_row(drive, member, group, member))[
        "removed"
    ]


def test_what_is_shared_with_a_group_closes_to_whoever_leaves_at_once(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    folder = drive.rpc(manager, "create_folder", name="shared")["id"]
    drive.rpc(manager, "share_node", node=folder, grantee={"group_id": group}, level="manage")
    ticket = drive.ticket(member, "new.txt", folder_id=folder)
    link = drive.rpc(member, "create_share_link", node=folder)
    assert drive.rpc(member, "list_folder", folder=folder)["items"]
    drive.rpc(manager, "remove_group_member", id=_row(drive, manager, group, member))
    with refused("NOT_FOUND"):
        drive.rpc(member, "list_folder", folder=folder)
    with db.as_user(member):
        assert db.all("select id from public.nodes") == []
    assert (
        db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "aborted"
    )
    with refused("GONE", reason="revoked"):
        drive.rpc(None, "open_share_link", token=link["token"])


def test_a_deleted_group_takes_its_shares_along(
    db: Database, drive: Drive, team: tuple[uuid.UUID, uuid.UUID, str]
) -> None:
    manager, member, group = team
    folder = drive.rpc(manager, "create_folder", name="shared")["id"]
    drive.rpc(manager, "share_node", node=folder, grantee={"group_id": group}, level="edit")
    ticket = drive.ticket(member, "new.txt", folder_id=folder)
    assert drive.rpc(manager, "delete_group", id=group) == {"deleted": True, "links_revoked": 0}
    assert drive.rpc(manager, "list_shares", node=folder)["items"] == []
    assert (
        db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "aborted"
    )
    assert db.one("select storage_reserved from public.owners where id = %s", manager) == 0


def test_a_changed_address_keeps_what_it_was_given(db: Database, drive: Drive) -> None:
    """Nor does whoever confirms the old address next get any of it."""
    manager, member = db.create_user(), db.create_user("old@example.test")
    group = drive.rpc(manager, "create_group", name="Team")["id"]
    drive.rpc(manager, "add_group_member", group_id=group, member={"email": "old@example.test"})
    db.all("update auth.users set email = 'new@example.test' where id = %s", member)
    heir = db.create_user("old@example.test")
    assert drive.rpc(member, "list_group_members", group_id=group)["items"]
    with refused("NOT_FOUND"):
        drive.rpc(heir, "list_group_members", group_id=group)
    # the manager sees the address that they gave, and may invite its new holder
    items = drive.rpc(manager, "list_group_members", group_id=group)["items"]
    assert "old@example.test" in [i.get("email") for i in items]


def test_the_oldest_member_manages_when_the_last_managers_account_goes(
    db: Database, drive: Drive
) -> None:
    manager, member = db.create_user(), db.create_user()
    group = drive.rpc(manager, "create_group", name="fans")["id"]
    drive.rpc(manager, "add_group_member", group_id=group, member={"user_id": str(member)})
    db.all("delete from auth.users where id = %s", manager)
    assert db.all("select user_id, is_manager from public.group_members") == [(member, True)]
    db.all("delete from auth.users where id = %s", member)
    assert db.all("select id from public.groups") == []
