"""Connections to Postgres."""

from __future__ import annotations

from typing import Any

import psycopg

from narwhal.errors import NarwhalError


def connect(url: str, *, application: str = "narwhal") -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection that commits each statement; `application` shows in pg_stat_activity.

    Raises NarwhalError without the URL, which may hold a password.
    """
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            application_name=application,
            connect_timeout=10,
            # poolers in transaction mode cannot keep prepared statements
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise NarwhalError(
            f"The database cannot be reached: {reason}",
            "Is the stack running? See `narwhal status`, or check DATABASE_URL.",
            error="SERVICE_UNAVAILABLE",
            status=503,
        ) from error
