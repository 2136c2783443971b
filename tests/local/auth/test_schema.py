"""Schema `auth`: its shape, who may read it, and the functions that policies call."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from tests.database import Database

TABLES = {
    "audit_log_entries",
    "flow_state",
    "identities",
    "instances",
    "mfa_amr_claims",
    "mfa_challenges",
    "mfa_factors",
    "one_time_tokens",
    "refresh_tokens",
    "schema_migrations",
    "sessions",
    "users",
}


def test_all_tables_belong_to_auth_and_have_row_security(db: Database) -> None:
    rows = db.all(
        "select c.relname, c.relrowsecurity, c.relowner::regrole::text from pg_class as c"
        " where c.relnamespace = 'auth'::regnamespace and c.relkind = 'r'"
    )
    assert {row[0] for row in rows} == TABLES
    assert {row[1:] for row in rows} == {(True, "supabase_auth_admin")}


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_api_roles_read_no_table_of_auth(db: Database, role: str, table: str) -> None:
    user = db.create_user()
    acting = {
        "anon": db.as_user(None),
        "authenticated": db.as_user(user),
        "service_role": db.as_service(),
    }[role]
    with pytest.raises(psycopg.errors.InsufficientPrivilege), acting:
        db.connection.execute(f"select 1 from auth.{table}")  # type: ignore[arg-type]


def test_postgres_may_use_users_and_grant_only_reading(db: Database) -> None:
    def grantable(table: str) -> dict[str, bool]:
        # the grants themselves: information_schema adds what membership in the owner gives
        rows = db.all(
            "select a.privilege_type, a.is_grantable"
            " from pg_class as c cross join aclexplode(c.relacl) as a"
            " where c.oid = to_regclass('auth.' || %s) and a.grantee = 'postgres'::regrole",
            table,
        )
        return dict(rows)

    rights = dict.fromkeys(
        ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"), False
    )
    assert grantable("users") == {"SELECT": True} | rights
    assert grantable("sessions") == {"SELECT": True}
    assert db.one("select has_schema_privilege('postgres', 'auth', 'usage')") is True
    assert db.one("select has_schema_privilege('postgres', 'auth', 'create')") is False


def test_the_caller_is_read_from_the_claims(db: Database) -> None:
    user = db.create_user()
    question = "select auth.uid(), auth.role(), auth.email(), auth.jwt() ->> 'aal'"
    with db.as_user(user, email="a@b.test", aal="aal1"):
        assert db.one(question) == (user, "authenticated", "a@b.test", "aal1")
    with db.as_user(None):
        assert db.one(question) == (None, "anon", None, None)
    db.connection.execute("select set_config('request.jwt.claims', '', true)")
    assert db.one(question) == (None, None, None, None)
    legacy = uuid.uuid4()  # what Storage and old PostgREST set
    db.connection.execute("select set_config('request.jwt.claim.sub', %s, true)", (str(legacy),))
    assert db.one("select auth.uid()") == legacy


def test_addresses_are_unique_unless_they_come_from_single_sign_on(db: Database) -> None:
    db.create_user("a@b.test")
    insert = "insert into auth.users (id, email, is_sso_user) values (gen_random_uuid(), %s, %s)"
    db.connection.execute(insert, ("a@b.test", True))
    with pytest.raises(psycopg.errors.UniqueViolation), db.connection.transaction():
        db.connection.execute(insert, ("a@b.test", False))
