"""Mail on request: POST /otp, /magiclink, /recover, /resend."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.auth import audit
from narwhal.local.auth.context import Auth
from narwhal.local.auth.email_change import send_email_change
from narwhal.local.auth.errors import AuthError, invalid, storing, user_already_exists
from narwhal.local.auth.flows import open_flow
from narwhal.local.auth.one_time import Kind, send_token
from narwhal.local.auth.redirects import redirect_target
from narwhal.local.auth.requests import Body, Client, client_of, read_body
from narwhal.local.auth.signup import (
    SAVING,
    create_confirmed,
    request_confirmation,
    require_signups,
)
from narwhal.local.auth.tokens import require_challenge
from narwhal.local.auth.users import Cursor, find_by_email, normalise_email, normalise_phone

SENDING = "Error sending mail"


async def otp(auth: Auth, request: Request) -> Response:
    """POST /otp and /magiclink: a code and a link to sign in; makes the account if asked to."""
    body = await read_body(request)
    if body.text("email") and body.text("phone"):
        raise invalid("Only an email address or phone number should be provided")
    if body.text("email") and body.text("channel"):
        raise invalid("Channel should only be specified with Phone OTP")
    challenge, method = _challenge(body)
    if body.text("phone"):
        normalise_phone(body.text("phone"))
        raise AuthError(400, "phone_provider_disabled", "Unsupported phone provider")
    if not body.text("email"):
        raise invalid("One of email or phone must be set")
    email = normalise_email(body.text("email"))
    client, redirect_to = client_of(request), redirect_target(auth, request)
    data = body.mapping("data") or {}
    async with auth.transaction() as cursor:
        user = await find_by_email(cursor, email)
    if user is None:
        if not body.flag("create_user", True):
            raise AuthError(422, "otp_disabled", "Signups not allowed for otp")
        require_signups(auth)
    if not auth.config.autoconfirm and (user is None or not user.is_confirmed):
        # the confirmation's link and code sign in as well
        with auth.mail_interval.slot("confirmation", email):
            await request_confirmation(
                auth, email, "", data, client, redirect_to, challenge, method
            )
        return JSONResponse({})
    with (
        auth.mail_interval.slot("recovery", email),
        storing(SAVING if user is None else SENDING, taken=user_already_exists()),
    ):
        async with auth.transaction() as cursor:
            user = await find_by_email(cursor, email, lock=True)
            if user is None:
                user = await create_confirmed(cursor, email, "", data, client)
            await audit.record(cursor, "user_recovery_requested", user, client.ip)
            pkce = await open_flow(cursor, user, "magiclink", challenge, method)
            await send_token(auth, cursor, user, Kind.RECOVERY, "magiclink", redirect_to, pkce=pkce)
    return JSONResponse({})


async def recover(auth: Auth, request: Request) -> Response:
    """POST /recover: a link to set a new password; the answer is the same for unknown people."""
    body = await read_body(request)
    if not body.text("email"):
        raise invalid("Password recovery requires an email")
    email = normalise_email(body.text("email"))
    challenge, method = _challenge(body)
    client, redirect_to = client_of(request), redirect_target(auth, request)
    with auth.mail_interval.slot("recovery", email), storing(SENDING):
        async with auth.transaction() as cursor:
            user = await find_by_email(cursor, email, lock=True)
            if user is not None:
                await audit.record(cursor, "user_recovery_requested", user, client.ip)
                pkce = await open_flow(cursor, user, "recovery", challenge, method)
                await send_token(
                    auth, cursor, user, Kind.RECOVERY, "recovery", redirect_to, pkce=pkce
                )
    return JSONResponse({})


async def resend(auth: Auth, request: Request) -> Response:
    """POST /resend: once more what waits to be confirmed, a signup or a changed address."""
    body = await read_body(request)
    kind, email, phone = body.text("type"), body.text("email"), body.text("phone")
    if kind not in ("signup", "email_change", "sms", "phone_change"):
        raise invalid("Missing one of these types: signup, email_change, sms, phone_change")
    challenge, method = _challenge(body)
    if kind == "signup" and not email:
        raise invalid("Type provided requires an email address")
    if kind == "sms" and not phone:
        raise invalid("Type provided requires a phone number")
    if email and phone:
        raise invalid("Only an email address or phone number should be provided.")
    if phone:
        raise AuthError(400, "phone_provider_disabled", "Phone logins are disabled")
    email = normalise_email(email)
    client, redirect_to = client_of(request), redirect_target(auth, request)
    interval = "confirmation" if kind == "signup" else "email_change"
    with auth.mail_interval.slot(interval, email), storing(SENDING):
        async with auth.transaction() as cursor:
            await _resend(auth, cursor, kind, email, client, redirect_to, challenge, method)
    return JSONResponse({})


async def _resend(
    auth: Auth,
    cursor: Cursor,
    kind: str,
    email: str,
    client: Client,
    redirect_to: str,
    challenge: str,
    method: str,
) -> None:
    user = await find_by_email(cursor, email, lock=True)
    if user is None:
        return
    if kind == "signup" and not user.is_confirmed:
        await audit.record(cursor, "user_confirmation_requested", user, client.ip)
        pkce = await open_flow(cursor, user, "signup", challenge, method)
        await send_token(auth, cursor, user, Kind.CONFIRMATION, "signup", redirect_to, pkce=pkce)
    elif kind == "email_change" and user.email_change:
        pkce = await open_flow(cursor, user, "email_change", challenge, method)
        await send_email_change(auth, cursor, user, user.email_change, redirect_to, pkce=pkce)


def _challenge(body: Body) -> tuple[str, str]:
    challenge, method = body.text("code_challenge"), body.text("code_challenge_method")
    require_challenge(challenge, method)
    return challenge, method
