"""POST /token: a Session for a password, a refresh token, or a PKCE code."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, banned, invalid
from narwhal.local.auth.flows import exchange_code
from narwhal.local.auth.requests import Body, Client, client_of, read_body
from narwhal.local.auth.sessions import open_session, refresh
from narwhal.local.auth.users import find_by_email, find_by_id

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def token(auth: Auth, request: Request) -> Response:
    """Answer by `grant_type`: password, refresh_token, pkce."""
    grant, client = request.query_params.get("grant_type", ""), client_of(request)
    if grant == "password":
        session = await _password_grant(auth, await read_body(request), client)
    elif grant == "refresh_token":
        body = await read_body(request)
        session = await refresh(auth, body.text("refresh_token"), client)
    elif grant == "pkce":
        session = await _pkce_grant(auth, await read_body(request), client)
    elif grant == "id_token":
        provider = (await read_body(request)).text("provider")
        raise AuthError(400, "provider_disabled", f'Provider "{provider}" is not enabled')
    elif grant == "web3":
        raise AuthError(422, "web3_provider_disabled", "Web3 provider is disabled")
    else:
        raise AuthError(400, "invalid_credentials", "unsupported_grant_type")
    return JSONResponse(session, headers=NO_STORE)


def invalid_credentials() -> AuthError:
    """400: the same for an unknown address and a wrong password."""
    return AuthError(400, "invalid_credentials", "Invalid login credentials")


async def _password_grant(auth: Auth, body: Body, client: Client) -> dict[str, Any]:
    email, phone, password = body.text("email"), body.text("phone"), body.text("password")
    if email and phone:
        raise invalid("Only an email address or phone number should be provided on login.")
    if phone:
        raise AuthError(422, "phone_provider_disabled", "Phone logins are disabled")
    if not email:
        raise invalid("missing email or phone")
    email = email.lower()
    with auth.attempts.attempt(("password", email, client.ip), "invalid_credentials"):
        async with auth.transaction() as cursor:
            user = await find_by_email(cursor, email)
        # compared even when there is nothing to compare with, and outside of the transaction
        hashed = user.password_hash if user else None
        if not await auth.passwords.verify(password, hashed) or user is None:
            raise invalid_credentials()
    # only who knows the password learns more
    if user.is_banned:
        raise banned()
    if not user.is_confirmed:
        raise AuthError(400, "email_not_confirmed", "Email not confirmed")
    async with auth.transaction() as cursor:
        current = await find_by_id(cursor, user.id, lock=True)
        if current is None or current.password_hash != hashed:  # changed while we compared
            raise invalid_credentials()
        await audit.record(cursor, "login", user, client.ip, provider="email")
        session = await open_session(auth, cursor, user, "password", client)
    weakness = auth.passwords.weakness(password)
    if weakness:
        session["weak_password"] = {"message": weakness.message, "reasons": weakness.reasons}
    return session


async def _pkce_grant(auth: Auth, body: Body, client: Client) -> dict[str, Any]:
    code, verifier = body.text("auth_code"), body.text("code_verifier")
    if not code or not verifier:
        raise invalid("invalid request: both auth code and code verifier should be non-empty")
    async with auth.transaction() as cursor:
        flow = await exchange_code(auth, cursor, code, verifier)
        user = await find_by_id(cursor, flow["user_id"])
        if user is None:
            raise AuthError(403, "user_not_found", "User from flow state does not exist")
        if user.is_banned:
            raise banned(403)
        await audit.record(cursor, "login", user, client.ip, provider_type=flow["provider_type"])
        return await open_session(auth, cursor, user, flow["authentication_method"], client)
