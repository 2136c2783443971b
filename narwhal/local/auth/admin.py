"""Administration of users, for holders of the service key: /admin/users."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.account import change_password
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, email_exists, invalid, storing
from narwhal.local.auth.one_time import clear_tokens
from narwhal.local.auth.passwords import MAX_BYTES, is_known_hash
from narwhal.local.auth.requests import Body, client_of, read_body, require_admin
from narwhal.local.auth.sessions import end_sessions
from narwhal.local.auth.users import (
    AUDIENCE,
    Cursor,
    User,
    change_identity,
    confirm_email,
    find_by_email,
    find_by_id,
    find_by_phone,
    insert,
    list_users,
    merged,
    normalise_email,
    normalise_phone,
    update,
)

PER_PAGE = 50
LARGEST = 10**9  # a page number beyond any table, still within bigint once multiplied
DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)")
UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
CENTURY = timedelta(days=36525)


async def get_users(auth: Auth, request: Request) -> Response:
    """GET /admin/users: a page of users, newest first, with `X-Total-Count` and `Link`."""
    require_admin(auth, request)
    query = request.query_params
    page, per_page = _number(query.get("page"), 1), _number(query.get("per_page"), PER_PAGE)
    field, _, direction = query.get("sort", "created_at desc").partition(" ")
    if field != "created_at" or direction.lower() not in ("", "asc", "desc"):
        raise invalid("Bad Sort Parameters: created_at can be sorted asc or desc")
    async with auth.transaction() as cursor:
        users, total = await list_users(
            cursor,
            limit=per_page,
            offset=(page - 1) * per_page,
            ascending=direction.lower() == "asc",
            search=query.get("filter", ""),
        )
    last = -(-total // per_page)
    links = [(page + 1, "next")] if last > page else []
    headers = {
        "X-Total-Count": str(total),
        "Link": ", ".join(_link(request, number, rel) for number, rel in [*links, (last, "last")]),
    }
    body = {"users": [user.as_json() for user in users], "aud": AUDIENCE}
    return JSONResponse(body, headers=headers)


def _number(text: str | None, default: int) -> int:
    if not text:
        return default
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not 0 < int(text) <= LARGEST:
        raise invalid("Bad Pagination Parameters: a positive number is expected")
    return int(text)


def _link(request: Request, page: int, rel: str) -> str:
    # supabase-js reads the first parameter of the link: `page` sorts before `per_page`
    query = sorted({**request.query_params, "page": str(page)}.items())
    return f'</admin/users?{urlencode(query)}>; rel="{rel}"'


async def post_user(auth: Auth, request: Request) -> Response:
    """POST /admin/users: make a user, confirmed or not, with a password, a hash or neither."""
    role = require_admin(auth, request)
    body = await read_body(request)
    email, phone = body.text("email"), body.text("phone")
    if not email and not phone:
        raise invalid("Cannot create a user without either an email or phone")
    email = normalise_email(email) if email else ""
    phone = normalise_phone(phone) if phone else ""
    user_id = _given_id(body)
    ban = _ban_until(body)
    hashed = await _given_hash(auth, body)
    with storing("Database error creating new user"):
        async with auth.transaction() as cursor:
            if email and await find_by_email(cursor, email) is not None:
                raise email_exists()
            await _require_free_phone(cursor, phone)
            if user_id and await find_by_id(cursor, user_id) is not None:
                raise AuthError(422, "user_already_exists", "User already registered")
            user = await insert(
                cursor,
                email=email,
                phone=phone,
                password_hash=hashed,
                user_metadata=body.mapping("user_metadata"),
                user_id=user_id,
            )
            user = await _apply(cursor, user, body, ban)
            await audit.record(
                cursor, "user_signedup", role, client_of(request).ip, user_id=str(user.id)
            )
    return JSONResponse(user.as_json())


def _given_id(body: Body) -> uuid.UUID | None:
    if not body.text("id"):
        return None
    try:
        user_id = uuid.UUID(body.text("id"))
    except ValueError:
        raise invalid("ID must conform to the uuid v4 format") from None
    if user_id.int == 0:
        raise invalid("ID cannot be a nil uuid")
    return user_id


async def _given_hash(auth: Auth, body: Body) -> str:
    password, hashed = body.text("password"), body.text("password_hash")
    if password and hashed:
        raise invalid("Only a password or a password hash should be provided")
    if hashed:
        if len(hashed) > 255 or not is_known_hash(hashed):
            raise invalid("The password hash must be one of bcrypt, argon2i, argon2id, fbscrypt")
        return hashed
    if len(password.encode()) > MAX_BYTES:
        raise invalid(f"Password cannot be longer than {MAX_BYTES} characters")
    return await auth.passwords.hash(password) if password else ""


async def _require_free_phone(cursor: Cursor, phone: str, owner: User | None = None) -> None:
    other = await find_by_phone(cursor, phone) if phone else None
    if other is not None and (owner is None or other.id != owner.id):
        raise AuthError(422, "phone_exists", "Phone number already registered by another user")


def _ban_until(body: Body) -> dict[str, Any]:
    text = body.text("ban_duration")
    if not text:
        return {}
    if text in ("none", "0"):
        return {"banned_until": None}
    parts = DURATION.findall(text)
    if "".join(parts) != text:
        raise invalid("invalid format for ban duration: a Go duration such as 24h30m is expected")
    seconds = 0.0
    for part in parts:
        number, unit = re.split(r"(?<=[\d.])(?=[a-zµμ])", part)
        seconds += float(number) * UNIT_S[unit]
    if seconds <= 0:
        return {"banned_until": None}
    # a ban of centuries is for ever: Postgres and Python have an end to their calendars
    span = timedelta(seconds=min(seconds, 3 * CENTURY.total_seconds()))
    return {"banned_until": datetime.now(UTC) + span}


async def _apply(cursor: Cursor, user: User, body: Body, ban: dict[str, Any]) -> User:
    changes: dict[str, Any] = dict(ban)
    if body.text("role").strip():
        changes["role"] = body.text("role").strip()
    app_metadata = body.mapping("app_metadata")
    if app_metadata is not None:
        changes["raw_app_meta_data"] = merged(user.app_metadata, app_metadata)
    if body.flag("phone_confirm"):
        changes["phone_confirmed_at"] = datetime.now(UTC)
    if changes:
        user = await update(cursor, user.id, **changes)
    if body.flag("email_confirm"):
        await clear_tokens(cursor, user)
        user = await confirm_email(cursor, user)
    return user


async def get_one(auth: Auth, request: Request) -> Response:
    """GET /admin/users/{id}."""
    require_admin(auth, request)
    async with auth.transaction() as cursor:
        user = await _find(cursor, request)
    return JSONResponse(user.as_json())


async def _find(cursor: Cursor, request: Request, *, lock: bool = False) -> User:
    try:
        user_id = uuid.UUID(request.path_params["user_id"])
    except ValueError:
        raise AuthError(404, "validation_failed", "user_id must be an UUID") from None
    user = await find_by_id(cursor, user_id, lock=lock)
    if user is None:
        raise AuthError(404, "user_not_found", "User not found")
    return user


async def put_one(auth: Auth, request: Request) -> Response:
    """PUT /admin/users/{id}: metadata is merged; a new password ends all sessions."""
    role = require_admin(auth, request)
    body = await read_body(request)
    email, phone, password = body.text("email"), body.text("phone"), body.text("password")
    email = normalise_email(email) if email else ""
    phone = normalise_phone(phone) if phone else ""
    ban = _ban_until(body)
    hashed = ""
    if password:
        auth.passwords.require_strength(password)
        hashed = await auth.passwords.hash(password)
    with storing("Error updating user"):
        async with auth.transaction() as cursor:
            user = await _find(cursor, request, lock=True)
            await _require_free_phone(cursor, phone, user)
            if hashed:
                user = await change_password(cursor, user, hashed)
            if email:
                verified = {"email": email, "email_verified": body.flag("email_confirm")}
                await change_identity(cursor, user, "email", verified)
                user = await _set_address(cursor, user, body.flag("email_confirm"), email=email)
            if phone:
                verified = {"phone": phone, "phone_verified": body.flag("phone_confirm")}
                await change_identity(cursor, user, "phone", verified)
                user = await _set_address(cursor, user, body.flag("phone_confirm"), phone=phone)
            user = await _apply(cursor, user, body, ban)
            user_metadata = body.mapping("user_metadata")
            if user_metadata is not None:
                user = await update(
                    cursor, user.id, raw_user_meta_data=merged(user.user_metadata, user_metadata)
                )
            await audit.record(
                cursor, "user_modified", role, client_of(request).ip, user_id=str(user.id)
            )
    return JSONResponse(user.as_json())


async def _set_address(cursor: Cursor, user: User, confirmed: bool, **column: str) -> User:
    return await update(cursor, user.id, is_anonymous=user.is_anonymous and not confirmed, **column)


async def delete_one(auth: Auth, request: Request) -> Response:
    """DELETE /admin/users/{id}: remove the account, or only what identifies its owner.

    With `should_soft_delete` the row stays, unrecognisable, for what refers to it.
    """
    role = require_admin(auth, request)
    body = await read_body(request, optional=True)
    with storing("Database error deleting user"):
        async with auth.transaction() as cursor:
            user = await _find(cursor, request, lock=True)
            await audit.record(
                cursor, "user_deleted", role, client_of(request).ip, user_id=str(user.id)
            )
            if not body.flag("should_soft_delete"):
                await cursor.execute("delete from auth.users where id = %s", (user.id,))
            elif user.deleted_at is None:
                await _soft_delete(cursor, user)
    return JSONResponse({})


async def _soft_delete(cursor: Cursor, user: User) -> None:
    await clear_tokens(cursor, user)
    await end_sessions(cursor, user.id, None, "global")
    await cursor.execute("delete from auth.mfa_factors where user_id = %s", (user.id,))
    await cursor.execute(
        "update auth.identities set identity_data = '{}', updated_at = now(),"
        " provider_id = encode(sha256(convert_to(id::text || provider_id, 'UTF8')), 'base64')"
        " where user_id = %s",
        (user.id,),
    )
    await update(
        cursor,
        user.id,
        email=_unrecognisable(user, user.email),
        phone=_unrecognisable(user, user.phone),
        encrypted_password=None,
        email_change="",
        phone_change="",
        raw_user_meta_data={},
        raw_app_meta_data={},
        deleted_at=datetime.now(UTC),
    )


def _unrecognisable(user: User, address: str) -> str | None:
    # per account, so that the address is free for somebody new
    return uuid.uuid5(user.id, address).hex if address else None


async def get_factors(auth: Auth, request: Request) -> Response:
    """GET /admin/users/{id}/factors: no second factors are offered here."""
    require_admin(auth, request)
    async with auth.transaction() as cursor:
        await _find(cursor, request)
    return JSONResponse([])
