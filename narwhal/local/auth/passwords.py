"""Passwords: rules, hashing and checking, always in threads."""

from __future__ import annotations

import re

import anyio
import anyio.to_thread
import bcrypt

from narwhal.local.auth import imported_hashes
from narwhal.local.auth.errors import AuthError, invalid

COST = 10
MAX_BYTES = 72  # bcrypt ignores what comes after
# costs above 16 take seconds: such a hash is refused when it is imported
BCRYPT = re.compile(r"\$2[aby]?\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")


class Passwords:
    """Hashes and checks passwords, a few at a time so that a flood leaves room for the rest."""

    def __init__(self, min_length: int, parallel: int = 4) -> None:
        self.min_length = min_length
        self._limiter = anyio.CapacityLimiter(parallel)
        # what an unknown e-mail's password is compared with, so that it takes as long
        self._nobody = bcrypt.hashpw(b"nobody", bcrypt.gensalt(COST)).decode()

    async def hash(self, password: str) -> str:
        """Return the bcrypt hash of a password of at most 72 bytes."""
        hashed = await anyio.to_thread.run_sync(
            bcrypt.hashpw, password.encode(), bcrypt.gensalt(COST), limiter=self._limiter
        )
        return hashed.decode()

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Compare; without a hash do the same work and say no."""
        matches = await anyio.to_thread.run_sync(
            _matches, password, hashed or self._nobody, limiter=self._limiter
        )
        return matches and bool(hashed)

    def weakness(self, password: str) -> AuthError | None:
        """Return why a password is too weak; raise when it is too long to be hashed."""
        size = len(password.encode())
        if size > MAX_BYTES:
            raise invalid(f"Password cannot be longer than {MAX_BYTES} characters")
        if size < self.min_length:
            return AuthError(
                422,
                "weak_password",
                f"Password should be at least {self.min_length} characters.",
                reasons=["length"],
            )
        return None

    def require_strength(self, password: str) -> None:
        """Raise 422 weak_password, or 400 when it is too long."""
        weakness = self.weakness(password)
        if weakness:
            raise weakness


def is_known_hash(hashed: str) -> bool:
    """Whether an imported hash is of a kind that `Passwords.verify` can check."""
    return bool(BCRYPT.fullmatch(hashed)) or imported_hashes.parse(hashed) is not None


def _matches(password: str, hashed: str) -> bool:
    plain = password.encode()
    if not BCRYPT.fullmatch(hashed):
        check = imported_hashes.parse(hashed)
        return check is not None and check(plain)
    if len(plain) > MAX_BYTES:
        bcrypt.checkpw(plain[:MAX_BYTES], hashed.encode())  # only to take as long
        return False
    return bcrypt.checkpw(plain, hashed.encode())
