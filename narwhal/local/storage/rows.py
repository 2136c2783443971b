"""Statements on storage.objects and storage.buckets, and their rows as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import Rollback, sql
from psycopg.types.json import Jsonb

from narwhal.local.storage import errors
from narwhal.local.storage.database import Cursor, Session
from narwhal.local.storage.names import as_uuid

Row = dict[str, Any]


def iso(moment: datetime | None) -> str | None:
    """Return JavaScript's toISOString: UTC with milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


async def find_bucket(session: Session, bucket: str) -> Row:
    """Return a bucket's limits whoever asks; raise NoSuchBucket."""
    async with session.transaction(as_service=True) as cursor:
        await cursor.execute(
            "select id, public, file_size_limit, allowed_mime_types"
            " from storage.buckets where id = %s",
            (bucket,),
        )
        row = await cursor.fetchone()
    if row is None:
        raise errors.no_such_bucket()
    return row


async def find_object(session: Session, bucket: str, key: str, *, as_service: bool) -> Row:
    """Return an object's row when the role may see it; raise NoSuchKey."""
    async with session.transaction(as_service=as_service) as cursor:
        row = await select_object(cursor, bucket, key)
    if row is None:
        raise errors.no_such_key()
    return row


async def select_object(
    cursor: Cursor, bucket: str, key: str, *, for_update: bool = False
) -> Row | None:
    """Return an object's row, locked if asked for."""
    statement = sql.SQL(
        "select id, name, bucket_id, version, metadata, user_metadata, created_at, updated_at"
        " from storage.objects where bucket_id = %s and name = %s {lock}"
    ).format(lock=sql.SQL("for update" if for_update else ""))
    await cursor.execute(statement, (bucket, key))
    return await cursor.fetchone()


def object_columns(
    bucket: str,
    key: str,
    version: str,
    metadata: Row,
    user_metadata: Row | None,
    owner: str | None,
) -> Row:
    """Return the columns that Storage writes; the absent ones keep their values on overwrite."""
    columns: Row = {
        "name": key,
        "bucket_id": bucket,
        "version": version,
        "metadata": Jsonb({name: value for name, value in metadata.items() if value is not None}),
        "user_metadata": None if user_metadata is None else Jsonb(user_metadata),
        "owner": as_uuid(owner),
        "owner_id": owner,
    }
    return {name: value for name, value in columns.items() if value is not None}


async def insert_object(cursor: Cursor, columns: Row) -> None:
    """Insert without reading back, so that no SELECT policy is needed."""
    statement = sql.SQL("insert into storage.objects ({names}) values ({values})").format(
        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(map(sql.Placeholder, columns)),
    )
    await cursor.execute(statement, columns)


async def upsert_object(cursor: Cursor, columns: Row) -> Row:
    """Insert or overwrite, and return the row; `id` survives an overwrite."""
    kept = [name for name in columns if name not in ("name", "bucket_id")]
    statement = sql.SQL(
        "insert into storage.objects ({names}) values ({values})"
        " on conflict (name, bucket_id) do update set {changes} returning *"
    ).format(
        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(map(sql.Placeholder, columns)),
        changes=sql.SQL(", ").join(
            sql.SQL("{name} = excluded.{name}").format(name=sql.Identifier(name)) for name in kept
        ),
    )
    await cursor.execute(statement, columns)
    row = await cursor.fetchone()
    if row is None:
        raise errors.access_denied()
    return row


async def probe_write(
    session: Session,
    bucket: str,
    key: str,
    *,
    metadata: Row,
    user_metadata: Row | None,
    owner: str | None,
    upsert: bool,
) -> None:
    """Ask the database whether the caller may write `key`: a real write, rolled back.

    Triggers see version '1' and `contentLength`, no `size`. `owner` is the caller, or whoever
    signed the URL that is being used.
    """
    columns = object_columns(bucket, key, "1", metadata, user_metadata, owner)
    try:
        async with session.transaction() as cursor:
            if upsert:
                await upsert_object(cursor, columns)
            else:
                await insert_object(cursor, columns)
            raise Rollback
    except errors.StorageError as error:
        if error.sqlstate == "23505":
            raise errors.already_exists("KeyAlreadyExists") from error
        raise


def bucket_json(row: Row) -> Row:
    """Return a bucket as clients read it: `owner` is text, never null."""
    return row | {
        "owner": str(row["owner"] or ""),
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def object_json(row: Row) -> Row:
    """Return an object's row as clients read it."""
    return {
        "name": row["name"],
        "bucket_id": row["bucket_id"],
        "owner": str(row["owner"] or ""),
        "owner_id": row["owner_id"] or "",
        "version": row["version"] or "",
        "id": str(row["id"]),
        "updated_at": iso(row["updated_at"]),
        "created_at": iso(row["created_at"]),
        "last_accessed_at": iso(row["last_accessed_at"]),
        "metadata": row["metadata"],
        "user_metadata": row["user_metadata"],
    }


def entry_json(row: Row) -> Row:
    """Return an entry of a listing; a folder has a name and nulls."""
    return {
        "name": row["name"],
        "id": None if row["id"] is None else str(row["id"]),
        "updated_at": iso(row["updated_at"]),
        "created_at": iso(row["created_at"]),
        "last_accessed_at": iso(row["last_accessed_at"]),
        "metadata": row["metadata"],
    }
