"""Secrets that are handed out: access tokens (JWT), refresh tokens, one-time codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
import time
import uuid
from typing import Any

import jwt

from narwhal.local.auth.errors import bad_jwt, invalid
from narwhal.local.auth.users import User

ALGORITHM = "HS256"
ALPHABET = string.ascii_letters + string.digits
REFRESH_TOKEN_LENGTH = 12
OTP_DIGITS = 6
PKCE_PREFIX = "pkce_"
CODE_CHALLENGE = re.compile(r"[a-zA-Z0-9._~-]+")


def access_claims(
    user: User,
    session_id: uuid.UUID,
    amr: list[dict[str, Any]],
    *,
    issuer: str,
    lifetime: int,
    aal: str = "aal1",
) -> dict[str, Any]:
    """Return what the access token of a session says, before the project's hook has a say.

    `lifetime` is in seconds; `amr` lists how the session was opened, `{method, timestamp}`.
    """
    issued_at = int(time.time())
    return {
        "iss": issuer,
        "sub": str(user.id),
        "aud": user.aud,
        "exp": issued_at + lifetime,
        "iat": issued_at,
        "email": user.email,
        "phone": user.phone,
        "app_metadata": user.app_metadata,
        "user_metadata": user.user_metadata,
        "role": user.role,
        "aal": aal,
        "amr": amr,
        "session_id": str(session_id),
        "is_anonymous": user.is_anonymous,
    }


def sign_access_token(claims: dict[str, Any], secret: str) -> str:
    """Return claims as a signed JWT."""
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def read_access_token(token: str, secret: str) -> dict[str, Any]:
    """Return the claims of a JWT signed with our secret; raise 403 bad_jwt otherwise."""
    try:
        return jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            options={"verify_aud": False, "verify_sub": False},
        )
    except jwt.ExpiredSignatureError:
        reason = "token has invalid claims: token is expired"
    except jwt.InvalidSignatureError:
        reason = "token signature is invalid: signature is invalid"
    except jwt.DecodeError:
        reason = "token is malformed"
    except jwt.InvalidTokenError:
        reason = "token is unverifiable"
    raise bad_jwt(f"invalid JWT: unable to parse or verify signature, {reason}")


def new_refresh_token() -> str:
    """Return 12 random letters and digits (71 bits)."""
    return "".join(secrets.choice(ALPHABET) for _ in range(REFRESH_TOKEN_LENGTH))


def new_otp() -> str:
    """Return six random digits."""
    return f"{secrets.randbelow(10**OTP_DIGITS):0{OTP_DIGITS}d}"


def token_hash(address: str, otp: str) -> str:
    """Return what is stored of, and mailed as the link for, a code sent to an address."""
    return hashlib.sha224((address + otp).encode()).hexdigest()


def require_challenge(challenge: str, method: str) -> None:
    """Raise 400 unless the two PKCE parameters are both absent or both well formed."""
    if bool(challenge) != bool(method):
        raise invalid("PKCE flow requires code_challenge_method and code_challenge")
    if not challenge:
        return
    if not 43 <= len(challenge) <= 128:
        raise invalid("code challenge has to be between 43 and 128 characters")
    if not CODE_CHALLENGE.fullmatch(challenge):
        raise invalid(
            "code challenge can only contain alphanumeric characters, hyphens, periods,"
            " underscores and tildes"
        )
    if method.lower() not in ("s256", "plain"):
        raise invalid(f'unsupported code_challenge method "{method}"')


def answers_challenge(verifier: str, challenge: str, method: str) -> bool:
    """Whether a PKCE verifier belongs to the challenge that opened the flow."""
    if method == "s256":
        digest = hashlib.sha256(verifier.encode()).digest()
        verifier = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(verifier.encode(), challenge.encode())
