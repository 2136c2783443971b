"""Migrations on a database of their own: order, repetition, drift, failure, two at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from narwhal.errors import NarwhalError
from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate, migrations_dir, read_migrations, status
from narwhal.local.postgres import SUPERUSER


@pytest.fixture
def url(cluster: Any) -> Iterator[str]:
    """Make an empty database that `postgres` owns."""
    name = "narwhal_migrations"
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        bootstrap(cluster.url(SUPERUSER, name), cluster.server.passwords)
        yield cluster.url("postgres", name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two migrations."""
    write(tmp_path, "20260101000000_first.sql", "create table public.first (id int);")
    write(tmp_path, "20260102000000_second.sql", "insert into public.first values (1);")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def test_our_migrations_apply_as_postgres_and_a_second_run_changes_nothing(url: str) -> None:
    applied = migrate(url)
    before = ask(url, "select * from supabase_migrations.narwhal_checksums order by 1")

    assert applied == sorted(path.name for path in migrations_dir().glob("*.sql"))
    assert migrate(url) == []
    assert ask(url, "select * from supabase_migrations.narwhal_checksums order by 1") == before
    assert {row.state for row in status(url)} == {"applied"}


def test_files_apply_in_order_and_are_listed_in_the_table_of_the_supabase_cli(
    url: str, folder: Path
) -> None:
    assert [row.state for row in status(url, folder)] == ["pending", "pending"]
    assert migrate(url, folder) == ["20260101000000_first.sql", "20260102000000_second.sql"]

    assert ask(url, "select version, name from supabase_migrations.schema_migrations") == [
        ("20260101000000", "first"),
        ("20260102000000", "second"),
    ]
    assert ask(url, "select count(*) from public.first") == [(1,)]


def test_a_changed_file_is_refused(url: str, folder: Path) -> None:
    migrate(url, folder)
    write(folder, "20260102000000_second.sql", "insert into public.first values (2);")

    with pytest.raises(NarwhalError) as error:
        migrate(url, folder)

    assert error.value.error == "MIGRATION_DRIFT"
    assert "20260102000000_second (changed)" in error.value.message
    assert ask(url, "select id from public.first") == [(1,)]


def test_line_ends_of_a_checkout_are_no_change(url: str, folder: Path) -> None:
    write(folder, "20260103000000_third.sql", "select 1;\nselect 2;\n")
    migrate(url, folder)
    (folder / "20260103000000_third.sql").write_bytes(b"select 1;\r\nselect 2;\r\n")

    assert migrate(url, folder) == []


def test_a_vanished_file_is_refused(url: str, folder: Path) -> None:
    migrate(url, folder)
    (folder / "20260102000000_second.sql").unlink()

    with pytest.raises(NarwhalError, match=r"second \(missing\)"):
        migrate(url, folder)


def test_a_pending_file_older_than_an_applied_one_is_refused(url: str, folder: Path) -> None:
    migrate(url, folder)
    write(folder, "20260101120000_late.sql", "create table public.late ();")

    with pytest.raises(NarwhalError, match="20260101120000_late") as error:
        migrate(url, folder)

    assert error.value.error == "MIGRATION_DRIFT"
    assert ask(url, "select to_regclass('public.late')") == [(None,)]


def test_what_the_supabase_cli_applied_is_not_applied_again(url: str, folder: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute(
            "create table supabase_migrations.schema_migrations"
            " (version text primary key, statements text [], name text)"
        )
        connection.execute("create table public.first (id int)")
        connection.execute(
            "insert into supabase_migrations.schema_migrations values"
            " ('20260101000000', '{}', 'first'), ('20250101000000', '{}', 'of_the_project')"
        )

    assert migrate(url, folder) == ["20260102000000_second.sql"]


def test_a_failing_file_leaves_no_trace_and_the_files_before_it_stay(
    url: str, folder: Path
) -> None:
    write(
        folder,
        "20260103000000_broken.sql",
        "create table public.half ();\n\nselect * from public.missing;",
    )

    with pytest.raises(NarwhalError) as error:
        migrate(url, folder)

    assert error.value.error == "MIGRATION_FAILED"
    assert "20260103000000_broken.sql failed at line 3" in error.value.message
    assert error.value.details["sqlstate"] == "42P01"
    assert ask(url, "select to_regclass('public.half')") == [(None,)]
    assert [row.state for row in status(url, folder)] == ["applied", "applied", "pending"]


def test_settings_of_one_file_do_not_reach_the_next(url: str, folder: Path) -> None:
    write(folder, "20260103000000_role.sql", "set role anon; set search_path = auth;")
    write(folder, "20260104000000_after.sql", "create table public.after as select current_user;")
    migrate(url, folder)

    assert ask(url, 'select "current_user"::text from public.after') == [("postgres",)]


def test_two_runs_at_once_apply_each_file_once(url: str, folder: Path) -> None:
    write(folder, "20260103000000_slow.sql", "select pg_sleep(0.3);")
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(migrate(url, folder))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    assert sorted(file for result in results for file in result) == [
        m.file for m in read_migrations(folder)
    ]
    assert ask(url, "select count(*) from public.first") == [(1,)]


@pytest.mark.parametrize("name", ["first.sql", "2026_first.sql", "20260101000000-first.sql"])
def test_a_name_that_is_no_migration_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "select 1;")

    with pytest.raises(NarwhalError, match=name):
        read_migrations(tmp_path)


def test_two_files_of_one_version_are_refused(folder: Path) -> None:
    write(folder, "20260101000000_again.sql", "select 1;")

    with pytest.raises(NarwhalError, match="Two migrations"):
        read_migrations(folder)


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(NarwhalError) as error:
        migrate("postgresql://postgres:very-secret@127.0.0.1:1/postgres")

    assert error.value.error == "DATABASE_UNREACHABLE"
    assert "very-secret" not in error.value.message
