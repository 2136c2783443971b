"""What a search reads is bounded by what the caller can read, however much others have.

The index of all vectors (HNSW) is bounded by how many of them a search may look at.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from narwhal.local.postgres import SUPERUSER
from tests.conftest import Cluster, copied
from tests.database import Database
from tests.db.conftest import embed
from tests.db.pictures import DIMENSION, make_space
from tests.proof.mutations import Loosened

GENERATE = (Path(__file__).parent / "large.sql").read_bytes()  # 200 chunks for each owner
FEW, MANY = 25, 100

VECTOR = json.dumps(embed("alpha bravo"))
UNKEPT = {"cache": False, "record": False}
PICTURE = [1.0] + [0.0] * (DIMENSION - 1)

# as many pages as passages, of four patches each; the first of a file is an image, too
PICTURES: LiteralString = """
with drawn as materialized (
    select v.no, array_agg(v.patch) as vectors
    from (
        select
            v.no,
            extensions.l2_normalize(array_agg(random() - 0.5)::real[]::extensions.halfvec) as patch
        from generate_series(0, 49) as v (no) cross join generate_series(1, 4) as p (no)
            cross join generate_series(1, %(dimension)s)
        group by v.no, p.no
    ) as v
    group by v.no
), stored as (
    insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors)
    select s.id, n.owner_id, sha256(p.id::text::bytea),
        d.vectors[: case s.id when %(page)s then 4 else 1 end]
    from unnest(array[%(page)s, %(image)s]) as s (id)
    inner join public.pages as p on s.id = %(page)s or p.page = 1
    inner join public.nodes as n on n.id = p.file_id
    inner join drawn as d on d.no = p.page * 4 + ascii(p.id::text) %% 4
    returning space_id, owner_id, picture_hash, id, vectors
)
insert into private.page_vectors
(space_id, owner_id, file_id, page, version_id, vector_id, embedding)
select s.space_id, s.owner_id, p.file_id, p.page, p.version_id, s.id,
    case s.space_id when %(image)s then s.vectors[1] end
from public.pages as p
inner join stored as s on s.picture_hash = sha256(p.id::text::bytea)
"""


def _hybrid(
    query: str = "'word7 word21 2.txt'", filters: Any = None, **options: Any
) -> Callable[[str], str]:
    return lambda file: (
        f"public.hybrid_search({query}, '{VECTOR}', filters => '{json.dumps(filters or {})}',"
        f" options => '{json.dumps(UNKEPT | options)}')"
    )


# an argument of each is a file of the caller's own
SEARCHES: dict[str, Callable[[str], str]] = {
    "keyword": _hybrid(weights={"vector": 0, "name": 0}),
    "dense": _hybrid(weights={"keyword": 0, "name": 0}),
    "names": _hybrid(weights={"keyword": 0, "vector": 0, "name": 1}),
    "hybrid": _hybrid(),
    "hybrid by file": _hybrid(group_by="file"),
    "phrase": _hybrid("'\"alpha bravo\" word7'"),
    "filtered": _hybrid(filters={"types": ["txt"]}),
    "filtered by page": _hybrid(filters={"page_from": 2, "languages": ["en"]}),
    "files": lambda file: "public.search_files('2 txt')",
    "every file": lambda file: "public.search_files()",
    "related": lambda file: f"public.related_documents('{file}')",
    "pages": lambda file: (
        f"public.search_pages('{json.dumps([PICTURE] * 3)}', options => '{{\"heat\": true}}')"
    ),
    "pages of types": lambda file: (
        f"public.search_pages('{json.dumps([PICTURE])}', filters => '{{\"types\": [\"txt\"]}}')"
    ),
    "images": lambda file: f"public.search_images('{json.dumps(PICTURE)}')",
}
SCOPE = "private.search_scope('{}')"
OWN_PAGES = Loosened("page_places", "where t.owner_id = any($1)", "where true")
OWN_VECTORS = Loosened("search_dense", "t.owner_id = any($1)", "true")
# the legs by themselves, of which a whole search is only a small part to read; and what keeps each
# to the caller's own, so that it can be taken away
LEGS: dict[str, tuple[str, Loosened]] = {
    "keyword": (
        f"count(*) from private.search_keyword('word7 word21', {SCOPE}, 50)",
        Loosened("scoring", "'t.owner_id = $9'", "'true'"),
    ),
    "keyword, by page": (
        "count(*) from private.search_keyword('word7 word21',"
        """ private.search_scope('{"page_from": 20}'), 50)""",
        Loosened("narrowed_files", "where i.owner_id = any((scope).owner_ids)"),
    ),
    "dense": (
        f"count(*) from private.search_dense(1::smallint, '{VECTOR}'::extensions.halfvec, {SCOPE},"
        " 50, null)",
        OWN_VECTORS,
    ),
    "dense, by page": (
        f"count(*) from private.search_dense(1::smallint, '{VECTOR}'::extensions.halfvec,"
        """ private.search_scope('{"page_from": 2, "languages": ["en"]}'), 50, null)""",
        OWN_VECTORS,
    ),
    "names": (
        f"count(*) from private.search_names('2.txt', {SCOPE}, 50)",
        Loosened("search_names", "on n.owner_id = m.owner_id and n.word = m.word", "on true", 1, 3),
    ),
    "pages": (
        "count(*) from private.find_pages((select s.id from public.embedding_spaces as s"
        f" where s.kind = 'page'), array['{PICTURE}'::extensions.halfvec], {SCOPE}, 50, 50)",
        OWN_PAGES,
    ),
    "images": (
        "count(*) from private.find_images((select s.id from public.embedding_spaces as s"
        f" where s.kind = 'image'), '{PICTURE}'::extensions.halfvec, {SCOPE}, 50, null)",
        OWN_PAGES,
    ),
    "the middle of a file": (
        "private.file_vector(private.my_file(), 1::smallint)",
        Loosened("file_vector", " where t.file_id = $1"),
    ),
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
        connection.execute("set session authorization postgres")
        spaces = {kind: make_space(db, kind) for kind in ("page", "image")}
        connection.execute("reset session authorization")
        connection.execute(PICTURES, spaces | {"dimension": DIMENSION})
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


def _leg_buffers(db: Database, call: str) -> int:
    for _ in range(3):
        (plan,) = db.one(  # type: ignore[misc]
            f"explain (analyze, buffers, timing off, format json) select {call}"  # type: ignore[arg-type]
        )
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@dataclass
class Read:
    """Buffers of each search, of its legs, and of those with what bounds them taken away."""

    searches: dict[str, int]
    legs: dict[str, int]
    loosened: dict[str, int]


@pytest.fixture(scope="module")
def read(cluster: Cluster, migrated: Any) -> dict[int, Read]:
    """What is read among few owners, and among many."""
    made = {}
    for count in (FEW, MANY):
        with _drives(cluster, migrated, count) as (db, reader, file):
            with db.as_user(reader):
                claims = db.one("select current_setting('request.jwt.claims')")
                for call in (_hybrid(), SEARCHES["pages"], SEARCHES["images"]):
                    answer = db.one(f"select {call(file)}")  # type: ignore[arg-type]
                    owners = db.all(
                        "select distinct owner_id from public.nodes where id = any(%s::uuid[])",
                        [hit["file_id"] for hit in answer["hits"]],
                    )
                    assert len(answer["hits"]) >= 8
                    assert len(owners) == 2  # control: what is shared is among it
            searches = {name: _buffers(db, reader, call(file)) for name, call in SEARCHES.items()}
            db.all("select set_config('request.jwt.claims', %s, true)", claims)
            legs, loosened = {}, {}
            for name, (leg, bound) in LEGS.items():
                call = leg.replace("private.my_file()", f"'{file}'")
                legs[name] = _leg_buffers(db, call)
                with db.connection.transaction(force_rollback=True):
                    bound.apply(db)
                    loosened[name] = _leg_buffers(db, call)
            made[count] = Read(searches, legs, loosened)
    return made


def _is_bounded(before: int, after: int) -> bool:
    # indexes of more rows may be a level deeper
    return after <= 1.5 * before + 60


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_read_does_not_grow_with_what_others_have(
    read: dict[int, Read], search: str
) -> None:
    before, after = read[FEW].searches[search], read[MANY].searches[search]
    assert before > 20
    assert _is_bounded(before, after), (before, after)


@pytest.mark.parametrize("leg", LEGS)
def test_what_a_leg_reads_does_not_grow_and_would_if_it_were_not_kept_to_its_owner(
    read: dict[int, Read], leg: str
) -> None:
    before, after = read[FEW].legs[leg], read[MANY].legs[leg]
    assert _is_bounded(before, after), (before, after)
    before, after = read[FEW].loosened[leg], read[MANY].loosened[leg]
    assert not _is_bounded(before, after), (before, after)  # control


# The index of all vectors ------------------------------------------------------------------------

LIMIT = 300
# on a scale at which a test can have more vectors than a search may look at
SMALL_SCAN = [
    Loosened("search_hnsw", "'20000'", f"'{LIMIT}'"),
    Loosened("search_hnsw", "'1000'", "'20'"),
]
UNLIMITED = Loosened("search_hnsw", f"'{LIMIT}'", "'1000000'")


def _scanned(cluster: Cluster, migrated: Any, count: int) -> tuple[int, int]:
    """Buffers of an HNSW scan that does not find enough of the caller's; and without a limit."""
    with _drives(cluster, migrated, count) as (db, reader, _):
        with db.as_user(reader):
            claims = db.one("select current_setting('request.jwt.claims')")
        db.all("select private.change_setting('search.exact_chunks', '100')")
        db.all("select private.change_setting('search.index_share', '0')")
        table = db.one("select 'private.' || private.vector_table(1::smallint)")
        # each vector its own
        db.all(
            f"update {table} as t set embedding = extensions.l2_normalize("
            "t.embedding operator(extensions.+) n.noise)"
            " from (select c.chunk_id,"
            " array_agg(random() * 0.05)::real[]::extensions.halfvec(384) as noise"
            f" from {table} as c cross join generate_series(1, 384) group by c.chunk_id) as n"
            " where n.chunk_id = t.chunk_id"  # type: ignore[arg-type]
        )
        db.all(
            f"create index on {table} using hnsw ((embedding::extensions.halfvec(384))"
            " extensions.halfvec_ip_ops) with (m = 8, ef_construction = 32)"  # type: ignore[arg-type]
        )
        db.all("select set_config('request.jwt.claims', %s, true)", claims)
        for part in SMALL_SCAN:
            part.apply(db)
        plan = "select (private.plan_dense(1::smallint, private.search_scope('{}'))).plan"
        assert db.one(plan) == "hnsw"

        def buffers() -> int:
            for _ in range(2):
                (found,) = db.one(
                    "explain (analyze, buffers, timing off, format json)"
                    " select cardinality(h.chunk_ids) from"
                    " private.search_hnsw(1::smallint, %s::extensions.halfvec,"
                    " private.search_scope('{}'), 1000) as h",
                    VECTOR,
                )
            return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])

        limited = buffers()
        UNLIMITED.apply(db)
        return limited, buffers()


def test_an_index_of_all_vectors_is_read_up_to_its_limit(cluster: Cluster, migrated: Any) -> None:
    few, few_unlimited = _scanned(cluster, migrated, 6)
    many, many_unlimited = _scanned(cluster, migrated, 24)
    most = 6 * LIMIT  # a vector that is looked at: its place, its neighbours, its row
    assert max(few, many) <= most, (few, many)
    assert many_unlimited > 2 * max(most, few_unlimited), many_unlimited  # control
