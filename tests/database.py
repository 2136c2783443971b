"""The database as tests see it: users to be, and short ways to ask."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql


class Database:
    """One connection in one transaction that is rolled back when the test ends.

    Outside the `as_…` blocks statements run as `postgres`, the role of the migrations.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._act_as("postgres", None)

    def all(self, query: LiteralString, *args: object) -> list[Any]:
        """Return the rows: plain values when there is one column, tuples otherwise."""
        cursor = self.connection.execute(query, args or None)
        if cursor.description is None:
            return []
        rows = cursor.fetchall()
        return [row[0] for row in rows] if len(cursor.description) == 1 else rows

    def one(self, query: LiteralString, *args: object) -> Any:
        """Return the only row (its value when there is one column); None when there is none."""
        rows = self.all(query, *args)
        assert len(rows) <= 1, f"{len(rows)} rows where at most one was expected"
        return rows[0] if rows else None

    def create_user(self, email: str | None = None, **metadata: object) -> uuid.UUID:
        """Sign somebody up and return the id; `metadata` is what a frontend passes as data."""
        user_id = uuid.uuid4()
        self.connection.execute(
            "insert into auth.users (id, aud, role, email, email_confirmed_at,"
            " raw_app_meta_data, raw_user_meta_data, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', %s, now(), %s, %s, now(), now())",
            (
                user_id,
                email or f"{user_id.hex[:12]}@example.test",
                json.dumps({"provider": "email", "providers": ["email"]}),
                json.dumps(metadata),
            ),
        )
        return user_id

    @contextmanager
    def as_user(self, user_id: uuid.UUID | None, **claims: object) -> Iterator[None]:
        """Act as a signed-in user, or as `anon` when there is none.

        A savepoint: when the block raises, what it did is undone and the test goes on.
        """
        if user_id is None:
            token: dict[str, object] = {"role": "anon"}
        else:
            token = {"sub": str(user_id), "role": "authenticated", "aud": "authenticated"}
        with self._acting(str(token["role"]), token | claims):
            yield

    @contextmanager
    def as_service(self) -> Iterator[None]:
        """Act as the holder of the service key."""
        with self._acting("service_role", {"role": "service_role"}):
            yield

    @contextmanager
    def as_role(self, role: str) -> Iterator[None]:
        """Act as a login role with no claims, such as `narwhal_worker`."""
        with self._acting(role, None):
            yield

    @contextmanager
    def _acting(self, role: str, claims: dict[str, object] | None) -> Iterator[None]:
        before = self.one("select current_user::text")
        claims_before = self.one("select current_setting('request.jwt.claims', true)")
        with self.connection.transaction():  # inside the test's transaction: a savepoint
            self._act_as(role, claims)
            yield
            # releasing a savepoint keeps its settings, so they are put back by hand
            self._act_as(before, json.loads(claims_before) if claims_before else None)

    def _act_as(self, role: str, claims: dict[str, object] | None) -> None:
        # the session's user changes, not only its role: that takes away what membership would give
        self.connection.execute("reset session authorization")
        if role in ("anon", "authenticated", "service_role"):
            self.connection.execute("set session authorization authenticator")
            self.connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        else:
            self.connection.execute(
                sql.SQL("set session authorization {}").format(sql.Identifier(role))
            )
        self.connection.execute(
            "select set_config('request.jwt.claims', %s, true)",
            (json.dumps(claims) if claims else "",),
        )
