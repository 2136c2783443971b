"""Accounts: what sign-up makes, what people may change of it, what closing and deleting leaves."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, denied, refused

DEFAULTS = {
    "theme": "system",
    "language": "en",
    "notifications": {"email": True, "push": True, "desktop": True},
    "autoAnalyze": True,
}


def test_signing_up_makes_a_profile_and_a_personal_owner(db: Database) -> None:
    user = db.create_user("o@example.test", full_name="Test Owner", avatar_url="https://a.test/i")
    with db.as_user(user):
        row = db.one(
            "select id, email, full_name, avatar_url, role, storage_used, storage_limit,"
            " preferences, subscription, is_active from public.user_profiles"
        )
        owner = db.one("select id, kind, storage_used, storage_reserved from public.owners")
    assert row == (
        user,
        "o@example.test",
        "Test Owner",
        "https://a.test/i",
        "user",
        0,
        5 * 2**30,
        DEFAULTS,
        {"plan": "free", "status": "active"},
        True,
    )
    assert owner == (user, "user", 0, 0)


@pytest.mark.parametrize(
    ("metadata", "name", "picture"),
    [
        ({}, None, None),
        ({"name": "From OAuth", "picture": "https://p.test"}, "From OAuth", "https://p.test"),
        ({"full_name": "x" * 500, "avatar_url": "y" * 5000}, "x" * 200, "y" * 2048),
        ({"full_name": {"first": "a"}, "role": "admin"}, '{"first": "a"}', None),
    ],
)
def test_whatever_a_frontend_sends_nobody_is_kept_from_signing_up(
    db: Database, metadata: dict[str, Any], name: str | None, picture: str | None
) -> None:
    user = db.create_user(**metadata)
    with db.as_user(user):
        row = db.one("select full_name, avatar_url, role from public.user_profiles")
    assert row == (name, picture, "user")


def test_a_new_default_quota_is_for_new_accounts(db: Database) -> None:
    old = db.create_user()
    db.all("update private.settings set value = '1000' where key = 'owners.storage_limit'")
    new = db.create_user()
    limits = [
        db.one("select storage_limit from public.user_profiles where id = %s", user)
        for user in (old, new)
    ]
    assert limits == [5 * 2**30, 1000]


def test_the_profile_follows_the_accounts_address(db: Database) -> None:
    user = db.create_user("old@example.test")
    db.all("update auth.users set email = 'new@example.test' where id = %s", user)
    with db.as_user(user):
        assert db.one("select email from public.user_profiles") == "new@example.test"


def test_people_change_their_name_picture_and_preferences(db: Database) -> None:
    user, other = db.create_user(), db.create_user()
    preferences = DEFAULTS | {"theme": "dark", "sidebar": {"width": 3}}  # its own keys are kept
    with db.as_user(user):
        changed = db.all(
            "update public.user_profiles set preferences = %s, full_name = 'Me', avatar_url = null"
            " where id = any(%s) returning id, preferences, updated_at >= created_at",
            Jsonb(preferences),
            [user, other],
        )
    assert changed == [(user, preferences, True)]
    with db.as_user(other):
        assert db.one("select preferences from public.user_profiles") == DEFAULTS


COLUMNS = [
    "id",
    "email",
    "role",
    "storage_used",
    "storage_limit",
    "subscription",
    "is_active",
    "created_at",
    "updated_at",
]


def test_the_columns_that_people_may_not_change_are_all_the_others(db: Database) -> None:
    columns = db.all(
        "select attname from pg_attribute where attrelid = 'public.user_profiles'::regclass"
        " and attnum > 0 and not attisdropped"
    )
    assert set(columns) - set(COLUMNS) == {"full_name", "avatar_url", "preferences"}


@pytest.mark.parametrize("column", COLUMNS)
def test_rights_quota_and_role_are_not_ones_own_to_change(db: Database, column: str) -> None:
    user = db.create_user()
    with denied(), db.as_user(user):
        db.connection.execute(
            sql.SQL("update public.user_profiles set {0} = {0}").format(sql.Identifier(column))
        )
    for table in ("owners", "nodes", "uploads", "shares", "ingest_jobs"):
        name = sql.Identifier("public", table)
        with denied(), db.as_user(user):
            db.connection.execute(sql.SQL("delete from {}").format(name))
        with denied(), db.as_user(user):
            db.connection.execute(sql.SQL("insert into {} default values").format(name))
    with denied(), db.as_user(user):
        db.all("insert into public.user_profiles (id) values (%s)", uuid.uuid4())
    with denied(), db.as_user(user):
        db.all("delete from public.user_profiles")
    with db.as_user(user):  # control
        assert db.one("update public.user_profiles set full_name = 'Me' returning role") == "user"


@pytest.mark.parametrize(
    ("field", "preferences"),
    [
        ("preferences", []),
        ("preferences", "dark"),
        ("preferences", None),
        ("preferences", {"x": "y" * 20000}),
        ("preferences.theme", {"theme": "pink"}),
        ("preferences.theme", {"theme": 1}),
        ("preferences.theme", {"theme": None}),
        ("preferences.language", {"language": "English!"}),
        ("preferences.language", {"language": ""}),
        ("preferences.language", {"language": None}),
        ("preferences.autoAnalyze", {"autoAnalyze": "yes"}),
        ("preferences.notifications", {"notifications": True}),
        ("preferences.notifications.email", {"notifications": {"email": "daily"}}),
        ("preferences.notifications.push", {"notifications": {"push": 1}}),
        ("preferences.notifications.desktop", {"notifications": {"desktop": None}}),
    ],
)
def test_preferences_that_a_frontend_could_not_read_are_refused_by_name(
    db: Database, field: str, preferences: Any
) -> None:
    user = db.create_user()
    with refused("INVALID_ARGUMENT", field=field), db.as_user(user):
        db.all("update public.user_profiles set preferences = %s", Jsonb(preferences))
    with db.as_user(user):
        for fine in ({}, {"theme": "light", "language": "pt-BR"}, DEFAULTS):
            db.all("update public.user_profiles set preferences = %s", Jsonb(fine))
            assert db.one("select preferences from public.user_profiles") == fine


def test_a_name_may_not_be_a_novel(db: Database) -> None:
    user = db.create_user()
    with refused("INVALID_ARGUMENT", field="full_name"), db.as_user(user):
        db.all("update public.user_profiles set full_name = %s", "x" * 201)
    with refused("INVALID_ARGUMENT", field="avatar_url"), db.as_user(user):
        db.all("update public.user_profiles set avatar_url = %s", "x" * 2049)
    with db.as_user(user):
        db.all("update public.user_profiles set full_name = %s", "字" * 200)


def test_a_closed_account_is_refused_by_every_request(db: Database, drive: Drive) -> None:
    user = db.create_user()
    drive.file(user, "a.txt", "alpha bravo")
    check = "select private.pre_request()"
    with db.as_user(user):
        db.one(check)  # control
    db.all("update public.user_profiles set is_active = false where id = %s", user)
    with refused("NOT_AUTHENTICATED"), db.as_user(user):
        db.one(check)
    with db.as_user(user):
        for table in ("user_profiles", "owners", "nodes", "chunks", "embedding_spaces"):
            query = sql.SQL("select count(*) from public.{}").format(sql.Identifier(table))
            assert db.connection.execute(query).fetchone() == (0,)
        assert db.all("select id from storage.objects") == []
        assert db.all("update public.user_profiles set full_name = 'x' returning id") == []
    with db.as_user(None):  # nobody is nobody, not closed
        db.one(check)
    with db.as_service():
        db.one(check)
    db.all("update public.user_profiles set is_active = true where id = %s", user)
    assert drive.search(user, "alpha")["hits"]


def test_a_request_is_checked_without_writing(db: Database) -> None:
    """PostgREST runs GET in a read-only transaction."""
    user = db.create_user()
    with db.as_user(user):
        db.all("set transaction read only")
        db.one("select private.pre_request()")


# they outlive what they tell about
LOGS = {"public.audit_logs", "private.quota_ledger", "private.epochs"}


def test_deleting_an_account_leaves_nothing_but_logs_and_objects_to_remove(
    db: Database, drive: Drive
) -> None:
    other = db.create_user()
    drive.file(other, "kept.txt", "golf")
    db.all("select private.fold_epochs()")
    before = _mentions(db)
    user = db.create_user("gone@example.test")
    folder = drive.rpc(user, "create_folder", name="f")["id"]
    ticket = drive.file(user, "a.txt", "alpha", folder_id=folder)
    drive.upload(user, "a.txt", file_id=ticket["file_id"])
    drive.ticket(user, "b.txt")
    drive.share(folder, other, "comment")
    drive.rpc(other, "add_comment", node=folder, body="hotel", mentions=[user])
    drive.rpc(other, "set_favourite", node=folder)
    drive.rpc(user, "record_view", node=folder)
    drive.rpc(user, "tag_nodes", ids=[folder], add=["india"])
    assert len(_mentions(db, str(user))) > 15  # control
    db.all("delete from auth.users where id = %s", user)
    db.all("select private.fold_epochs()")  # as the schedule does
    assert _mentions(db, str(user)).keys() - LOGS == {"private.object_deletions", "storage.objects"}
    assert db.one("select count(*) from private.object_deletions") == 2
    db.all("delete from private.object_deletions")
    with db.as_service():
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        db.all("delete from storage.objects where owner_id = %s", str(user))
    db.all("select private.fold_epochs()")
    after = _mentions(db)
    assert {table: after[table] for table in after.keys() - LOGS} == {
        table: before[table] for table in before.keys() - LOGS
    }


def test_a_deleted_account_takes_its_shares_but_not_what_it_made_for_others(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    made = drive.file(peer, "a.txt", "alpha", folder_id=folder)
    db.all("delete from auth.users where id = %s", peer)
    details = drive.rpc(owner, "file_details", file_id=made["file_id"])
    assert (details["created_by"], details["shares"]) == (None, [])
    assert drive.search(owner, "alpha")["hits"]


def _mentions(db: Database, text: str = "") -> dict[str, list[str]]:
    """Rows of all tables, as text, that have `text` in them."""
    found = {}
    for table in db.all(
        "select n.nspname || '.' || c.relname from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where (n.nspname in ('public', 'private') or c.oid = 'storage.objects'::regclass)"
        " and c.relkind in ('r', 'p') and not c.relispartition"
    ):
        query = sql.SQL("select t::text from {} as t where strpos(t::text, %s) > 0").format(
            sql.Identifier(*table.split("."))
        )
        rows = [row[0] for row in db.connection.execute(query, (text,)).fetchall()]
        if rows:
            found[table] = sorted(rows)
    return found
