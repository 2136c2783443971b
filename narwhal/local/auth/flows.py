"""PKCE: a flow opened with a challenge ends in a code that only the opener can exchange."""

from __future__ import annotations

import uuid
from typing import Any

from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError
from narwhal.local.auth.tokens import answers_challenge
from narwhal.local.auth.users import Cursor, User

# how a flow is named in auth.flow_state and in the session's amr, by verification type
METHODS = {
    "signup": "email/signup",
    "invite": "invite",
    "magiclink": "magiclink",
    "recovery": "recovery",
    "email_change": "email_change",
}


async def open_flow(
    cursor: Cursor, user: User, verification_type: str, challenge: str, method: str
) -> bool:
    """Remember a challenge for what is mailed to this user; return whether there was one."""
    if not challenge:
        return False
    name = METHODS[verification_type]
    await cursor.execute(
        "insert into auth.flow_state (id, user_id, auth_code, code_challenge_method,"
        " code_challenge, provider_type, authentication_method, created_at, updated_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, now(), now())",
        (uuid.uuid4(), user.id, str(uuid.uuid4()), method.lower(), challenge, name, name),
    )
    return True


async def issue_code(cursor: Cursor, user: User, verification_type: str) -> str:
    """Return the code of the user's latest flow of this kind, which can be exchanged from now."""
    await cursor.execute(
        "update auth.flow_state set auth_code_issued_at = now(), updated_at = now()"
        " where id = (select id from auth.flow_state where user_id = %s"
        " and authentication_method = %s and code_challenge is not null"
        " order by created_at desc limit 1) returning auth_code",
        (user.id, METHODS[verification_type]),
    )
    row = await cursor.fetchone()
    if row is None:
        raise AuthError(422, "flow_state_not_found", "No valid flow state found for user.")
    return str(row["auth_code"])


async def exchange_code(auth: Auth, cursor: Cursor, code: str, verifier: str) -> dict[str, Any]:
    """Return `{user_id, authentication_method}` of the flow and forget it: a code works once.

    Raises 404 for an unknown code, 422 for one that is too old, 400 for a wrong verifier.
    """
    await cursor.execute(
        "select *, auth_code_issued_at < now() - make_interval(secs => %s) as is_expired"
        " from auth.flow_state where auth_code = %s and user_id is not null"
        " and auth_code_issued_at is not null for update",
        (auth.options.flow_expiry_s, code),
    )
    flow = await cursor.fetchone()
    if flow is None:
        raise AuthError(
            404, "flow_state_not_found", "invalid flow state, no valid flow state found"
        )
    if flow["is_expired"]:
        raise AuthError(422, "flow_state_expired", "invalid flow state, flow state has expired")
    if not answers_challenge(verifier, flow["code_challenge"], flow["code_challenge_method"]):
        raise AuthError(
            400,
            "bad_code_verifier",
            "code challenge does not match previously saved code verifier",
        )
    await cursor.execute("delete from auth.flow_state where id = %s", (flow["id"],))
    return flow
