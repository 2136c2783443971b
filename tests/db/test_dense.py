"""The dense leg: blocks of vectors, exact search against brute force, and the HNSW index."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive
from tests.db.invariants import UNPACKED

Vectors = Any  # an array of float32, one vector a row


class Store:
    """Vectors in a space of its own, in service as if files had been read."""

    def __init__(self, db: Database, dimension: int = 8, name: str = "test") -> None:
        self.db = db
        self.dimension = dimension
        self.space: int = db.one(
            "select private.create_space(%s, 'm', '1', %s, 'text', 'shadow', 10)::integer",
            name,
            dimension,
        )
        self.chunks: dict[str, tuple[uuid.UUID, str, Any]] = {}  # owner, file, vector

    def file(self, owner: uuid.UUID, vectors: Vectors, folder: str | None = None) -> str:
        """Add one file with these vectors."""
        file = str(uuid.uuid4())
        self.files(owner, [(file, vectors)], folder)
        return file

    def files(
        self, owner: uuid.UUID, files: list[tuple[str, Vectors]], folder: str | None = None
    ) -> None:
        """Add files in one statement."""
        self.db.connection.execute("reset session authorization")
        self.db.all("set session_replication_role = 'replica'")
        self.db.all(
            "insert into public.nodes (id, kind, name, owner_id, parent_id, path)"
            " select f, 'file', f, %s, %s, array_remove(array[%s::uuid, f], null)"
            " from unnest(%s::uuid[]) as f",
            owner,
            folder,
            folder,
            [file for file, _ in files],
        )
        self.db.all("set session_replication_role = 'origin'")
        self.db.all("set session authorization postgres")
        rows = [(file, str(uuid.uuid4()), v) for file, vectors in files for v in vectors]
        for file, chunk, vector in rows:
            half = np.asarray(vector, "f2").astype("f4")
            self.chunks[chunk] = (owner, file, half)
        self.db.all(
            "insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
            " select %s, %s, v.file_id, v.chunk_id, v.embedding::extensions.halfvec"
            " from unnest(%s::uuid[], %s::uuid[], %s::text[]) as v (file_id, chunk_id, embedding)",
            self.space,
            owner,
            [row[0] for row in rows],
            [row[1] for row in rows],
            [_text(row[2]) for row in rows],
        )

    def scope(self, user: uuid.UUID, **filters: object) -> str:
        """What a search by this user may look at."""
        self.db.all(
            "select set_config('request.jwt.claims', %s, true)",
            json.dumps({"sub": str(user), "role": "authenticated"}),
        )
        scope: str = self.db.one("select private.search_scope(%s)::text", json.dumps(filters))
        return scope

    def search(
        self,
        user: uuid.UUID,
        query: Vectors,
        count: int,
        threshold: float | None = None,
        **more: Any,
    ) -> list[str]:
        """Search; each leg, own and shared, gives at most `count`."""
        return [
            str(chunk)
            for chunk in self.db.all(
                "select chunk_id from private.search_dense("
                "%s::smallint, %s::extensions.halfvec, %s::private.search_scope, %s, %s::real)",
                self.space,
                _text(query),
                self.scope(user, **more),
                count,
                threshold,
            )
        ]

    def nearest(self, query: Vectors, files: set[str], count: int) -> list[str]:
        """Brute force over the vectors of these files; of equal ones the smaller id first."""
        found = [
            (-float(np.dot(vector.astype("f8"), np.asarray(query, "f8"))), chunk)
            for chunk, (_, file, vector) in self.chunks.items()
            if file in files
        ]
        return [chunk for _, chunk in sorted(found)[:count]]


def _text(vector: Vectors) -> str:
    return str([float(x) for x in vector])


def _unit(vectors: Vectors) -> Vectors:
    made = np.asarray(vectors, "f4")
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


def _axes(chance: random.Random, count: int, dimension: int = 8) -> Vectors:
    """Vectors of a few values that half precision holds exactly, many of them equal."""
    made = np.zeros((count, dimension), "f4")
    for row in made:
        row[chance.randrange(dimension)] = chance.choice([1, -1])
    return made


def _packed(db: Database) -> bool:
    assert db.one("select count(*) from private.vector_blocks") > 0  # control
    return db.all(UNPACKED) == []


# Blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_blocks_hold_the_vectors_in_service_whatever_is_done_to_these(
    db: Database, seed: int
) -> None:
    chance = random.Random(seed)
    owners = [db.create_user(), db.create_user()]
    store = Store(db)
    for _ in range(6):
        store.file(chance.choice(owners), _axes(chance, chance.randrange(1, 50)))
    assert _packed(db)
    statements: list[Any] = [
        "delete from private.chunk_vectors where chunk_id = any(%(some)s)",
        "delete from private.chunk_vectors where file_id = %(file)s",
        "delete from public.nodes where id = %(file)s",  # cascades
        "update private.chunk_vectors set owner_id = %(owner)s where file_id = %(file)s",
        "update private.chunk_vectors set embedding = embedding + embedding"
        " where chunk_id = any(%(some)s)",
        "with gone as"
        " (delete from private.chunk_vectors where chunk_id = any(%(some)s) returning *)"
        " insert into private.chunk_vectors select * from gone",
        "delete from private.chunk_vectors where false",
    ]
    chunks = sorted(store.chunks)
    for statement in chance.choices(statements, k=12):
        some = chance.sample(chunks, 15)
        arguments = {
            "some": some,
            "file": store.chunks[some[0]][1],
            "owner": chance.choice(owners),
        }
        with db.connection.transaction():
            db.connection.execute("reset session authorization")
            db.connection.execute("set local session_replication_role = 'origin'")
            db.connection.execute(statement, arguments)
            db.connection.execute("set session authorization postgres")
        store.file(owners[0], _axes(chance, 3))
        assert _packed(db), statement


def test_packing_anew_fills_the_blocks(db: Database) -> None:
    owner, chance = db.create_user(), random.Random(5)
    store = Store(db)
    file = store.file(owner, _axes(chance, 1))
    for vector in _axes(chance, 20):
        db.all(
            "insert into private.chunk_vectors select %s, %s, %s, gen_random_uuid(), %s",
            store.space,
            owner,
            file,
            _text(vector),
        )
    count = "select count(*) from private.vector_blocks where file_id = %s"
    assert db.one(count, file) == 21
    db.one("select private.repack_vectors(%s::smallint)::text", store.space)
    assert db.one(count, file) == 2  # of at most 16
    assert _packed(db)


def test_two_who_take_from_one_block_do_not_undo_each_other(connect: Callable[[], Drive]) -> None:
    first, second, onlooker = connect(), connect(), connect()
    owner = first.db.create_user()
    first.file(owner, "a.txt", *(f"bark {number}" for number in range(9)))
    chunks = first.db.all("select chunk_id from private.chunk_vectors order by 1")
    assert first.db.all("select chunk_ids from private.vector_blocks") == [chunks]
    delete = "delete from private.chunk_vectors where chunk_id = any(%s)"
    with ThreadPoolExecutor(1) as pool:
        with first.db.connection.transaction():
            first.db.all(delete, chunks[:1])
            waiting = pool.submit(second.db.all, delete, chunks[5:7])
            while not onlooker.db.one("select count(*) from pg_locks where not granted"):
                assert not waiting.done()
        waiting.result()
    left = [chunk for chunk in chunks if chunk not in (chunks[0], *chunks[5:7])]
    assert onlooker.db.all("select chunk_ids from private.vector_blocks") == [left]
    assert _packed(onlooker.db)


# Exact search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_exact_search_is_brute_force_over_what_is_readable(db: Database, seed: int) -> None:
    """Among equal distances too: all vectors lie on a few axes."""
    chance = random.Random(seed)
    owner, other, peer = (db.create_user() for _ in range(3))
    drive, store = Drive(db), Store(db)
    folder = drive.rpc(other, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    own = [store.file(peer, _axes(chance, chance.randrange(40))) for _ in range(8)]
    shared = [store.file(other, _axes(chance, chance.randrange(40)), folder) for _ in range(8)]
    for sharer in (owner, other):
        store.file(sharer, _axes(chance, 60))
    query = _unit([chance.gauss(0, 1) for _ in range(8)])
    half = query.astype("f2").astype("f4")
    for count in (1, 3, 10, 50, 1000):
        found = store.search(peer, half, count)
        of_own = store.nearest(half, set(own), count)
        assert found == of_own + store.nearest(half, set(shared), count)
    assert len(of_own) > 60
    # fewer is the beginning of more, also where distances are equal
    for count in range(1, 30):
        assert store.search(peer, half, count)[:count] == of_own[:count]
    # filters by file, in both legs
    some = {*own[:3], *shared[2:4]}
    found = store.search(peer, half, 20, file_ids=sorted(some))
    assert found == store.nearest(half, some & set(own), 20) + store.nearest(
        half, some & set(shared), 20
    )
    assert store.search(peer, half, 20, file_ids=[]) == []
    # a threshold
    least = float(np.median([vector @ half for _, _, vector in store.chunks.values()]))
    near = {c for c, (_, f, v) in store.chunks.items() if f in own + shared and v @ half >= least}
    assert set(store.search(peer, half, 1000, least + 1e-6)) <= near
    assert set(store.search(peer, half, 1000, least - 1e-3)) >= near
    assert 0 < len(near) < len(store.search(peer, half, 1000))


def test_many_files_are_filtered_as_few_are(db: Database) -> None:
    """Above 5,000 they are hashed instead of looked up."""
    owner, other, chance = db.create_user(), db.create_user(), random.Random(8)
    store = Store(db)
    made = {user: [str(uuid.uuid4()) for _ in range(n)] for user, n in ((owner, 5100), (other, 50))}
    for user, files in made.items():
        store.files(user, [(file, _axes(chance, 1)) for file in files])
    half = _unit([chance.gauss(0, 1) for _ in range(8)]).astype("f2").astype("f4")
    for count in (1, 100, 5050):
        some = set(chance.sample(made[owner], count))
        found = store.search(owner, half, 10_000, file_ids=[*some, *made[other]])
        assert found == store.nearest(half, some, 10_000)
        assert len(found) == count


@pytest.mark.parametrize("dimension", [2, 127, 384, 768, 1024, 1536, 3072, 3988, 3989, 4000])
def test_vectors_of_any_width_are_found(db: Database, dimension: int) -> None:
    owner = db.create_user()
    store = Store(db, dimension)
    rng = np.random.default_rng(dimension)
    vectors = _unit(rng.normal(size=(37, dimension)))
    file = store.file(owner, vectors)
    if 2 * dimension + 24 <= 8000:  # in the row itself
        assert not db.one(
            "select coalesce(pg_relation_size(c.reltoastrelid), 0) from pg_class as c"
            " where c.oid = %s::regclass",
            f"private.vector_blocks_{store.space}",
        )
    size = db.one("select private.block_size(%s)", dimension)
    blocks = db.one("select count(*) from private.vector_blocks where space_id = %s", store.space)
    assert blocks == -(-37 // size)
    for vector in vectors[:3]:
        near = _unit(vector + 0.1 * rng.normal(size=dimension) / dimension**0.5)
        half = near.astype("f2").astype("f4")
        assert store.search(owner, half, 10)[0] == store.nearest(half, {file}, 1)[0]
        assert set(store.search(owner, half, 10)) == set(store.nearest(half, {file}, 10))
    assert _packed(db)


@pytest.mark.parametrize("language", ["de", "de-AT", "nds"])
def test_filters_on_chunks_hold_in_both_legs(db: Database, language: str) -> None:
    """Marks tell languages of two or three letters; of others the chunks are asked."""
    owner, chance = db.create_user(), random.Random(7)
    drive = Drive(db)
    drive.file(owner, "a.txt", *(f"bark {chance.random()}" for _ in range(60)))
    db.all("update public.chunks set language = %s where page %% 3 = 0", language)
    db.all("update public.chunks set page = 70000 where page = 60")
    db.all("update public.chunks set page = null where page = 59")
    db.all(
        "update private.indexed_files set languages = array['en', %s], last_page = 70000", language
    )
    assert _packed(db)
    chunks = dict(db.all("select id::text, page from public.chunks"))

    def found(**filters: object) -> set[int | None]:
        answer = drive.search(owner, "bark", filters=filters, top_k=100)
        assert {hit["parts"]["vector_rank"] is None for hit in answer["hits"]} <= {False}
        assert {hit["parts"]["keyword_rank"] is None for hit in answer["hits"]} <= {False}
        return {chunks[hit["chunk_id"]] for hit in answer["hits"]}

    thirds = set(range(3, 58, 3)) | {70000}
    assert found(languages=[language]) == thirds
    assert found(languages=["fr", language]) == thirds
    assert found(languages=["fr"]) == set()
    assert found(page_from=11, page_to=40, languages=[language]) == thirds & set(range(11, 41))
    assert found(page_from=50) == set(range(50, 59)) | {70000}
    assert found(page_to=5) == set(range(1, 6))
    assert found(page_from=65535, page_to=69999) == set()
    assert found(page_from=70000) == {70000}


def test_what_others_have_is_not_read(db: Database) -> None:
    owner, other, peer = (db.create_user() for _ in range(3))
    drive, store = Drive(db), Store(db, 384)
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    rng = np.random.default_rng(1)

    def add(user: uuid.UUID, count: int, folder: str | None = None) -> None:
        vectors = _unit(rng.normal(size=(count, 100, 384)))
        store.files(user, [(str(uuid.uuid4()), v) for v in vectors], folder)

    add(owner, 3, folder)
    add(owner, 3)
    add(peer, 2)
    query = _unit(rng.normal(size=384))

    def buffers(user: uuid.UUID) -> int:
        scope = store.scope(user)
        for _ in range(2):  # the catalogues are read once
            plan = db.one(
                "explain (analyze, buffers, timing off, format json) select * from"
                " private.search_dense(%s::smallint, %s::extensions.halfvec,"
                " %s::private.search_scope, 10, null)",
                store.space,
                _text(query),
                scope,
            )[0]["Plan"]
        assert plan["Actual Rows"] > 0
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    before = {user: buffers(user) for user in (owner, peer)}
    # a page for ten vectors, each found through the index, whose depth is one; and the counts
    for user, vectors in ((owner, 600), (peer, 500)):
        assert vectors / 10 <= before[user] <= vectors / 10 + 60
    add(other, 30)
    after = {user: buffers(user) for user in (owner, peer)}
    for user, least in before.items():
        assert after[user] <= least + 30  # the index is a level deeper
    assert buffers(other) >= 300  # control
    add(owner, 15)  # not shared
    assert buffers(peer) <= after[peer] + 10
    assert buffers(owner) >= after[owner] + 150  # control


# The HNSW index -----------------------------------------------------------------------------------


@pytest.fixture
def settings(db: Database) -> Callable[..., None]:
    """Set when an index is asked."""

    def change(exact_chunks: int, index_share: float) -> None:
        for key, value in (("exact_chunks", exact_chunks), ("index_share", index_share)):
            db.all(
                "update private.settings set value = to_jsonb(%s::float8) where key = %s",
                value,
                f"search.{key}",
            )

    return change


def _index(store: Store) -> None:
    """Build the index, inside of the test's transaction."""
    statement = store.db.one("select private.vector_index_statement(%s::smallint)", store.space)
    assert "concurrently" in statement
    store.db.connection.execute(statement.replace("concurrently", ""))
    store.db.all("analyze private.chunk_vectors")


def _plan(store: Store, user: uuid.UUID, **filters: object) -> tuple[str, str]:
    plan = store.db.one(
        "select private.explain_dense(%s::smallint, %s::private.search_scope)",
        store.space,
        store.scope(user, **filters),
    )
    assert set(plan) == {"plan", "reason", "own_chunks", "shared_files"}
    return plan["plan"], plan["reason"]


def _count(store: Store) -> None:
    """Give every owner the statistics that the keyword index keeps."""
    store.db.all(
        "insert into private.owner_statistics (owner_id, chunk_count)"
        " select owner_id, count(*) from private.chunk_vectors group by owner_id"
        " on conflict (owner_id) do update set chunk_count = excluded.chunk_count"
    )


def test_the_planner_asks_the_index_only_where_it_pays(
    db: Database, settings: Callable[..., None]
) -> None:
    large, small = db.create_user(), db.create_user()
    store = Store(db)
    rng = np.random.default_rng(2)
    file = store.file(large, _unit(rng.normal(size=(800, 8))))
    store.file(small, _unit(rng.normal(size=(200, 8))))
    assert _plan(store, large) == ("exact", "few_chunks")
    _count(store)
    assert _plan(store, large) == ("exact", "few_chunks")
    settings(100, 0.5)
    assert _plan(store, large) == ("exact", "no_index")
    _index(store)
    assert _plan(store, large) == ("hnsw", "large_share")
    answer = Drive(db).search(large, "bark", space="test", embedding=Jsonb([1.0] * 8), explain=True)
    assert answer["explain"]["legs"]["dense"]["plan"] == "hnsw"
    assert _plan(store, small) == ("exact", "small_share")
    assert _plan(store, large, file_ids=[file]) == ("exact", "filters")
    assert _plan(store, large, page_from=2) == ("exact", "filters")
    settings(100, 0.9)
    assert _plan(store, large) == ("exact", "small_share")
    settings(800, 0.5)
    assert _plan(store, large) == ("exact", "few_chunks")


def test_recall_at_any_share_on_and_off_topic(db: Database, settings: Callable[..., None]) -> None:
    store = Store(db, 32)
    rng = np.random.default_rng(3)
    count = 10_000
    topics = rng.normal(size=(40, 32))
    readers = {share: db.create_user() for share in (0.0001, 0.001, 0.01, 0.1, 1)}
    files: dict[uuid.UUID, set[str]] = {}
    for share, user in readers.items():
        own = int(count * share) if share < 1 else count - len(store.chunks)
        # the last one owns what is left and reads all; the others know half of the topics
        kinds = rng.integers(0, 40 if share == 1 else 20, own)
        vectors = _unit(topics[kinds] + 0.5 * rng.normal(size=(own, 32)))
        parts = [(str(uuid.uuid4()), vectors[at : at + 100]) for at in range(0, own, 100)]
        store.files(user, parts)
        files[user] = {file for file, _ in parts}
    workspace = db.create_user()
    files[workspace] = set().union(*files.values())
    db.all("create or replace function private.my_owner_ids() returns uuid[] language sql stable"
           " as $$ select case when auth.uid() = current_setting('test.all')::uuid then"
           " array(select id from public.owners) else array[auth.uid()] end $$")  # fmt: skip
    db.all("select set_config('test.all', %s, true)", str(workspace))
    readers[1] = workspace
    _count(store)
    _index(store)

    def recall(user: uuid.UUID) -> tuple[float, float]:
        found: dict[bool, list[float]] = {True: [], False: []}
        for topic in (3, 11, 19, 20, 28, 36):
            for _ in range(4):
                query = _unit(topics[topic] + 0.5 * rng.normal(size=32)).astype("f2").astype("f4")
                best = store.nearest(query, files[user], 10)
                hits = store.search(user, query, 10)
                found[topic < 20].append(len(set(hits) & set(best)) / len(best))
        return float(np.mean(found[True])), float(np.mean(found[False]))

    settings(1000, 0.5)
    for share, user in readers.items():
        assert _plan(store, user)[0] == ("hnsw" if share == 1 else "exact")
        assert min(recall(user)) >= (0.95 if share == 1 else 1)
    # control: even asked where it does not pay, the index is found out when it finds too little
    settings(0, 0)
    for user in readers.values():
        assert _plan(store, user)[0] == "hnsw"
        assert min(recall(user)) >= 0.95


def test_what_the_index_finds_later_is_not_worse_for_it(
    db: Database, settings: Callable[..., None]
) -> None:
    user, other = db.create_user(), db.create_user()
    store = Store(db, 32)
    rng = np.random.default_rng(4)
    # of many clusters the index finds 1,000 vectors first, and better ones among the next
    topics = rng.normal(size=(60, 32))
    for owner, count in ((user, 4000), (other, 2000)):
        kinds = rng.integers(0, 60, count)
        vectors = _unit(topics[kinds] + 0.3 * rng.normal(size=(count, 32)))
        store.files(owner, [(str(uuid.uuid4()), vectors[at : at + 100])
                            for at in range(0, count, 100)])  # fmt: skip
    _count(store)
    _index(store)
    settings(100, 0.5)
    assert _plan(store, user)[0] == "hnsw"
    queries = [str([float(x) for x in _unit(rng.normal(size=32))]) for _ in range(5)]

    def scores() -> list[list[float]]:
        ask = (
            "select to_jsonb(h.scores) from private.search_hnsw("
            "%s::smallint, %s::extensions.halfvec, %s::private.search_scope, 2000) as h"
        )
        return [db.one(ask, store.space, query, store.scope(user)) for query in queries]

    for found in scores():
        assert len(found) == 2000
        assert found == sorted(found, reverse=True)
    # control: as the scan gives them
    definition = db.one("select pg_get_functiondef('private.search_hnsw'::regproc)")
    db.connection.execute(definition.replace("n.product + 0", "n.product"))
    assert any(found != sorted(found, reverse=True) for found in scores())
