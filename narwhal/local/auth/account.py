"""What signed-in users do with their own account: /user, /logout, /reauthenticate."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.email_change import apply_email_change, send_email_change
from narwhal.local.auth.errors import AuthError, email_exists, invalid, storing
from narwhal.local.auth.flows import open_flow
from narwhal.local.auth.one_time import Kind, clear_tokens, send_token
from narwhal.local.auth.redirects import redirect_target
from narwhal.local.auth.requests import Body, Caller, client_of, read_body, require_caller
from narwhal.local.auth.sessions import Scope, end_sessions
from narwhal.local.auth.tokens import require_challenge
from narwhal.local.auth.users import (
    Cursor,
    User,
    add_identity,
    find_by_email,
    find_by_id,
    merged,
    normalise_email,
    update,
)


async def get_user(auth: Auth, request: Request) -> Response:
    """GET /user: the caller's account."""
    caller = await require_caller(auth, request)
    return JSONResponse(caller.user.as_json())


async def put_user(auth: Auth, request: Request) -> Response:
    """PUT /user: change e-mail address, password, or `data` (user_metadata)."""
    caller = await require_caller(auth, request)
    body = await read_body(request)
    email, password = body.text("email"), body.optional_text("password")
    email = normalise_email(email) if email else ""
    require_challenge(body.text("code_challenge"), body.text("code_challenge_method"))
    if body.text("phone"):
        raise AuthError(400, "phone_provider_disabled", "Phone logins are disabled")
    if body.mapping("app_metadata") is not None:
        raise AuthError(403, "not_admin", "Updating app_metadata requires admin privileges")
    hashed = await _new_password_hash(auth, caller.user, email, password)
    redirect_to = redirect_target(auth, request)
    with storing("Error updating user"):
        if email and email != caller.user.email:
            with auth.mail_interval.slot("email_change", caller.user.email or email):
                user = await _store(auth, request, caller, body, email, hashed, redirect_to)
        else:
            user = await _store(auth, request, caller, body, "", hashed, redirect_to)
    return JSONResponse(user.as_json())


async def _new_password_hash(
    auth: Auth, user: User, email: str, password: str | None
) -> str | None:
    if password is None:
        return None
    auth.passwords.require_strength(password)
    if user.is_anonymous and not email:
        raise AuthError(
            422,
            "validation_failed",
            "Updating password of an anonymous user without an email or phone is not allowed",
        )
    if user.password_hash and await auth.passwords.verify(password, user.password_hash):
        raise AuthError(
            422, "same_password", "New password should be different from the old password."
        )
    return await auth.passwords.hash(password)


async def _store(
    auth: Auth,
    request: Request,
    caller: Caller,
    body: Body,
    email: str,
    hashed: str | None,
    redirect_to: str,
) -> User:
    client, data = client_of(request), body.mapping("data")
    async with auth.transaction() as cursor:
        user = await find_by_id(cursor, caller.user.id, lock=True)
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        if email and await find_by_email(cursor, email) is not None:
            raise email_exists()
        if hashed is not None:
            user = await change_password(cursor, user, hashed, caller)
            await audit.record(cursor, "user_updated_password", user, client.ip)
        if data is not None:
            user = await update(
                cursor, user.id, raw_user_meta_data=merged(user.user_metadata, data)
            )
        if email and user.is_anonymous and auth.config.autoconfirm:
            user = await apply_email_change(cursor, user, email)
        elif email:
            challenge, method = body.text("code_challenge"), body.text("code_challenge_method")
            pkce = await open_flow(cursor, user, "email_change", challenge, method)
            user = await send_email_change(auth, cursor, user, email, redirect_to, pkce=pkce)
        await audit.record(cursor, "user_modified", user, client.ip)
        return user


async def change_password(
    cursor: Cursor, user: User, hashed: str, caller: Caller | None = None
) -> User:
    """Store a new password; end all sessions, and all links, but the caller's own session."""
    if user.email and user.identity("email") is None:
        await add_identity(cursor, user.id, "email", {"email": user.email})
    await clear_tokens(cursor, user)
    session_id = caller.session_id if caller else None
    await end_sessions(cursor, user.id, session_id, "others")
    return await update(cursor, user.id, encrypted_password=hashed)


async def logout(auth: Auth, request: Request) -> Response:
    """POST /logout: end all sessions (`scope=global`), this one (local), or the others."""
    caller = await require_caller(auth, request)
    scopes: dict[str, Scope] = {
        "": "global",
        "global": "global",
        "local": "local",
        "others": "others",
    }
    asked = request.query_params.get("scope", "")
    if asked not in scopes:
        raise invalid(f'Unsupported logout scope "{asked}"')
    async with auth.transaction() as cursor:
        await audit.record(cursor, "logout", caller.user, client_of(request).ip)
        await end_sessions(cursor, caller.user.id, caller.session_id, scopes[asked])
    return Response(status_code=204)


async def reauthenticate(auth: Auth, request: Request) -> Response:
    """GET /reauthenticate: mail a code that proves the caller still reads the address."""
    caller = await require_caller(auth, request)
    user = caller.user
    if not user.email:
        raise invalid("Reauthentication requires the user to have an email or a phone number")
    if not user.is_confirmed:
        raise AuthError(422, "email_not_confirmed", "Please verify your email first.")
    with auth.mail_interval.slot("reauthentication", user.email):
        async with auth.transaction() as cursor:
            await audit.record(cursor, "user_reauthenticate_requested", user, client_of(request).ip)
            await send_token(
                auth,
                cursor,
                user,
                Kind.REAUTHENTICATION,
                "reauthentication",
                redirect_target(auth, request),
            )
    return JSONResponse({})
