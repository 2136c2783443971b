"""Pages by late interaction: `search_pages` as an ordinary user against its peers, in one run.

Starts a stack of its own and loads pages of generated vectors (clustered: every page shows some of
many subjects), for each of --pages. A codebook is trained as workers do, and the same questions are
asked in several ways: through the RPC over one connection, through PostgREST with the user's token,
by torch over all pages in memory (2 threads), by the usual SQL function over bit(128)[], and by
LanceDB's multivector index. With --texts (a folder in BEIR layout), the vectors of the words of
real texts, as MiniLM gives them, reduced to 128 dimensions, are measured too, with nDCG. CPU time
of the server's process is what a busy machine does not distort. Writes JSON.

The peers are installed apart: pip install --target DIR torch==2.13.0 lancedb==0.40.0

Example: scripts/bench/run pages --peers DIR --texts data/scifact
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import importlib.util
import json
import math
import os
import statistics
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from narwhal.codebooks import train
from narwhal.evaluation.asking import RestAsker, User
from narwhal.settings import Settings
from scripts.bench.report import machine, write
from scripts.bench.stack import new_user, stack

DIMENSION = 128
SUBJECTS = 2000
SUBJECTS_A_PAGE = 12
NOISE = 0.6
TOKENS = 20
PAGES_A_FILE = 20
BITS_PAGES = 400  # the usual SQL is too slow for more
BITS_QUESTIONS = 3
OTHERS = 1000
IN_MEMORY = 10_000  # torch is measured up to here: its memory goes with the pages
LANCE_PAGES = 1000  # its index takes minutes to build for so many

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--all", action="store_true", help="also 100,000 pages: 10 GB of disk")
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--texts", type=Path, help="folder in BEIR layout")
    parser.add_argument("--cache", type=Path, help="where vectors of --texts are kept")
    parser.add_argument("--peers", type=Path, help="folder that the peers were installed into")
    parser.add_argument("--lock", type=Path, help="a file to lock while measuring")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    figures: dict[str, Any] = {"machine": machine() | {"load_average": os.getloadavg()[0]}}
    sizes = [*options.pages, *([100_000] if options.all else [])]
    for count in sizes:
        _measure(figures, f"{count}_pages", Generated(count, options.patches), options)
    if options.texts:
        corpus = real(options.texts, options.cache)
        _measure(figures, f"texts_{options.texts.resolve().name}", corpus, options)
    figures["growth"] = {
        str(count): {
            name: figures[f"{count}_pages"][name]["p50_ms"]
            for name in ("search_pages", "search_pages, PostgREST")
        }
        for count in sizes
    }
    write("pages", figures)


class Corpus:
    """Pages, questions, and which pages answer which question."""

    def __init__(
        self, pages: Sequence[Halves], questions: Sequence[Floats], answers: list[dict[int, float]]
    ) -> None:
        self.pages = pages
        self.questions = questions
        self.answers = answers


class Generated(Corpus, Sequence[Halves]):
    """Pages that show a dozen of many subjects each, deliberately tight; made as they are read."""

    def __init__(self, count: int, patches: int) -> None:
        self.count, self.patches = count, patches
        rng = np.random.default_rng(1)
        self.subjects = _unit(rng.normal(size=(SUBJECTS, DIMENSION)))
        questions = []
        for _ in range(60):
            page = self[int(rng.integers(0, count))]
            near = page[rng.choice(patches, TOKENS, replace=False)].astype(np.float32)
            noise = rng.standard_normal(near.shape, dtype=np.float32)
            questions.append(_unit(near + noise * 0.8 / math.sqrt(DIMENSION)))
        super().__init__(self, questions, [])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self.count))]
        if number >= self.count:
            raise IndexError(number)
        rng = np.random.default_rng((2, number))
        shown = rng.integers(0, SUBJECTS, SUBJECTS_A_PAGE)
        vectors = self.subjects[shown[rng.integers(0, SUBJECTS_A_PAGE, self.patches)]]
        noise = rng.standard_normal((self.patches, DIMENSION), dtype=np.float32)
        return _unit(vectors + noise * NOISE / math.sqrt(DIMENSION)).astype(np.float16)


def real(folder: Path, cache: Path | None) -> Corpus:
    """Texts as pages: a vector for each of their words, reduced to 128 dimensions."""
    corpus = _lines(folder / "corpus.jsonl.gz")
    judged: dict[str, dict[str, float]] = {}
    for path in (folder / "qrels").iterdir():
        for query, page, grade in list(csv.reader(path.open(), delimiter="\t"))[1:]:
            judged.setdefault(query, {})[page] = float(grade)
    queries = [row for row in _lines(folder / "queries.jsonl.gz") if row["_id"] in judged]
    if cache and cache.exists():
        held = np.load(cache)
        pages = np.split(held["docs"], np.cumsum(held["dl"])[:-1])
        questions = np.split(held["qs"], np.cumsum(held["ql"])[:-1])
    else:
        pages = _words([f"{row.get('title', '')} {row['text']}" for row in corpus])
        questions = _words([row["text"] for row in queries])
        some = np.concatenate(pages[::4]).astype(np.float32)
        axes = np.linalg.eigh(some.T @ some)[1][:, -DIMENSION:].astype(np.float32)
        pages = [_unit(page.astype(np.float32) @ axes).astype(np.float16) for page in pages]
        questions = [_unit(q.astype(np.float32) @ axes).astype(np.float16) for q in questions]
        if cache:
            np.savez(
                cache,
                docs=np.concatenate(pages),
                dl=[len(page) for page in pages],
                qs=np.concatenate(questions),
                ql=[len(question) for question in questions],
            )
    place = {row["_id"]: number for number, row in enumerate(corpus)}
    answers = [
        {place[page]: grade for page, grade in judged[row["_id"]].items() if page in place}
        for row in queries
    ]
    asked = list(range(len(queries)))
    if (folder / "qrels" / "test.tsv").exists():
        test = {
            row[0] for row in csv.reader((folder / "qrels" / "test.tsv").open(), delimiter="\t")
        }
        asked = [number for number in asked if queries[number]["_id"] in test]
    return Corpus(
        pages,
        [questions[number][:64].astype(np.float32) for number in asked],
        [answers[number] for number in asked],
    )


def _words(texts: list[str]) -> list[Any]:
    from narwhal.encoders import load_text_encoder

    encoder: Any = load_text_encoder("all-MiniLM-L6-v2")
    pool, words = encoder._pooling, []

    def keep(x: Floats, mask: Floats) -> Floats:
        words.append(x[0][mask[0].ravel() > 0].astype(np.float16))
        pooled: Floats = pool(x, mask)
        return pooled

    encoder._pooling = keep
    for text in texts:
        encoder.encode([text])
    return words


# The database ------------------------------------------------------------------------------------


def _measure(
    figures: dict[str, Any], name: str, corpus: Corpus, options: argparse.Namespace
) -> None:
    with (
        stack() as (state, settings),
        psycopg.connect(state.database_url, autocommit=True) as connection,
    ):
        connection.execute("set statement_timeout = 0")
        connection.execute(
            "update private.settings set value = '1000000' where key = 'search.per_minute'"
        )
        figures[name] = found = {}
        _run(found, connection, settings, corpus, options)
    write("pages", figures)


def _run(
    figures: dict[str, Any],
    connection: psycopg.Connection[Any],
    settings: Settings,
    corpus: Corpus,
    options: argparse.Namespace,
) -> None:
    lock = options.lock
    space = _one(
        connection,
        "select private.create_space('pages', 'bench', 'bench', %s, 'page', 'active', 1)",
        DIMENSION,
    )
    rng = np.random.default_rng(3)
    owner = _Owner(connection, new_user(settings), space, corpus.pages)
    # somebody else's pages, which the owner may not read
    others = [corpus.pages[int(i)] for i in rng.integers(0, len(corpus.pages), OTHERS)]
    other = _Owner(connection, new_user(settings), space, others)
    connection.execute("vacuum analyze")
    started = time.process_time()
    book = train(connection, "pages")
    trained = time.process_time() - started
    connection.execute("vacuum analyze")
    size = _one(
        connection,
        "select (pg_total_relation_size(%s::regclass) + pg_total_relation_size(%s::regclass)"
        " + pg_total_relation_size('private.picture_signatures')"
        " + pg_total_relation_size('private.page_pictures'))",
        f"private.picture_vectors_{space}",
        f"private.page_vectors_{space}",
    )
    questions = list(corpus.questions[: options.questions])
    figures |= {
        "pages": len(corpus.pages),
        "vectors_a_page": round(
            statistics.mean(len(corpus.pages[n]) for n in range(0, len(corpus.pages), 10)), 1
        ),
        "vectors_a_question": round(statistics.mean(map(len, questions)), 1),
        "questions": len(questions),
        "bytes_a_page": round(size / (len(corpus.pages) + OTHERS)),
        "centroids": book.centroids,
        "training_cpu_s": round(trained, 1),
    }

    def ask(question: Floats, candidates: int | None = None) -> list[tuple[int, float]]:
        answer = connection.execute(
            "select public.search_pages(%s, top_k => 10)"
            if candidates is None
            else "select public.search_pages(%s, top_k => 10, candidates => %s)",
            (Jsonb(question.tolist()), *([] if candidates is None else [candidates])),
        ).fetchone()[0]  # type: ignore[index]
        return [(owner.number(hit), hit["score"]) for hit in answer["hits"]]

    _act_as(connection, owner)
    with _Locked(lock):
        figures["search_pages"], found = timed(connection, ask, questions)
    with _Locked(lock):
        figures["search_pages, PostgREST"] = _over_rest(settings, owner.user, questions)
    connection.execute("reset role")
    scores = list(_scores(corpus.pages, corpus.questions if corpus.answers else questions))
    figures["recall_at_10"] = _recall(found, scores[: len(questions)])
    _act_as(connection, owner)
    for candidates in (100, 300):
        figures[f"recall_at_10_with_{candidates}_candidates"] = _recall(
            [ask(question, candidates) for question in questions], scores[: len(questions)]
        )
    if corpus.answers:
        everything = [ask(question) for question in corpus.questions]
        two_stage = _ndcg([[n for n, _ in hits] for hits in everything], corpus.answers)
        full = _ndcg([list(np.argsort(-s)[:10]) for s in scores], corpus.answers)
        figures["all_questions"] = {
            "questions": len(corpus.questions),
            "recall_at_10": _recall(everything, scores),
            "ndcg_at_10, search_pages": round(two_stage, 4),
            "ndcg_at_10, all pages compared": round(full, 4),
            "ratio": round(two_stage / full, 4),
        }
    _act_as(connection, other)
    with _Locked(lock):
        figures[f"search_pages, of who has {OTHERS}"], _ = timed(
            connection, lambda question: ask(question) and None, questions
        )
    connection.execute("reset role")
    _say(figures)
    with _Locked(lock):
        figures["bits_in_sql"] = _bits(connection, corpus.pages, questions[:BITS_QUESTIONS])
    _say(figures)
    if len(corpus.pages) <= IN_MEMORY:
        figures["exact"] = _exact(connection, space, owner, corpus.pages, questions[:10], lock)
        figures["torch"] = _torch(corpus.pages, questions, lock)
        _say(figures)
    if len(corpus.pages) <= LANCE_PAGES:
        figures["lancedb"] = _lance(corpus.pages, questions, scores, lock)
    figures["ratios"] = _ratios(figures)
    _say(figures)


def _ratios(figures: dict[str, Any]) -> dict[str, float]:
    ours, bits = figures["search_pages"], figures["bits_in_sql"]
    ratios = {"bits_in_sql cpu / search_pages cpu": bits["cpu_ms_of_all_pages"] / ours["cpu_ms"]}
    if "torch" in figures:
        peer = figures["torch"]
        ratios |= {
            "search_pages / torch, p50": ours["p50_ms"] / peer["p50_ms"],
            "search_pages / torch, least": ours["least_ms"] / peer["least_ms"],
            # torch has two threads: half its CPU time is the least that it can take
            "search_pages cpu / (torch cpu / 2)": ours["cpu_ms"] / (peer["cpu_ms"] / 2),
        }
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _over_rest(settings: Settings, user: User, questions: Sequence[Floats]) -> dict[str, float]:
    """The same through PostgREST, with the token of the user; wall time only."""
    asker = RestAsker(settings, user)
    bodies = [json.dumps({"vectors": q.tolist(), "top_k": 10}).encode() for q in questions]
    times = []
    for body in [*bodies[:3], *bodies]:
        started = time.perf_counter()
        asker.http.post("/rest/v1/rpc/search_pages", content=body).raise_for_status()
        times.append((time.perf_counter() - started) * 1000)
    asker.close()
    return _wall(times[3:])


def _act_as(connection: psycopg.Connection[Any], owner: _Owner) -> None:
    connection.execute("reset role")
    claims = json.dumps({"sub": str(owner.user.id), "role": "authenticated"})
    connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
    connection.execute("set role authenticated")


class _Owner:
    """One user with these pages in service."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        user: User,
        space: int,
        pages: Sequence[Halves],
    ) -> None:
        self.user = user
        files = [uuid.uuid4() for _ in range(-(-len(pages) // PAGES_A_FILE))]
        versions = [uuid.uuid4() for _ in files]
        self._place = {str(file): number for number, file in enumerate(files)}
        connection.execute(
            "insert into public.nodes (id, kind, name, owner_id, path, status)"
            " select f.id, 'file', 'file ' || f.n || '.pdf', %s, array[f.id], 'ready'"
            " from unnest(%s::uuid[]) with ordinality as f (id, n)",
            (user.id, files),
        )
        connection.execute(
            "insert into public.file_versions (id, file_id, no, size, status)"
            " select v.id, v.file_id, 1, 0, 'ready' from unnest(%s::uuid[], %s::uuid[])"
            " as v (id, file_id)",
            (versions, files),
        )
        connection.execute(
            "update public.nodes as n set head_version_id = v.id from public.file_versions as v"
            " where v.file_id = n.id and n.owner_id = %s",
            (user.id,),
        )
        element = _one(connection, "select 'extensions.halfvec'::regtype::oid::int")
        first = _one(connection, "select coalesce(max(id), 0) + 1 from private.picture_vectors")
        with connection.cursor().copy(
            "copy private.picture_vectors (space_id, owner_id, picture_hash, id, vectors)"
            " from stdin (format binary)"
        ) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
            for number, page in enumerate(pages):
                fields = (
                    struct.pack(">h", space),
                    user.id.bytes,
                    _digest(user.id, number),
                    struct.pack(">q", first + number),
                    _array(page, element),
                )
                row = b"".join(struct.pack(">i", len(field)) + field for field in fields)
                copy.write(struct.pack(">h", len(fields)) + row)
            copy.write(struct.pack(">h", -1))
        connection.execute(
            "select setval(pg_get_serial_sequence('private.picture_vectors', 'id'), %s)",
            (first + len(pages),),
        )
        with connection.cursor().copy(
            "copy private.page_pictures (version_id, page, file_id, picture_hash) from stdin"
        ) as copy:
            for number in range(len(pages)):
                file, page = divmod(number, PAGES_A_FILE)
                copy.write_row((versions[file], page + 1, files[file], _digest(user.id, number)))
        connection.execute(
            "insert into private.page_vectors (space_id, owner_id, file_id, page, version_id,"
            " vector_id) select x.space_id, x.owner_id, p.file_id, p.page, p.version_id, x.id"
            " from private.page_pictures as p inner join private.picture_vectors as x"
            " on x.picture_hash = p.picture_hash where x.owner_id = %s",
            (user.id,),
        )
        self.files = files

    def number(self, hit: Any) -> int:
        """Which of the pages a hit is."""
        return self._place.get(hit["file_id"], 0) * PAGES_A_FILE + int(hit["page"]) - 1


def _digest(owner: uuid.UUID, number: int) -> bytes:
    return hashlib.sha256(owner.bytes + number.to_bytes(8, "big")).digest()


def _array(page: Halves, element: int) -> bytes:
    """A halfvec[] in PostgreSQL's binary format."""
    rows = np.zeros(
        len(page),
        dtype=[("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("x", ">f2", (DIMENSION,))],
    )
    rows["size"], rows["dim"], rows["x"] = 4 + 2 * DIMENSION, DIMENSION, page
    return struct.pack(">iiIii", 1, 0, element, len(page), 1) + rows.tobytes()


# The peers ---------------------------------------------------------------------------------------


def _scores(pages: Sequence[Halves], questions: Sequence[Floats]) -> Iterator[Floats]:
    """MaxSim of all pages for each question: what is right."""
    ends = np.cumsum([len(question) for question in questions])
    flat = np.concatenate(questions)
    parts = []
    step = max(1, 300_000 // len(flat))  # what is multiplied at a time must fit into memory
    for start in range(0, len(pages), step):
        some = pages[start : start + step]
        starts = np.cumsum([0, *map(len, some[:-1])])
        cosines = np.concatenate(some).astype(np.float32) @ flat.T
        best = np.maximum.reduceat(cosines, starts, axis=0)
        parts.append(np.add.reduceat(best, [0, *ends[:-1]], axis=1))
    yield from np.concatenate(parts).T


def _torch(
    pages: Sequence[Halves], questions: Sequence[Floats], lock: Path | None
) -> dict[str, float]:
    """Brute force over all pages in memory, single precision, 2 threads."""
    import torch

    torch.set_num_threads(2)
    longest = max(map(len, pages))
    held = np.zeros((len(pages), longest, DIMENSION), dtype=np.float32)
    for number, page in enumerate(pages):
        held[number, : len(page)] = page
    flat = torch.from_numpy(held.reshape(-1, DIMENSION))
    empty = None
    if any(len(page) != longest for page in pages):
        empty = torch.from_numpy(np.array([[i >= len(p) for i in range(longest)] for p in pages]))

    def score(question: Floats) -> None:
        cosines = (flat @ torch.from_numpy(question).T).reshape(len(held), longest, -1)
        if empty is not None:
            cosines.masked_fill_(empty[:, :, None], -2.0)
        cosines.amax(1).sum(1).topk(10)

    times = []
    with _Locked(lock):
        score(questions[0])
        cpu = time.process_time()
        for question in questions:
            started = time.perf_counter()
            score(question)
            times.append((time.perf_counter() - started) * 1000)
        cpu = time.process_time() - cpu
    return _wall(times) | {"cpu_ms": round(cpu * 1000 / len(questions), 1)}


def _exact(
    connection: psycopg.Connection[Any],
    space: int,
    owner: _Owner,
    pages: Sequence[Halves],
    questions: Sequence[Floats],
    lock: Path | None,
) -> dict[str, Any]:
    """The full comparison in SQL, of at most 2,000 pages, against torch over the same."""
    some = pages[:2000]
    few = json.dumps({"file_ids": [str(f) for f in owner.files[: -(-len(some) // PAGES_A_FILE)]]})
    claims = json.dumps({"sub": str(owner.user.id), "role": "authenticated"})
    connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
    connection.execute("begin; delete from private.page_codebooks")

    def ask(question: Floats) -> Any:
        return connection.execute(
            "select file_id, page, score from private.find_pages(%s::smallint,"
            " (select array_agg(q::text::extensions.halfvec) from jsonb_array_elements(%s) as q),"
            " private.search_scope(%s::jsonb), 10, 200)",
            (space, Jsonb(question.tolist()), few),
        ).fetchall()

    with _Locked(lock):
        ours, _ = timed(connection, ask, questions)
    connection.execute("rollback")
    peer = _torch(some, questions, lock)
    return {
        "pages": len(some),
        "find_pages": ours,
        "torch": peer,
        "ratio, p50": round(ours["p50_ms"] / peer["p50_ms"], 2),
        "ratio, least": round(ours["least_ms"] / peer["least_ms"], 2),
        "ratio of cpu / (torch cpu / 2)": round(ours["cpu_ms"] / (peer["cpu_ms"] / 2), 2),
    }


# As pgvector's own example and Morphik have it
MAX_SIM = """
create function pg_temp.max_sim(document bit[], query bit[]) returns double precision as $$
    with queries as (
        select row_number() over () as query_number, *
        from (select unnest(query) as query) as foo
    ), documents as (
        select unnest(document) as document
    ), similarities as (
        select query_number,
            1.0 - ((document operator(extensions.<~>) query) / bit_length(query)) as similarity
        from queries cross join documents
    ), max_similarities as (
        select max(similarity) as max_similarity from similarities group by query_number
    )
    select sum(max_similarity) from max_similarities
$$ language sql
"""


def _bits(
    connection: psycopg.Connection[Any], pages: Sequence[Halves], questions: Sequence[Floats]
) -> dict[str, Any]:
    """The usual SQL function over the signs of the vectors, on some of the pages."""

    def signs(vectors: Any) -> list[str]:
        return ["".join("01"[int(x > 0)] for x in vector) for vector in vectors]

    connection.execute(MAX_SIM)
    connection.execute("create temp table bits (id integer, vectors bit(128)[])")
    with connection.cursor().copy("copy bits from stdin") as copy:
        for number, page in enumerate(pages[:BITS_PAGES]):
            copy.write_row((number, "{" + ",".join(signs(page)) + "}"))

    def ask(question: Floats) -> Any:
        return connection.execute(
            "select id, pg_temp.max_sim(vectors, %s::bit(128)[]) as score from bits"
            " order by score desc limit 10",
            (signs(question),),
        ).fetchall()

    figures, _ = timed(connection, ask, questions)
    some = min(BITS_PAGES, len(pages))
    return {
        "pages": some,
        **figures,
        "cpu_ms_of_all_pages": round(figures["cpu_ms"] * len(pages) / some),
    }


def _lance(
    pages: Sequence[Halves], questions: Sequence[Floats], scores: list[Floats], lock: Path | None
) -> Any:
    """LanceDB's multivector index, with as many probes as recall 0.95 takes."""
    if not importlib.util.find_spec("lancedb"):
        return "not installed"
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfPq

    def batches() -> Iterator[Any]:
        for start in range(0, len(pages), 500):
            some = pages[start : start + 500]
            flat = pa.array(np.concatenate(some).ravel(), pa.float16())
            lists = pa.ListArray.from_arrays(
                pa.array(np.cumsum([0, *map(len, some)]), pa.int32()),
                pa.FixedSizeListArray.from_arrays(flat, DIMENSION),
            )
            ids = pa.array(range(start, start + len(some)), pa.int64())
            yield pa.RecordBatch.from_arrays([ids, lists], schema=schema)

    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("vector", pa.list_(pa.list_(pa.float16(), DIMENSION))),
        ]
    )
    with tempfile.TemporaryDirectory(prefix="narwhal-lance-") as folder:
        reader = pa.RecordBatchReader.from_batches(schema, batches())
        table = lancedb.connect(folder).create_table("pages", reader, schema=schema)
        cpu = time.process_time()
        table.create_index("vector", config=IvfPq(distance_type="cosine"))
        built = time.process_time() - cpu
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        tried = {}
        for probes, refine in ((5, 5), (10, 10), (20, 20), (40, 40)):

            def ask(question: Floats, probes: int = probes, refine: int = refine) -> list[Any]:
                query = table.search(question).metric("cosine").nprobes(probes)
                found = query.refine_factor(refine).limit(10).select(["id"]).to_list()
                return [(row["id"], 0.0) for row in found]

            ask(questions[0])
            found: list[list[Any]] = []
            with _Locked(lock):
                times, cpu = [], time.process_time()
                for question in questions:
                    begun = time.perf_counter()
                    found.append(ask(question))
                    times.append((time.perf_counter() - begun) * 1000)
                cpu = time.process_time() - cpu
            recall = _recall(found, scores[: len(questions)])
            tried[f"nprobes {probes}, refine {refine}"] = {
                **_wall(times),
                "cpu_ms": round(cpu * 1000 / len(questions), 1),
                "recall_at_10": recall,
            }
            if recall >= 0.95:
                break
        return {"bytes_a_page": round(size / len(pages)), "index_cpu_s": round(built, 1), **tried}


# Figures -----------------------------------------------------------------------------------------


def timed(
    connection: psycopg.Connection[Any], ask: Callable[[Floats], Any], questions: Sequence[Floats]
) -> tuple[dict[str, float], list[Any]]:
    """Ask every question once after a few to warm up; wall time, and CPU time of the server."""
    for question in questions[:3]:
        ask(question)
    times, answers, before = [], [], _cpu(connection)
    for question in questions:
        started = time.perf_counter()
        answers.append(ask(question))
        times.append((time.perf_counter() - started) * 1000)
    cpu = (_cpu(connection) - before) / len(questions)
    return _wall(times) | {"cpu_ms": round(cpu, 1)}, answers


def _wall(times: list[float]) -> dict[str, float]:
    return {
        "least_ms": round(min(times), 1),
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(sorted(times)[int(len(times) * 0.95)], 1),
    }


def _one(connection: psycopg.Connection[Any], query: Any, *arguments: object) -> Any:
    return connection.execute(query, arguments).fetchone()[0]  # type: ignore[index]


def _cpu(connection: psycopg.Connection[Any]) -> float:
    """CPU time of the backend in milliseconds; ticks of 10."""
    stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _recall(found: list[list[tuple[int, float]]], scores: list[Floats]) -> float:
    """How many of the best ten were found; what is as good as the tenth counts."""
    total = 0.0
    for hits, all_scores in zip(found, scores, strict=True):
        best = np.sort(all_scores)[-10]
        total += sum(all_scores[number] >= best - 1e-3 for number, _ in hits) / 10
    return round(total / len(found), 4)


def _ndcg(rankings: list[list[int]], answers: list[dict[int, float]]) -> float:
    total = 0.0
    for ranking, grades in zip(rankings, answers, strict=True):
        gain = sum(grades.get(int(p), 0) / math.log2(i + 2) for i, p in enumerate(ranking[:10]))
        ideal = sorted(grades.values(), reverse=True)[:10]
        total += gain / sum(grade / math.log2(i + 2) for i, grade in enumerate(ideal))
    return total / len(rankings)


def _say(figures: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(figures) + "\n")
    sys.stderr.flush()


def _unit(vectors: Any) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class _Locked:
    """Holds a lock on a file, so that measurements do not disturb one another."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> None:
        if self.path:
            import fcntl

            self.file = self.path.open("a")
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self.path:
            with suppress(OSError):
                self.file.close()


if __name__ == "__main__":
    main()
