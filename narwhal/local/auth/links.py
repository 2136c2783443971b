"""Links made for users by holders of the service key: POST /invite, /admin/generate_link."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, email_exists, invalid, storing
from narwhal.local.auth.one_time import Kind, action_link, create_token, send_token
from narwhal.local.auth.redirects import redirect_target
from narwhal.local.auth.requests import client_of, read_body, require_admin
from narwhal.local.auth.signup import SAVING
from narwhal.local.auth.users import (
    Cursor,
    User,
    find_by_email,
    insert,
    merged,
    normalise_email,
    update,
)

TYPES = ("signup", "invite", "magiclink", "recovery", "email_change_current", "email_change_new")


async def invite(auth: Auth, request: Request) -> Response:
    """POST /invite: make the account and mail a link that opens it."""
    role = require_admin(auth, request)
    body = await read_body(request)
    email, data = normalise_email(body.text("email")), body.mapping("data") or {}
    redirect_to = redirect_target(auth, request)
    with storing(SAVING):
        async with auth.transaction() as cursor:
            user = await _unconfirmed(cursor, email, "", data)
            await audit.record(
                cursor, "user_invited", role, client_of(request).ip, user_id=str(user.id)
            )
            user = await send_token(
                auth,
                cursor,
                user,
                Kind.CONFIRMATION,
                "invite",
                redirect_to,
                invited_at=datetime.now(UTC),
            )
    return JSONResponse(user.as_json())


async def generate_link(auth: Auth, request: Request) -> Response:
    """POST /admin/generate_link: the link that would be mailed, for the caller to deliver."""
    role = require_admin(auth, request)
    body = await read_body(request)
    email, kind = normalise_email(body.text("email")), body.text("type")
    if kind not in TYPES:
        raise invalid(f"Invalid email action link type requested: {kind}")
    data = body.mapping("data") or {}
    new_email = normalise_email(body.text("new_email")) if kind.startswith("email") else ""
    redirect_to = redirect_target(auth, request, body.text("redirect_to"))
    hashed = ""
    if kind == "signup":
        if not body.text("password"):
            raise invalid("Signup requires a valid password")
        auth.passwords.require_strength(body.text("password"))
        hashed = await auth.passwords.hash(body.text("password"))
    with storing(SAVING):
        async with auth.transaction() as cursor:
            if kind == "magiclink" and await find_by_email(cursor, email) is None:
                kind = "signup"  # nobody to sign in yet: the link makes and confirms the account
            user, otp, stored = await _make(cursor, kind, email, new_email, hashed, data)
            await audit.record(
                cursor, "user_invited" if kind == "invite" else "user_recovery_requested",
                role, client_of(request).ip, user_id=str(user.id),
            )  # fmt: skip
    verification_type = "email_change" if new_email else kind
    return JSONResponse(
        user.as_json()
        | {
            "action_link": action_link(auth, stored, verification_type, redirect_to),
            "email_otp": otp,
            "hashed_token": stored,
            "verification_type": kind,
            "redirect_to": redirect_to,
        }
    )


async def _make(
    cursor: Cursor, kind: str, email: str, new_email: str, hashed: str, data: dict[str, Any]
) -> tuple[User, str, str]:
    if kind in ("signup", "invite"):
        user = await _unconfirmed(cursor, email, hashed, data)
        invited: dict[str, Any] = {"invited_at": datetime.now(UTC)} if kind == "invite" else {}
        return await create_token(cursor, user, Kind.CONFIRMATION, email, **invited)
    found = await find_by_email(cursor, email, lock=True)
    if found is None:
        raise AuthError(404, "user_not_found", "User with this email not found")
    if not new_email:
        return await create_token(cursor, found, Kind.RECOVERY, email)
    other = await find_by_email(cursor, new_email)
    if other is not None:
        raise email_exists()
    change: dict[str, Any] = {"email_change": new_email, "email_change_confirm_status": 0}
    if kind == "email_change_current":
        return await create_token(cursor, found, Kind.EMAIL_CHANGE_CURRENT, email, **change)
    return await create_token(cursor, found, Kind.EMAIL_CHANGE_NEW, new_email, **change)


async def _unconfirmed(cursor: Cursor, email: str, hashed: str, data: dict[str, Any]) -> User:
    """Return the account that waits under this address, made if there is none."""
    user = await find_by_email(cursor, email, lock=True)
    if user is None:
        return await insert(cursor, email=email, password_hash=hashed, user_metadata=data)
    if user.is_confirmed:
        raise email_exists()
    if not data:
        return user
    return await update(cursor, user.id, raw_user_meta_data=merged(user.user_metadata, data))
