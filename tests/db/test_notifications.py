"""Notifications: who is told of what, by which channels, and that nobody else learns of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, denied, refused

ALL_CHANNELS = ["email", "push", "desktop"]


def _folder(drive: Drive, user: uuid.UUID, name: str = "f") -> str:
    return str(drive.rpc(user, "create_folder", name=name)["id"])


def _told(db: Database, user: uuid.UUID) -> list[str]:
    """The kinds of what somebody was told."""
    with db.as_user(user):
        return db.all("select kind from public.notifications order by created_at, kind")


def _rows(db: Database, user: uuid.UUID) -> list[dict[str, Any]]:
    with db.as_user(user):
        return db.all("select to_jsonb(n) from public.notifications as n")


def _as(db: Database, user: uuid.UUID, query: str, *args: object) -> None:
    """Run a statement with a user's claims, as the RPC that will do it."""
    claims = json.dumps({"sub": str(user), "role": "authenticated"})
    db.all("select set_config('request.jwt.claims', %s, true)", claims)
    db.all(query, *args)  # type: ignore[arg-type]
    db.all("select set_config('request.jwt.claims', '', true)")


def _prefer(db: Database, user: uuid.UUID, **wishes: object) -> None:
    with db.as_user(user):
        db.all(
            "update public.user_profiles set preferences = jsonb_set(preferences,"
            " '{notifications}', %s)",
            Jsonb(wishes),
        )


SHARE = "insert into public.shares (node_id, grantee_id, level, granted_by) values (%s, %s, %s, %s)"
SHARE_EMAIL = (
    "insert into public.shares (node_id, grantee_email, level, granted_by) values (%s, %s, %s, %s)"
)
SHARE_GROUP = (
    "insert into public.shares (node_id, group_id, level, granted_by) values (%s, %s, %s, %s)"
)
JOIN = (
    "insert into public.group_members (group_id, user_id, email, added_by) values (%s, %s, %s, %s)"
)
ENTER = (
    "insert into public.workspace_members (workspace_id, user_id, level, added_by)"
    " values (%s, %s, %s, %s)"
)


# Shares -------------------------------------------------------------------------------------------


def test_a_share_tells_its_grantee_what_by_whom_and_how_far(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    folder = _folder(drive, owner, "walrus plans")
    _as(db, owner, SHARE, folder, peer, "edit", owner)
    (row,) = _rows(db, peer)
    share = str(db.one("select id from public.shares"))
    assert row["kind"] == "share_given"
    assert (row["node_id"], row["actor_id"]) == (folder, str(owner))
    assert row["data"] == {"share_id": share, "level": "edit"}
    assert (row["channels"], row["read_at"]) == (ALL_CHANNELS, None)
    assert "walrus" not in json.dumps(row)
    assert _rows(db, owner) == _rows(db, stranger) == []
    with denied(), db.as_user(None):
        db.all("select * from public.notifications")


def test_a_share_that_changes_or_ends_tells_so_and_the_row_stays(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = _folder(drive, owner)
    _as(db, owner, SHARE, folder, peer, "view", owner)
    _as(db, owner, "update public.shares set level = 'view'")  # no change
    assert _told(db, peer) == ["share_given"]
    _as(db, owner, "update public.shares set level = 'edit'")
    _as(db, owner, "delete from public.shares")
    assert _told(db, peer) == ["share_changed", "share_given", "share_revoked"]
    assert {row["actor_id"] for row in _rows(db, peer)} == {str(owner)}
    with db.as_user(peer):  # what it was called is not theirs to know any more
        assert (
            db.all(
                "select n.name from public.notifications as i left join public.nodes as n"
                " on n.id = i.node_id"
            )
            == [None] * 3
        )


def test_a_share_that_has_run_out_is_given_anew(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = _folder(drive, owner)
    _as(db, owner, SHARE, folder, peer, "view", owner)
    db.all("update public.shares set expires_at = now() - interval '1 hour'")
    db.all("update public.shares set level = 'edit'")
    assert _told(db, peer) == ["share_given"]
    db.all("update public.shares set expires_at = now() + interval '1 hour'")
    assert _told(db, peer) == ["share_given", "share_given"]
    db.all("update public.shares set expires_at = now() - interval '1 hour'")
    db.all("delete from public.shares")  # it was over already
    assert _told(db, peer) == ["share_given", "share_given"]


def test_nobody_is_told_what_they_did_themselves(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user("peer@example.test")
    folder = _folder(drive, owner)
    _as(db, peer, SHARE, folder, peer, "view", peer)
    _as(db, peer, SHARE_EMAIL, folder, "peer@example.test", "view", peer)
    _as(db, peer, "delete from public.shares")  # leaving
    file = drive.upload(owner, "a.txt")["file_id"]
    drive.rpc(owner, "set_favourite", node=file)
    said = drive.rpc(owner, "add_comment", node=file, body="x", mentions=[owner])
    drive.rpc(owner, "add_comment", node=file, body="x", reply_to=said["id"])
    drive.upload(owner, "a.txt", file_id=file)
    assert db.all("select kind from public.notifications") == []


def test_an_address_tells_its_account_and_the_sharer_nothing(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user("Peer@Example.test")
    folder = _folder(drive, owner)
    for address in ("peer@example.test", "nobody@example.test"):
        _as(db, owner, SHARE_EMAIL, folder, address, "view", owner)
    assert _told(db, peer) == ["share_given"]
    assert _told(db, owner) == []
    with db.as_user(owner):  # both rows look alike
        seen = db.all("select to_jsonb(s) - 'id' - 'grantee_email' from public.shares as s")
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_an_address_that_is_confirmed_later_is_told_then(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder, trashed = _folder(drive, owner), _folder(drive, owner, "trashed")
    over = _folder(drive, owner, "over")
    for node in (folder, trashed, over):
        _as(db, owner, SHARE_EMAIL, node, "new@example.test", "view", owner)
    db.all("update public.shares set expires_at = now() where node_id = %s", over)
    drive.rpc(owner, "trash_nodes", ids=[trashed])
    group = db.one("insert into public.groups (name) values ('g') returning id")
    db.all(JOIN, group, None, "new@example.test", owner)
    peer = uuid.uuid4()
    db.all(
        "insert into auth.users (id, aud, role, email) values (%s, 'a', 'a', 'New@example.test')",
        peer,
    )
    assert _told(db, peer) == []  # anybody could claim it
    db.all("update auth.users set email_confirmed_at = now() where id = %s", peer)
    assert sorted(_told(db, peer)) == ["group_added", "share_given"]
    (row,) = [row for row in _rows(db, peer) if row["kind"] == "share_given"]
    assert (row["node_id"], row["actor_id"]) == (folder, str(owner))
    db.all("update auth.users set email_confirmed_at = now() where id = %s", peer)
    assert len(_told(db, peer)) == 2  # once


def test_who_signs_up_confirmed_or_changes_the_address_is_told(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = _folder(drive, owner)
    for address in ("first@example.test", "second@example.test"):
        _as(db, owner, SHARE_EMAIL, folder, address, "view", owner)
    peer = db.create_user("first@example.test")
    assert _told(db, peer) == ["share_given"]
    db.all("update auth.users set email = 'second@example.test' where id = %s", peer)
    assert _told(db, peer) == ["share_given", "share_given"]


def test_a_row_that_a_newer_one_replaces_is_not_told_as_an_end(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user("first@example.test")
    folder = _folder(drive, owner)
    change = "update auth.users set email = %s where id = %s"
    _as(db, owner, SHARE_EMAIL, folder, "first@example.test", "view", owner)
    db.all(change, "second@example.test", peer)  # the share stays theirs
    _as(db, owner, SHARE_EMAIL, folder, "first@example.test", "edit", owner)
    db.all(change, "first@example.test", peer)
    assert db.one("select count(*) from public.shares") == 2
    db.all(change, "third@example.test", peer)
    assert db.one("select count(*) from public.shares") == 1
    assert _told(db, peer) == ["share_given", "share_given"]


def test_a_share_with_a_group_tells_its_members(db: Database, drive: Drive) -> None:
    owner, member, outsider = (db.create_user() for _ in range(3))
    by_address = db.create_user("member@example.test")
    group = db.one("insert into public.groups (name) values ('g') returning id")
    for user, email in ((owner, None), (member, None), (None, "member@example.test")):
        _as(db, owner, JOIN, group, user, email, owner)
    folder = _folder(drive, owner)
    _as(db, owner, SHARE_GROUP, folder, group, "view", owner)
    for user in (member, by_address):
        assert sorted(_told(db, user)) == ["group_added", "share_given"]
        (row,) = [row for row in _rows(db, user) if row["kind"] == "share_given"]
        assert row["data"]["group_id"] == str(group)
    assert _told(db, owner) == _told(db, outsider) == []
    _as(db, owner, "delete from public.group_members where user_id = %s", member)
    _as(db, owner, "delete from public.shares")
    assert sorted(_told(db, member)) == ["group_added", "group_removed", "share_given"]
    assert sorted(_told(db, by_address)) == ["group_added", "share_given", "share_revoked"]


def test_what_goes_as_a_whole_is_not_told_piece_by_piece(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    group = db.one("insert into public.groups (name) values ('g') returning id")
    _as(db, owner, JOIN, group, peer, None, owner)
    one, two = _folder(drive, owner, "one"), _folder(drive, owner, "two")
    _as(db, owner, SHARE_GROUP, one, group, "view", owner)
    _as(db, owner, SHARE, two, peer, "view", owner)
    _as(db, owner, "delete from public.nodes where id = %s", two)
    _as(db, owner, "delete from public.groups")
    assert sorted(_told(db, peer)) == ["group_added", "share_given"]
    # and nobody is left to be told
    _as(db, owner, SHARE, one, peer, "view", owner)
    db.all("delete from auth.users where id = %s", peer)
    assert db.all("select * from public.notifications") == []


def test_members_of_a_workspace_are_told(db: Database, drive: Drive) -> None:
    owner, member = db.create_user(), db.create_user()
    workspace = db.one(
        "insert into public.owners (id, kind, storage_limit)"
        " values (gen_random_uuid(), 'workspace', 1000) returning id"
    )
    db.all("insert into public.workspaces (id) values (%s)", workspace)
    for user, level in ((owner, "owner"), (member, "view")):
        _as(db, owner, ENTER, workspace, user, level, owner)
    change = "update public.workspace_members set level = 'edit' where user_id = %s"
    _as(db, owner, change, member)
    _as(db, owner, change, member)
    _as(db, owner, "delete from public.workspace_members where user_id = %s", member)
    assert sorted(_told(db, member)) == [
        "workspace_added",
        "workspace_changed",
        "workspace_removed",
    ]
    assert {row["data"]["workspace_id"] for row in _rows(db, member)} == {str(workspace)}
    assert _told(db, owner) == []


# Comments and versions ----------------------------------------------------------------------------


def test_a_comment_tells_the_owner_and_who_is_answered_and_mentioned(
    db: Database, drive: Drive
) -> None:
    owner, first, second, third, stranger = (db.create_user() for _ in range(5))
    folder = _folder(drive, owner)
    for user in (first, second, third):
        drive.share(folder, user, "comment")
    db.all("delete from public.notifications")

    def say(user: uuid.UUID, **more: Any) -> str:
        return str(drive.rpc(user, "add_comment", node=folder, body="x", **more)["id"])

    said = say(first)
    assert _told(db, owner) == ["comment_added"]
    answer = say(second, reply_to=said)
    assert _told(db, first) == ["comment_replied"]
    say(third, reply_to=answer)  # both who is answered and who began
    assert _told(db, first) == ["comment_replied"] * 2
    assert _told(db, second) == ["comment_replied"]
    assert _told(db, owner) == ["comment_added"] * 3
    (row, *_) = _rows(db, second)
    assert row["data"]["parent_id"] == said
    db.all("delete from public.notifications")
    # once each, for what concerns them most; who cannot read it hears nothing
    say(second, reply_to=said, mentions=[owner, third, third, stranger, uuid.uuid4(), second])
    assert _told(db, owner) == _told(db, third) == ["comment_mentioned"]
    assert _told(db, first) == ["comment_replied"]
    assert _told(db, second) == _told(db, stranger) == []


def test_who_can_no_longer_read_is_not_told_of_answers(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = _folder(drive, owner)
    drive.share(folder, peer, "comment")
    said = drive.rpc(peer, "add_comment", node=folder, body="x")["id"]
    db.all("delete from public.shares")
    db.all("delete from public.notifications")
    drive.rpc(owner, "add_comment", node=folder, body="x", reply_to=said, mentions=[peer])
    assert db.all("select * from public.notifications") == []


def test_too_many_mentions_are_refused(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="mentions"):
        drive.rpc(
            owner,
            "add_comment",
            node=_folder(drive, owner),
            body="x",
            mentions=[uuid.uuid4() for _ in range(51)],
        )


def test_in_a_workspace_who_made_a_node_is_told(db: Database, drive: Drive) -> None:
    maker, member = db.create_user(), db.create_user()
    workspace = db.one(
        "insert into public.owners (id, kind, storage_limit)"
        " values (gen_random_uuid(), 'workspace', 1000) returning id"
    )
    db.all("insert into public.workspaces (id) values (%s)", workspace)
    for user in (maker, member):
        db.all(
            "insert into public.workspace_members (workspace_id, user_id, level)"
            " values (%s, %s, 'edit')",
            workspace,
            user,
        )
    node = db.one(
        "insert into public.nodes (id, kind, name, owner_id, path, created_by)"
        " select id, 'folder', 'x', %s, array[id], %s from gen_random_uuid() as id returning id",
        workspace,
        maker,
    )
    db.all("delete from public.notifications")
    drive.rpc(member, "add_comment", node=node, body="x")
    assert _told(db, maker) == ["comment_added"]
    assert _told(db, member) == []


def test_a_new_version_tells_whose_file_and_whose_favourite_it_is(
    db: Database, drive: Drive
) -> None:
    owner, editor, fan, gone, other = (db.create_user() for _ in range(5))
    file = drive.upload(owner, "a.txt")["file_id"]
    for user in (editor, fan, gone, other):
        drive.share(file, user, "edit")
    for user in (editor, fan, gone):
        drive.rpc(user, "set_favourite", node=file)
    db.all("delete from public.shares where grantee_id = %s", gone)
    db.all("delete from public.notifications")
    version = drive.upload(editor, "a.txt", file_id=file)["version_id"]
    for user in (owner, fan):
        (row,) = _rows(db, user)
        assert (row["kind"], row["node_id"]) == ("version_added", file)
        assert row["actor_id"] == str(editor)
        assert row["data"] == {"version_id": version, "no": 2}
    for user in (editor, gone, other):
        assert _told(db, user) == []


# Preferences --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "channels"),
    [
        ({}, ALL_CHANNELS),
        ({"email": False}, ["push", "desktop"]),
        ({"email": True, "push": False, "desktop": False}, ["email"]),
        ({"email": False, "push": False, "desktop": False}, []),
    ],
)
def test_channels_are_those_that_were_not_turned_off(
    db: Database, drive: Drive, wishes: dict[str, bool], channels: list[str]
) -> None:
    owner, peer = db.create_user(), db.create_user()
    _prefer(db, peer, **wishes)
    drive.share(_folder(drive, owner), peer)
    (row,) = _rows(db, peer)
    assert row["channels"] == channels


def test_without_preferences_all_channels_are_on(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    with db.as_user(peer):
        db.all("update public.user_profiles set preferences = '{}'")
    drive.share(_folder(drive, owner), peer)
    (row,) = _rows(db, peer)
    assert row["channels"] == ALL_CHANNELS


def test_a_kind_that_is_muted_makes_no_row(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    _prefer(db, peer, muted=["share_given"])
    _prefer(db, owner, muted=["comment_mentioned"])
    folder = _folder(drive, owner)
    drive.share(folder, peer, "comment")
    assert _told(db, peer) == []
    db.all("update public.shares set level = 'edit'")
    assert _told(db, peer) == ["share_changed"]
    # what is not muted still counts
    drive.rpc(peer, "add_comment", node=folder, body="x", mentions=[owner])
    assert _told(db, owner) == ["comment_added"]


@pytest.mark.parametrize("muted", ["share_given", ["unknown"], [1], [["share_given"]], {}, None])
def test_only_kinds_that_there_are_can_be_muted(db: Database, muted: object) -> None:
    user = db.create_user()
    field = "preferences.notifications.muted"
    with refused("INVALID_ARGUMENT", field=field) as found:
        _prefer(db, user, muted=muted)
    _prefer(db, user, muted=found["expected"])
    _prefer(db, user, muted=[])


def test_every_kind_can_be_told(db: Database) -> None:
    user = db.create_user()
    for kind in db.one("select private.notification_kinds()"):
        db.all("select private.notify(array[%s]::uuid[], %s, null, null, '{}')", user, kind)
    assert sorted(_told(db, user)) == sorted(db.one("select private.notification_kinds()"))
    with denied("23514"):
        db.all("select private.notify(array[%s]::uuid[], 'unknown', null, null, '{}')", user)


# Reading, deleting, forgetting --------------------------------------------------------------------


@pytest.fixture
def two(db: Database, drive: Drive) -> tuple[uuid.UUID, uuid.UUID]:
    """Two people with three notifications each."""
    owner, one, other = (db.create_user() for _ in range(3))
    for name in "abc":
        folder = _folder(drive, owner, name)
        drive.share(folder, one)
        drive.share(folder, other)
    return one, other


def _ids(db: Database, user: uuid.UUID) -> list[str]:
    return [row["id"] for row in _rows(db, user)]


def test_notifications_are_marked_read_by_their_user_only(
    db: Database, drive: Drive, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    one, other = two
    mine, theirs = _ids(db, one), _ids(db, other)
    answer = drive.rpc(one, "mark_notifications_read", ids=[mine[0], theirs[0]])
    assert answer == {"marked": 1, "unread": 2}
    assert all(row["read_at"] is None for row in _rows(db, other))
    answer = drive.rpc(one, "mark_notifications_read", ids=[mine[0]])
    assert answer == {"marked": 0, "unread": 2}
    assert drive.rpc(one, "mark_notifications_read", ids=[]) == {"marked": 0, "unread": 2}
    assert drive.rpc(one, "mark_notifications_read") == {"marked": 2, "unread": 0}
    assert all(row["read_at"] is not None for row in _rows(db, one))
    assert drive.rpc(other, "mark_notifications_read", ids=mine) == {"marked": 0, "unread": 3}
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "mark_notifications_read")


def test_notifications_are_deleted_by_their_user_only(
    db: Database, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    one, other = two
    mine, theirs = _ids(db, one), _ids(db, other)
    with db.as_user(one):
        gone = db.all(
            "delete from public.notifications where id = any(%s::uuid[]) returning id::text",
            [mine[0], *theirs],
        )
    assert gone == [mine[0]]
    assert len(_ids(db, other)) == 3
    with denied(), db.as_user(None):
        db.all("delete from public.notifications")
    for statement in (
        "update public.notifications set read_at = now()",
        "insert into public.notifications (user_id, kind) select user_id, kind"
        " from public.notifications",
    ):
        with denied(), db.as_user(one):
            db.connection.execute(statement)  # type: ignore[arg-type]


def test_a_closed_account_sees_and_deletes_nothing(
    db: Database, drive: Drive, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    one, _ = two
    db.all("update public.user_profiles set is_active = false where id = %s", one)
    with db.as_user(one):
        assert db.all("select * from public.notifications") == []
        assert db.all("delete from public.notifications returning id") == []
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(one, "mark_notifications_read")
    db.all("update public.user_profiles set is_active = true where id = %s", one)
    assert len(_ids(db, one)) == 3  # they are kept


def test_a_viewer_reads_and_marks_their_own(
    db: Database, drive: Drive, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    one, _ = two
    db.all("update public.user_profiles set role = 'viewer' where id = %s", one)
    assert drive.rpc(one, "mark_notifications_read") == {"marked": 3, "unread": 0}
    with db.as_user(one):
        assert len(db.all("delete from public.notifications returning id")) == 3


def test_notifications_are_forgotten_after_the_days_that_are_set(
    db: Database, two: tuple[uuid.UUID, uuid.UUID]
) -> None:
    one, other = two
    age = "update public.notifications set created_at = now() - %s::interval where user_id = %s"
    db.all(age, "91 days", one)
    db.all(age, "89 days", other)
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_notifications()") == 3
        assert db.one("select private.expire_notifications()") == 0
    assert (_ids(db, one), len(_ids(db, other))) == ([], 3)
    db.all("update private.settings set value = '30' where key = 'notifications.keep_days'")
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_notifications()") == 3


def test_telling_somebody_whose_account_is_being_deleted_waits_for_nothing(
    connect: Callable[[], Drive],
) -> None:
    drive, leaving = connect(), connect()
    db = drive.db
    owner, peer, fan = (db.create_user() for _ in range(3))
    file = drive.upload(owner, "a.txt")["file_id"]
    for user in (peer, fan):
        drive.share(file, user, "edit")
        drive.rpc(user, "set_favourite", node=file)
    db.all("delete from public.notifications")
    with leaving.db.connection.transaction():
        leaving.db.all("delete from auth.users where id = %s", fan)
        db.all("set lock_timeout = '2s'")
        drive.upload(peer, "a.txt", file_id=file)
        drive.rpc(owner, "add_comment", node=file, body="x", mentions=[fan, peer])
    assert sorted(db.all("select user_id::text from public.notifications")) == sorted(
        [str(owner), str(peer)]
    )


def test_marking_and_deleting_at_once_meets_no_deadlock(connect: Callable[[], Drive]) -> None:
    drive = connect()
    db = drive.db
    user = db.create_user()
    outcomes: list[object] = []

    def tidy(party: tuple[Drive, int]) -> None:
        mine, turn = party
        for i in range(30):
            try:
                mine.db.all(
                    "insert into public.notifications (user_id, kind)"
                    " select %s, 'share_given' from generate_series(1, 20)",
                    user,
                )
                if turn == 0:
                    mine.rpc(user, "mark_notifications_read")
                elif turn == 1:
                    order = "select id from public.notifications order by md5(id::text || %s)"
                    mine.rpc(user, "mark_notifications_read", ids=mine.db.all(order, i))
                elif turn == 2:
                    mine.db.all("select private.expire_notifications()")
                    mine.db.all(
                        "update public.notifications set created_at = '2000-01-01'"
                        " where id = (select id from public.notifications limit 1)"
                    )
                else:
                    with mine.db.as_user(user):
                        mine.db.all("delete from public.notifications where read_at is not null")
                outcomes.append("done")
            except psycopg.Error as error:
                outcomes.append(error.sqlstate)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tidy, [(connect(), turn) for turn in range(4)]))
    assert outcomes == ["done"] * 120
