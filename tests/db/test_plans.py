"""Which index answers what, with 20,000 chunks in the tables and row security on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from narwhal.local.postgres import SUPERUSER
from tests.conftest import Cluster, copied
from tests.database import Database
from tests.db.conftest import Drive, embed

OWNERS = 100
OWN_CHUNKS = 200  # an owner has, see large.sql
GENERATE = (Path(__file__).parent / "large.sql").read_bytes()


@dataclass
class Large:
    """A transaction with a lot in it, seen by an owner and by a peer with one shared folder."""

    db: Database
    owner: uuid.UUID
    peer: uuid.UUID
    file: str = ""
    folder: str = ""
    key: str = ""
    notices: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def large(cluster: Cluster, migrated: Any) -> Iterator[Large]:
    # a database of its own: what is rolled back still takes its place in tables and statistics
    with (
        copied(cluster, migrated.template_dbname, "narwhal_large") as name,
        psycopg.connect(cluster.url(SUPERUSER, name)) as connection,
    ):
        # shows the plans of what functions run inside
        connection.execute("load 'auto_explain'")
        connection.execute("set auto_explain.log_nested_statements = on")
        connection.execute("set auto_explain.log_level = 'notice'")
        connection.execute("set auto_explain.log_analyze = on")
        connection.execute("set auto_explain.log_timing = off")
        connection.execute("set auto_explain.log_format = 'json'")
        db = Database(connection)
        owners = [db.create_user() for _ in range(OWNERS)]
        made = Large(db, owners[OWNERS // 2], owners[1])
        connection.execute("reset session authorization")
        connection.execute("set session_replication_role = 'replica'")
        connection.execute(GENERATE)
        connection.execute("set session_replication_role = 'origin'")
        connection.execute("set session authorization postgres")
        made.file, made.folder, made.key = db.one(
            "select n.id::text, n.parent_id::text, b.key from public.nodes as n"
            " join public.file_versions as v on v.file_id = n.id"
            " join private.blobs as b on b.id = v.blob_id"
            " where n.owner_id = %s and n.name = '7.txt'",
            made.owner,
        )
        Drive(db).share(made.folder, made.peer)
        connection.add_notice_handler(
            lambda notice: made.notices.append(notice.message_primary or "")
        )
        yield made
        connection.rollback()


def _scans(plan: Any) -> Iterator[dict[str, Any]]:
    """Every scan of a plan in JSON, with the rows it read, those it threw away included."""
    if "Relation Name" in plan:
        loops = plan.get("Actual Loops", 1)
        removed = sum(v for k, v in plan.items() if k.startswith("Rows Removed by"))
        plan["read"] = (plan.get("Actual Rows", 0) + removed) * loops
        yield plan
    for inner in plan.get("Plans", []):
        yield from _scans(inner)


def _read(scans: list[Any], tables: set[str]) -> float:
    return sum(scan["read"] for scan in scans if scan["Relation Name"] in tables)


LOOKUPS = {
    "a node": ("nodes", "select * from public.nodes where id = %(file)s"),
    "a folder's content": ("nodes", "select * from public.nodes where parent_id = %(folder)s"),
    "versions": ("file_versions", "select * from public.file_versions where file_id = %(file)s"),
    "chunks": ("chunks", "select * from public.chunks where file_id = %(file)s"),
    "pages": ("pages", "select * from public.pages where file_id = %(file)s"),
    "jobs": ("ingest_jobs", "select stage, state from public.ingest_jobs where file_id = %(file)s"),
    "uploads": ("uploads", "select * from public.uploads where file_id = %(file)s"),
    "all of one's uploads": (
        "uploads",
        "select * from public.uploads where owner_id = %(owner)s order by created_at limit 5",
    ),
    "an object": (
        "objects",
        "select * from storage.objects where bucket_id = 'files' and name = %(key)s",
    ),
}


@pytest.mark.parametrize(
    ("what", "who"),
    [
        (what, who)
        for what, (table, _) in LOOKUPS.items()
        for who in ("owner", "peer", "stranger", "anon")
        if who != "anon" or table not in ("ingest_jobs", "uploads")  # it may not ask
    ],
)
def test_a_look_up_reads_by_an_index_and_little(large: Large, what: str, who: str) -> None:
    table, query = LOOKUPS[what]
    user = {"owner": large.owner, "peer": large.peer, "anon": None}.get(who, uuid.uuid4())
    if who == "stranger":
        user = large.db.one(
            "select id from public.owners where id <> all(%s) limit 1", [large.owner, large.peer]
        )
    arguments = {"file": large.file, "folder": large.folder, "key": large.key, "owner": large.owner}
    with large.db.as_user(user):
        cursor = large.db.connection.execute(
            "explain (analyze, timing off, format json) " + query,  # type: ignore[arg-type]
            arguments,
        )
        ((found,),) = cursor.fetchall()
        rows = len(large.db.connection.execute(query, arguments).fetchall())  # type: ignore[arg-type]
    scans = list(_scans(found[0]["Plan"]))
    assert not {s["Relation Name"] for s in scans if s["Node Type"] == "Seq Scan"} & BIG
    assert table in {scan["Relation Name"] for scan in scans} or rows == 0
    assert _read(scans, BIG) <= 100
    if who == "owner" and what != "an object":
        assert rows > 0  # control


BIG = {
    "nodes",
    "file_versions",
    "chunks",
    "pages",
    "ingest_jobs",
    "uploads",
    "objects",
    "blobs",
    "chunk_terms",
    "chunk_vectors_1",
    "vector_blocks_1",
    "text_vectors",
    "indexed_files",
}


@contextmanager
def _explained(large: Large) -> Iterator[list[Any]]:
    """Collect the scans of all statements of a block, those inside functions as well."""
    scans: list[Any] = []
    _log_plans(large, 0)
    large.notices.clear()
    try:
        yield scans
    finally:
        _log_plans(large, -1)
    for notice in large.notices:
        if "plan:" in notice:
            scans += _scans(json.loads(notice.split("plan:", 1)[1])["Plan"])


def _log_plans(large: Large, least: int) -> None:
    connection = large.db.connection
    connection.execute("reset session authorization")  # only the superuser may
    connection.execute(f"set auto_explain.log_min_duration = {least}".encode())
    connection.execute("set session authorization postgres")


@pytest.mark.parametrize("who", ["owner", "peer"])
def test_search_reads_its_covering_indexes_and_only_what_is_readable(
    large: Large, who: str
) -> None:
    user = large.owner if who == "owner" else large.peer
    # all passages here say the same: for others than copies the legs would be asked once more,
    # and fused by score those of one leg may fill the list
    query = (
        "select public.hybrid_search('alpha', %s, candidates => 20,"
        ' options => \'{"dedup": false, "fusion": "rrf"}\')'
    )
    with _explained(large) as scans, large.db.as_user(user):
        (answer,) = large.db.connection.execute(query, (Jsonb(embed("alpha")),)).fetchone() or ()
    assert len(answer["hits"]) == 8
    assert {hit["parts"]["keyword_rank"] is not None for hit in answer["hits"]} != {False}
    sequential = {s["Relation Name"] for s in scans if s["Node Type"] == "Seq Scan"}
    assert not sequential & BIG, sequential
    # own rows, and as many that are shared with the peer
    legs = 1 if who == "owner" else 2
    # beginnings of words have a plan of their own, which is not run for whole ones
    of_terms = [s for s in scans if s["Relation Name"] == "chunk_terms" and s["Actual Loops"]]
    used = {(scan["Node Type"], scan.get("Index Name")) for scan in of_terms}
    # the covering one, without the table
    assert used == {("Index Only Scan", "chunk_terms_pkey")}
    # a file's ten chunks are one entry of the word, read to count them and to score them
    assert 0 < _read(of_terms, {"chunk_terms"}) <= OWN_CHUNKS / 10 * legs * 2
    of_blocks = [scan for scan in scans if scan["Relation Name"] == "vector_blocks_1"]
    assert {(scan["Node Type"], scan.get("Index Name")) for scan in of_blocks} == {
        ("Index Scan", "vector_blocks_1_pkey")
    }
    # a file's ten chunks are one block
    assert 0 < _read(of_blocks, {"vector_blocks_1"}) <= OWN_CHUNKS / 10 * legs
    # the candidates: of each part of the keyword leg, those of both legs once more, and the hits
    assert _read(scans, {"chunks"}) <= 20 * legs + 2 * 20 + 2 * 8
    assert _read(scans, {"nodes"}) <= 500


def test_listing_and_details_read_by_an_index(large: Large) -> None:
    for query, argument in (
        ("select public.list_folder(%s)", large.folder),
        ("select public.list_folder(null, %s)", "name"),
        ("select public.file_details(%s)", large.file),
        ("select public.begin_upload('7.txt', %s, 1, on_conflict => 'rename')", large.folder),
    ):
        with _explained(large) as scans, large.db.as_user(large.owner):
            large.db.connection.execute(query, (argument,))  # type: ignore[arg-type]
        sequential = {s["Relation Name"] for s in scans if s["Node Type"] == "Seq Scan"}
        assert not sequential & BIG, (query, sequential)
        assert 0 < _read(scans, BIG) <= 200, query


@pytest.mark.parametrize("who", ["owner", "peer"])
@pytest.mark.parametrize("sort", ["name", "-name"])
def test_a_page_of_a_large_folder_is_read_in_order(large: Large, who: str, sort: str) -> None:
    db, user = large.db, large.owner if who == "owner" else large.peer
    with db.connection.transaction(force_rollback=True):
        db.all(
            "insert into public.nodes (id, kind, name, parent_id, owner_id, path)"
            " select i.id, 'file', md5(i.no::text), %s, %s, array[%s, i.id]::uuid[] from"
            " (select gen_random_uuid() as id, no from generate_series(1, 10000) as no) as i",
            large.folder,
            large.owner,
            large.folder,
        )
        db.all("analyze public.nodes")
        with _explained(large) as scans, db.as_user(user):
            found = db.one("select public.list_folder(%s, %s)", large.folder, sort)
        assert len(found["items"]) == 100
        assert "nodes_sibling_name_key" in {scan.get("Index Name") for scan in scans}
        assert _read(scans, BIG) <= 200


def test_the_queue_reads_only_what_is_due(large: Large) -> None:
    db = large.db
    db.all(
        "update public.ingest_jobs set state = 'queued' where file_id = %s and stage = 'detect'",
        large.file,
    )
    with _explained(large) as scans:
        (job,) = Drive(db).claim(2)
    assert job["file_id"] == large.file
    reads = [s for s in scans if s["Relation Name"] == "ingest_jobs"]
    assert {s.get("Index Name") for s in reads} >= {
        "ingest_jobs_queued_idx",
        "ingest_jobs_running_idx",
    }
    assert _read(scans, BIG) <= 50
