"""The bootstrap against supabase-facts: what a hosted project allows `postgres`, and refuses."""

from __future__ import annotations

import psycopg
import pytest

from tests.database import Database

FUNCTION = """
create function public.tg_nothing() returns trigger language plpgsql set search_path = ''
as $$ begin return null; end; $$
"""

REFUSED = [
    "create table storage.mine (id int)",
    "create table auth.mine (id int)",
    "create function storage.mine() returns int language sql return 1",
    "create function auth.mine() returns int language sql return 1",
    "create or replace function auth.uid() returns uuid language sql return null::uuid",
    "alter table storage.objects add column mine int",
    "alter table storage.objects disable row level security",
    "alter table storage.objects disable trigger all",
    "alter table auth.users add column mine int",
    "create index on storage.objects (owner_id)",
    "create index on auth.users (email)",
    "drop table storage.objects cascade",
    "drop table auth.refresh_tokens cascade",
    "drop function auth.uid() cascade",
    "alter function auth.uid() rename to who",
    "comment on table storage.objects is 'mine'",
    "alter schema storage rename to mine",
    "alter database {database} set app.secret = 'x'",
    "alter role authenticated set app.secret = 'x'",
    "set role supabase_admin",
    "set role supabase_storage_admin",
    "alter role supabase_admin password 'x'",
    "create role super superuser",
    "copy (select 1) to program 'true'",
    "create extension dblink; select extensions.dblink_connect('host=/tmp')",
]

ALLOWED = [
    "create trigger t after insert on storage.objects for each row"
    " execute function public.tg_nothing()",
    "create trigger t after insert on storage.buckets for each row"
    " execute function public.tg_nothing()",
    "create or replace trigger t after insert on auth.users for each row"
    " execute function public.tg_nothing()",
    "create policy p on storage.objects for select to authenticated using (true)",
    "create policy p on storage.buckets for select to authenticated using (true)",
    "create policy p on auth.users for select to authenticated using (true)",
    "create policy p on storage.objects for select to authenticated using (true);"
    " alter policy p on storage.objects using (false); drop policy p on storage.objects",
    "insert into storage.buckets (id, name) values ('mine', 'mine')",
    "update storage.buckets set public = true where id = 'files'",
    "create table public.mine (id uuid references auth.users (id) on delete cascade)",
    "create table public.mine (id uuid references storage.objects (id) on delete cascade)",
    "create table public.mine (id text references storage.buckets (id))",
    "create schema mine",
    "create role mine",
    "create publication mine",
    "create table public.mine (id int primary key);"
    " alter publication supabase_realtime add table public.mine",
    "alter role authenticator set pgrst.db_pre_request = 'private.pre_request'",
    "create extension pg_trgm with schema extensions",
    "create extension unaccent with schema extensions",
    "grant select on auth.users to service_role",
    # dropping our own function takes its triggers on their tables along
    "create trigger t after insert on storage.objects for each row"
    " execute function public.tg_nothing(); drop function public.tg_nothing() cascade",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_postgres_is_refused(db: Database, statement: str) -> None:
    database = db.one("select current_database()")

    with pytest.raises(psycopg.Error) as error, db.connection.transaction():
        db.connection.execute(statement.format(database=database))  # type: ignore[arg-type]

    assert error.value.sqlstate == "42501", error.value


@pytest.mark.parametrize("statement", ALLOWED)
def test_postgres_is_allowed(db: Database, statement: str) -> None:
    db.connection.execute(FUNCTION)

    db.connection.execute(statement)  # type: ignore[arg-type]


def test_objects_are_not_deleted_directly(db: Database) -> None:
    db.connection.execute("insert into storage.buckets (id, name) values ('direct', 'direct')")
    for statement in (
        "delete from storage.buckets where id = 'direct'",
        "delete from storage.objects where bucket_id = 'direct'",
    ):
        with pytest.raises(psycopg.Error, match="Direct deletion") as error, db.as_service():
            db.connection.execute(statement)  # type: ignore[arg-type]
        assert error.value.sqlstate == "42501"
    assert db.one("select count(*) from storage.buckets where id = 'direct'") == 1


def test_the_roles_are_the_hosted_ones(db: Database) -> None:
    rows = db.all(
        "select rolname::text, rolsuper, rolbypassrls, rolcanlogin, rolinherit, rolcreaterole"
        " from pg_roles where rolname = any(%s) order by 1",
        [
            "anon", "authenticated", "authenticator", "postgres", "service_role",
            "supabase_admin", "supabase_auth_admin", "supabase_storage_admin",
        ],
    )  # fmt: skip

    assert rows == [
        ("anon", False, False, False, False, False),
        ("authenticated", False, False, False, False, False),
        ("authenticator", False, False, True, False, False),
        ("postgres", False, True, True, True, True),
        ("service_role", False, True, False, False, False),
        ("supabase_admin", True, True, True, True, True),
        ("supabase_auth_admin", False, False, True, False, True),
        ("supabase_storage_admin", False, False, True, False, True),
    ]


def test_api_roles_have_their_statement_timeouts(db: Database) -> None:
    rows = db.all(
        "select rolname::text || ' ' || setting from pg_roles, unnest(rolconfig) as setting"
        " where rolname in ('anon', 'authenticated') order by 1"
    )

    assert rows == ["anon statement_timeout=3s", "authenticated statement_timeout=8s"]


def test_schemas_belong_to_the_superuser_and_tables_to_the_services(db: Database) -> None:
    assert db.all(
        "select nspname || ' ' || nspowner::regrole from pg_namespace"
        " where nspname in ('auth', 'storage', 'extensions') order by 1"
    ) == ["auth supabase_admin", "extensions postgres", "storage supabase_admin"]
    assert db.all(
        "select distinct n.nspname || ' ' || c.relowner::regrole from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where n.nspname in ('auth', 'storage') and c.relkind = 'r' order by 1"
    ) == ["auth supabase_auth_admin", "storage supabase_storage_admin"]


def test_row_security_is_on_for_objects_and_buckets(db: Database) -> None:
    assert db.all(
        "select relrowsecurity from pg_class"
        " where oid in ('storage.objects'::regclass, 'storage.buckets'::regclass)"
    ) == [True, True]


@pytest.mark.parametrize("role", ["supabase_storage_admin", "authenticator"])
def test_services_switch_to_api_roles_and_to_no_other(db: Database, role: str) -> None:
    with db.as_role(role):
        for target in ("anon", "authenticated", "service_role"):
            db.connection.execute(f"set role {target}")  # type: ignore[arg-type]
            db.connection.execute("reset role")
        for target in ("postgres", "supabase_admin"):
            with pytest.raises(psycopg.Error) as error, db.connection.transaction():
                db.connection.execute(f"set role {target}")  # type: ignore[arg-type]
            assert error.value.sqlstate == "42501"
