"""The audit log: who is named, what is told, who reads it, and that nobody changes it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, RolledBackError, denied, refused
from tests.db.surfaces import World, calls, gather
from tests.db.test_isolation import world  # noqa: F401

HEADERS = {
    "x-forwarded-for": "203.0.113.9, 10.0.0.1",
    "user-agent": "narwhal-test/1.0",
    "x-request-id": "request-1",
    "authorization": "Bearer secret",
}


def headers(db: Database, **values: str) -> None:
    """As if the rest of the transaction were a request with these headers."""
    db.all("select set_config('request.headers', %s, true)", json.dumps(values))


def rows(db: Database, *actions: str, after: int = 0) -> list[dict[str, Any]]:
    """The audit rows of these actions (of all without any), oldest first."""
    return db.all(
        "select to_jsonb(a) from public.audit_logs as a"
        " where a.id > %s and (%s::text[] = '{}' or a.action = any(%s)) order by a.id",
        after,
        list(actions),
        list(actions),
    )


def last(db: Database) -> int:
    """The newest row's id."""
    return db.one("select coalesce(max(id), 0) from public.audit_logs")  # type: ignore[no-any-return]


def row(db: Database, action: str) -> dict[str, Any]:
    """The only row of an action."""
    (found,) = rows(db, action)
    return found  # type: ignore[no-any-return]


# Who ----------------------------------------------------------------------------------------------


def test_a_user_is_named_with_address_agent_and_request(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    headers(db, **HEADERS)
    folder = drive.rpc(owner, "create_folder", name="Plans")
    found = row(db, "create_folder")
    assert found | {"id": 0, "at": ""} == {
        "id": 0,
        "at": "",
        "actor": f"user:{owner}",
        "actor_id": str(owner),
        "on_behalf_of": None,
        "action": "create_folder",
        "node_id": folder["id"],
        "owner_id": str(owner),
        "before": None,
        "after": {"name": "Plans", "parent_id": None},
        "details": {"kind": "folder"},
        "ip": "203.0.113.9",
        "user_agent": "narwhal-test/1.0",
        "request_id": "request-1",
    }


def test_an_agent_is_named_with_the_user_it_acts_for(db: Database, drive: Drive) -> None:
    owner, agent = db.create_user(), uuid.uuid4()
    with db.as_user(owner, act={"sub": f"agent:{agent}"}):
        db.one("select (public.create_folder('Plans')).id")
    found = row(db, "create_folder")
    assert (found["actor"], found["actor_id"]) == (f"agent:{agent}", str(agent))
    assert found["on_behalf_of"] == str(owner)


@pytest.mark.parametrize("act", [{"sub": "agent:1"}, {"sub": "service"}, {}, "agent", None])
def test_a_claim_that_names_no_agent_leaves_the_user(db: Database, act: object) -> None:
    owner = db.create_user()
    with db.as_user(owner, act=act):
        db.one("select (public.create_folder('Plans')).id")
    assert row(db, "create_folder")["actor"] == f"user:{owner}"


def test_storage_completes_on_behalf_of_the_tickets_holder(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    headers(db, **HEADERS)
    ticket = drive.upload(owner, "a.txt", size=10)
    begun, made = row(db, "begin_upload"), row(db, "create_version")
    assert (begun["actor"], begun["details"]) == (
        f"user:{owner}",
        {"upload_id": ticket["upload_id"]},
    )
    assert (made["actor"], made["actor_id"], made["on_behalf_of"]) == ("service", None, str(owner))
    assert made["details"] == {"version_id": ticket["version_id"]}
    assert made["after"] == {"no": 1, "size": 10}
    assert made["ip"] == "203.0.113.9"


def test_a_worker_is_named(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "a.txt")
    (job,) = drive.claim()
    drive.work("fail_job", job, "infected", "A virus.", True)
    found = row(db, "reject_version")
    assert (found["actor"], found["actor_id"]) == ("worker", None)
    assert found["details"] == {"version_id": ticket["version_id"], "error_code": "infected"}
    assert found["owner_id"] == str(owner)


def test_ingestion_that_goes_well_leaves_no_rows(db: Database, drive: Drive) -> None:
    drive.upload(db.create_user(), "a.txt")
    before = last(db)
    drive.ingest("alpha", "bravo")
    assert rows(db, after=before) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7 ,10.0.0.1", "198.51.100.7"),
        ("198.51.100.7:4711", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.0/8", None),
        ("unknown", None),
        ("999.1.1.1", None),
        ("'; drop table x; --", None),
        ("", None),
        ("1" * 10_000, None),
    ],
)
def test_only_an_address_counts_as_one(db: Database, header: str, expected: str | None) -> None:
    headers(db, **{"x-forwarded-for": header})
    assert db.one("select host(private.client_ip())") == expected


def test_headers_are_cut_and_never_stop_a_write(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    headers(db, **{"user-agent": "x" * 5000, "x-request-id": "y" * 5000})
    drive.rpc(owner, "create_folder", name="a")
    found = row(db, "create_folder")
    assert (found["user_agent"], found["request_id"]) == ("x" * 500, "y" * 200)
    for broken in ("not json", '{"user-agent": "\\u0000"}', "[]", "1"):
        db.all("select set_config('request.headers', %s, true)", broken)
        assert db.one("select private.request_header('user-agent', 10)") is None


# What: nodes --------------------------------------------------------------------------------------


def tree(db: Database, owner: uuid.UUID, count: int) -> tuple[str, str]:
    """A root folder, in it a folder with `count` files; returns both folders' ids."""
    root, folder = uuid.uuid4(), uuid.uuid4()
    db.all(
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path) values"
        " (%s, 'folder', 'root', null, %s, array[%s::uuid]),"
        " (%s, 'folder', 'big', %s, %s, array[%s, %s]::uuid[])",
        *(root, owner, root, folder, root, owner, root, folder),
    )
    db.all(
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path)"
        " select f.id, 'file', f.id::text, %s, %s, array[%s, %s, f.id]::uuid[]"
        " from (select gen_random_uuid() as id from generate_series(1, %s)) as f",
        *(folder, owner, root, folder, count),
    )
    return str(root), str(folder)


def test_a_tree_that_moves_to_the_trash_is_one_row(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    root, _ = tree(db, owner, 500)
    before = last(db)
    drive.rpc(owner, "trash_nodes", ids=[root])
    (found,) = rows(db, after=before)
    assert (found["action"], found["node_id"]) == ("trash", root)
    assert found["details"] == {"kind": "folder", "nodes": 502}
    assert found["before"] == {"name": "root", "parent_id": None}


def test_each_root_of_a_batch_is_a_row(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ids = [drive.rpc(owner, "create_folder", name=name)["id"] for name in "abc"]
    inner = drive.rpc(owner, "create_folder", name="d", parent=ids[0])["id"]
    drive.rpc(owner, "trash_nodes", ids=[*ids, inner])
    assert {found["node_id"] for found in rows(db, "trash")} == set(ids)


def test_a_tree_made_at_once_is_one_row(db: Database) -> None:
    owner = db.create_user()
    before = last(db)
    root, _ = tree(db, owner, 0)
    (found,) = rows(db, after=before)
    assert (found["action"], found["node_id"]) == ("create_folder", root)


def test_renames_and_moves_tell_what_changed(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    other = drive.rpc(owner, "create_folder", name="b")["id"]
    drive.rpc(owner, "rename_node", id=folder, name="A")
    found = row(db, "rename")
    assert (found["before"], found["after"]) == ({"name": "a"}, {"name": "A"})
    drive.rpc(owner, "move_nodes", ids=[folder], target=other)
    found = row(db, "move")
    assert (found["before"], found["after"]) == ({"parent_id": None}, {"parent_id": other})
    assert found["node_id"] == folder


def test_a_node_that_changes_hands_is_told_to_both_owners(db: Database) -> None:
    owner, heir = db.create_user(), db.create_user()
    _, folder = tree(db, owner, 3)
    before = last(db)
    # a move between owners, in one statement
    db.all(
        "update public.nodes set owner_id = %s, path = path[2:],"
        " parent_id = case when id = %s then null else parent_id end where path @> array[%s::uuid]",
        *(heir, folder, folder),
    )
    found = {entry["action"]: entry for entry in rows(db, after=before)}
    assert found.keys() == {"move", "transfer"}
    assert found["move"]["owner_id"] == str(owner)
    assert found["transfer"]["owner_id"] == str(heir)
    assert found["transfer"]["before"] == {"owner_id": str(owner)}
    assert {entry["node_id"] for entry in found.values()} == {folder}


def test_an_account_that_goes_is_told_with_its_tree(db: Database) -> None:
    owner = db.create_user()
    root, _ = tree(db, owner, 3)
    before = last(db)
    db.all("delete from auth.users where id = %s", owner)
    found = {entry["action"]: entry for entry in rows(db, after=before)}
    assert found.keys() == {"delete_account", "purge"}
    assert found["purge"]["node_id"] == root
    assert found["purge"]["before"] == {"name": "root", "parent_id": None}
    assert row(db, "create_account")["owner_id"] == str(owner)  # rows outlive what they tell about


def test_the_plan_for_one_row_is_not_kept_for_many(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for name in "abcdefgh":
        drive.rpc(owner, "create_folder", name=name)
        drive.rpc(owner, "trash_nodes", ids=[rows(db, "create_folder")[-1]["node_id"]])
    root, _ = tree(db, owner, 20_000)
    db.all("set local statement_timeout = '10s'")  # nested loops would take minutes
    drive.rpc(owner, "trash_nodes", ids=[root])
    assert rows(db, "trash")[-1]["details"]["nodes"] == 20_002


def test_a_copied_tree_is_told_of_the_copy_and_of_its_source(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    for name in ("1.txt", "2.txt"):
        drive.file(owner, name, "alpha", folder_id=folder)
    drive.share(folder, peer)
    before = last(db)
    copied = drive.rpc(peer, "copy_nodes", ids=[folder])["items"][0]["id"]
    found = {entry["action"]: entry for entry in rows(db, after=before)}
    assert found.keys() == {"create_folder", "copy"}
    assert found["create_folder"]["node_id"] == copied
    assert found["create_folder"]["owner_id"] == str(peer)
    assert found["copy"]["node_id"] == folder
    assert found["copy"]["owner_id"] == str(owner)
    assert found["copy"]["actor"] == f"user:{peer}"
    assert found["copy"]["details"] == {"copy_id": copied}


def test_a_version_with_earlier_bytes_is_a_restored_one(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.file(owner, "a.txt", "alpha")
    second = drive.upload(owner, "a.txt", on_conflict="version")
    drive.ingest("bravo")
    with db.as_user(owner):
        db.connection.execute("set session authorization postgres")
        third = db.one(
            "select private.append_version(%s, %s, %s)",
            *(ticket["file_id"], ticket["version_id"], owner),
        )
    created = rows(db, "create_version")
    assert [entry["details"]["version_id"] for entry in created] == [
        ticket["version_id"],
        second["version_id"],
    ]
    assert row(db, "restore_version")["details"] == {
        "version_id": str(third),
        "source_version_id": ticket["version_id"],
    }


# What: everything else ----------------------------------------------------------------------------


def test_uploads_given_up_are_told_and_those_that_a_trash_stops_are_not(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    ticket = drive.ticket(owner, "a.txt", folder_id=folder)
    drive.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
    found = row(db, "abort_upload")
    assert (found["before"], found["after"]) == ({"state": "open"}, {"state": "aborted"})
    assert rows(db, "purge") == []  # the file that waited was never there
    drive.ticket(owner, "b.txt", folder_id=folder)
    drive.rpc(owner, "trash_nodes", ids=[folder])
    assert len(rows(db, "abort_upload")) == 1


def test_roles_activity_and_quota_are_told(db: Database) -> None:
    user = db.create_user()
    db.all("update public.user_profiles set role = 'viewer' where id = %s", user)
    db.all("update public.user_profiles set is_active = false where id = %s", user)
    db.all("update public.owners set storage_limit = 7 where id = %s", user)
    assert row(db, "change_role")["after"] == {"role": "viewer"}
    assert row(db, "change_activity")["after"] == {"is_active": False}
    assert row(db, "change_quota")["after"] == {"storage_limit": 7}
    assert {row(db, action)["owner_id"] for action in ("change_role", "change_quota")} == {
        str(user)
    }


def test_settings_are_told(db: Database) -> None:
    before = last(db)
    db.all("update private.settings set value = '7' where key = 'uploads.max_size'")
    (found,) = rows(db, after=before)
    assert (found["action"], found["details"]) == ("change_setting", {"key": "uploads.max_size"})
    assert (found["before"], found["after"]) == ({"value": 5368709120}, {"value": 7})


def test_shares_and_links_are_told_without_their_secrets(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    drive.share(folder, peer)
    db.all("update public.shares set level = 'edit' where node_id = %s", folder)
    db.all("delete from public.shares where node_id = %s", folder)
    assert row(db, "share")["after"] == {"grantee_id": str(peer), "level": "view"}
    assert row(db, "change_share")["before"] == {"level": "view"}
    assert row(db, "unshare")["before"] == {"grantee_id": str(peer), "level": "edit"}
    link = db.one(
        "insert into public.share_links (node_id, level, created_by, has_password)"
        " values (%s, 'view', %s, true) returning id",
        folder,
        owner,
    )
    with db.as_user(None):  # opening, before there is a grant
        db.connection.execute("set session authorization postgres")
        db.all("update public.share_links set opens = opens + 1 where id = %s", link)
    opened = row(db, "open_link")
    assert (opened["actor"], opened["actor_id"]) == (f"link:{link}", str(link))
    assert opened["owner_id"] == str(owner)
    db.all("update public.share_links set revoking_at = now() where id = %s", link)
    assert row(db, "revoke_link")["details"] == {"link_id": str(link)}
    assert row(db, "create_link")["after"] == {"level": "view", "has_password": True}


def test_what_a_link_opens_is_told_with_the_link(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    ticket = drive.upload(owner, "a.txt", folder_id=folder)
    link = drive.rpc(owner, "create_share_link", node=folder, level="view", password="s3cret")
    drive.rpc(None, "open_share_link", token=link["token"], password="wrong")
    opened = drive.rpc(None, "open_share_link", token=link["token"], password="s3cret")
    headers(db, **{"x-share-grant": opened["grant"]} | HEADERS)
    with db.as_user(None):
        operation = "storage.object.get_authenticated"
        db.all("select set_config('storage.operation', %s, true)", operation)
        assert db.all("select name from storage.objects") == [ticket["key"]]
    headers(db)
    drive.rpc(owner, "revoke_share_link", id=link["id"], hard=True)
    for action, node in (
        ("create_link", folder),
        ("refuse_link", folder),
        ("open_link", folder),
        ("download", ticket["file_id"]),
        ("revoke_link", folder),
    ):
        found = row(db, action)
        assert (found["node_id"], found["owner_id"]) == (node, str(owner)), action
        assert found["details"]["link_id"] == link["id"]
        by_owner = action in ("create_link", "revoke_link")
        assert found["actor"] == (f"user:{owner}" if by_owner else f"link:{link['id']}")
    assert row(db, "download")["ip"] == "203.0.113.9"
    text = json.dumps(rows(db))
    assert not any(s in text for s in ("s3cret", "wrong", link["token"], opened["grant"]))


def test_an_anonymous_holder_is_named_by_the_link(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    link = db.one(
        "insert into public.share_links (node_id, level, created_by)"
        " values (%s, 'view', %s) returning id",
        folder,
        owner,
    )
    db.all(
        "insert into private.link_grants (grant_hash, link_id, expires_at)"
        " values (sha256('grant'), %s, now() + interval '1 hour')",
        link,
    )
    headers(db, **{"x-share-grant": "grant"})
    claims = json.dumps({"role": "anon"})
    db.all("select set_config('request.jwt.claims', %s, true)", claims)
    db.all("select private.write_audit('download', %s, null, null)", folder)
    found = row(db, "download")
    assert (found["actor"], found["on_behalf_of"]) == (f"link:{link}", None)
    headers(db, **{"x-share-grant": "another"})
    db.all("select private.write_audit('look', %s, null, null)", folder)
    assert row(db, "look")["actor"] == "anonymous"


def test_comments_and_tags_are_told_without_what_they_say(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="a")["id"]
    comment = drive.rpc(owner, "add_comment", node=folder, body="alpha secret")["id"]
    drive.rpc(owner, "edit_comment", id=comment, body="bravo secret")
    drive.rpc(owner, "resolve_comment", id=comment)
    drive.rpc(owner, "delete_comment", id=comment)
    drive.rpc(owner, "tag_nodes", ids=[folder], add=["red"])
    drive.rpc(owner, "tag_nodes", ids=[folder], remove=["red"])
    for action in ("add_comment", "edit_comment", "resolve_comment", "delete_comment"):
        found = row(db, action)
        assert (found["node_id"], found["details"]) == (folder, {"comment_id": comment})
    assert row(db, "tag")["after"] == row(db, "untag")["before"] == {"tag": "red"}
    assert "secret" not in json.dumps(rows(db))


def test_members_that_go_with_their_group_are_told_by_the_group(db: Database) -> None:
    user = db.create_user()
    group = db.one("insert into public.groups (name) values ('g') returning id")
    for person in (user, db.create_user()):
        db.all(
            "insert into public.group_members (group_id, user_id) values (%s, %s)", group, person
        )
    db.all("delete from public.group_members where user_id = %s", user)
    db.all("delete from public.groups where id = %s", group)
    assert row(db, "remove_group_member")["before"] == {"user_id": str(user), "is_manager": False}
    assert row(db, "delete_group")["before"] == {"name": "g"}
    assert len(rows(db, "add_group_member")) == 2


# Nobody changes it --------------------------------------------------------------------------------

CHANGES = {
    "insert": "insert into public.audit_logs (actor, action) values ('service', 'x')",
    "update": "update public.audit_logs set action = 'x' where id > 0",
    "update of nothing": "update public.audit_logs set action = 'x' where false",
    "delete": "delete from public.audit_logs where id > 0",
    "truncate": "truncate public.audit_logs",
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_role_of_the_api_may_write(db: Database, drive: Drive, change: str) -> None:
    owner = db.create_user()
    db.all("update public.user_profiles set role = 'admin' where id = %s", owner)
    drive.rpc(owner, "create_folder", name="a")
    for act in (
        db.as_service(),
        db.as_user(owner),
        db.as_user(None),
        db.as_role("narwhal_worker"),
    ):
        with denied(), act:
            db.all("select set_config('narwhal.prune_audit', 'on', true)")
            db.connection.execute(CHANGES[change])  # type: ignore[call-overload]


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "insert"])
@pytest.mark.parametrize("flag", ["", "on"])
def test_even_the_tables_owner_is_refused(
    db: Database, drive: Drive, change: str, flag: str
) -> None:
    drive.rpc(db.create_user(), "create_folder", name="a")
    kept = rows(db)
    for before in ("", "set local session_replication_role = 'replica'"):
        with refused("FORBIDDEN"), db.connection.transaction():
            if before:
                db.connection.execute("reset session authorization")  # the superuser's to set
                db.connection.execute(before)
            db.all("select set_config('narwhal.prune_audit', %s, true)", flag)
            db.connection.execute(CHANGES[change])  # type: ignore[call-overload]
        db.connection.execute("set session authorization postgres")
    assert rows(db) == kept


def test_retention_removes_old_rows_only_through_its_function(db: Database, drive: Drive) -> None:
    drive.rpc(db.create_user(), "create_folder", name="a")
    kept = {entry["id"] for entry in rows(db)}
    for days in (20, 40, 400):
        db.all(
            "insert into public.audit_logs (at, actor, action)"
            " values (now() - make_interval(days => %s), 'service', 'old')",
            days,
        )
    assert db.one("select private.prune_audit()") == 0  # for ever, unless said otherwise
    db.all("update private.settings set value = '100' where key = 'audit.keep_days'")
    with refused("FORBIDDEN"), db.connection.transaction():
        db.all("delete from public.audit_logs where action = 'old'")
    with refused("FORBIDDEN"), db.connection.transaction():
        db.all("delete from public.audit_logs where at < now() - interval '200 days'")
    assert db.one("select private.prune_audit()") == 1
    db.all("update private.settings set value = '1' where key = 'audit.keep_days'")
    assert db.one("select private.prune_audit()") == 1  # not the one of 20 days: 30 are the least
    assert kept < {entry["id"] for entry in rows(db)}
    assert [entry["details"]["rows"] for entry in rows(db, "prune_audit")] == [1, 1]
    with refused("FORBIDDEN"), db.connection.transaction():
        db.all("delete from public.audit_logs where action = 'old'")  # the permission has ended


def test_only_workers_and_schedules_prune(db: Database) -> None:
    for act in (db.as_service(), db.as_user(db.create_user()), db.as_user(None)):
        with denied(), act:
            db.one("select private.prune_audit()")


# Who reads it -------------------------------------------------------------------------------------


def seen(db: Database, user: uuid.UUID, *actions: str) -> set[str]:
    """The nodes of which a user sees audit rows."""
    with db.as_user(user):
        return set(
            db.all(
                "select node_id::text from public.audit_logs"
                " where node_id is not null and (%s::text[] = '{}' or action = any(%s))",
                list(actions),
                list(actions),
            )
        )


def test_owners_see_what_others_do_and_others_see_their_own_acts(
    db: Database, drive: Drive
) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    mine = drive.rpc(owner, "create_folder", name="mine")["id"]
    shared = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(shared, peer, "edit")
    theirs = drive.rpc(peer, "create_folder", name="theirs", parent=shared)["id"]
    assert seen(db, owner) == {mine, shared, theirs}
    assert seen(db, peer) == {theirs}
    assert seen(db, stranger) == set()
    db.all("delete from public.shares")
    assert seen(db, peer) == {theirs}  # it stays one's own act


def test_the_permission_sees_everything_and_the_inactive_nothing(
    db: Database, drive: Drive
) -> None:
    owner, admin = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="mine")["id"]
    assert seen(db, admin) == set()
    db.all("update public.user_profiles set role = 'admin' where id = %s", admin)
    assert seen(db, admin) == {folder}
    db.all("update public.user_profiles set role = 'admin' where id = %s", db.create_user())
    for user in (owner, admin):
        db.all("update public.user_profiles set is_active = false where id = %s", user)
        assert seen(db, user) == set()
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(user, "list_audit")


@pytest.mark.parametrize(
    ("level", "expected"),
    [("view", False), ("edit", False), ("manage", True), ("owner", True)],
)
def test_members_see_their_workspaces_rows_from_manage_on(
    db: Database, level: str, expected: bool
) -> None:
    member = db.create_user()
    workspace = db.one(
        "insert into public.owners (id, kind, storage_limit)"
        " values (gen_random_uuid(), 'workspace', 1000) returning id"
    )
    db.all("insert into public.workspaces (id) values (%s)", workspace)
    db.all(
        "insert into public.workspace_members (workspace_id, user_id, level) values (%s, %s, %s)",
        *(workspace, member, level),
    )
    root, _ = tree(db, workspace, 0)
    assert (root in seen(db, member)) is expected


# list_audit ---------------------------------------------------------------------------------------


def test_the_list_pages_counts_and_filters(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folders = [drive.rpc(owner, "create_folder", name=str(i))["id"] for i in range(5)]
    drive.rpc(peer, "create_folder", name="peer")
    drive.rpc(owner, "trash_nodes", ids=[folders[0]])
    found, cursor = [], None
    while True:
        page = drive.rpc(owner, "list_audit", page_size=2, cursor=cursor, action="create_folder")
        assert page["total"] == 5
        found += [item["node_id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
        drive.rpc(peer, "create_folder", name=cursor.replace("/", ""))
    assert found == folders[::-1]

    def total(user: uuid.UUID = owner, **filters: object) -> int:
        return drive.rpc(user, "list_audit", **filters)["total"]  # type: ignore[no-any-return]

    assert total(node=folders[0]) == 2
    assert total(actor=owner, action="trash") == 1
    assert total(actor=peer) == 0
    assert total(owner=owner) == 7  # with create_account
    assert total(owner=owner, date_from="tomorrow") == 0
    assert total(owner=owner, date_to="tomorrow") == 7
    assert total(owner=owner, date_to="yesterday") == 0
    db.all("update public.user_profiles set role = 'admin' where id = %s", peer)
    assert total(peer, owner=owner) == 7
    assert total(peer, actor=owner) == 6


def test_the_list_refuses_what_it_did_not_give(db: Database, drive: Drive) -> None:
    user = db.create_user()
    for size in (0, 1001, None):
        with refused("INVALID_ARGUMENT", field="page_size"):
            drive.rpc(user, "list_audit", page_size=size)
    for cursor in ("x", "", "bnVsbA==", "e30=", "WyJhIl0=", "W25dbGw="):
        with refused("INVALID_ARGUMENT", field="cursor"):
            drive.rpc(user, "list_audit", cursor=cursor)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "list_audit")


# Every operation ----------------------------------------------------------------------------------

# volatile functions of the API that leave no row, and why
UNTOLD = {
    "amend_search": "the caller's own list, which nobody else sees",
    "clear_query_history": "the caller's own list, which nobody else sees",
    "hybrid_search": "looks, and keeps its own statistics",
    "mark_notifications_read": "the caller's own list, which nobody else sees",
    "record_view": "looks; counted in node_stats",
    "related_documents": "looks, and keeps its own statistics",
    "search_files": "looks, and keeps its own statistics",
    "search_images": "looks, and keeps its own statistics",
    "search_pages": "looks, and keeps its own statistics",
    "set_favourite": "the caller's own list, which nobody else sees",
}
# what must be there for a call to change anything
PREPARED: dict[str, Callable[[Drive, World], Any]] = {
    "cancel_ingest": lambda drive, w: drive.rpc(
        w.owner, "retry_ingest", file_id=w.file, from_stage="chunk"
    ),
}
CALLS = calls()
PRIVILEGED = gather("PRIVILEGED")


def test_every_writing_function_names_its_caller(
    db: Database,
    drive: Drive,
    world: World,  # noqa: F811
) -> None:
    volatile = set(
        db.all(
            "select proname from pg_proc"
            " where pronamespace = 'public'::regnamespace and provolatile = 'v'"
        )
    )
    assert volatile >= UNTOLD.keys()
    admin = db.create_user()
    db.all("update public.user_profiles set role = 'admin' where id = %s", admin)
    silent, told = set(), set()
    for call, arguments in CALLS.items():
        function = call.split()[0]
        if function not in volatile:
            continue
        caller = admin if call in PRIVILEGED else world.owner
        try:
            with db.connection.transaction():
                if function in PREPARED:
                    PREPARED[function](drive, world)
                before = last(db)
                drive.rpc(caller, function, **arguments(world))
                found = {entry["actor"] for entry in rows(db, after=before)}
                (told if f"user:{caller}" in found else silent).add(function)
                raise RolledBackError
        except RolledBackError:
            pass
    assert told | silent == volatile
    assert silent - told == UNTOLD.keys()


def test_reads_leave_no_row(db: Database, drive: Drive, world: World) -> None:  # noqa: F811
    before = last(db)
    drive.rpc(world.owner, "list_folder")
    drive.rpc(world.owner, "file_details", file_id=world.file)
    assert rows(db, after=before) == []


def test_no_row_holds_text_of_a_file(db: Database, world: World) -> None:  # noqa: F811
    assert "walrus swims" not in json.dumps(rows(db))


def test_what_is_rolled_back_was_not_done(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    before = last(db)
    with pytest.raises(psycopg.Error), db.as_user(owner):
        db.one("select (public.create_folder('a')).id")
        db.one("select 1 / 0")
    assert rows(db, after=before) == []
