"""People: rows of auth.users with their identities, and the JSON that clients know."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from narwhal.local.auth.errors import invalid

Cursor: TypeAlias = psycopg.AsyncCursor[DictRow]

AUDIENCE = "authenticated"
ROLE = "authenticated"
UNVERIFIED = {"email_verified": False, "phone_verified": False}
NO_INSTANCE = uuid.UUID(int=0)
EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
PHONE = re.compile(r"[1-9][0-9]{1,14}")  # E.164 without the plus


@dataclass(frozen=True)
class Identity:
    """One way in: `provider_id` is the user's id when the provider is `email` or `phone`."""

    id: uuid.UUID
    provider_id: str
    user_id: uuid.UUID
    identity_data: dict[str, Any]
    provider: str
    last_sign_in_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    email: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the identity as clients know it."""
        body: dict[str, Any] = {
            "identity_id": str(self.id),
            "id": self.provider_id,
            "user_id": str(self.user_id),
            "identity_data": self.identity_data,
            "provider": self.provider,
            "last_sign_in_at": as_text(self.last_sign_in_at),
            "created_at": as_text(self.created_at),
            "updated_at": as_text(self.updated_at),
        }
        if self.email:
            body["email"] = self.email
        return body


@dataclass(frozen=True)
class User:
    """One account. `email` and `phone` are empty, never None, when there is none."""

    id: uuid.UUID
    aud: str
    role: str
    email: str
    phone: str
    password_hash: str | None = field(repr=False)
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]
    created_at: datetime | None
    updated_at: datetime | None
    email_confirmed_at: datetime | None = None
    phone_confirmed_at: datetime | None = None
    confirmed_at: datetime | None = None
    invited_at: datetime | None = None
    confirmation_sent_at: datetime | None = None
    recovery_sent_at: datetime | None = None
    email_change: str = ""
    email_change_sent_at: datetime | None = None
    email_change_confirm_status: int = 0
    phone_change: str = ""
    phone_change_sent_at: datetime | None = None
    reauthentication_sent_at: datetime | None = None
    last_sign_in_at: datetime | None = None
    banned_until: datetime | None = None
    deleted_at: datetime | None = None
    is_anonymous: bool = False
    identities: tuple[Identity, ...] = ()

    @property
    def is_confirmed(self) -> bool:
        """Whether the e-mail address was proved, or taken as proved."""
        return self.email_confirmed_at is not None

    @property
    def is_banned(self) -> bool:
        """Whether a ban is in force now."""
        return self.banned_until is not None and self.banned_until > datetime.now(UTC)

    def identity(self, provider: str) -> Identity | None:
        """Return this person's own identity of a provider (`email`, `phone`)."""
        return next(
            (
                i
                for i in self.identities
                if i.provider == provider and i.provider_id == str(self.id)
            ),
            None,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the user as clients know it: times that are null are left out."""
        body: dict[str, Any] = {
            "id": str(self.id),
            "aud": self.aud,
            "role": self.role,
            "email": self.email,
            "phone": self.phone,
            "app_metadata": self.app_metadata,
            "user_metadata": self.user_metadata,
            "identities": [identity.as_json() for identity in self.identities],
            "created_at": as_text(self.created_at),
            "updated_at": as_text(self.updated_at),
            "is_anonymous": self.is_anonymous,
        }
        optional = {
            "email_confirmed_at": self.email_confirmed_at,
            "invited_at": self.invited_at,
            "phone_confirmed_at": self.phone_confirmed_at,
            "confirmation_sent_at": self.confirmation_sent_at,
            "confirmed_at": self.confirmed_at,
            "recovery_sent_at": self.recovery_sent_at,
            "email_change_sent_at": self.email_change_sent_at,
            "phone_change_sent_at": self.phone_change_sent_at,
            "reauthentication_sent_at": self.reauthentication_sent_at,
            "last_sign_in_at": self.last_sign_in_at,
            "banned_until": self.banned_until,
            "deleted_at": self.deleted_at,
        }
        body |= {name: as_text(at) for name, at in optional.items() if at is not None}
        if self.email_change:
            body["new_email"] = self.email_change
        if self.phone_change:
            body["new_phone"] = self.phone_change
        return body


def as_text(at: datetime | None) -> str | None:
    """Return a time the way Auth writes it: RFC 3339 in UTC, with a Z."""
    if at is None:
        return None
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def normalise_email(email: str) -> str:
    """Return the address in lower case; raise 400 when it cannot be one."""
    if not email:
        raise invalid("An email address is required")
    if len(email) > 255:
        raise invalid("An email address is too long")
    if not EMAIL.fullmatch(email):
        raise invalid("Unable to validate email address: invalid format")
    return email.lower()


def normalise_phone(phone: str) -> str:
    """Return the number without plus and spaces; raise 400 unless it is E.164."""
    number = phone.removeprefix("+").replace(" ", "")
    if not PHONE.fullmatch(number):
        raise invalid("Invalid phone number format (E.164 required)")
    return number


# -- reading


async def find_by_id(
    cursor: Cursor, user_id: uuid.UUID | str, *, lock: bool = False
) -> User | None:
    """Return the user with this id; `lock` keeps others from changing it meanwhile.

    Rows that refer to the user can still be added: uploads and sign-ins do not wait for each other.
    """
    query = "select * from auth.users where id = %s"
    await cursor.execute(f"{query} for no key update" if lock else query, (user_id,))
    return await _one(cursor)


async def find_by_email(cursor: Cursor, email: str, *, lock: bool = False) -> User | None:
    """Return the user with this (lower-case) address."""
    query = "select * from auth.users where email = %s and is_sso_user = false"
    await cursor.execute(f"{query} for no key update" if lock else query, (email,))
    return await _one(cursor)


async def find_by_phone(cursor: Cursor, phone: str) -> User | None:
    """Return the user with this (normalised) number."""
    await cursor.execute("select * from auth.users where phone = %s", (phone,))
    return await _one(cursor)


async def list_users(
    cursor: Cursor, *, limit: int, offset: int, ascending: bool = False, search: str = ""
) -> tuple[list[User], int]:
    """Return a page of users by time of creation, and how many there are in all.

    `search` matches a part of the address or of the full name, taken literally.
    """
    pattern = "%" + re.sub(r"([\\%_])", r"\\\1", search) + "%"
    where = (
        " from auth.users where %(search)s = '' or email like %(pattern)s"
        " or raw_user_meta_data ->> 'full_name' ilike %(pattern)s"
    )
    order = "created_at asc, id asc" if ascending else "created_at desc, id desc"
    given = {"search": search, "pattern": pattern, "limit": limit, "offset": offset}
    await cursor.execute("select count(*) as total" + where, given)
    row = await cursor.fetchone()
    await cursor.execute(
        f"select *{where} order by {order} limit %(limit)s offset %(offset)s",
        given,
    )
    return await _with_identities(cursor, await cursor.fetchall()), row["total"] if row else 0


async def _one(cursor: Cursor) -> User | None:
    row = await cursor.fetchone()
    return (await _with_identities(cursor, [row]))[0] if row else None


async def _with_identities(cursor: Cursor, rows: Iterable[DictRow]) -> list[User]:
    rows = list(rows)
    if not rows:
        return []
    await cursor.execute(
        "select id, provider_id, user_id, identity_data, provider, last_sign_in_at,"
        " created_at, updated_at, email"
        " from auth.identities where user_id = any(%s) order by created_at, id",
        ([row["id"] for row in rows],),
    )
    identities: dict[uuid.UUID, list[Identity]] = {}
    for found in await cursor.fetchall():
        identities.setdefault(found["user_id"], []).append(Identity(**found))
    return [_user(row, tuple(identities.get(row["id"], ()))) for row in rows]


def _user(row: Mapping[str, Any], identities: tuple[Identity, ...]) -> User:
    return User(
        id=row["id"],
        aud=row["aud"] or "",
        role=row["role"] or "",
        email=row["email"] or "",
        phone=row["phone"] or "",
        password_hash=row["encrypted_password"] or None,
        app_metadata=row["raw_app_meta_data"] or {},
        user_metadata=row["raw_user_meta_data"] or {},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        email_confirmed_at=row["email_confirmed_at"],
        phone_confirmed_at=row["phone_confirmed_at"],
        confirmed_at=row["confirmed_at"],
        invited_at=row["invited_at"],
        confirmation_sent_at=row["confirmation_sent_at"],
        recovery_sent_at=row["recovery_sent_at"],
        email_change=row["email_change"] or "",
        email_change_sent_at=row["email_change_sent_at"],
        email_change_confirm_status=row["email_change_confirm_status"] or 0,
        phone_change=row["phone_change"] or "",
        phone_change_sent_at=row["phone_change_sent_at"],
        reauthentication_sent_at=row["reauthentication_sent_at"],
        last_sign_in_at=row["last_sign_in_at"],
        banned_until=row["banned_until"],
        deleted_at=row["deleted_at"],
        is_anonymous=row["is_anonymous"],
        identities=identities,
    )


# -- writing


async def insert(
    cursor: Cursor,
    *,
    email: str = "",
    phone: str = "",
    password_hash: str = "",
    user_metadata: Mapping[str, Any] | None = None,
    identity_data: Mapping[str, Any] | None = None,
    is_anonymous: bool = False,
    user_id: uuid.UUID | None = None,
) -> User:
    """Add an unconfirmed user with an identity for the address and one for the number.

    `identity_data` is copied into the e-mail identity, whose own keys win.
    """
    user_id = user_id or uuid.uuid4()
    providers = [name for name, given in (("email", email), ("phone", phone)) if given]
    app_metadata = {"provider": providers[0], "providers": providers} if providers else {}
    await cursor.execute(
        "insert into auth.users (instance_id, id, aud, role, email, phone, encrypted_password,"
        " confirmation_token, recovery_token, email_change_token_new, email_change,"
        " raw_app_meta_data, raw_user_meta_data, created_at, updated_at, is_anonymous)"
        " values (%s, %s, %s, %s, %s, %s, %s, '', '', '', '', %s, %s, now(), now(), %s)",
        (
            NO_INSTANCE,
            user_id,
            AUDIENCE,
            ROLE,
            email or None,
            phone or None,
            password_hash,
            Jsonb(app_metadata),
            Jsonb(dict(user_metadata or {})),
            is_anonymous,
        ),
    )
    if email:
        await add_identity(
            cursor, user_id, "email", {**(identity_data or {}), **UNVERIFIED, "email": email}
        )
    if phone:
        await add_identity(cursor, user_id, "phone", {"phone": phone})
    return await reload(cursor, user_id)


async def reload(cursor: Cursor, user_id: uuid.UUID) -> User:
    """Return the user as the database has it now, triggers' changes included."""
    user = await find_by_id(cursor, user_id)
    if user is None:
        raise LookupError(f"user {user_id} vanished inside its own transaction")
    return user


async def add_identity(
    cursor: Cursor, user_id: uuid.UUID, provider: str, data: Mapping[str, Any]
) -> None:
    """Add the identity of an address or number that belongs to the account itself."""
    identity_data = {**UNVERIFIED, **data, "sub": str(user_id)}
    await cursor.execute(
        "insert into auth.identities (provider_id, user_id, identity_data, provider,"
        " last_sign_in_at, created_at, updated_at) values (%s, %s, %s, %s, now(), now(), now())",
        (str(user_id), user_id, Jsonb(identity_data), provider),
    )


async def change_identity(
    cursor: Cursor, user: User, provider: str, data: Mapping[str, Any]
) -> None:
    """Merge `data` into the account's own identity of a provider, adding it when missing."""
    if user.identity(provider) is None:
        await add_identity(cursor, user.id, provider, data)
        return
    await cursor.execute(
        "update auth.identities set identity_data = identity_data || %s, updated_at = now()"
        " where provider_id = %s and provider = %s",
        (Jsonb(dict(data)), str(user.id), provider),
    )


async def update(cursor: Cursor, user_id: uuid.UUID, **columns: object) -> User:
    """Set columns of auth.users (dictionaries become jsonb) and return the user."""
    # the names are ours, never a client's: composing spares a query for each set of columns
    names = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns]
    query = sql.SQL("update auth.users set {}, updated_at = now() where id = %s").format(
        sql.SQL(", ").join(names)
    )
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    await cursor.execute(query, [*values, user_id])
    return await reload(cursor, user_id)


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with changes applied: a null value deletes its key."""
    deleted = {key for key, value in changes.items() if value is None}
    return {key: value for key, value in {**before, **changes}.items() if key not in deleted}


async def confirm_email(cursor: Cursor, user: User) -> User:
    """Take the address as proved."""
    return await update(
        cursor,
        user.id,
        email_confirmed_at=datetime.now(UTC),
        confirmation_token="",
        raw_user_meta_data=merged(user.user_metadata, {"email_verified": True}),
    )
