"""Password hashes that came with people from elsewhere: argon2 and Firebase's scrypt."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2i, Argon2id

Check: TypeAlias = Callable[[bytes], bool]

ARGON2 = re.compile(
    r"\$(?P<kind>argon2id?)\$v=19\$m=(?P<memory>\d{1,7}),t=(?P<time>\d{1,2}),p=(?P<lanes>\d{1,2})"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)
FIREBASE = re.compile(
    r"\$fbscrypt\$v=1,n=(?P<n>\d{1,2}),r=(?P<r>\d{1,3}),p=(?P<p>\d{1,2})"
    r"(?:,ss=(?P<separator>[A-Za-z0-9+/=]+))?(?:,sk=(?P<key>[A-Za-z0-9+/=]+))?"
    r"\$(?P<salt>[A-Za-z0-9+/=]+)\$(?P<hash>[A-Za-z0-9+/=]+)"
)
MAX_MEMORY = 1024**3  # bytes; a hash that asks for more is refused when it is imported
MAX_TIME = 20
MAX_LANES = 16


def parse(hashed: str) -> Check | None:
    """Return how to check a password (bytes) against this hash; None when it is neither kind."""
    try:
        return _argon2(hashed) or _firebase(hashed)
    except (binascii.Error, ValueError):
        return None


def _decode(text: str | None) -> bytes:
    return base64.b64decode((text or "") + "=" * (-len(text or "") % 4), validate=True)


def _argon2(hashed: str) -> Check | None:
    match = ARGON2.fullmatch(hashed)
    if match is None:
        return None
    memory, time, lanes = int(match["memory"]), int(match["time"]), int(match["lanes"])
    salt, expected = _decode(match["salt"]), _decode(match["hash"])
    if memory * 1024 > MAX_MEMORY or time > MAX_TIME or lanes > MAX_LANES:
        return None
    kind = Argon2id if match["kind"] == "argon2id" else Argon2i

    def derive(password: bytes) -> bytes:
        function = kind(
            salt=salt, length=len(expected), iterations=time, lanes=lanes, memory_cost=memory
        )
        return function.derive(password)

    kind(salt=salt, length=len(expected), iterations=time, lanes=lanes, memory_cost=memory)
    return lambda password: hmac.compare_digest(derive(password), expected)


def _firebase(hashed: str) -> Check | None:
    match = FIREBASE.fullmatch(hashed)
    if match is None:
        return None
    n, r, p = 2 ** int(match["n"]), int(match["r"]), int(match["p"])
    memory = 128 * r * (n + p + 2)
    if not (n > 1 and r and p) or memory > MAX_MEMORY:
        return None
    salt = _decode(match["salt"]) + _decode(match["separator"])
    key, expected = _decode(match["key"]), _decode(match["hash"])

    def derive(password: bytes) -> bytes:
        derived = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=32, maxmem=2 * memory)
        # Firebase encrypts its signer key with what it derives; the counter starts at zero
        encryptor = Cipher(algorithms.AES(derived), modes.CTR(bytes(16))).encryptor()
        return encryptor.update(key) + encryptor.finalize()

    return lambda password: hmac.compare_digest(derive(password), expected)
