"""The audit trail in auth.audit_log_entries: who did what, never with which secret."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg.types.json import Json

from narwhal.local.auth.users import NO_INSTANCE, Cursor, User

LOG_TYPES = {
    "login": "account",
    "logout": "account",
    "user_signedup": "team",
    "user_invited": "team",
    "user_deleted": "team",
    "token_refreshed": "token",
    "token_revoked": "token",
}


async def record(
    cursor: Cursor, action: str, actor: User | str, ip: str | None = None, **traits: Any
) -> None:
    """Add an entry; `actor` is a user, or the role of an administrator's key."""
    payload: dict[str, Any] = {
        "action": action,
        "log_type": LOG_TYPES.get(action, "user"),
        "actor_via_sso": False,
    }
    if isinstance(actor, User):
        payload |= {"actor_id": str(actor.id), "actor_username": actor.email or actor.phone}
    else:
        payload |= {"actor_id": str(NO_INSTANCE), "actor_username": actor}
    if traits:
        payload["traits"] = traits
    await cursor.execute(
        "insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address)"
        " values (%s, %s, %s, now(), %s)",
        (NO_INSTANCE, uuid.uuid4(), Json(payload), ip or ""),
    )
