"""What a search reads is bounded by what the caller can read, however much others have."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from narwhal.local.postgres import SUPERUSER
from tests.conftest import Cluster, copied
from tests.database import Database
from tests.db.conftest import embed

GENERATE = (Path(__file__).parent / "large.sql").read_bytes()  # 200 chunks for each owner
FEW, MANY = 25, 100

VECTOR = json.dumps(embed("alpha bravo"))
UNKEPT = {"cache": False, "record": False}


def _hybrid(**options: Any) -> Callable[[str], str]:
    asked = json.dumps(UNKEPT | options)
    return lambda file: (
        f"public.hybrid_search('word7 word21 2.txt', '{VECTOR}', options => '{asked}')"
    )


# an argument of each is a file of the caller's own
SEARCHES: dict[str, Callable[[str], str]] = {
    "keyword": _hybrid(weights={"vector": 0, "name": 0}),
    "dense": _hybrid(weights={"keyword": 0, "name": 0}),
    "names": _hybrid(weights={"keyword": 0, "vector": 0, "name": 1}),
    "hybrid": _hybrid(),
    "hybrid by file": _hybrid(group_by="file"),
    "phrase": lambda file: "public.hybrid_search('\"alpha bravo\" word7')",
    "filtered": lambda file: (
        f"public.hybrid_search('word7', '{VECTOR}', filters => '{{\"types\": [\"txt\"]}}')"
    ),
    "files": lambda file: "public.search_files('2 txt')",
    "every file": lambda file: "public.search_files()",
    "related": lambda file: f"public.related_documents('{file}')",
}


@contextmanager
def _drives(cluster: Cluster, migrated: Any, count: int) -> Iterator[tuple[Database, Any, str]]:
    """So many owners, the first of whom sees the folder of the second, too."""
    with (
        copied(cluster, migrated.template_dbname, "narwhal_buffers") as name,
        psycopg.connect(cluster.url(SUPERUSER, name)) as connection,
    ):
        db = Database(connection)
        owners = [db.create_user() for _ in range(count)]
        connection.execute("reset session authorization")
        connection.execute("set session_replication_role = 'replica'")
        connection.execute(GENERATE)
        connection.execute("set session_replication_role = 'origin'")
        connection.execute(
            "select private.index_names(array(select id from public.nodes where kind = 'file'))"
        )
        connection.execute("analyze")
        connection.execute("set session authorization postgres")
        folder = "select id from public.nodes where kind = 'folder' and owner_id = %s"
        db.all(
            "insert into public.shares (node_id, grantee_id, level) values (%s, %s, 'view')",
            db.one(folder, owners[1]),
            owners[0],
        )
        file = db.one(
            "select id::text from public.nodes where owner_id = %s and name = '1.txt'", owners[0]
        )
        yield db, owners[0], file


def _buffers(db: Database, user: uuid.UUID, call: str) -> int:
    with db.as_user(user):
        for _ in range(3):  # the catalogues are read and the statements planned once
            (plan,) = db.one(  # type: ignore[misc]
                f"explain (analyze, buffers, timing off, format json) select {call}"  # type: ignore[arg-type]
            )
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.fixture(scope="module")
def read(cluster: Cluster, migrated: Any) -> dict[int, dict[str, int]]:
    """Buffers of each search among few owners and among many."""
    made = {}
    for count in (FEW, MANY):
        with _drives(cluster, migrated, count) as (db, reader, file):
            with db.as_user(reader):
                answer = db.one(f"select {_hybrid()(file)}")  # type: ignore[arg-type]
                owners = db.all(
                    "select distinct owner_id from public.nodes where id = any(%s::uuid[])",
                    [hit["file_id"] for hit in answer["hits"]],
                )
            assert len(answer["hits"]) == 8
            assert len(owners) == 2  # control: what is shared is among it
            made[count] = {
                name: _buffers(db, reader, call(file)) for name, call in SEARCHES.items()
            }
    return made


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_read_does_not_grow_with_what_others_have(
    read: dict[int, dict[str, int]], search: str
) -> None:
    before, after = read[FEW][search], read[MANY][search]
    assert before > 20
    # indexes of more rows may be a level deeper
    assert after <= 1.5 * before + 60, (before, after)
