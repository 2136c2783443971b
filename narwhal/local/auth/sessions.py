"""Sessions: opened, refreshed with rotation and detection of reuse, ended."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from psycopg.rows import DictRow

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, OAuthError, banned
from narwhal.local.auth.hooks import customise_claims
from narwhal.local.auth.requests import Client
from narwhal.local.auth.tokens import access_claims, new_refresh_token, sign_access_token
from narwhal.local.auth.users import Cursor, User, reload, update

Scope = Literal["global", "local", "others"]

REFRESH_PATIENCE_S = 5.0  # how long parallel refreshes of one session wait for each other


async def open_session(
    auth: Auth, cursor: Cursor, user: User, method: str, client: Client
) -> dict[str, Any]:
    """Sign the user in and return the Session that clients know.

    `method` is what `amr` will say for as long as the session lives.
    """
    session_id = uuid.uuid4()
    await cursor.execute(
        "insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip)"
        " values (%s, %s, now(), now(), 'aal1', %s, %s)",
        (session_id, user.id, client.user_agent, client.ip),
    )
    await cursor.execute(
        "insert into auth.mfa_amr_claims"
        " (id, session_id, created_at, updated_at, authentication_method)"
        " values (%s, %s, now(), now(), %s)",
        (uuid.uuid4(), session_id, method),
    )
    token = await _add_refresh_token(cursor, user.id, session_id, parent=None)
    user = await update(cursor, user.id, last_sign_in_at=datetime.now(UTC))
    return await _answer(auth, cursor, user, session_id, token, method)


async def refresh(auth: Auth, token: str, client: Client) -> dict[str, Any]:
    """Exchange a refresh token for a new Session.

    A token works once. One that was used before is forgiven when it is the parent of the active
    token (the client lost our answer and gets the same token again) or when it was used within
    the reuse interval (two tabs at once); otherwise the whole session is revoked.
    """
    if not token:
        raise OAuthError("invalid_request", "refresh_token required")
    deadline = time.monotonic() + REFRESH_PATIENCE_S
    while True:
        async with auth.transaction() as cursor:
            outcome = await _try_refresh(auth, cursor, token, client)
        if isinstance(outcome, AuthError):
            raise outcome
        if outcome is not None:
            return outcome
        if time.monotonic() > deadline:
            raise AuthError(
                409,
                "conflict",
                "Too many concurrent token refresh requests on the same session or refresh token",
            )
        # waiting here rather than for the lock leaves the connection to others
        await asyncio.sleep(random.uniform(0.01, 0.03))  # noqa: S311


async def _try_refresh(
    auth: Auth, cursor: Cursor, token: str, client: Client
) -> dict[str, Any] | AuthError | None:
    """One try: None when another refresh holds the session; an error here is to be committed."""
    session_id = await _session_of(cursor, token)
    await cursor.execute(
        "select id, user_id, not_after <= now() as is_expired from auth.sessions"
        " where id = %s for no key update skip locked",
        (session_id,),
    )
    session = await cursor.fetchone()
    if session is None:
        await cursor.execute("select from auth.sessions where id = %s", (session_id,))
        if await cursor.fetchone() is not None:
            return None
        raise _session_not_found()
    if session["is_expired"]:
        raise AuthError(400, "session_expired", "Invalid Refresh Token: Session Expired")
    user = await reload(cursor, session["user_id"])
    if user.is_banned:
        raise banned(400, "Invalid Refresh Token: User Banned")

    # under the session's lock: nobody else can rotate its tokens now
    await cursor.execute("select * from auth.refresh_tokens where token = %s", (token,))
    given = await cursor.fetchone()
    if given is None:
        raise _token_not_found()
    issued = ""
    if given["revoked"]:
        active = await _active_token(cursor, session["id"])
        reusable_until = given["updated_at"] + timedelta(seconds=auth.options.reuse_interval_s)
        if active is not None and active["parent"] == token:
            issued = active["token"]
        elif datetime.now(UTC) > reusable_until:
            await _revoke_tokens(cursor, session["id"])
            await audit.record(cursor, "token_revoked", user, client.ip)
            return AuthError(
                400, "refresh_token_already_used", "Invalid Refresh Token: Already Used"
            )
    await audit.record(cursor, "token_refreshed", user, client.ip)
    if not issued:
        # the time of the first use stays, so that reuse cannot prolong its own interval
        await cursor.execute(
            "update auth.refresh_tokens set revoked = true, updated_at = now()"
            " where id = %s and not revoked",
            (given["id"],),
        )
        issued = await _add_refresh_token(cursor, user.id, session["id"], parent=token)
    await cursor.execute(
        "update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now(),"
        " user_agent = %s, ip = %s where id = %s",
        (client.user_agent, client.ip, session["id"]),
    )
    return await _answer(auth, cursor, user, session["id"], issued, "token_refresh")


async def end_sessions(
    cursor: Cursor, user_id: uuid.UUID, session_id: uuid.UUID | None, scope: Scope
) -> None:
    """Delete sessions, their refresh tokens with them: all, this one, or all but this one."""
    if scope == "global" or session_id is None:
        await cursor.execute("delete from auth.sessions where user_id = %s", (user_id,))
    elif scope == "local":
        await cursor.execute("delete from auth.sessions where id = %s", (session_id,))
    else:
        await cursor.execute(
            "delete from auth.sessions where user_id = %s and id <> %s", (user_id, session_id)
        )


async def _session_of(cursor: Cursor, token: str) -> uuid.UUID:
    await cursor.execute("select session_id from auth.refresh_tokens where token = %s", (token,))
    row = await cursor.fetchone()
    if row is None:
        raise _token_not_found()
    if row["session_id"] is None:
        raise _session_not_found()
    session_id: uuid.UUID = row["session_id"]
    return session_id


async def _active_token(cursor: Cursor, session_id: uuid.UUID) -> DictRow | None:
    await cursor.execute(
        "select token, parent from auth.refresh_tokens where session_id = %s and not revoked"
        " order by id desc limit 1",
        (session_id,),
    )
    return await cursor.fetchone()


async def _add_refresh_token(
    cursor: Cursor, user_id: uuid.UUID, session_id: uuid.UUID, *, parent: str | None
) -> str:
    token = new_refresh_token()
    await cursor.execute(
        "insert into auth.refresh_tokens"
        " (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)"
        " values (%s, %s, %s, false, now(), now(), %s, %s)",
        (uuid.UUID(int=0), token, str(user_id), parent, session_id),
    )
    return token


async def _revoke_tokens(cursor: Cursor, session_id: uuid.UUID) -> None:
    await cursor.execute(
        "update auth.refresh_tokens set revoked = true, updated_at = now()"
        " where session_id = %s and not revoked",
        (session_id,),
    )


async def _answer(
    auth: Auth,
    cursor: Cursor,
    user: User,
    session_id: uuid.UUID,
    refresh_token: str,
    method: str,
) -> dict[str, Any]:
    await cursor.execute(
        "select authentication_method, updated_at from auth.mfa_amr_claims"
        " where session_id = %s order by updated_at desc",
        (session_id,),
    )
    amr = [
        {
            "method": claim["authentication_method"],
            "timestamp": int(claim["updated_at"].timestamp()),
        }
        for claim in await cursor.fetchall()
    ]
    claims = access_claims(user, session_id, amr, issuer=auth.url, lifetime=auth.config.jwt_expiry)
    expires_at = claims["exp"]
    claims = await customise_claims(cursor, user.id, claims, method)
    return {
        "access_token": sign_access_token(claims, auth.config.jwt_secret),
        "token_type": "bearer",
        "expires_in": auth.config.jwt_expiry,
        "expires_at": expires_at,
        "refresh_token": refresh_token,
        "user": user.as_json(),
    }


def _token_not_found() -> AuthError:
    return AuthError(
        400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"
    )


def _session_not_found() -> AuthError:
    return AuthError(400, "session_not_found", "Invalid Refresh Token: No Valid Session Found")
