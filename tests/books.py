"""What must hold of a stack after whatever has been done to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg

from narwhal.local.storage.files import FileStore
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED

BLOBS = """
select b.owner_id, b.bucket, b.key, o.version
from private.blobs as b
inner join storage.objects as o on o.bucket_id = b.bucket and o.name = b.key
where b.released_at is null
"""


def _differences(connection: psycopg.Connection[Any], files: FileStore) -> list[Any]:
    with connection.transaction():  # all of it of one moment
        connection.execute("set transaction isolation level repeatable read")
        found: list[Any] = []
        for query in (UNBALANCED, PATHS_ARE_WRONG, UNEQUAL, UNNEEDED, UNSERVED):
            found += connection.execute(query).fetchall()
        used = dict(connection.execute("select id, storage_used from public.owners").fetchall())
        for owner, bucket, key, version in connection.execute(BLOBS).fetchall():
            used[owner] -= files.path(bucket, key, version).stat().st_size
    return found + [("bytes", owner, rest) for owner, rest in used.items() if rest]


def assert_balanced(database_url: str, home: Path, timeout_s: float = 30) -> None:
    """Compare every figure with what it counts, down to the bytes on the disk.

    Workers may be at their last steps; then it looks again.
    """
    files = FileStore(home / "storage")
    end = time.monotonic() + timeout_s
    with psycopg.connect(database_url, autocommit=True) as connection:
        while differences := _differences(connection, files):
            assert time.monotonic() < end, differences
            time.sleep(0.5)
