"""Codes and links that are mailed: made, kept as hashes, used once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import urlencode

from narwhal.local.auth.context import Auth
from narwhal.local.auth.mail import Mail
from narwhal.local.auth.tokens import PKCE_PREFIX, new_otp, token_hash
from narwhal.local.auth.users import Cursor, User, find_by_id, update


class Kind(Enum):
    """A type of token; also the column of auth.users that repeats its hash."""

    CONFIRMATION = "confirmation_token"
    RECOVERY = "recovery_token"
    EMAIL_CHANGE_NEW = "email_change_token_new"
    EMAIL_CHANGE_CURRENT = "email_change_token_current"
    REAUTHENTICATION = "reauthentication_token"

    @property
    def sent_at_column(self) -> str:
        """The column that says when it was made."""
        return {
            Kind.CONFIRMATION: "confirmation_sent_at",
            Kind.RECOVERY: "recovery_sent_at",
            Kind.REAUTHENTICATION: "reauthentication_sent_at",
        }.get(self, "email_change_sent_at")


# which tokens a verification type accepts
ACCEPTED = {
    "signup": (Kind.CONFIRMATION,),
    "invite": (Kind.CONFIRMATION,),
    "recovery": (Kind.RECOVERY,),
    "magiclink": (Kind.RECOVERY,),
    "email": (Kind.CONFIRMATION, Kind.RECOVERY),
    "email_change": (Kind.EMAIL_CHANGE_CURRENT, Kind.EMAIL_CHANGE_NEW),
}


@dataclass(frozen=True)
class Found:
    """A token that was presented, is still good, and is locked until the transaction ends."""

    user: User
    kind: Kind


async def create_token(
    cursor: Cursor,
    user: User,
    kind: Kind,
    address: str,
    *,
    pkce: bool = False,
    **columns: Any,
) -> tuple[User, str, str]:
    """Make a code for `address`, replacing the one before; return user, code and stored hash.

    `columns` of auth.users are set along with it.
    """
    otp = new_otp()
    stored = (PKCE_PREFIX if pkce else "") + token_hash(address, otp)
    now = datetime.now(UTC)
    changes = {kind.value: stored, kind.sent_at_column: now, **columns}
    user = await update(cursor, user.id, **changes)
    await cursor.execute(
        # the columns have no time zone
        "insert into auth.one_time_tokens"
        " (id, user_id, token_type, token_hash, relates_to, created_at, updated_at)"
        " values (%s, %s, %s, %s, %s, now() at time zone 'utc', now() at time zone 'utc')"
        " on conflict (user_id, token_type) do update set token_hash = excluded.token_hash,"
        " relates_to = excluded.relates_to, created_at = excluded.created_at,"
        " updated_at = excluded.updated_at",
        (uuid.uuid4(), user.id, kind.value, stored, address),
    )
    return user, otp, stored


async def send_token(
    auth: Auth,
    cursor: Cursor,
    user: User,
    kind: Kind,
    mail_type: str,
    redirect_to: str,
    *,
    address: str = "",
    pkce: bool = False,
    **columns: Any,
) -> User:
    """Make a code and put the mail with it, and with its link, into the inbox."""
    address = address or user.email
    user, otp, stored = await create_token(cursor, user, kind, address, pkce=pkce, **columns)
    link = action_link(auth, stored, mail_type, redirect_to)
    await auth.inbox.put(Mail(address, mail_type, otp, stored, link, redirect_to))
    return user


def action_link(auth: Auth, stored: str, verification_type: str, redirect_to: str) -> str:
    """Return the URL that a mailed link opens."""
    query = {"token": stored, "type": verification_type, "redirect_to": redirect_to}
    return f"{auth.url}/verify?{urlencode(query)}"


async def find_token(
    auth: Auth, cursor: Cursor, verification_type: str, hashed: str, address: str = ""
) -> Found | None:
    """Return the token with this hash if it is still good; the account row is locked.

    With an `address` the token must have been sent there. A token of a PKCE flow is found with
    and without its prefix when its code was typed. The row lock makes a second, simultaneous use
    wait and then find nothing.
    """
    hashes = [hashed, PKCE_PREFIX + hashed] if address else [hashed]
    await cursor.execute(
        "select user_id from auth.one_time_tokens where token_hash = any(%s)", (hashes,)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    user = await find_by_id(cursor, row["user_id"], lock=True)
    if user is None:
        return None
    await cursor.execute(
        "select token_type::text as kind from auth.one_time_tokens"
        " where user_id = %s and token_hash = any(%s) and token_type::text = any(%s)"
        " and (%s = '' or relates_to = %s)"
        " and updated_at > now() at time zone 'utc' - make_interval(secs => %s)",
        (
            user.id,
            hashes,
            [kind.value for kind in ACCEPTED[verification_type]],
            address,
            address,
            auth.options.otp_expiry_s,
        ),
    )
    row = await cursor.fetchone()
    return Found(user, Kind(row["kind"])) if row else None


async def clear_tokens(cursor: Cursor, user: User, *kinds: Kind) -> User:
    """Make the user's tokens of these kinds, of all kinds when none is named, useless."""
    named = kinds or tuple(Kind)
    await cursor.execute(
        "delete from auth.one_time_tokens where user_id = %s and token_type::text = any(%s)",
        (user.id, [kind.value for kind in named]),
    )
    return await update(cursor, user.id, **{kind.value: "" for kind in named})
