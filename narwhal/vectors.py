"""Text spaces as collections of vecs, and back: for exploration by whoever holds the database.

vecs has neither owners nor shares, so its collections are never what search reads.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from narwhal.db import connect
from narwhal.errors import NarwhalError

if TYPE_CHECKING:
    from narwhal.spaces import Spaces

AT_ONCE = 500

# ids and texts as they are, so that a collection can be read without the drive
_EXPORTED = """
    select
        e.chunk_id::text, e.embedding::text,
        jsonb_build_object(
            'file_id', e.file_id, 'owner_id', e.owner_id, 'file', n.name, 'page', c.page,
            'idx', c.idx, 'heading', c.heading, 'language', c.language, 'content', c.content,
            'context', c.context, 'text_hash', encode(c.text_hash, 'hex')
        )
    from private.chunk_vectors as e
    inner join public.chunks as c on c.id = e.chunk_id
    inner join public.nodes as n on n.id = e.file_id and n.trashed_at is null
    where e.space_id = %s and (%s::uuid is null or e.owner_id = %s::uuid)
"""


def export_space(
    url: str, spaces: Spaces, name: str, collection: str, owner: str | None
) -> dict[str, Any]:
    """Copy what is in service in a text space into a new collection, of one owner or of all.

    Raises CONFLICT_NAME when there is such a collection.
    """
    space = spaces.named(name)
    _require_text(space)
    owner_id = spaces.owner_id(owner) if owner else None
    with _client(url) as client:
        if any(each.name == collection for each in client.list_collections()):
            raise NarwhalError(
                f"There is a collection {collection}.",
                "Choose another name, or delete it with vecs.",
                error="CONFLICT_NAME",
                status=409,
            )
        made = client.get_or_create_collection(
            _checked(collection), dimension=int(space["dimension"])
        )
        count = 0
        with (
            connect(url, application="narwhal export") as connection,
            connection.transaction(),
            connection.cursor("exported") as rows,
        ):
            rows.itersize = AT_ONCE
            rows.execute(_EXPORTED, (space["id"], owner_id, owner_id))
            for batch in _batches(rows):
                made.upsert([(id_, json.loads(vector), data) for id_, vector, data in batch])
                count += len(batch)
    return {
        "space": name,
        "collection": collection,
        "dimension": space["dimension"],
        "exported": count,
    }


def import_space(
    url: str,
    spaces: Spaces,
    name: str,
    collection: str,
    model: str,
    revision: str,
    owner: str | None,
) -> dict[str, Any]:
    """Make a new text space of a collection whose ids are chunks, of one owner or of all.

    Raises NOT_FOUND when there is no such collection.
    """
    owner_id = spaces.owner_id(owner) if owner else None
    with _client(url) as client:
        found = [each for each in client.list_collections() if each.name == collection]
        if not found:
            raise NarwhalError(
                f"There is no collection {collection}.",
                "vecs lists them: client.list_collections()",
                error="NOT_FOUND",
                status=404,
            )
        dimension = int(found[0].dimension)
        space = spaces.add(
            name,
            "text",
            {"model": model, "revision": revision, "dimension": dimension, "max_tokens": 512},
        )
        seen = imported = 0
        with client.Session() as session:
            stored = session.execute(
                found[0].table.select(), execution_options={"yield_per": AT_ONCE}
            )
            for batch in _batches(stored):
                seen += len(batch)
                imported += spaces.import_vectors(
                    space["id"],
                    owner_id,
                    [
                        {
                            "chunk_id": str(row.id),
                            "embedding": [float(x) for x in row.vec],
                            "text_hash": row._mapping["metadata"].get("text_hash"),
                        }
                        for row in batch
                    ],
                )
    spaces.serve_imported(space["id"])
    return spaces.named(name) | {
        "collection": collection,
        "imported": imported,
        "left_out": seen - imported,
    }


def _batches(rows: Any) -> Iterator[list[Any]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, AT_ONCE)):
        yield batch


def _require_text(space: dict[str, Any]) -> None:
    if space["kind"] != "text":
        raise NarwhalError(
            f"The space {space['name']} has vectors of {space['kind']}s.",
            "Only text spaces are exported: a collection has one vector a row.",
            error="INVALID_ARGUMENT",
            status=422,
            details={"field": "space"},
        )


def _checked(collection: str) -> str:
    """Check the name of a new collection, which becomes a table."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", collection):
        raise NarwhalError(
            f"{collection!r} is no name for a collection.",
            "Use letters, digits, _ and -.",
            error="INVALID_ARGUMENT",
            status=422,
            details={"field": "collection"},
        )
    return collection


@contextmanager
def _client(url: str) -> Iterator[Any]:
    try:
        vecs = importlib.import_module("vecs")
    except ModuleNotFoundError as error:
        raise NarwhalError(
            f"the adapter of vecs needs the package {error.name}",
            "Install it: pip install 'narwhal[vecs]'",
            error="NOT_INSTALLED",
        ) from error
    client = vecs.create_client(sqlalchemy_url(url))
    try:
        yield client
    finally:
        client.disconnect()


def sqlalchemy_url(url: str) -> str:
    """Write a connection string of libpq as vecs wants it; the type vector is in extensions."""
    try:
        given = {
            key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None
        }
    except psycopg.ProgrammingError as error:
        raise NarwhalError("DATABASE_URL cannot be read", "Check it.") from error
    user, password = given.pop("user", ""), given.pop("password", "")
    name = given.pop("dbname", "")
    # hosts may be folders of sockets, so all of it goes into the query
    given["options"] = f"{given.get('options', '')} -c search_path=public,extensions".strip()
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in given.items())
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"postgresql+psycopg2://{login}/{quote(name, safe='')}?{query}"
