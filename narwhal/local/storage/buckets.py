"""Buckets: create, change, list, empty, delete. Row security on storage.buckets decides."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from starlette.responses import JSONResponse, Response

from narwhal.local.storage import errors
from narwhal.local.storage.context import Call, Context, read_json, take, take_text
from narwhal.local.storage.names import as_uuid, check_bucket_name, check_mime_patterns, parse_size
from narwhal.local.storage.rows import bucket_json

_COLUMNS = "id, name, owner, public, file_size_limit, allowed_mime_types, created_at, updated_at"
_SORT_COLUMNS = ("id", "name", "created_at", "updated_at")
EMPTY_BATCH = 1000


async def create_bucket(call: Call) -> Response:
    """POST /bucket {name, id, public, file_size_limit, allowed_mime_types}."""
    body = await read_json(call.request)
    name = take_text(body, "name")
    bucket_id = take(body, "id", str) or name
    if name != name.strip():
        raise errors.invalid_bucket_name()
    check_bucket_name(name)
    check_bucket_name(bucket_id)
    values = {
        "id": bucket_id,
        "name": name,
        "public": take(body, "public", bool, default=False),
        "owner": as_uuid(call.session.caller.owner),
        "owner_id": call.session.caller.owner,
        "file_size_limit": None,
        "allowed_mime_types": None,
    } | _limits(call.context, body)
    try:
        async with call.session.transaction() as cursor:
            await cursor.execute(
                "insert into storage.buckets (id, name, public, owner, owner_id,"
                " file_size_limit, allowed_mime_types) values (%(id)s, %(name)s, %(public)s,"
                " %(owner)s, %(owner_id)s, %(file_size_limit)s, %(allowed_mime_types)s)",
                values,
            )
    except errors.StorageError as error:
        if error.sqlstate == "23505":
            raise errors.already_exists("BucketAlreadyExists") from error
        raise
    return JSONResponse({"name": name})


async def update_bucket(call: Call) -> Response:
    """PUT /bucket/:id; what is not named stays."""
    body = await read_json(call.request)
    changes = _limits(call.context, body)
    if (public := take(body, "public", bool)) is not None:
        changes["public"] = public
    if not changes:
        raise errors.invalid_request("No content provided")
    statement = sql.SQL("update storage.buckets set {changes} where id = %(id)s").format(
        changes=sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in changes
        )
    )
    async with call.session.transaction() as cursor:
        await cursor.execute(statement, changes | {"id": call.bucket})
        if not cursor.rowcount:
            raise errors.no_such_bucket()
    return JSONResponse({"message": "Successfully updated"})


async def list_buckets(call: Call) -> Response:
    """GET /bucket?limit&offset&search&sortColumn&sortOrder."""
    query = call.request.query_params
    column = query.get("sortColumn", "id")
    order = query.get("sortOrder", "asc")
    if column not in _SORT_COLUMNS or order not in ("asc", "desc"):
        raise errors.invalid_request("querystring/sortColumn is not allowed")
    try:
        limit = int(query["limit"]) if "limit" in query else None
        offset = int(query.get("offset", 0))
    except ValueError as error:
        raise errors.invalid_request("querystring/limit must be integer") from error
    if offset < 0 or (limit is not None and limit < 1):
        raise errors.invalid_request("querystring/limit must be >= 1")
    statement = sql.SQL(
        "select {columns}, type::text from storage.buckets"
        " where %(search)s = '' or position(lower(%(search)s) in lower(name)) > 0"
        " order by {column} {order} limit %(limit)s offset %(offset)s"
    ).format(columns=sql.SQL(_COLUMNS), column=sql.Identifier(column), order=sql.SQL(order))
    async with call.session.transaction() as cursor:
        await cursor.execute(
            statement, {"search": query.get("search", ""), "limit": limit, "offset": offset}
        )
        rows = await cursor.fetchall()
    return JSONResponse([bucket_json(row) for row in rows])


async def get_bucket(call: Call) -> Response:
    """GET /bucket/:id."""
    async with call.session.transaction() as cursor:
        await cursor.execute(
            sql.SQL("select {} from storage.buckets where id = %s").format(sql.SQL(_COLUMNS)),
            (call.bucket,),
        )
        row = await cursor.fetchone()
    if row is None:
        raise errors.no_such_bucket()
    return JSONResponse(bucket_json(row))


async def empty_bucket(call: Call) -> Response:
    """POST /bucket/:id/empty: delete every object, at once; only for service_role."""
    if call.session.caller.role != "service_role":
        raise errors.access_denied("Access denied: Invalid role", http_status=403)
    bucket = call.bucket
    async with call.session.transaction() as cursor:
        await cursor.execute("select 1 from storage.buckets where id = %s", (bucket,))
        if await cursor.fetchone() is None:
            raise errors.no_such_bucket()
    while True:
        async with call.session.transaction() as cursor:
            await cursor.execute(
                "select name from storage.objects where bucket_id = %s order by name limit %s",
                (bucket, EMPTY_BATCH),
            )
            keys = [row["name"] for row in await cursor.fetchall()]
        if not keys:
            break
        with call.files.changing(bucket, keys):
            async with call.session.transaction() as cursor:
                await cursor.execute(
                    "delete from storage.objects where bucket_id = %s and name = any(%s)"
                    " returning name, version",
                    (bucket, keys),
                )
                gone = await cursor.fetchall()
            for row in gone:
                await call.files.remove(bucket, row["name"], row["version"])
    return JSONResponse(
        {"message": "Empty bucket has been queued. Completion may take up to an hour."}
    )


async def delete_bucket(call: Call) -> Response:
    """DELETE /bucket/:id, which must be empty."""
    bucket = call.bucket
    async with call.session.transaction(as_service=True) as cursor:
        await cursor.execute(
            "select exists (select 1 from storage.objects where bucket_id = %s) as filled"
            " from storage.buckets where id = %s",
            (bucket, bucket),
        )
        found = await cursor.fetchone()
    if found is None:
        raise errors.no_such_bucket()
    if found["filled"]:
        raise errors.StorageError(
            409, "ResourceNotEmpty", "The bucket you tried to delete is not empty"
        )
    # an object that arrives in between fails on its reference, or makes this fail on it
    async with call.session.transaction() as cursor:
        await cursor.execute("delete from storage.buckets where id = %s", (bucket,))
        if not cursor.rowcount:
            raise errors.no_such_bucket()
    return JSONResponse({"message": "Successfully deleted"})


def _limits(context: Context, body: dict[str, Any]) -> dict[str, Any]:
    """Return the limits that `body` names; null lifts one."""
    limits: dict[str, Any] = {}
    if "file_size_limit" in body:
        value = take(body, "file_size_limit", (int, str))
        limits["file_size_limit"] = None if value is None else parse_size(value)
        if value is not None and limits["file_size_limit"] < 0:
            raise errors.invalid_request("body/file_size_limit must be >= 0")
        if value is not None and limits["file_size_limit"] > context.config.max_file_size:
            raise errors.too_large()
    if "allowed_mime_types" in body:
        patterns = take(body, "allowed_mime_types", list)
        if patterns is not None:
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise errors.invalid_request("body/allowed_mime_types must be strings")
            patterns = [pattern for pattern in patterns if pattern]
            check_mime_patterns(patterns)
        limits["allowed_mime_types"] = patterns
    return limits
