"""Signed URLs: tokens for one object and one action, made with a key of their own.

The key is derived from the JWT secret, so that a signed URL's token is no bearer token (on the real
servers it is one) and a bearer token opens no signed URL.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from narwhal.local.storage import errors
from narwhal.local.storage.callers import EXPIRED

DOWNLOAD = "download"
UPLOAD = "upload"
UPLOAD_SECONDS = 2 * 3600
# beyond the year 9999 there is no HTTP date
MAX_EXPIRY = 253402300799


@dataclass(frozen=True)
class Grant:
    """What a verified token allows."""

    expires_at: int
    owner: str | None
    upsert: bool


class Signer:
    """Makes and checks the tokens of signed URLs."""

    def __init__(self, jwt_secret: str) -> None:
        derive = HKDF(SHA256(), length=32, salt=None, info=b"supabase storage signed urls")
        self._key = derive.derive(jwt_secret.encode())

    def sign(self, url: str, scope: str, seconds: int, **claims: Any) -> str:
        """Return a token for `url` (bucket/key) that lives for `seconds`."""
        now = int(time.time())
        if now + seconds > MAX_EXPIRY:
            raise errors.StorageError(400, "InvalidParameter", "Invalid Parameter expiresIn")
        payload = claims | {"url": url, "scope": scope, "iat": now, "exp": now + seconds}
        return jwt.encode(payload, self._key, algorithm="HS256")

    def verify(self, token: str, url: str, scope: str) -> Grant:
        """Return what `token` grants; raise unless it was made for `url` and `scope`."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                options={"require": ["exp", "url", "scope"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise errors.invalid_jwt(EXPIRED) from error
        except jwt.InvalidSignatureError as error:
            raise errors.invalid_jwt("signature verification failed") from error
        except jwt.PyJWTError as error:
            raise errors.invalid_jwt("Invalid Compact JWS") from error
        if claims["scope"] != scope:
            raise errors.invalid_signature(f"Token is not scoped for {scope}")
        if claims["url"] != url:
            raise errors.invalid_signature()
        owner = claims.get("owner")
        return Grant(
            expires_at=int(claims["exp"]),
            owner=owner if isinstance(owner, str) else None,
            upsert=bool(claims.get("upsert")),
        )
