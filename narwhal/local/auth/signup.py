"""POST /signup: with an e-mail address and a password, or anonymously."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, invalid, storing, user_already_exists
from narwhal.local.auth.flows import open_flow
from narwhal.local.auth.one_time import Kind, send_token
from narwhal.local.auth.redirects import redirect_target
from narwhal.local.auth.requests import Client, client_of, read_body
from narwhal.local.auth.sessions import open_session
from narwhal.local.auth.tokens import require_challenge
from narwhal.local.auth.users import (
    AUDIENCE,
    Cursor,
    User,
    confirm_email,
    find_by_email,
    insert,
    normalise_email,
)

SAVING = "Database error saving new user"


async def signup(auth: Auth, request: Request) -> Response:
    """Answer a Session, or the User when the address has to be confirmed first.

    An address that somebody confirmed before gets 422 user_already_exists with autoconfirm, and
    without it a made-up User, so that nobody learns who has an account.
    """
    body = await read_body(request)
    email, phone, password = body.text("email"), body.text("phone"), body.text("password")
    data = body.mapping("data") or {}
    challenge, method = body.text("code_challenge"), body.text("code_challenge_method")
    client = client_of(request)
    if not email and not phone and not auth.options.anonymous_users:
        raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
    require_signups(auth)
    if not email and not phone:
        return JSONResponse(await _sign_up_anonymously(auth, data, client))
    if not password:
        raise invalid("Signup requires a valid password")
    auth.passwords.require_strength(password)
    if email and phone:
        raise invalid("Only an email address or phone number should be provided on signup.")
    if phone:
        raise AuthError(400, "phone_provider_disabled", "Phone signups are disabled")
    require_challenge(challenge, method)
    email = normalise_email(email)
    # hashed before anything is looked up: both outcomes take as long
    hashed = await auth.passwords.hash(password)
    if auth.config.autoconfirm:
        return JSONResponse(await _sign_up_at_once(auth, email, hashed, data, client))
    with auth.mail_interval.slot("confirmation", email):
        user = await request_confirmation(
            auth,
            email,
            hashed,
            data,
            client,
            redirect_target(auth, request),
            challenge,
            method,
        )
    return JSONResponse(user.as_json())


def require_signups(auth: Auth) -> None:
    """Raise 422 signup_disabled when this stack takes nobody new."""
    if auth.options.disable_signup:
        raise AuthError(422, "signup_disabled", "Signups not allowed for this instance")


async def create_confirmed(
    cursor: Cursor, email: str, hashed: str, data: dict[str, Any], client: Client
) -> User:
    """Add a user whose address is taken as proved."""
    user = await insert(
        cursor, email=email, password_hash=hashed, user_metadata=data, identity_data=data
    )
    await audit.record(cursor, "user_signedup", user, client.ip, provider="email")
    return await confirm_email(cursor, user)


async def request_confirmation(
    auth: Auth,
    email: str,
    hashed: str,
    data: dict[str, Any],
    client: Client,
    redirect_to: str,
    challenge: str,
    method: str,
) -> User:
    """Add an unconfirmed user and mail the link; one that waits already gets a new link.

    Returns a made-up user when the address is confirmed: nothing is mailed then.
    """
    with storing(SAVING, taken=user_already_exists()):
        async with auth.transaction() as cursor:
            user = await find_by_email(cursor, email, lock=True)
            if user is not None and user.is_confirmed:
                await audit.record(
                    cursor, "user_repeated_signup", user, client.ip, provider="email"
                )
                return _made_up(email, data)
            if user is None:
                user = await insert(
                    cursor,
                    email=email,
                    password_hash=hashed,
                    user_metadata=data,
                    identity_data=data,
                )
            await audit.record(
                cursor, "user_confirmation_requested", user, client.ip, provider="email"
            )
            pkce = await open_flow(cursor, user, "signup", challenge, method)
            user = await send_token(
                auth, cursor, user, Kind.CONFIRMATION, "signup", redirect_to, pkce=pkce
            )
    if user.invited_at is not None:
        # what the inviter wrote is not for whoever types the address
        return replace(user, user_metadata={}, identities=())
    return user


async def _sign_up_at_once(
    auth: Auth, email: str, hashed: str, data: dict[str, Any], client: Client
) -> dict[str, Any]:
    with storing(SAVING, taken=user_already_exists()):
        async with auth.transaction() as cursor:
            # also when it was never confirmed: its password is not the caller's to replace
            if await find_by_email(cursor, email) is not None:
                raise user_already_exists()
            user = await create_confirmed(cursor, email, hashed, data, client)
            await audit.record(cursor, "login", user, client.ip, provider="email")
            return await open_session(auth, cursor, user, "password", client)


async def _sign_up_anonymously(auth: Auth, data: dict[str, Any], client: Client) -> dict[str, Any]:
    with storing("Database error creating anonymous user"):
        async with auth.transaction() as cursor:
            user = await insert(cursor, user_metadata=data, is_anonymous=True)
            return await open_session(auth, cursor, user, "anonymous", client)


def _made_up(email: str, data: dict[str, Any]) -> User:
    now = datetime.now(UTC)
    return User(
        id=uuid.uuid4(),
        aud=AUDIENCE,
        role="",
        email=email,
        phone="",
        password_hash=None,
        app_metadata={"provider": "email", "providers": ["email"]},
        user_metadata=data,
        created_at=now,
        updated_at=now,
        confirmation_sent_at=now,
    )
