"""Committing a version: the file in place first, then the row, then the old file away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from narwhal.local.storage import errors
from narwhal.local.storage.database import Session, lock_key
from narwhal.local.storage.files import FileStore
from narwhal.local.storage.rows import Row, iso, object_columns, select_object, upsert_object


def object_metadata(etag: str, size: int, mime_type: str, cache_control: str) -> Row:
    """Return the `metadata` column of a version that has just been written."""
    return {
        "eTag": etag,
        "size": size,
        "mimetype": mime_type,
        "cacheControl": cache_control,
        "lastModified": iso(datetime.now(UTC)),
        "contentLength": size,
        "httpStatusCode": 200,
    }


async def commit_version(
    session: Session,
    files: FileStore,
    source: Path,
    *,
    bucket: str,
    key: str,
    version: str,
    metadata: Row,
    user_metadata: dict[str, Any] | None,
    owner: str | None,
    keep_source: bool = False,
) -> Row:
    """Put synced bytes in place and switch the row to them, as service_role; return the row.

    When the database refuses (a completion trigger), the bytes are removed again. `keep_source`
    leaves `source` where it is: the caller removes it once it knows the outcome.
    """
    columns = object_columns(bucket, key, version, metadata, user_metadata, owner)
    with files.changing(bucket, [key], [version]):
        try:
            if keep_source:
                await files.link(source, bucket, key, version)
            else:
                await files.place(source, bucket, key, version)
            async with session.transaction(as_service=True) as cursor:
                await lock_key(cursor, bucket, key)
                before = await select_object(cursor, bucket, key, for_update=True)
                row = await upsert_object(cursor, columns)
        except Exception as error:
            if not (isinstance(error, errors.StorageError) and error.uncertain):
                await files.remove(bucket, key, version)
            raise
        if before is not None and before["version"] != version:
            await files.remove(bucket, key, before["version"])
    return row
