"""What nobody remembers for each new table, function and policy, asked of the catalogue."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from narwhal.local.migrate import migrations_dir
from narwhal.local.postgres import SUPERUSER
from tests.database import Database

HERE = Path(__file__).parent
GOLDEN = HERE / "privileges.txt"
MIGRATIONS = "\n".join(path.read_text("utf-8") for path in sorted(migrations_dir().glob("*.sql")))

# definer functions that clients may call, though public has no invoker of that name before them,
# and why an invoker would not do
HELPERS = {
    # who is asking: they decide readability, so they cannot depend on what the caller may read
    "is_active": "reads the caller's own profile, also when it is closed",
    "has_permission": "the caller's own role only",
    "my_owner_ids": "the caller's own ids only",
    "my_group_ids": "the caller's own groups only",
    "my_managed_owner_ids": "the caller's own and their workspaces' ids only",
    "my_share_ids": "the shares that name the caller only",
    "granted_roots": "the caller's own grants only",
    "my_managed_roots": "the caller's own grants only",
    "is_trashed": "yes or no about one node, inside a policy that has found the caller's rows",
    "require_user": "raises or returns the caller's own id",
    "require_reader": "raises or returns nothing",
    "pre_request": "runs before every request, only reads",
    # what policies on storage.objects ask: yes or no about the caller and one key
    "holds_ticket": "tickets are read through RLS, but this runs inside Storage's insert",
    "open_object": "asked by a policy with the caller's own grants; it counts reads through links",
    # what policies on realtime.messages ask: yes or no about the caller and one channel
    "can_watch": "the rule of who may read, asked once a statement",
    "check_ocr_languages": "which languages OCR reads is no secret, and the list is in no API",
    "find_space": "tells anon our error instead of a refusal; spaces are no secret to users",
}

# features by the first version that has them: hosted runs PostgreSQL 17 and vector 0.8.2.
# PostgreSQL 18's release notes, section E.2.3; pgvector's changelog after 0.8.2.
TOO_NEW = {
    "virtual generated column (18)": r"generated\s+always\s+as\s*\([^;]*?\)\s*virtual",
    "uuidv7, uuidv4 (18)": r"\buuidv[47]\s*\(",
    "returning old, new (18)": r"\breturning\b[^;]*?\b(old|new)\s*\.\s*[\w*]+",
    "returning with (18)": r"\breturning\s+with\s*\(",
    "without overlaps (18)": r"\bwithout\s+overlaps\b",
    "foreign key period (18)": r"\bforeign\s+key\s*\([^)]*\bperiod\b",
    "constraint not enforced (18)": r"\bnot\s+enforced\b",
    "not null as a table constraint (18)": r"\badd\s+(constraint\s+\w+\s+)?not\s+null\b",
    "array_sort, array_reverse (18)": r"\barray_(sort|reverse)\s*\(",
    "casefold (18)": r"\bcasefold\s*\(",
    "crc32 (18)": r"\bcrc32c?\s*\(",
    "gamma (18)": r"\bl?gamma\s*\(",
    "pg_unicode_fast (18)": r"\bpg_unicode_fast\b",
    "integer as bytea (18)": r"\breverse\s*\(\s*\w+\s*::\s*bytea",
    "json_strip in arrays (18)": r"\bjsonb?_strip_nulls\s*\([^()]*,\s*true",
    "copy on_error limit (18)": r"\breject_limit\b",
    "copy from a matview (18)": r"\bcopy\s+\w+\s+to\b",
    "pg_get_acl (18)": r"\bpg_get_acl\s*\(",
    "vacuum only (18)": r"\bvacuum\s*\([^)]*\)\s*only\b",
    "max over records, arrays of bytea (18)": r"\b(min|max)\s*\(\s*row\s*\(",
    "a version of the extension": r"\bcreate\s+extension\b[^;]*\bversion\b",
    "index scans by vector 0.8.3 or newer": r"\bhnsw\.(parallel|streaming)\w*",
}


def _names(rows: list[Any]) -> list[str]:
    return sorted(" ".join(map(str, row)) if isinstance(row, tuple) else str(row) for row in rows)


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql).lower()


def test_row_security_is_on_for_every_table(db: Database) -> None:
    tables = db.all(
        "select c.oid::regclass::text, c.relrowsecurity from pg_class as c"
        " where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " and c.relkind in ('r', 'p', 'f', 'm')"
    )
    assert len(tables) > 10
    assert [name for name, secured in tables if not secured] == []


def test_every_table_of_the_api_has_a_policy_and_a_primary_key(db: Database) -> None:
    assert (
        db.all(
            "select c.oid::regclass::text from pg_class as c"
            " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')"
            " and not exists (select from pg_policy as p where p.polrelid = c.oid)"
        )
        == []
    )
    assert (
        db.all(
            "select c.oid::regclass::text from pg_class as c"
            " where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)"
            " and c.relkind in ('r', 'p') and not exists"
            " (select from pg_constraint as k where k.conrelid = c.oid and k.contype = 'p')"
        )
        == []
    )


def test_views_of_the_api_run_as_their_caller(db: Database) -> None:
    assert (
        db.all(
            "select c.oid::regclass::text from pg_class as c"
            " where c.relnamespace = 'public'::regnamespace and (c.relkind in ('m', 'f') or"
            " (c.relkind = 'v' and not coalesce(c.reloptions::text ~ 'security_invoker=(true|on)',"
            " false)))"
        )
        == []
    )


def test_every_function_pins_its_search_path(db: Database) -> None:
    functions = db.all(
        "select p.oid::regprocedure::text,"
        " p.prosqlbody is not null or 'search_path=\"\"' = any(p.proconfig)"
        " from pg_proc as p"
        " where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)"
    )
    assert len(functions) > 50
    assert [name for name, pinned in functions if not pinned] == []


def test_no_function_of_the_api_runs_with_its_owners_rights(db: Database) -> None:
    definers = "select count(*) from pg_proc where prosecdef and pronamespace = %s::regnamespace"
    assert db.one(definers, "public") == 0
    assert db.one(definers, "private") > 10  # control: the query finds them


def test_every_definer_function_says_why(db: Database) -> None:
    definers = db.all(
        "select proname from pg_proc where prosecdef and pronamespace = 'private'::regnamespace"
    )
    reasons = dict(
        re.findall(
            r"create (?:or replace )?function private\.(\w+)\((?:(?!create ).)*?"
            r"security definer( -- \w[^\n]{10,})?\n",
            MIGRATIONS,
            re.DOTALL,
        )
    )
    assert [name for name in definers if not reasons.get(name)] == []


def test_clients_call_definer_functions_through_the_api_or_for_a_listed_reason(
    db: Database,
) -> None:
    callable_ = db.all(
        "select distinct p.proname from pg_proc as p, unnest(array['anon', 'authenticated']) as r"
        " where p.prosecdef and p.pronamespace = 'private'::regnamespace"
        " and has_function_privilege(r, p.oid, 'execute')"
        " and not exists (select from pg_proc as a where a.proname = p.proname"
        " and a.pronamespace = 'public'::regnamespace and a.prosrc ~ ('private\\.' || p.proname))"
    )
    assert sorted(callable_) == sorted(HELPERS)


def test_nothing_is_executable_by_public(db: Database) -> None:
    query = (
        "select p.oid::regprocedure::text from pg_proc as p"
        " cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a"
        " where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " and a.grantee = 0"
    )
    assert db.all(query) == []
    db.all("create function private.control() returns int language sql return 1")
    assert db.all(query) == []  # nor is a new one
    db.all("grant execute on function private.control() to public")
    assert db.all(query) == ["private.control()"]


def test_a_new_table_is_open_to_nobody(db: Database) -> None:
    db.all("create table public.control (id int primary key)")
    assert (
        db.all(
            "select r from unnest(array['anon', 'authenticated', 'service_role', 'narwhal_worker'])"
            " as r where has_table_privilege(r, 'public.control', 'select, insert, update, delete')"
        )
        == []
    )


def test_every_foreign_key_has_an_index(db: Database) -> None:
    query = (
        "select k.conrelid::regclass::text, k.conname::text from pg_constraint as k"
        " where k.contype = 'f' and k.connamespace in"
        " ('public'::regnamespace, 'private'::regnamespace)"
        " and not exists (select from pg_index as i where i.indrelid = k.conrelid"
        " and i.indpred is null and i.indisvalid"
        " and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)"
        # a partition is all rows of its key
        " and not exists (select from pg_partitioned_table as t left join pg_inherits as h"
        " on h.inhparent = t.partrelid where k.conrelid in (t.partrelid, h.inhrelid)"
        " and t.partattrs::int2[] @> k.conkey)"
    )
    assert db.all(query) == []
    db.all("drop index public.uploads_file_id_idx")
    assert db.all(query) == [("uploads", "uploads_file_id_fkey")]


def test_no_index_repeats_another(db: Database) -> None:
    query = (
        "select min(i.indexrelid::regclass::text), count(*) from pg_index as i"
        " join pg_class as c on c.oid = i.indrelid"
        " where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " group by i.indrelid, i.indkey::text, i.indclass::text, i.indcollation::text,"
        " i.indoption::text, pg_get_expr(i.indexprs, i.indrelid),"
        " pg_get_expr(i.indpred, i.indrelid)"
        " having count(*) > 1"
    )
    assert db.all(query) == []
    db.all("create index on public.uploads (file_id)")
    assert len(db.all(query)) == 1


def test_every_table_function_and_type_has_a_comment(db: Database) -> None:
    uncommented = db.all(
        "select c.oid::regclass::text from pg_class as c"
        " where c.relnamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " and c.relkind in ('r', 'p', 'v', 'm') and obj_description(c.oid, 'pg_class') is null"
        " union all"
        " select p.oid::regprocedure::text from pg_proc as p"
        " where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " and obj_description(p.oid, 'pg_proc') is null"
        " union all"
        " select t.oid::regtype::text"
        " from pg_type as t left join pg_class as c on c.oid = t.typrelid"
        " where t.typnamespace in ('public'::regnamespace, 'private'::regnamespace)"
        " and (t.typtype in ('e', 'd') or c.relkind = 'c')"
        " and coalesce(obj_description(t.oid, 'pg_type'), obj_description(c.oid, 'pg_class'))"
        " is null"
        " union all"
        " select r.rolname from pg_roles as r"
        " where r.rolname like 'narwhal%' and shobj_description(r.oid, 'pg_authid') is null"
        " order by 1"
    )
    assert uncommented == []


def test_comments_of_the_api_start_with_a_line_of_their_own(db: Database) -> None:
    """PostgREST publishes the first line as summary, the rest as description."""
    for name, comment in db.all(
        "select p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') from pg_proc as p"
        " where p.pronamespace = 'public'::regnamespace"
    ):
        first = comment.splitlines()[0]
        assert len(first) <= 120, name
        assert first[0].isupper(), name


def test_policies_name_their_roles_and_ask_once_a_statement(db: Database) -> None:
    policies = db.all(
        "select tablename || '.' || policyname, roles::text[], permissive, cmd,"
        " concat(qual, ' ', with_check) from pg_policies"
        " where schemaname in ('public', 'private') or policyname like 'narwhal\\_%'"
    )
    assert len(policies) > 10
    for name, roles, permissive, command, condition in policies:
        assert "public" not in roles, name
        assert permissive == "RESTRICTIVE" or command != "ALL", name
        # a helper without arguments is asked once, as a subselect; so is auth.uid()
        bare = re.sub(r"\(\s*select\s+(auth|private)\.\w+\(\)", "", condition, flags=re.IGNORECASE)
        assert not re.search(r"\b(auth\.\w+|private\.\w+)\(\)", bare), name
        assert "user_metadata" not in condition, name
        assert condition.strip().lower() not in ("true", "(true)"), name


def test_no_two_permissive_policies_answer_for_one_role_and_command(db: Database) -> None:
    assert (
        db.all(
            "select p.schemaname, p.tablename, r.role, p.cmd from pg_policies as p"
            " cross join lateral unnest(p.roles) as r (role)"
            " where (p.schemaname = 'public' or p.policyname like 'narwhal\\_%')"
            " and p.permissive = 'PERMISSIVE' group by 1, 2, 3, 4 having count(*) > 1"
        )
        == []
    )


def test_no_foreign_key_leads_to_anything_of_auth_but_a_users_id(db: Database) -> None:
    targets = db.all(
        "select distinct k.confrelid::regclass::text || k.confkey::text from pg_constraint as k"
        " where k.contype = 'f' and k.connamespace in"
        " ('public'::regnamespace, 'private'::regnamespace)"
        " and k.confrelid::regclass::text ~ '^(auth|storage)[.]'"
    )
    key = db.one(
        "select attnum from pg_attribute where attrelid = 'auth.users'::regclass and attname = 'id'"
    )
    assert targets == [f"auth.users{{{key}}}"]


def test_the_buckets_are_private(db: Database) -> None:
    assert db.all("select id, public from storage.buckets order by id") == [
        ("derived", False),
        ("files", False),
    ]


@pytest.mark.parametrize("feature", TOO_NEW)
def test_migrations_use_nothing_newer_than_hosted_projects_have(feature: str) -> None:
    found = re.search(TOO_NEW[feature], _without_comments(MIGRATIONS), re.DOTALL)
    assert found is None, found


@pytest.mark.parametrize(
    "sql",
    [
        "id uuid default uuidv7()",
        "create table t (a int, b int generated always as (a * 2) virtual)",
        "update t set a = 1 returning old.a, new.a",
        "unique (id, valid_at without overlaps)",
        "create extension vector with schema extensions version '0.8.6'",
        "foreign key (id, period valid_at) references t",
        "check (a > 0) not enforced",
    ],
)
def test_what_is_too_new_would_be_noticed(sql: str) -> None:
    assert any(re.search(pattern, sql, re.DOTALL) for pattern in TOO_NEW.values())


def test_migrations_hide_no_drift_and_name_no_superuser() -> None:
    text = _without_comments(MIGRATIONS)
    allowed = r"create extension if not exists (vector|fuzzystrmatch)\b"  # hosted projects may
    assert re.findall(r"if not exists\s+\w+", re.sub(allowed, "", text)) == []
    assert "supabase_admin" not in text
    assert "or replace function" not in text  # before a release the original file is edited


def test_privileges_are_those_of_the_golden_file(db: Database) -> None:
    """Renew it with NARWHAL_UPDATE_GOLDEN=1 and read the difference as a reviewer would."""
    text = _privileges(db)
    if os.environ.get("NARWHAL_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert GOLDEN.read_text("utf-8") == text


def test_the_golden_file_would_show_a_grant_too_many(db: Database) -> None:
    db.all("grant update (name) on public.nodes to authenticated")
    db.all("grant execute on function private.enqueue(uuid, text, smallint) to public")
    extra = set(_privileges(db).splitlines()) - set(GOLDEN.read_text("utf-8").splitlines())
    assert sorted(extra) == [
        "function private.enqueue(version_id uuid, stage text, space_id smallint DEFAULT"
        " NULL::smallint): execute PUBLIC, anon, authenticated, narwhal_worker, service_role",
        "table public.nodes (name): update authenticated",
    ]


def test_workers_may_call_the_queue_and_nothing_else(db: Database) -> None:
    lines = [line for line in _privileges(db).splitlines() if "narwhal_worker" in line]
    assert [line for line in lines if not line.startswith("function private.")] == [
        "schema private: usage anon, authenticated, narwhal_worker, service_role",
        # PUBLIC's, and it holds nothing for them
        "schema public: usage PUBLIC, anon, authenticated, narwhal_worker, service_role",
    ]
    assert len(lines) > 10


def _privileges(db: Database) -> str:
    """Who may do what, a line per object and right; objects that nobody may use are left out."""
    rows = db.all(
        """
        with roles (name) as (
            values ('anon'), ('authenticated'), ('service_role'), ('narwhal_worker')
        ), schemas as (
            select oid, nspname from pg_namespace where nspname in ('public', 'private')
        ), rights as (
            select 'schema ' || s.nspname as object, lower(p.name) as privilege, r.name as role
            from schemas as s cross join (values ('USAGE'), ('CREATE')) as p (name)
            cross join roles as r
            where has_schema_privilege(r.name, s.oid, p.name)
            union all
            select 'schema ' || s.nspname, lower(a.privilege_type), 'PUBLIC'
            from schemas as s
            inner join pg_namespace as n on n.oid = s.oid
            cross join lateral aclexplode(n.nspacl) as a where a.grantee = 0
            union all
            select case c.relkind when 'S' then 'sequence ' else 'table ' end
                || s.nspname || '.' || c.relname, lower(p.name), r.name
            from pg_class as c inner join schemas as s on s.oid = c.relnamespace
            cross join (
                values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'),
                ('TRIGGER'), ('USAGE')
            ) as p (name)
            cross join roles as r
            where case
                when c.relkind = 'S' then p.name in ('SELECT', 'UPDATE', 'USAGE')
                    and has_sequence_privilege(r.name, c.oid, p.name)
                when c.relkind in ('r', 'p', 'v', 'm', 'f') then p.name <> 'USAGE'
                    and has_table_privilege(r.name, c.oid, p.name)
            end
            union all
            select 'table ' || s.nspname || '.' || c.relname, lower(a.privilege_type), 'PUBLIC'
            from pg_class as c inner join schemas as s on s.oid = c.relnamespace
            cross join lateral aclexplode(c.relacl) as a where a.grantee = 0
            union all
            select format('table %s.%s (%s)', s.nspname, c.relname, string_agg(t.attname, ', '
                order by t.attnum)), lower(p.name), r.name
            from pg_class as c inner join schemas as s on s.oid = c.relnamespace
            inner join pg_attribute as t on t.attrelid = c.oid and t.attnum > 0
            cross join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) as p (name)
            cross join roles as r
            where c.relkind in ('r', 'p', 'v', 'm', 'f') and not t.attisdropped
                and not has_table_privilege(r.name, c.oid, p.name)
                and has_column_privilege(r.name, c.oid, t.attnum, p.name)
            group by s.nspname, c.relname, p.name, r.name
            union all
            select format('function %s.%s(%s)', s.nspname, f.proname,
                pg_get_function_arguments(f.oid)), 'execute', r.name
            from pg_proc as f inner join schemas as s on s.oid = f.pronamespace
            cross join roles as r
            where has_function_privilege(r.name, f.oid, 'EXECUTE')
            union all
            select format('function %s.%s(%s)', s.nspname, f.proname,
                pg_get_function_arguments(f.oid)), 'execute', 'PUBLIC'
            from pg_proc as f inner join schemas as s on s.oid = f.pronamespace
            cross join lateral aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a
            where a.grantee = 0
        )
        select object || ': ' || privilege || ' '
            || string_agg(role, ', ' order by role collate "C")
        from rights group by object, privilege
        """
    )
    return "\n".join(_names(rows)) + "\n"


def test_the_schema_snapshot_is_what_the_migrations_make(
    cluster: Any, shared_database: str
) -> None:
    """When it fails: run scripts/schema, and read the difference."""
    script = runpy.run_path(str(HERE.parent.parent / "scripts" / "schema.py"))
    made = script["dump"](cluster.url(SUPERUSER, shared_database))
    assert script["FILE"].read_text("utf-8") == made
