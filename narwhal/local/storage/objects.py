"""Objects: upload, overwrite, move, copy, delete."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from psycopg import Rollback
from starlette.responses import JSONResponse, Response

from narwhal.local.storage import errors
from narwhal.local.storage.bodies import UploadBody, decode_user_metadata, open_body
from narwhal.local.storage.context import Call, read_json, take, take_text
from narwhal.local.storage.database import Cursor, lock_key
from narwhal.local.storage.names import (
    as_uuid,
    check_bucket_name,
    check_key,
    check_mime_type,
    is_empty_folder,
)
from narwhal.local.storage.rows import (
    Row,
    find_bucket,
    find_object,
    object_json,
    probe_write,
    select_object,
)
from narwhal.local.storage.signing import UPLOAD
from narwhal.local.storage.writing import commit_version, object_metadata

MAX_REMOVED = 1000


async def create_object(call: Call) -> Response:
    """POST /object/:bucket/*: upload; an existing key needs `x-upsert: true`."""
    upsert = call.headers.get("x-upsert") == "true"
    row = await _upload(call, upsert=upsert, owner=call.session.caller.owner)
    return JSONResponse({"Id": str(row["id"]), "Key": f"{row['bucket_id']}/{row['name']}"})


async def update_object(call: Call) -> Response:
    """PUT /object/:bucket/*: upload and overwrite; creates what is missing."""
    row = await _upload(call, upsert=True, owner=call.session.caller.owner)
    return JSONResponse({"Id": str(row["id"]), "Key": f"{row['bucket_id']}/{row['name']}"})


async def upload_signed(call: Call) -> Response:
    """PUT /object/upload/sign/:bucket/*?token=: upload what a signed URL allows."""
    bucket, key = call.bucket, call.key
    token = call.request.query_params.get("token", "")
    grant = call.signer.verify(token, f"{bucket}/{key}", UPLOAD)
    row = await _upload(call, upsert=grant.upsert, owner=grant.owner)
    return JSONResponse({"Key": f"{row['bucket_id']}/{row['name']}"})


async def _upload(call: Call, *, upsert: bool, owner: str | None) -> Row:
    bucket, key = call.bucket, call.key
    check_bucket_name(bucket)
    limits = await find_bucket(call.session, bucket)
    body = await open_body(call.request)
    if not is_empty_folder(key):
        check_mime_type(body.mime_type, limits["allowed_mime_types"])
    maximum = call.context.size_limit(limits, key)
    if not body.is_form and body.declared_length is not None and body.declared_length > maximum:
        raise errors.too_large()
    check_key(key)
    await probe_write(
        call.session,
        bucket,
        key,
        metadata={"mimetype": body.mime_type, "contentLength": body.declared_length},
        user_metadata=body.user_metadata,
        owner=owner,
        upsert=upsert,
    )
    return await _receive(call, body, bucket, key, maximum, owner)


async def _receive(
    call: Call,
    body: UploadBody,
    bucket: str,
    key: str,
    maximum: int,
    owner: str | None,
) -> Row:
    with call.files.incoming() as file:
        async for chunk in body.chunks:
            await file.write(chunk)
            if file.size > maximum:
                raise errors.too_large()
        etag = await file.finish()
        return await commit_version(
            call.session,
            call.files,
            file.path,
            bucket=bucket,
            key=key,
            version=str(uuid4()),
            metadata=object_metadata(etag, file.size, body.mime_type, body.cache_control),
            user_metadata=body.user_metadata or {},
            owner=owner,
        )


async def remove_object(call: Call) -> Response:
    """DELETE /object/:bucket/*."""
    bucket, key = call.bucket, call.key
    check_bucket_name(bucket)
    check_key(key)
    await find_object(call.session, bucket, key, as_service=True)
    if not await _remove(call, bucket, [key]):
        raise errors.access_denied()
    return JSONResponse({"message": "Successfully deleted"})


async def remove_objects(call: Call) -> Response:
    """DELETE /object/:bucket {prefixes}: delete those the caller may; return their rows."""
    bucket = call.bucket
    check_bucket_name(bucket)
    body = await read_json(call.request)
    keys: list[Any] = take(body, "prefixes", list, required=True)
    if not keys:
        raise errors.invalid_request("body/prefixes must NOT have fewer than 1 items")
    if len(keys) > MAX_REMOVED:
        raise errors.invalid_request(
            f"Bulk object requests are limited to {MAX_REMOVED} objects per call.request."
        )
    if not all(isinstance(key, str) for key in keys):
        raise errors.invalid_request("body/prefixes must be strings")
    rows = await _remove(call, bucket, keys)
    return JSONResponse([object_json(row) for row in rows])


async def _remove(call: Call, bucket: str, keys: list[str]) -> list[Row]:
    """Delete rows under the caller's role, then their bytes."""
    with call.files.changing(bucket, keys):
        async with call.session.transaction() as cursor:
            await cursor.execute(
                "delete from storage.objects where bucket_id = %s and name = any(%s) returning *",
                (bucket, keys),
            )
            rows = await cursor.fetchall()
        for row in rows:
            await call.files.remove(bucket, row["name"], row["version"])
    return rows


async def copy_object(call: Call) -> Response:
    """POST /object/copy: the caller must see the source and be allowed to write the copy."""
    body = await read_json(call.request)
    bucket, source = take_text(body, "bucketId"), take_text(body, "sourceKey")
    target = take_text(body, "destinationKey")
    target_bucket = take(body, "destinationBucket", str) or bucket
    for name in (bucket, target_bucket):
        check_bucket_name(name)
    for key in (source, target):
        check_key(key)
    origin = await find_object(call.session, bucket, source, as_service=False)
    metadata, user_metadata = dict(origin["metadata"] or {}), origin["user_metadata"]
    if not take(body, "copyMetadata", bool, default=True):
        named: dict[str, Any] = take(body, "metadata", dict, default={})
        for name in ("cacheControl", "mimetype"):
            if isinstance(named.get(name), str):
                metadata[name] = named[name]
        user_metadata = decode_user_metadata(call.headers.get("x-metadata"))
    await probe_write(
        call.session,
        target_bucket,
        target,
        metadata=metadata,
        user_metadata=user_metadata,
        owner=call.session.caller.owner,
        upsert=call.headers.get("x-upsert") == "true",
    )
    row = await commit_version(
        call.session,
        call.files,
        call.files.path(bucket, source, origin["version"]),
        bucket=target_bucket,
        key=target,
        version=str(uuid4()),
        metadata=metadata
        | object_metadata(
            metadata.get("eTag", ""),
            metadata.get("size", 0),
            metadata.get("mimetype", "application/octet-stream"),
            metadata.get("cacheControl", "no-cache"),
        ),
        user_metadata=user_metadata,
        owner=call.session.caller.owner,
        keep_source=True,
    )
    answer = {"Id": str(row["id"]), "Key": f"{target_bucket}/{target}"}
    return JSONResponse(answer | object_json(row))


async def move_object(call: Call) -> Response:
    """POST /object/move: rename; needs SELECT and UPDATE. `id` survives, `version` is new."""
    body = await read_json(call.request)
    bucket, source = take_text(body, "bucketId"), take_text(body, "sourceKey")
    target = take_text(body, "destinationKey")
    target_bucket = take(body, "destinationBucket", str) or bucket
    for name in (bucket, target_bucket):
        check_bucket_name(name)
    for key in (source, target):
        check_key(key)
    version = str(uuid4())
    change = {
        "bucket": bucket,
        "source": source,
        "target_bucket": target_bucket,
        "target": target,
        "version": version,
        "owner": as_uuid(call.session.caller.owner),
        "owner_id": call.session.caller.owner,
    }
    async with call.session.transaction() as cursor:
        if await select_object(cursor, bucket, source) is None:
            raise errors.no_such_key()
        await _rename_row(cursor, change)
        raise Rollback
    if (bucket, source) == (target_bucket, target):
        row = await find_object(call.session, bucket, source, as_service=True)
    else:
        row = await _move(call, change)
    return JSONResponse({"message": "Successfully moved", "Id": str(row["id"]), "Key": target})


async def _move(call: Call, change: dict[str, Any]) -> Row:
    files, bucket, source = call.files, change["bucket"], change["source"]
    target_bucket, target, version = change["target_bucket"], change["target"], change["version"]
    with (
        files.changing(bucket, [source]),
        files.changing(target_bucket, [target], [version]),
    ):
        try:
            async with call.session.transaction(as_service=True) as cursor:
                await lock_key(cursor, target_bucket, target)
                origin = await select_object(cursor, bucket, source, for_update=True)
                if origin is None:
                    raise errors.no_such_key()
                old = files.path(bucket, source, origin["version"])
                await files.link(old, target_bucket, target, version)
                await _rename_row(cursor, change)
        except Exception as error:
            if not (isinstance(error, errors.StorageError) and error.uncertain):
                await files.remove(target_bucket, target, version)
            raise
        await files.remove(bucket, source, origin["version"])
    return origin


async def _rename_row(cursor: Cursor, change: dict[str, Any]) -> None:
    await cursor.execute(
        "update storage.objects set name = %(target)s, bucket_id = %(target_bucket)s,"
        " version = %(version)s, owner = coalesce(%(owner)s, owner),"
        " owner_id = coalesce(%(owner_id)s, owner_id)"
        " where bucket_id = %(bucket)s and name = %(source)s returning id",
        change,
    )
    if await cursor.fetchone() is None:
        raise errors.no_such_key()
