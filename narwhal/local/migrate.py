"""Applies supabase/migrations to any database, as the Supabase CLI does, and notices drift.

Applied files are listed in the CLI's own table, so both tools can be used on one project; a
checksum of each file is kept beside it in `supabase_migrations.narwhal_checksums`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

import narwhal
from narwhal.errors import NarwhalError

LOCK = 0x6D696772617465  # 'migrate'
LOCK_WAIT_S = 120
FILE_NAME = re.compile(r"(\d{14})_([a-z0-9_]+)\.sql")

TRACKING = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
    version text not null primary key
);
alter table supabase_migrations.schema_migrations add column if not exists statements text [];
alter table supabase_migrations.schema_migrations add column if not exists name text;
create table if not exists supabase_migrations.narwhal_checksums (
    version text not null primary key,
    sha256 text not null,
    applied_at timestamptz not null default now()
);
"""


@dataclass(frozen=True)
class Migration:
    """One file: `version` is its 14-digit timestamp, `name` the rest."""

    version: str
    name: str
    sql: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.version}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        """Checksum of the text, the same whatever the line ends of a checkout."""
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


@dataclass(frozen=True)
class MigrationStatus:
    """How a database stands to one file.

    `changed`: applied from another text; `missing`: applied by us, and no such file here.
    """

    version: str
    name: str
    state: Literal["applied", "pending", "changed", "missing"]
    applied_at: str | None


def migrations_dir() -> Path:
    """Return the folder of the migrations: the checkout's, else the copy inside the wheel."""
    package = Path(narwhal.__file__).parent
    for folder in (package.parent / "supabase" / "migrations", package / "migrations"):
        if folder.is_dir():
            return folder
    raise NarwhalError(
        "No migrations were found.",
        "Install narwhal again, or run it from a checkout.",
        error="NOT_INSTALLED",
    )


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """Return the migrations of a folder in the order in which they apply."""
    found = []
    for path in sorted((folder or migrations_dir()).glob("*.sql")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise NarwhalError(
                f"{path.name} is no name for a migration.",
                "Call it YYYYMMDDhhmmss_capability.sql.",
                error="INVALID_MIGRATION",
            )
        found.append(Migration(match[1], match[2], path.read_text(encoding="utf-8")))
    versions = [migration.version for migration in found]
    for version in versions:
        if versions.count(version) > 1:
            raise NarwhalError(
                f"Two migrations have the version {version}.",
                "Give one of them a later timestamp.",
                error="INVALID_MIGRATION",
            )
    return found


def status(database_url: str, folder: Path | None = None) -> list[MigrationStatus]:
    """Compare the files with what the database says was applied; changes nothing."""
    with _connect(database_url) as connection:
        return _compare(connection, read_migrations(folder))


def migrate(database_url: str, folder: Path | None = None) -> list[str]:
    """Apply what is pending, one transaction a file; return the names of the applied files.

    Two runs at once wait for each other. Raises NarwhalError: MIGRATION_DRIFT when applied files
    changed, vanished, or a pending one is older than an applied one; MIGRATION_FAILED with the
    server's message when a file fails, which leaves the database as the file before left it.
    """
    migrations = read_migrations(folder)
    applied = []
    with _connect(database_url) as connection:
        with connection.transaction():
            _lock(connection)
            if not _is_tracked(connection):
                connection.execute(TRACKING)
            _refuse_drift(_compare(connection, migrations))
        for migration in migrations:
            if _apply(connection, migration):
                applied.append(migration.file)
        if applied:
            connection.execute("notify pgrst, 'reload schema'")
            connection.execute("notify pgrst, 'reload config'")
    return applied


def _connect(database_url: str) -> psycopg.Connection:
    try:
        # no prepared statements: the URL may name a pooler
        return psycopg.connect(
            database_url, autocommit=True, prepare_threshold=None, connect_timeout=15
        )
    except psycopg.OperationalError as error:
        raise NarwhalError(
            f"The database does not answer: {str(error).strip().splitlines()[-1]}",
            "Check DATABASE_URL, or start the local stack with `narwhal up`.",
            error="DATABASE_UNREACHABLE",
            status=503,
        ) from error


def _lock(connection: psycopg.Connection) -> None:
    # for this transaction only: a session's lock would not survive a transaction pooler
    connection.execute(f"set local lock_timeout = '{LOCK_WAIT_S}s'")
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise NarwhalError(
            "Another migration is running on this database.",
            "Wait for it to end, then try again.",
            error="LOCKED",
            status=423,
        ) from error
    connection.execute("set local lock_timeout = 0")


def _is_tracked(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "select to_regclass('supabase_migrations.schema_migrations') is not null"
        " and to_regclass('supabase_migrations.narwhal_checksums') is not null"
        " and (select count(*) = 2 from pg_attribute"
        "      where attrelid = to_regclass('supabase_migrations.schema_migrations')"
        "      and attname in ('statements', 'name') and not attisdropped)"
    ).fetchone()
    return row is not None and bool(row[0])


def _compare(connection: psycopg.Connection, migrations: list[Migration]) -> list[MigrationStatus]:
    applied: dict[str, tuple[str, str | None, str | None]] = {}
    if _is_tracked(connection):
        rows = connection.execute(
            "select m.version, coalesce(m.name, ''), c.sha256,"
            " to_char(c.applied_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            " from supabase_migrations.schema_migrations as m"
            " left join supabase_migrations.narwhal_checksums as c using (version)"
        ).fetchall()
        applied = {version: (name, sha256, at) for version, name, sha256, at in rows}
    result = []
    for migration in migrations:
        if migration.version not in applied:
            result.append(MigrationStatus(migration.version, migration.name, "pending", None))
            continue
        _, sha256, at = applied.pop(migration.version)
        # without a checksum it was applied by the Supabase CLI, which keeps none
        same = sha256 in (None, migration.sha256)
        result.append(
            MigrationStatus(migration.version, migration.name, "applied" if same else "changed", at)
        )
    for version, (name, sha256, at) in applied.items():
        if sha256 is not None:  # others are the project's own migrations
            result.append(MigrationStatus(version, name, "missing", at))
    return sorted(result, key=lambda row: row.version)


def _refuse_drift(rows: list[MigrationStatus]) -> None:
    problems = [row for row in rows if row.state in ("changed", "missing")]
    if problems:
        names = ", ".join(f"{row.version}_{row.name} ({row.state})" for row in problems)
        raise NarwhalError(
            f"The database was migrated from other files: {names}.",
            "Use the version of Narwhal that made it, or start afresh: narwhal db reset --yes",
            error="MIGRATION_DRIFT",
            status=409,
            details={"migrations": [vars(row) for row in problems]},
        )
    newest = max((row.version for row in rows if row.state == "applied"), default="")
    late = [row for row in rows if row.state == "pending" and row.version < newest]
    if late:
        names = ", ".join(f"{row.version}_{row.name}" for row in late)
        raise NarwhalError(
            f"These migrations are older than applied ones and were never applied: {names}.",
            "Give them a later timestamp, so that every database applies them in one order.",
            error="MIGRATION_DRIFT",
            status=409,
            details={"migrations": [vars(row) for row in late]},
        )


def _apply(connection: psycopg.Connection, migration: Migration) -> bool:
    try:
        with connection.transaction():
            _lock(connection)
            already = connection.execute(
                "select 1 from supabase_migrations.schema_migrations where version = %s",
                (migration.version,),
            ).fetchone()
            if already:
                return False
            connection.execute(migration.sql.encode())
            # settings of one file must not reach the next
            connection.execute("reset all; reset role")
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements)"
                " values (%s, %s, %s)",
                (migration.version, migration.name, [migration.sql]),
            )
            connection.execute(
                "insert into supabase_migrations.narwhal_checksums (version, sha256)"
                " values (%s, %s)",
                (migration.version, migration.sha256),
            )
    except psycopg.Error as error:
        raise NarwhalError(
            f"{migration.file} failed{_line_of(migration.sql, error)}:"
            f" {error.diag.message_primary or error}",
            "Nothing of this file was applied; the files before it were.",
            error="MIGRATION_FAILED",
            details={
                "file": migration.file,
                "sqlstate": error.sqlstate,
                "detail": error.diag.message_detail,
                "context": error.diag.context,
            },
        ) from error
    return True


def _line_of(sql: str, error: psycopg.Error) -> str:
    position = error.diag.statement_position
    return f" at line {sql[: int(position)].count(chr(10)) + 1}" if position else ""
