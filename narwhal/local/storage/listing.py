"""Listing objects and folders. The caller's row security decides what is listed."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from starlette.responses import JSONResponse, Response

from narwhal.local.storage import errors
from narwhal.local.storage.context import Call, read_json, take, take_int
from narwhal.local.storage.database import Session
from narwhal.local.storage.names import check_bucket_name
from narwhal.local.storage.rows import Row, entry_json, iso

MAX_PAGE = 1000
_SORTS = ("name", "updated_at", "created_at", "last_accessed_at")
_SORTS_V2 = ("name", "updated_at", "created_at")
_ORDERS = ("asc", "desc")


async def list_objects(call: Call) -> Response:
    """POST /object/list/:bucket {prefix, limit, offset, search, sortBy}; names lose the prefix."""
    bucket = call.bucket
    check_bucket_name(bucket)
    body = await read_json(call.request)
    prefix: str = take(body, "prefix", str, required=True)
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    column, order = _sort(body, _SORTS)
    search: str = take(body, "search", str, default="")
    async with call.session.transaction() as cursor:
        await cursor.execute(
            "select * from storage.search(%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                prefix,
                bucket,
                take_int(body, "limit", 100, 1),
                (prefix + search).count("/") + 1,
                take_int(body, "offset", 0, 0),
                search,
                column or "name",
                order or "asc",
            ),
        )
        rows = await cursor.fetchall()
    return JSONResponse([entry_json(row) for row in rows])


async def list_objects_v2(call: Call) -> Response:
    """POST /object/list-v2/:bucket {prefix, limit, cursor, with_delimiter, sortBy}: by cursor."""
    bucket = call.bucket
    check_bucket_name(bucket)
    body = await read_json(call.request)
    prefix: str = take(body, "prefix", str, default="")
    limit = min(take_int(body, "limit", MAX_PAGE, 1) or MAX_PAGE, MAX_PAGE)
    column, order = _sort(body, _SORTS_V2)
    cursor_text: str = take(body, "cursor", str, default="")
    page = _Page.decode(cursor_text) if cursor_text else _Page(order=order, column=column)
    list_rows = _with_folders if take(body, "with_delimiter", bool, default=False) else _flat
    rows = await list_rows(call.session, bucket, prefix, limit + 1, page)
    shown = rows[:limit]
    answer: dict[str, Any] = {
        "hasNext": len(rows) > limit,
        "folders": [_folder(row) for row in shown if row["id"] is None],
        "objects": [_object(row) for row in shown if row["id"] is not None],
    }
    if answer["hasNext"]:
        last = shown[-1]
        name = last["name"] if last["id"] is not None else last["name"] + "/"
        after = iso(last[page.column]) if page.column and page.column != "name" else None
        answer["nextCursor"] = _Page(name, page.order, page.column, after).encode()
        answer["nextCursorKey"] = last["name"]
    return JSONResponse(answer)


def _sort(body: Row, columns: tuple[str, ...]) -> tuple[str | None, str | None]:
    sort: Row = take(body, "sortBy", dict, default={})
    column, order = take(sort, "column", str), take(sort, "order", str)
    if sort and column is None:
        raise errors.invalid_request("body/sortBy must have required property 'column'")
    if column is not None and column not in columns:
        raise errors.invalid_request("body/sortBy/column must be one of the allowed values")
    # clients send "" for the default
    if order and order not in _ORDERS:
        raise errors.invalid_request("body/sortBy/order must be one of the allowed values")
    return column, order or None


@dataclass(frozen=True)
class _Page:
    """Where a page starts: after the entry `name` (a folder's with its slash)."""

    name: str = ""
    order: str | None = None
    column: str | None = None
    after: str | None = None

    def encode(self) -> str:
        parts = (("l", self.name), ("o", self.order), ("c", self.column), ("a", self.after))
        lines = [f"{letter}:{value}" for letter, value in parts if value]
        return base64.b64encode("\n".join(lines).encode()).decode()

    @classmethod
    def decode(cls, token: str) -> _Page:
        broken = errors.StorageError(
            400, "InvalidParameter", "Invalid Parameter continuation token"
        )
        try:
            lines = base64.b64decode(token, validate=True).decode().split("\n")
        except (binascii.Error, UnicodeDecodeError, ValueError) as error:
            raise broken from error
        values: dict[str, str] = {}
        for line in lines:
            letter, colon, value = line.partition(":")
            if not colon or letter not in ("l", "o", "c", "a"):
                raise broken
            values[letter] = value
        if values.get("o", "asc") not in _ORDERS or values.get("c", "name") not in _SORTS_V2:
            raise broken
        return cls(values.get("l", ""), values.get("o"), values.get("c"), values.get("a"))


async def _with_folders(
    session: Session, bucket: str, prefix: str, limit: int, page: _Page
) -> list[Row]:
    async with session.transaction() as cursor:
        await cursor.execute(
            "select * from storage.search_v2(%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                prefix,
                bucket,
                limit,
                prefix.count("/") + 1,
                page.name,
                page.order or "asc",
                page.column or "name",
                page.after,
            ),
        )
        return await cursor.fetchall()


async def _flat(session: Session, bucket: str, prefix: str, limit: int, page: _Page) -> list[Row]:
    by_time = page.column in ("updated_at", "created_at")
    order = sql.SQL("desc" if page.order == "desc" else "asc")
    beyond = sql.SQL("<" if page.order == "desc" else ">")
    column = sql.SQL("date_trunc('milliseconds', {})").format(sql.Identifier(page.column or "name"))
    if by_time:
        after = sql.SQL(
            '({column}, name collate "C") {beyond} (%(after)s::timestamptz, %(name)s)'
        ).format(column=column, beyond=beyond)
        sort = sql.SQL('{column} {order}, name collate "C" {order}').format(
            column=column, order=order
        )
    else:
        after = sql.SQL('name collate "C" {beyond} %(name)s').format(beyond=beyond)
        sort = sql.SQL('name collate "C" {order}').format(order=order)
    statement = sql.SQL(
        "select id, name, metadata, updated_at, created_at, last_accessed_at"
        " from storage.objects"
        " where bucket_id = %(bucket)s and starts_with(name, %(prefix)s)"
        " and (%(name)s = '' or {after}) order by {sort} limit %(limit)s"
    ).format(after=after, sort=sort)
    values = {
        "bucket": bucket,
        "prefix": prefix,
        "name": page.name,
        "after": page.after or "epoch",
        "limit": limit,
    }
    async with session.transaction() as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


def _object(row: Row) -> Row:
    return entry_json(row) | ({"key": row["key"]} if "key" in row else {})


def _folder(row: Row) -> Row:
    return entry_json(row) | {"key": row["key"], "name": row["name"] + "/"}
