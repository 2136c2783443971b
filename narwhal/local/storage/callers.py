"""Who is calling: the bearer token, its role and its claims."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import jwt

from narwhal.local.storage import errors

# `set role` to anything else is never tried, whatever a token says
ROLES = ("anon", "authenticated", "service_role")
_BEARER = re.compile(r"^Bearer\s+", re.IGNORECASE)
EXPIRED = '"exp" claim timestamp check failed'


@dataclass(frozen=True)
class Caller:
    """The identity under which statements run; `owner` is the token's subject."""

    role: str = "anon"
    token: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"role": "anon"})
    owner: str | None = None
    authenticated: bool = False


def read_caller(authorization: str, secret: str) -> Caller:
    """Return the caller of an `Authorization` header; raise AccessDenied for a bad token."""
    token = _BEARER.sub("", authorization)
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={
                "verify_aud": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.ExpiredSignatureError as error:
        raise errors.access_denied(EXPIRED) from error
    except jwt.ImmatureSignatureError as error:
        raise errors.access_denied('"nbf" claim timestamp check failed') from error
    except jwt.InvalidSignatureError as error:
        raise errors.access_denied("signature verification failed") from error
    except jwt.InvalidAlgorithmError as error:
        raise errors.access_denied(
            '"alg" (Algorithm) Header Parameter value not allowed'
        ) from error
    except jwt.PyJWTError as error:
        raise errors.access_denied("Invalid Compact JWS") from error
    role = claims.get("role") or "anon"
    if role not in ROLES:
        raise errors.access_denied(f"Invalid role: {role}")
    subject = claims.get("sub")
    return Caller(
        role=role,
        token=token,
        claims=claims,
        owner=subject if isinstance(subject, str) and subject else None,
        authenticated=True,
    )


def service_caller(service_role_key: str) -> Caller:
    """Return the caller for the statements that Storage runs in its own name."""
    return Caller(
        role="service_role",
        token=service_role_key,
        claims={"role": "service_role"},
        authenticated=True,
    )
