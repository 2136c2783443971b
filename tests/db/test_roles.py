"""Roles and accounts: who may change them, what a closed account reaches, and the last admin."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, denied, embed, refused, refused_by_storage
from tests.db.invariants import UNBALANCED
from tests.db.looks import quota_of, status_of


def make(db: Database, role: str, email: str | None = None, **metadata: object) -> uuid.UUID:
    """Sign somebody up and give them a role."""
    user = db.create_user(email, **metadata)
    db.all("update public.user_profiles set role = %s where id = %s", role, user)
    return user


def role_of(db: Database, user: uuid.UUID) -> str:
    return db.one("select role from public.user_profiles where id = %s", user)  # type: ignore[no-any-return]


# Who may -----------------------------------------------------------------------------------------


def test_an_admin_changes_roles_quotas_and_accounts(db: Database, drive: Drive) -> None:
    admin, user = make(db, "admin"), db.create_user("ada@example.test")
    changed = drive.rpc(admin, "set_user_role", user_id=user, role="viewer")
    assert (changed["id"], changed["email"], changed["role"]) == (
        str(user),
        "ada@example.test",
        "viewer",
    )
    assert role_of(db, user) == "viewer"
    assert (
        drive.rpc(admin, "set_user_quota", user_id=user, storage_limit=123)["storage_limit"] == 123
    )
    assert quota_of(db, user)[2] == 123
    assert not drive.rpc(admin, "set_user_active", user_id=user, is_active=False)["is_active"]
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(user, "list_folder")
    assert drive.rpc(admin, "set_user_active", user_id=user, is_active=True)["is_active"]
    assert drive.rpc(user, "list_folder")["items"] == []


@pytest.mark.parametrize("role", ["viewer", "user", None])
def test_nobody_else_does(db: Database, drive: Drive, role: str | None) -> None:
    user = make(db, role) if role else None
    other = db.create_user()
    for function, arguments in {
        "set_user_role": {"user_id": other, "role": "viewer"},
        "set_user_active": {"user_id": other, "is_active": False},
        "set_user_quota": {"user_id": other, "storage_limit": 0},
        "list_users": {},
    }.items():
        with refused("FORBIDDEN" if user else "NOT_AUTHENTICATED"):
            drive.rpc(user, function, **arguments)
    assert (
        db.one("select (role, is_active)::text from public.user_profiles where id = %s", other)
        == "(user,t)"
    )


def test_a_former_admin_does_no_more_whatever_the_token_says(db: Database, drive: Drive) -> None:
    admin, other = make(db, "admin"), make(db, "admin")
    drive.rpc(other, "set_user_role", user_id=admin, role="user")
    with (
        refused("FORBIDDEN"),
        db.as_user(admin, app_role="admin", app_metadata={"role": "admin"}),
    ):
        db.one("select public.list_users()")
    drive.rpc(other, "set_user_role", user_id=admin, role="admin")
    drive.rpc(admin, "set_user_active", user_id=other, is_active=False)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(other, "list_users")


def test_wrong_arguments_are_named(db: Database, drive: Drive) -> None:
    admin, user, ghost = make(db, "admin"), db.create_user(), uuid.uuid4()
    for role in ("root", "", None):
        with refused("INVALID_ARGUMENT", field="role"):
            drive.rpc(admin, "set_user_role", user_id=user, role=role)
    for limit in (-1, None):
        with refused("INVALID_ARGUMENT", field="storage_limit"):
            drive.rpc(admin, "set_user_quota", user_id=user, storage_limit=limit)
    with refused("INVALID_ARGUMENT", field="is_active"):
        drive.rpc(admin, "set_user_active", user_id=user, is_active=None)
    with refused("NOT_FOUND"):
        drive.rpc(admin, "set_user_role", user_id=ghost, role="user")
    with refused("NOT_FOUND"):
        drive.rpc(admin, "set_user_quota", user_id=ghost, storage_limit=1)
    with refused("NOT_FOUND"):
        drive.rpc(admin, "set_user_active", user_id=ghost, is_active=False)


def test_nobody_changes_their_own_role_or_quota(db: Database, drive: Drive) -> None:
    admin = make(db, "admin")
    make(db, "admin")
    with refused("FORBIDDEN"):
        drive.rpc(admin, "set_user_role", user_id=admin, role="user")
    with refused("FORBIDDEN"):
        drive.rpc(admin, "set_user_role", user_id=admin, role="admin")
    with refused("FORBIDDEN"):
        drive.rpc(admin, "set_user_quota", user_id=admin, storage_limit=10**15)
    for column in ("role", "storage_limit", "subscription", "is_active", "storage_used"):
        with denied(), db.as_user(admin):
            db.connection.execute(
                f"update public.user_profiles set {column} = {column} where id = %s", (admin,)
            )
    with denied(), db.as_user(admin):
        db.all("update public.owners set storage_limit = 1")


def test_an_admin_sees_nobodys_content(db: Database, drive: Drive) -> None:
    admin, owner = make(db, "admin"), db.create_user("ada@example.test")
    ticket = drive.file(owner, "secret.txt", "the walrus swims")
    tables: list[LiteralString] = [
        "nodes",
        "file_versions",
        "pages",
        "chunks",
        "uploads",
        "ingest_jobs",
    ]
    for table in tables:
        with db.as_user(owner):
            assert db.one(f"select count(*) from public.{table}") > 0, table
        with db.as_user(admin):
            assert db.one(f"select count(*) from public.{table}") == 0, table
    with db.as_user(admin):
        assert db.one("select count(*) from storage.objects") == 0
        assert db.one("select count(*) from public.user_profiles") == 1
    with refused("NOT_FOUND"):
        drive.rpc(admin, "file_details", file_id=ticket["file_id"])
    assert drive.search(admin, "walrus")["hits"] == []
    assert "walrus" not in json.dumps(drive.rpc(admin, "list_users"))
    # control: what is shared with them they see
    drive.share(ticket["file_id"], admin)
    assert len(drive.search(admin, "walrus")["hits"]) == 1


# Lists -------------------------------------------------------------------------------------------


def test_accounts_are_listed_in_pages_and_found_by_address_or_name(
    db: Database, drive: Drive
) -> None:
    admin = make(db, "admin", "root@example.test")
    made = [db.create_user(f"p{n}@example.test", full_name=f"Person {n}") for n in range(7)]
    found: list[str] = []
    cursor = None
    while True:
        page = drive.rpc(admin, "list_users", page_size=3, cursor=cursor)
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(found) == len(set(found))
    assert set(found) == {str(user) for user in [admin, *made]}
    assert [
        item["full_name"] for item in drive.rpc(admin, "list_users", query="PERSON 3")["items"]
    ] == ["Person 3"]
    assert [item["id"] for item in drive.rpc(admin, "list_users", query="p4@")["items"]] == [
        str(made[4])
    ]
    for wild in ("%", "_", "p%t", "\\"):
        assert drive.rpc(admin, "list_users", query=wild)["items"] == [], wild
    assert set(drive.rpc(admin, "list_users", query="root")["items"][0]) == {
        "id",
        "email",
        "full_name",
        "role",
        "is_active",
        "plan",
        "storage_used",
        "storage_limit",
        "created_at",
        "last_sign_in_at",
    }
    with refused("INVALID_ARGUMENT", field="page_size"):
        drive.rpc(admin, "list_users", page_size=0)
    for wrong in ("x", "W10=", "WyJ4IiwgInkiXQ=="):
        with refused("INVALID_ARGUMENT", field="cursor"):
            drive.rpc(admin, "list_users", cursor=wrong)


# The last administrator --------------------------------------------------------------------------


def test_the_last_active_admin_stays(db: Database, drive: Drive) -> None:
    admin, closed = make(db, "admin"), make(db, "admin")
    drive.rpc(admin, "set_user_active", user_id=closed, is_active=False)
    with refused("CONFLICT_STATE"):
        drive.rpc(admin, "set_user_role", user_id=admin, role="user")
    with refused("CONFLICT_STATE"):
        drive.rpc(admin, "set_user_active", user_id=admin, is_active=False)
    with refused("CONFLICT_STATE"), db.connection.transaction():
        db.all("delete from auth.users where id = %s", admin)
    statements: list[LiteralString] = [
        "select private.change_role(%s, 'viewer')",
        "select private.change_active(%s, false)",
        "update public.user_profiles set role = 'user' where id = %s",
        "update public.user_profiles set is_active = false where id = %s",
        "delete from public.user_profiles where id = %s",
    ]
    for statement in statements:
        with refused("CONFLICT_STATE"), db.connection.transaction():
            db.all(statement, admin)
    db.all("delete from auth.users where id = %s", closed)  # a closed one protects nobody
    other = make(db, "admin")
    db.all("delete from auth.users where id = %s", other)
    assert role_of(db, admin) == "admin"


def test_one_statement_cannot_remove_all_admins(db: Database) -> None:
    make(db, "admin")
    make(db, "admin")
    with refused("CONFLICT_STATE"), db.connection.transaction():
        db.all("update public.user_profiles set role = 'user'")
    with refused("CONFLICT_STATE"), db.connection.transaction():
        db.all("delete from auth.users")


def test_two_admins_who_remove_each_other_leave_one(connect: Callable[[], Drive]) -> None:
    first, second = connect(), connect()
    admins = [make(first.db, "admin"), make(first.db, "admin")]
    outcomes = Counter[str]()
    with ThreadPoolExecutor(2) as pool:
        for round_ in range(60):
            start = Barrier(2)

            def go(
                me: int,
                drive: Drive,
                start: Barrier = start,
                round_: int = round_,
                admins: tuple[uuid.UUID, ...] = tuple(admins),
            ) -> str:
                other = admins[1 - me]
                start.wait()
                try:
                    if (round_ + me) % 3:
                        drive.rpc(admins[me], "set_user_role", user_id=other, role="user")
                    elif round_ % 2:
                        drive.rpc(admins[me], "set_user_active", user_id=other, is_active=False)
                    else:
                        drive.db.all("delete from auth.users where id = %s", other)
                except psycopg.Error as error:
                    return str(error.sqlstate)
                return "done"

            jobs = [pool.submit(go, 0, first), pool.submit(go, 1, second)]
            outcomes.update(job.result() for job in jobs)
            left = first.db.all(
                "select id from public.user_profiles where role = 'admin' and is_active"
            )
            assert len(left) == 1, (round_, left)
            first.db.all("update public.user_profiles set role = 'admin', is_active = true")
            admins = first.db.all("select id from public.user_profiles")
            admins += [make(first.db, "admin") for _ in range(2 - len(admins))]
    assert outcomes["done"] == 60, outcomes
    # the other one was no admin any more, or was the last one
    assert set(outcomes) <= {"done", "PT403", "PT401", "PT409", "PT404"}, outcomes


# Closed accounts ---------------------------------------------------------------------------------


def test_a_closed_account_reaches_nothing_from_the_next_statement_on(
    db: Database, drive: Drive
) -> None:
    admin, user, owner = make(db, "admin"), db.create_user(), db.create_user()
    mine = drive.file(user, "a.txt", "the walrus swims")
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, user, "edit")
    open_here = drive.ticket(user, "b.txt", 100)
    open_there = drive.ticket(user, "c.txt", 200, folder_id=folder)
    assert drive.probed(user, open_here["key"], 10)
    with db.as_user(user):
        assert db.one("select count(*) from storage.objects") == 1  # control
    drive.rpc(admin, "set_user_active", user_id=user, is_active=False)

    # their open tickets ended, here and in others' folders
    assert (quota_of(db, user)[1], quota_of(db, owner)[1]) == (0, 0)
    assert drive.rpc(owner, "list_folder", folder=folder)["items"] == []
    assert db.all(UNBALANCED) == []
    tables: list[LiteralString] = ["nodes", "file_versions", "pages", "chunks", "uploads", "shares"]
    with db.as_user(user):
        for table in tables:
            assert db.one(f"select count(*) from public.{table}") == 0, table
        assert db.one("select count(*) from public.user_profiles") == 0
        assert db.one("select count(*) from storage.objects") == 0
        assert db.one("select count(*) from storage.buckets") == 0
    for ticket in (open_here, open_there):
        with refused_by_storage("NO_TICKET"):
            drive.probe(user, ticket["key"], 10)
        with refused_by_storage("NO_TICKET"):
            drive.store(user, ticket["key"], 10)
    for function, arguments in {
        "list_folder": {},
        "file_details": {"file_id": mine["file_id"]},
        "begin_upload": {"name": "d.txt", "size": 1},
        "save_document": {"title": "d", "content": "text"},
        "create_folder": {"name": "x"},
        "trash_nodes": {"ids": [mine["file_id"]]},
        "hybrid_search": {"query": "walrus", "embedding": Jsonb(embed("walrus"))},
        "abort_upload": {"upload_id": open_here["upload_id"]},
    }.items():
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(user, function, **arguments)
    with refused("NOT_AUTHENTICATED"), db.as_user(user):
        db.one("select private.pre_request()")

    # nothing is lost
    drive.rpc(admin, "set_user_active", user_id=user, is_active=True)
    assert status_of(drive, user, mine) == "ready"
    assert len(drive.search(user, "walrus")["hits"]) == 1


def test_a_ticket_that_slipped_through_ends_with_the_next_sweep(db: Database, drive: Drive) -> None:
    user = db.create_user()
    drive.ticket(user, "a.txt", 100)
    db.all("update public.user_profiles set is_active = false where id = %s", user)
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_uploads()") == 1
    assert quota_of(db, user)[1] == 0


def test_a_viewer_reads_and_never_writes(db: Database, drive: Drive) -> None:
    admin, user = make(db, "admin"), db.create_user()
    ticket = drive.file(user, "a.txt", "the walrus swims")
    drive.rpc(admin, "set_user_role", user_id=user, role="viewer")
    assert len(drive.search(user, "walrus")["hits"]) == 1
    assert drive.rpc(user, "file_details", file_id=ticket["file_id"])["name"] == "a.txt"
    calls: dict[str, dict[str, Any]] = {
        "begin_upload": {"name": "b.txt", "size": 1},
        "save_document": {"title": "b", "content": "text"},
        "create_folder": {"name": "x"},
        "trash_nodes": {"ids": [ticket["file_id"]]},
        "purge_nodes": {"ids": [ticket["file_id"]]},
        "retry_ingest": {"file_id": ticket["file_id"]},
    }
    for function, arguments in calls.items():
        with refused("FORBIDDEN"):
            drive.rpc(user, function, **arguments)


# The token ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "user", "admin"])
def test_the_hook_writes_the_role_of_the_row(db: Database, role: str) -> None:
    user = make(db, role, app_role="admin")
    event = {
        "user_id": str(user),
        "claims": {"sub": str(user), "role": "authenticated", "app_role": "forged"},
        "authentication_method": "password",
    }
    with db.as_role("supabase_auth_admin"):
        answer = db.one("select private.custom_access_token_hook(%s)", Jsonb(event))
    assert answer == {"claims": {"sub": str(user), "role": "authenticated", "app_role": role}}


def test_the_hook_answers_for_an_account_without_a_profile(db: Database) -> None:
    event = {"user_id": str(uuid.uuid4()), "claims": {"sub": "x"}}
    with db.as_role("supabase_auth_admin"):
        answer = db.one("select private.custom_access_token_hook(%s)", Jsonb(event))
    assert answer == {"claims": {"sub": "x", "app_role": None}}


def test_clients_cannot_call_the_hook(db: Database) -> None:
    user = db.create_user()
    for caller in (user, None):
        with denied(), db.as_user(caller):
            db.one("select private.custom_access_token_hook('{}')")
    with denied(), db.as_service():
        db.one("select private.custom_access_token_hook('{}')")


def test_the_row_decides_and_not_the_claim(db: Database, drive: Drive) -> None:
    user = db.create_user()
    with refused("FORBIDDEN"), db.as_user(user, app_role="admin"):
        db.one("select public.list_users()")
    admin = make(db, "admin")
    with db.as_user(admin, app_role="viewer"):
        assert len(db.one("select public.list_users()")["items"]) == 2


# Settings ----------------------------------------------------------------------------------------


def test_a_setting_keeps_its_kind(db: Database) -> None:
    change: LiteralString = "select (private.change_setting(%s, %s)).value"
    assert db.one(change, "uploads.max_size", "5") == 5
    assert db.one(change, "uploads.blocked_extensions", '["exe"]') == ["exe"]
    for key in ("trash.keep_days", "versions.keep_days"):
        assert db.one(change, key, "7") == 7
        assert db.one(change, key, "null") is None  # for ever
    for key, value in (
        ("uploads.max_size", "-1"),
        ("uploads.max_size", "null"),
        ("uploads.max_size", '"5"'),
        ("uploads.blocked_extensions", "5"),
        ("trash.keep_days", '"7"'),
    ):
        with refused("INVALID_ARGUMENT", field="value"), db.connection.transaction():
            db.one(change, key, value)
    with refused("NOT_FOUND", key="no.such"):
        db.one(change, "no.such", "1")
