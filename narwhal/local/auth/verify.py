"""GET and POST /verify: a mailed link is opened, or a mailed code typed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.email_change import confirm_email_change
from narwhal.local.auth.errors import AuthError, banned, invalid, storing
from narwhal.local.auth.flows import issue_code
from narwhal.local.auth.one_time import ACCEPTED, Found, Kind, clear_tokens, find_token
from narwhal.local.auth.redirects import redirect_target, with_fragment
from narwhal.local.auth.requests import Client, client_of, read_body
from narwhal.local.auth.sessions import open_session
from narwhal.local.auth.tokens import PKCE_PREFIX, token_hash
from narwhal.local.auth.users import (
    Cursor,
    User,
    change_identity,
    confirm_email,
    normalise_email,
    normalise_phone,
    reload,
)

ONE_OF_TWO = "Confirmation link accepted. Please proceed to confirm link sent to the other email"
UPDATING = "Database error updating user"
ERRORS = {
    400: "invalid_request",
    401: "unauthorized_client",
    403: "access_denied",
    500: "server_error",
    503: "temporarily_unavailable",
}
PHONE_TYPES = ("sms", "phone_change")


@dataclass(frozen=True)
class Verified:
    """The user after a verification, None when a second one is needed; its final type."""

    user: User | None
    type: str


async def verify_link(auth: Auth, request: Request) -> Response:
    """GET: send the browser on with a session, a code (PKCE), a message, or an error.

    All of it stands in the fragment, which browsers keep to themselves; code and errors of a
    PKCE flow also stand in the query, where a server can read them.
    """
    query, client = request.query_params, client_of(request)
    asked_type, token = query.get("type", ""), query.get("token", "")
    if not asked_type:
        raise invalid("Verify requires a verification type")
    if not token:
        raise invalid("Verify requires a token or a token hash")
    target = redirect_target(auth, request)
    pkce = token.startswith(PKCE_PREFIX)
    try:
        with storing(UPDATING):
            async with auth.transaction() as cursor:
                verified = await _use(
                    auth,
                    cursor,
                    asked_type,
                    token,
                    client,
                    error=_expired("Email link is invalid or has expired"),
                )
                if verified.user is None:
                    return _see(target, {"message": ONE_OF_TWO, "sb": ""}, pkce)
                if pkce:
                    code = await issue_code(cursor, verified.user, verified.type)
                    return _redirect(with_fragment(target, {}, query={"code": code}))
                session = await open_session(auth, cursor, verified.user, "otp", client)
    except AuthError as error:
        fragment = {"error_code": error.code, "error_description": error.message, "sb": ""}
        if error.status in ERRORS:
            fragment["error"] = ERRORS[error.status]
        return _see(target, fragment, pkce)
    return _see(target, _session_fragment(session, verified.type), False)


async def verify(auth: Auth, request: Request) -> Response:
    """POST: answer a Session for a code with its address, or for a token hash alone."""
    body, client = await read_body(request), client_of(request)
    asked_type, token, hashed = body.text("type"), body.text("token"), body.text("token_hash")
    email, phone = body.text("email"), body.text("phone")
    if not asked_type:
        raise invalid("Verify requires a verification type")
    if bool(token) == bool(hashed):
        raise invalid("Verify requires either a token or a token hash")
    if hashed and (email or phone or body.text("redirect_to")):
        raise invalid("Only the token_hash and type should be provided")
    if token and phone and not email:
        normalise_phone(phone)
        raise _expired("Token has expired or is invalid")  # nothing is ever sent to phones
    if token and (phone or not email):
        raise invalid("Only an email address or phone number should be provided on verify")
    error = _expired("Email link is invalid or has expired")
    guesses: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if token:
        email = normalise_email(email)
        hashed = token_hash(email, token)
        error = _expired("Token has expired or is invalid")
        # six digits can be guessed, a hash cannot
        guesses = auth.attempts.attempt(("verify", email, client.ip), "otp_expired")
    with guesses, storing(UPDATING):
        async with auth.transaction() as cursor:
            verified = await _use(
                auth, cursor, asked_type, hashed, client, address=email, error=error
            )
            if verified.user is None:
                return JSONResponse({"msg": ONE_OF_TWO, "code": "200"})
            return JSONResponse(await open_session(auth, cursor, verified.user, "otp", client))


def _expired(message: str) -> AuthError:
    return AuthError(403, "otp_expired", message)


async def _use(
    auth: Auth,
    cursor: Cursor,
    asked_type: str,
    hashed: str,
    client: Client,
    *,
    error: AuthError,
    address: str = "",
) -> Verified:
    if asked_type in PHONE_TYPES:
        raise error
    if asked_type not in ACCEPTED:
        raise invalid("Invalid email verification type")
    found = await find_token(auth, cursor, asked_type, hashed, address)
    if found is None:
        raise error
    if found.user.is_banned:
        raise banned(403)
    return await _apply(auth, cursor, asked_type, found, client)


async def _apply(
    auth: Auth, cursor: Cursor, asked_type: str, found: Found, client: Client
) -> Verified:
    user = found.user
    if asked_type == "email_change":
        changed = await confirm_email_change(auth, cursor, user, found.kind)
        if changed is not None:
            await audit.record(cursor, "user_modified", changed, client.ip)
        return Verified(changed, asked_type)
    if asked_type == "email":
        asked_type = "signup" if found.kind is Kind.CONFIRMATION else "magiclink"
    if user.is_confirmed:
        await audit.record(cursor, "login", user, client.ip)
        return Verified(await clear_tokens(cursor, user), asked_type)
    await audit.record(cursor, "user_signedup", user, client.ip, provider="email")
    await clear_tokens(cursor, user)
    user = await confirm_email(cursor, await reload(cursor, user.id))
    await change_identity(cursor, user, "email", {"email": user.email, "email_verified": True})
    return Verified(await reload(cursor, user.id), asked_type)


def _session_fragment(session: dict[str, Any], verification_type: str) -> dict[str, str]:
    names = ("access_token", "expires_at", "expires_in", "refresh_token", "token_type")
    return {name: str(session[name]) for name in names} | {"sb": "", "type": verification_type}


def _see(target: str, fragment: dict[str, str], pkce: bool) -> Response:
    in_query = {name: value for name, value in fragment.items() if name != "sb"}
    return _redirect(with_fragment(target, fragment, query=in_query if pkce else None))


def _redirect(url: str) -> Response:
    return RedirectResponse(
        url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )
