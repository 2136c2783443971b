"""Makes a fresh database look like a hosted Supabase project: roles, grants, auth, storage.

The `*.sql` files here run once per database, in order of name, as the superuser and in one
transaction. Roles belong to the whole cluster, so 10_roles.sql accepts that they exist. Once a
version is released its files stay as they are and changes come as a new file, as with migrations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from narwhal.errors import NarwhalError

FOLDER = Path(__file__).parent
LOCK = 0x6E61727768616C  # 'narwhal'


def bootstrap(url: str, passwords: Mapping[str, str] | None = None) -> list[str]:
    """Run what has not run yet in the database at `url` (as its superuser); return the names.

    Sets the login roles' passwords each time. Raises NarwhalError (BOOTSTRAP_CHANGED) when a
    file differs from the one this database was made with.
    """
    with psycopg.connect(url) as connection:
        done = _run_files(connection)
        _set_passwords(connection, passwords or {})
    return done


def set_passwords(url: str, passwords: Mapping[str, str]) -> None:
    """Give roles the passwords that the caller knows, as the superuser of the cluster at `url`."""
    with psycopg.connect(url) as connection:
        _set_passwords(connection, passwords)


def _run_files(connection: psycopg.Connection) -> list[str]:
    connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
    connection.execute("create schema if not exists narwhal_local")
    connection.execute(
        "create table if not exists narwhal_local.bootstrap ("
        " file text primary key, sha256 text not null,"
        " applied_at timestamptz not null default now())"
    )
    known: dict[str, str] = dict(
        connection.execute("select file, sha256 from narwhal_local.bootstrap").fetchall()
    )
    done = []
    for path in sorted(FOLDER.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        if known.get(path.name, checksum) != checksum:
            raise NarwhalError(
                f"This database was made by another version of Narwhal ({path.name} differs).",
                "Use that version to keep its data, or start afresh: narwhal db reset --yes",
                error="BOOTSTRAP_CHANGED",
                details={"file": path.name},
            )
        if path.name in known:
            continue
        connection.execute(text.encode())
        # a file may leave its own role or path behind
        connection.execute("reset all; reset session authorization; reset role")
        connection.execute(
            "insert into narwhal_local.bootstrap (file, sha256) values (%s, %s)",
            (path.name, checksum),
        )
        done.append(path.name)
    return done


def _set_passwords(connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    for role, password in passwords.items():
        # hashed here, so that no log of the server ever holds the password
        hashed = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(hashed))
        )
