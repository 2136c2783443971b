"""Changing an address: asked for, confirmed from both mailboxes, applied."""

from __future__ import annotations

from narwhal.local.auth.context import Auth
from narwhal.local.auth.one_time import Kind, clear_tokens, send_token
from narwhal.local.auth.users import (
    Cursor,
    User,
    change_identity,
    confirm_email,
    reload,
    update,
)

CONFIRMED_ONCE = 1


async def send_email_change(
    auth: Auth, cursor: Cursor, user: User, email: str, redirect_to: str, *, pkce: bool
) -> User:
    """Mail a link to the new address and, when there is one, to the present address."""
    user = await send_token(
        auth,
        cursor,
        user,
        Kind.EMAIL_CHANGE_NEW,
        "email_change",
        redirect_to,
        address=email,
        pkce=pkce,
        email_change=email,
        email_change_confirm_status=0,
    )
    if not user.email:
        return user
    return await send_token(
        auth, cursor, user, Kind.EMAIL_CHANGE_CURRENT, "email_change", redirect_to, pkce=pkce
    )


async def confirm_email_change(auth: Auth, cursor: Cursor, user: User, kind: Kind) -> User | None:
    """Count a confirmation; None when the other mailbox has to confirm too.

    Where addresses need no confirmation (autoconfirm) one link is enough.
    """
    needs_both = not auth.config.autoconfirm and user.email
    if needs_both and user.email_change_confirm_status != CONFIRMED_ONCE:
        await clear_tokens(cursor, user, kind)
        await update(cursor, user.id, email_change_confirm_status=CONFIRMED_ONCE)
        return None
    return await apply_email_change(cursor, user, user.email_change)


async def apply_email_change(cursor: Cursor, user: User, email: str) -> User:
    """Give the account its new, proved address; an anonymous user becomes a permanent one."""
    await change_identity(cursor, user, "email", {"email": email, "email_verified": True})
    user = await reload(cursor, user.id)
    providers = sorted({identity.provider for identity in user.identities})
    await clear_tokens(cursor, user)
    user = await update(
        cursor,
        user.id,
        email=email,
        email_change="",
        email_change_confirm_status=0,
        is_anonymous=False,
        raw_app_meta_data={**user.app_metadata, "provider": "email", "providers": providers},
    )
    return user if user.is_confirmed else await confirm_email(cursor, user)
