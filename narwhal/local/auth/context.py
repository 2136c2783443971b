"""What every request of the Auth API works with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from narwhal.local.auth.limits import AttemptLimit, MailInterval
from narwhal.local.auth.mail import Inbox
from narwhal.local.auth.options import AuthOptions
from narwhal.local.auth.passwords import Passwords
from narwhal.local.auth.users import Cursor
from narwhal.local.config import GatewayConfig

Pool: TypeAlias = AsyncConnectionPool[Any]


@dataclass(frozen=True)
class Auth:
    """The service: configuration, the database, the inbox, and what is counted in memory."""

    config: GatewayConfig
    options: AuthOptions
    pool: Pool
    inbox: Inbox
    passwords: Passwords
    attempts: AttemptLimit
    mail_interval: MailInterval

    @property
    def url(self) -> str:
        """Where this API is reached; also the issuer of its tokens."""
        return f"{self.config.api_url.rstrip('/')}/auth/v1"

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Cursor]:
        """Open a transaction that commits when the block ends and is undone when it raises."""
        async with (
            self.pool.connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            yield cursor


def create_context(config: GatewayConfig, pool: Pool, options: AuthOptions) -> Auth:
    """Put the service together; nothing is opened yet."""
    return Auth(
        config=config,
        options=options,
        pool=pool,
        inbox=Inbox(options.mail_dir or config.storage_dir.parent / "mail"),
        passwords=Passwords(options.min_password_length),
        attempts=AttemptLimit(options.password_attempts, options.attempts_window_s),
        mail_interval=MailInterval(options.mail_interval_s),
    )
