"""What buckets and keys may be called, which types and sizes they take."""

from __future__ import annotations

import re
from uuid import UUID

from narwhal.local.storage import errors

_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$=@;:+,?-]+")
_BUCKET = re.compile(r"[A-Za-z0-9_!.*'() &$=@;:+,?-]{1,100}")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(gb|mb|kb|b)", re.IGNORECASE)
_MIME_PATTERN = re.compile(
    r"([a-zA-Z0-9\-+.]+)/([a-zA-Z0-9\-+.*]+)(;\s*charset=[a-zA-Z0-9\-]+)?|\*"
)
_UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
# the column and S3 take no longer ones, and a btree entry neither
MAX_KEY_LENGTH = 1024


def check_key(key: str) -> None:
    """Raise InvalidKey unless S3 would take `key`."""
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise errors.invalid_key(key)


def check_bucket_name(name: str) -> None:
    """Raise InvalidBucketName unless S3 would take `name`."""
    if not _BUCKET.fullmatch(name):
        raise errors.invalid_bucket_name()


def is_empty_folder(key: str) -> bool:
    """Whether `key` is the placeholder by which dashboards make folders; it holds no bytes."""
    return key.endswith(".emptyFolderPlaceholder")


def check_mime_type(mime_type: str, allowed: list[str] | None) -> None:
    """Raise InvalidMimeType unless `allowed` (patterns such as image/*) is empty or has it."""
    if not allowed:
        return
    bare = mime_type.partition(";")[0].strip()  # text/plain allows text/plain;charset=UTF-8
    kind, slash, _ = bare.partition("/")
    if slash and {mime_type, bare, f"{kind}/*", "*", "*/*"} & set(allowed):
        return
    raise errors.invalid_mime_type(mime_type)


def check_mime_patterns(patterns: list[str]) -> None:
    """Raise InvalidMimeType for what could never be a type."""
    for pattern in patterns:
        if len(pattern) > 1000 or not _MIME_PATTERN.fullmatch(pattern):
            raise errors.invalid_mime_type(pattern)


def parse_size(value: int | str) -> int:
    """Return bytes of `1000` or `"1.5MB"` (decimal units, as the real server counts)."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise errors.invalid_request("Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def as_uuid(value: str | None) -> UUID | None:
    """Return the uuid in `value`, or None: the deprecated `owner` column takes only those."""
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
