"""Transactions under a caller's role, set up the way Supabase Storage sets them up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from narwhal.local.storage.callers import Caller
from narwhal.local.storage.errors import database_timeout, from_database

Pool: TypeAlias = AsyncConnectionPool[Any]
Cursor: TypeAlias = psycopg.AsyncCursor[DictRow]

STATEMENT_TIMEOUT = "30s"
LOCK_TIMEOUT = "5s"

# policies and triggers read these; storage.allow_delete_query lifts the delete protection
_SCOPE = """
    select
        set_config('role', %(role)s, true),
        set_config('request.jwt.claim.role', %(role)s, true),
        set_config('request.jwt', %(token)s, true),
        set_config('request.jwt.claim.sub', %(subject)s, true),
        set_config('request.jwt.claims', %(claims)s, true),
        set_config('request.headers', %(headers)s, true),
        set_config('request.method', %(method)s, true),
        set_config('request.path', %(path)s, true),
        set_config('storage.operation', %(operation)s, true),
        set_config('storage.allow_delete_query', 'true', true),
        set_config('statement_timeout', %(statement_timeout)s, true)
"""


@dataclass(frozen=True)
class Session:
    """What one request may do in the database: a caller, and facts that policies can read."""

    pool: Pool
    caller: Caller
    service: Caller
    headers: Mapping[str, str]
    method: str = ""
    path: str = ""
    operation: str = ""

    def as_caller(self, caller: Caller) -> Session:
        """Return the same session for somebody else."""
        return replace(self, caller=caller)

    @contextlib.asynccontextmanager
    async def transaction(self, *, as_service: bool = False) -> AsyncIterator[Cursor]:
        """Open a transaction under the caller's role, or under service_role.

        `psycopg.Rollback` raised inside undoes it silently; database errors come out as
        StorageError.
        """
        caller = self.service if as_service else self.caller
        scope = {
            "role": caller.role,
            "token": caller.token,
            "subject": caller.owner or "",
            "claims": json.dumps(caller.claims),
            "headers": json.dumps(dict(self.headers)),
            "method": self.method,
            "path": self.path,
            "operation": self.operation,
            "statement_timeout": STATEMENT_TIMEOUT,
        }
        try:
            async with (
                self.pool.connection() as connection,
                connection.transaction(),
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(_SCOPE, scope)
                yield cursor
        except PoolTimeout as error:
            raise database_timeout() from error
        except psycopg.Error as error:
            raise from_database(error) from error


async def lock_key(cursor: Cursor, bucket: str, key: str) -> None:
    """Serialise the writers of one key until the transaction ends; wait at most 5 s."""
    await cursor.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
    await cursor.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{bucket}/{key}",)
    )
