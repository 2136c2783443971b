"""Reading a request: its JSON body, who sent it, and from where."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.requests import Request

from narwhal.local.auth.context import Auth
from narwhal.local.auth.errors import AuthError, bad_jwt, banned
from narwhal.local.auth.tokens import read_access_token
from narwhal.local.auth.users import User, find_by_id

MAX_BODY = 1024**2  # bytes
BEARER = re.compile(r"[Bb]earer (\S+)")
ADMIN_ROLES = ("service_role", "supabase_admin")


def _bad_json(reason: str) -> AuthError:
    return AuthError(400, "bad_json", f"Could not parse request body as JSON: {reason}")


class Body:
    """A JSON object; a value of the wrong kind is a 400, a null counts as absent."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def text(self, name: str) -> str:
        """Return a string, empty when absent."""
        return self.optional_text(name) or ""

    def optional_text(self, name: str) -> str | None:
        """Return a string, None when absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise _bad_json(f"{name} must be a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _bad_json(f"{name} must be a boolean")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object, None when absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise _bad_json(f"{name} must be an object")
        return value


async def read_body(request: Request, *, optional: bool = False) -> Body:
    """Return the body of at most 1 MB; with `optional` nothing at all is an empty object.

    Raises 413 when it is larger, 400 bad_json when it is no JSON object or holds text that
    Postgres cannot store (NUL, half a surrogate pair).
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise AuthError(
                413,
                "request_entity_too_large",
                f"Request body too large (max {MAX_BODY} bytes)",
            )
        chunks.append(chunk)
    raw = b"".join(chunks)
    if optional and not raw:
        return Body({})
    try:
        values = json.loads(raw, parse_constant=_refuse_constant)
        # what was escaped inside strings shows only now, and so do numbers beyond a float
        storable = json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise _bad_json("nested too deeply") from None
    except UnicodeError:
        raise _bad_json("invalid text") from None
    except ValueError:
        raise _bad_json("invalid JSON") from None
    if not isinstance(values, dict):
        raise _bad_json("an object is expected")
    if b"\\u0000" in storable.replace(b"\\\\", b""):
        raise _bad_json("text cannot contain NUL")
    return Body(values)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class Client:
    """Where a request came from. The address is the peer's own: headers could claim any."""

    ip: str | None
    user_agent: str | None


def client_of(request: Request) -> Client:
    """Return the sender of a request."""
    host = request.client.host if request.client else ""
    try:
        ip: str | None = str(ipaddress.ip_address(host))
    except ValueError:
        ip = None
    return Client(ip, request.headers.get("user-agent"))


@dataclass(frozen=True)
class Caller:
    """A signed-in user, and the session that the token belongs to, if it names one."""

    user: User
    session_id: uuid.UUID | None


def bearer_claims(auth: Auth, request: Request) -> dict[str, Any]:
    """Return the claims of the bearer token; raise 401 without one, 403 for a bad one."""
    match = BEARER.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
    return read_access_token(match[1], auth.config.jwt_secret)


async def require_caller(auth: Auth, request: Request) -> Caller:
    """Return who calls; raise 401 or 403 unless account and session still exist."""
    claims = bearer_claims(auth, request)
    subject, session = claims.get("sub"), claims.get("session_id")
    if not subject:
        raise bad_jwt("invalid claim: missing sub claim")
    user_id = _uuid(subject)
    if user_id is None:
        raise AuthError(400, "bad_jwt", "invalid claim: sub claim must be a UUID")
    session_id = _uuid(session) if session else None
    if session and session_id is None:
        raise bad_jwt("invalid claim: session_id claim must be a UUID")
    async with auth.transaction() as cursor:
        user = await find_by_id(cursor, user_id)
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        if session_id:
            await cursor.execute(
                "select from auth.sessions where id = %s and user_id = %s", (session_id, user_id)
            )
            if await cursor.fetchone() is None:
                raise AuthError(
                    403,
                    "session_not_found",
                    "Session from session_id claim in JWT does not exist",
                )
    if user.is_banned:
        raise banned(403)
    return Caller(user, session_id)


def require_admin(auth: Auth, request: Request) -> str:
    """Return the caller's role; raise 401 or 403 unless it is one that may administer users."""
    role = bearer_claims(auth, request).get("role")
    if role not in ADMIN_ROLES:
        raise AuthError(403, "not_admin", "User not allowed")
    return str(role)


def _uuid(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None
