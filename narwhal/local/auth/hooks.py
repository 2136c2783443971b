"""The custom access token hook: a function of the project that may change what a token says.

Supabase Auth finds it in its configuration ([auth.hook.custom_access_token] in config.toml); here
it is called when the database has it. What it gets, what it must answer and what happens when it
does not are Auth's: https://supabase.com/docs/guides/auth/auth-hooks/custom-access-token-hook
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from narwhal.local.auth.errors import AuthError, unexpected
from narwhal.local.auth.users import Cursor

HOOK = "private.custom_access_token_hook"
TIMEOUT_MS = 2000
REQUIRED = (
    "aud",
    "exp",
    "iat",
    "sub",
    "email",
    "phone",
    "role",
    "aal",
    "session_id",
    "is_anonymous",
)


async def customise_claims(
    cursor: Cursor, user_id: uuid.UUID, claims: dict[str, Any], method: str
) -> dict[str, Any]:
    """Return the claims as the project's hook wants them; unchanged when there is none.

    Raises AuthError when the hook refuses ({error: {http_code, message}}) or answers nonsense.
    """
    await cursor.execute("select to_regprocedure(%s) is not null as exists", (f"{HOOK}(jsonb)",))
    row = await cursor.fetchone()
    if row is None or not row["exists"]:
        return claims
    event = {
        "metadata": {
            "uuid": str(uuid.uuid4()),
            "time": datetime.now(UTC).isoformat(),
            "name": "customize-access-token",
        },
        "user_id": str(user_id),
        "claims": claims,
        "authentication_method": method,
    }
    await cursor.execute(f"set local statement_timeout to {TIMEOUT_MS}")
    await cursor.execute(f"select {HOOK}(%s) as answer", (Jsonb(event),))
    row = await cursor.fetchone()
    await cursor.execute("set local statement_timeout to default")
    return _checked(row["answer"] if row else None)


def _checked(answer: Any) -> dict[str, Any]:
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict) and error.get("message"):
        status = int(error.get("http_code") or 500)
        code = "unexpected_failure" if status == 500 else "unknown"
        raise AuthError(status, code, str(error["message"]))
    if not isinstance(answer, dict) or "claims" not in answer:
        raise unexpected("output claims field is missing")
    claims = answer["claims"]
    missing = REQUIRED if not isinstance(claims, dict) else [n for n in REQUIRED if n not in claims]
    if missing:
        reasons = "".join(f"- (root): {name} is required\n" for name in missing)
        raise unexpected(f"output claims do not conform to the expected schema: \n{reasons}")
    return dict(claims)
