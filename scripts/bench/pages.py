"""Pages by late interaction: `search_pages` as an ordinary user against its peers, in one run.

Loads pages of generated vectors (clustered: every page shows some of many subjects), trains a
codebook as `narwhal.codebooks` does, and asks the same questions in several ways: through the RPC,
by torch over all pages in memory (2 threads), by the usual SQL function over bit(128)[], and by
LanceDB's multivector index where it is installed. With --texts (a BEIR folder), the vectors of the
words of real texts, as MiniLM gives them, reduced to 128 dimensions, are measured too, with nDCG.
CPU time of the server's process is what a busy machine does not distort. Writes JSON.

Example: scripts/bench/run pages --pages 10000
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from narwhal.codebooks import train
from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER, EmbeddedPostgres
from scripts.bench.report import RESULTS, machine, write

DIMENSION = 128
SUBJECTS = 2000
SUBJECTS_A_PAGE = 12
NOISE = 0.6
TOKENS = 20
PAGES_A_FILE = 20
BITS_PAGES = 200  # the usual SQL is too slow for more
OTHERS = 1000
LANCE_PAGES = 2000  # its index takes long to build

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--copies", type=int, default=10, help="places of each page, at the end")
    parser.add_argument("--texts", type=Path, help="folder in BEIR layout")
    parser.add_argument("--cache", type=Path, help="where vectors of --texts are kept")
    parser.add_argument("--lock", type=Path, help="a file to lock while measuring")
    options = parser.parse_args()
    stored = RESULTS / "pages.json"
    figures = json.loads(stored.read_text("utf-8")) if stored.exists() else {}
    figures["machine"] = machine()
    if options.pages:
        figures[f"{options.pages}_pages_of_{options.patches}"] = _measure(
            generated(options.pages, options.patches), options
        )
    if options.texts:
        figures[f"texts_{options.texts.name}"] = _measure(
            real(options.texts, options.cache), options
        )
    write("pages", figures)


class Corpus:
    """Pages, questions, and which pages answer which question."""

    def __init__(
        self, pages: Sequence[Halves], questions: Sequence[Floats], answers: list[dict[int, float]]
    ) -> None:
        self.pages = pages
        self.questions = questions
        self.answers = answers


def generated(count: int, patches: int) -> Corpus:
    """Pages that show a dozen of many subjects each, deliberately tight."""
    rng = np.random.default_rng(1)
    subjects = _unit(rng.normal(size=(SUBJECTS, DIMENSION)))
    pages = np.empty((count, patches, DIMENSION), dtype=np.float16)
    for number in range(count):
        shown = rng.integers(0, SUBJECTS, SUBJECTS_A_PAGE)
        vectors = subjects[shown[rng.integers(0, SUBJECTS_A_PAGE, patches)]]
        noise = rng.standard_normal((patches, DIMENSION), dtype=np.float32)
        pages[number] = _unit(vectors + noise * NOISE / math.sqrt(DIMENSION))
    questions = []
    for _ in range(60):
        page = pages[rng.integers(0, count)]
        near = page[rng.choice(patches, TOKENS, replace=False)].astype(np.float32)
        noise = rng.standard_normal(near.shape, dtype=np.float32)
        questions.append(_unit(near + noise * 0.8 / math.sqrt(DIMENSION)))
    return Corpus(pages, questions, [])


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


def _measure(corpus: Corpus, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        passwords = dict.fromkeys(LOGIN_ROLES, "bench")
        server = EmbeddedPostgres(Path(folder) / "data", passwords, durable=False)
        server.init()
        server.start()
        try:
            bootstrap(server.url(SUPERUSER), passwords)
            migrate(server.url("postgres"))
            with psycopg.connect(server.url(SUPERUSER), autocommit=True) as connection:
                return _run(connection, corpus, options.questions, options.copies, options.lock)
        finally:
            server.stop()


def _run(
    connection: psycopg.Connection[Any], corpus: Corpus, count: int, copies: int, lock: Path | None
) -> dict[str, Any]:
    space = connection.execute(
        "select private.create_space('pages', 'bench', 'bench', %s, 'page', 'active', 1)",
        (DIMENSION,),
    ).fetchone()[0]  # type: ignore[index]
    rng = np.random.default_rng(3)
    owner = _Owner(connection, space, corpus.pages)
    # somebody else's pages, which the owner may not read
    other = _Owner(
        connection, space, [corpus.pages[i] for i in rng.integers(0, len(corpus.pages), OTHERS)]
    )
    connection.execute("vacuum analyze")
    started = time.process_time()
    book = train(connection, "pages")
    trained = time.process_time() - started
    connection.execute("vacuum analyze")
    size = connection.execute(
        "select (pg_total_relation_size(%s::regclass) + pg_total_relation_size(%s::regclass)"
        " + pg_total_relation_size('private.picture_signatures')"
        " + pg_total_relation_size('private.page_pictures'))",
        (f"private.picture_vectors_{space}", f"private.page_vectors_{space}"),
    ).fetchone()[0]  # type: ignore[index]

    questions = list(corpus.questions[:count])
    _act_as(connection, owner)

    def ask(
        question: Floats, candidates: int = 300, filters: str | None = None
    ) -> list[tuple[int, float]]:
        answer = connection.execute(
            "select public.search_pages(%s::jsonb, top_k => 10, candidates => %s,"
            " filters => %s::jsonb)",
            (json.dumps(question.tolist()), candidates, filters),
        ).fetchone()[0]  # type: ignore[index]
        return [(owner.number(hit), hit["score"]) for hit in answer["hits"]]

    figures: dict[str, Any] = {
        "pages": len(corpus.pages),
        "vectors_a_page": round(statistics.mean(len(page) for page in corpus.pages), 1),
        "vectors_a_question": round(statistics.mean(map(len, questions)), 1),
        "questions": len(questions),
        "bytes_a_page": round(size / (len(corpus.pages) + OTHERS)),
        "centroids": book.centroids,
        "training_cpu_s": round(trained, 1),
    }
    with _Locked(lock):
        figures["search_pages"], found = timed(connection, ask, questions)
    with _Locked(lock):
        torch_figures, scores = _torch(corpus.pages, questions)
    figures["torch"] = torch_figures
    figures["recall_at_10"] = _recall(found, scores)
    for candidates in (100, 200):
        figures[f"recall_at_10_with_{candidates}_candidates"] = _recall(
            [ask(question, candidates) for question in questions], scores
        )
    if corpus.answers:
        everything = [ask(question) for question in corpus.questions]
        brute = _torch(corpus.pages, corpus.questions)[1]
        two_stage = _ndcg([[n for n, _ in hits] for hits in everything], corpus.answers)
        full = _ndcg([list(np.argsort(-s)[:10]) for s in brute], corpus.answers)
        figures["ndcg_at_10"] = {
            "questions": len(corpus.questions),
            "search_pages": round(two_stage, 4),
            "torch": round(full, 4),
            "ratio": round(two_stage / full, 4),
        }
        figures["recall_at_10_all_questions"] = _recall(everything, brute)
    _say(figures)
    with _Locked(lock):
        figures["exact"] = _exact(connection, space, owner, corpus.pages, questions)
    figures["growth"] = _growth(connection, space, owner, other, copies, ask, questions, lock)
    figures["growth"][f"{len(corpus.pages)} pages"] = figures["search_pages"]
    _say(figures)
    connection.execute("reset role")
    with _Locked(lock):
        figures["bits_in_sql"] = _bits(connection, corpus.pages, questions)
    _say(figures)
    figures["lancedb"] = _lance(corpus.pages[:LANCE_PAGES], questions, lock)

    ours, peer = figures["search_pages"], figures["torch"]
    figures["ratios"] = {
        "search_pages / torch, p50": round(ours["p50_ms"] / peer["p50_ms"], 3),
        "search_pages / torch, least": round(ours["least_ms"] / peer["least_ms"], 3),
        # torch has two threads: half its CPU time is the least that it can take
        "search_pages cpu / (torch cpu / 2)": round(ours["cpu_ms"] / (peer["cpu_ms"] / 2), 3),
        "bits_in_sql cpu / search_pages cpu": round(
            figures["bits_in_sql"]["cpu_ms_of_all_pages"] / ours["cpu_ms"]
        ),
    }
    return figures


def _act_as(connection: psycopg.Connection[Any], owner: _Owner) -> None:
    connection.execute("reset role")
    claims = json.dumps({"sub": str(owner.id), "role": "authenticated"})
    connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
    connection.execute("set role authenticated")


def _growth(
    connection: psycopg.Connection[Any],
    space: int,
    owner: _Owner,
    other: _Owner,
    copies: int,
    ask: Callable[[Floats], Any],
    questions: Sequence[Floats],
    lock: Path | None,
) -> dict[str, Any]:
    """The same questions of who has few pages; and with each page in several files.

    Further places share the pictures of the first: what is scanned grows, what is stored does not.
    """
    connection.execute("reset role")
    connection.execute(
        "with files as (select gen_random_uuid() as id, gen_random_uuid() as version_id,"
        " n.id as old_id, n.head_version_id as old_version_id, n.name || ' ' || c as name"
        " from public.nodes as n cross join generate_series(2, %s) as c where n.owner_id = %s),"
        " nodes as (insert into public.nodes"
        " (id, kind, name, owner_id, path, status, head_version_id)"
        " select id, 'file', name, %s, array[id], 'ready', null from files),"
        " versions as (insert into public.file_versions (id, file_id, no, size, status)"
        " select version_id, id, 1, 0, 'ready' from files)"
        " insert into private.page_vectors (space_id, owner_id, file_id, page, version_id,"
        " vector_id, codebook_id, signature) select t.space_id, t.owner_id, f.id, t.page,"
        " f.version_id, t.vector_id, t.codebook_id, t.signature"
        " from files as f inner join private.page_vectors as t on t.file_id = f.old_id",
        (copies, owner.id, owner.id),
    )
    connection.execute("vacuum analyze")
    figures = {}
    for user in (other, owner):
        pages = connection.execute(
            "select count(*) from private.page_vectors where space_id = %s and owner_id = %s",
            (space, user.id),
        ).fetchone()[0]  # type: ignore[index]
        _act_as(connection, user)
        with _Locked(lock):
            figures[f"{pages} pages"], _ = timed(connection, lambda q: ask(q) and None, questions)
        connection.execute("reset role")
    _act_as(connection, owner)
    return figures


class _Owner:
    """One user with these pages in service."""

    def __init__(
        self, connection: psycopg.Connection[Any], space: int, pages: Sequence[Halves]
    ) -> None:
        self.id = uuid.uuid4()
        connection.execute(
            "insert into auth.users (id, aud, role, email, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', %s, now(), now())",
            (self.id, f"{self.id.hex}@example.test"),
        )
        files = [uuid.uuid4() for _ in range(-(-len(pages) // PAGES_A_FILE))]
        versions = [uuid.uuid4() for _ in files]
        self._place = {str(file): number for number, file in enumerate(files)}
        connection.execute(
            "insert into public.nodes (id, kind, name, owner_id, path, status)"
            " select f.id, 'file', 'file ' || f.n || '.pdf', %s, array[f.id], 'ready'"
            " from unnest(%s::uuid[]) with ordinality as f (id, n)",
            (self.id, files),
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
            (self.id,),
        )
        oid = connection.execute("select 'extensions.halfvec'::regtype::oid::int").fetchone()
        element = int(oid[0]) if oid else 0
        first = connection.execute(
            "select coalesce(max(id), 0) + 1 from private.picture_vectors"
        ).fetchone()[0]  # type: ignore[index]
        with connection.cursor().copy(
            "copy private.picture_vectors (space_id, owner_id, picture_hash, id, vectors)"
            " from stdin (format binary)"
        ) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
            for number, page in enumerate(pages):
                fields = (
                    struct.pack(">h", space),
                    self.id.bytes,
                    _digest(self.id, number),
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
                copy.write_row((versions[file], page + 1, files[file], _digest(self.id, number)))
        connection.execute(
            "insert into private.page_vectors (space_id, owner_id, file_id, page, version_id,"
            " vector_id) select x.space_id, x.owner_id, p.file_id, p.page, p.version_id, x.id"
            " from private.page_pictures as p inner join private.picture_vectors as x"
            " on x.picture_hash = p.picture_hash where x.owner_id = %s",
            (self.id,),
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


def _torch(
    pages: Sequence[Halves], questions: Sequence[Floats]
) -> tuple[dict[str, float], list[Floats]]:
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

    def score(question: Floats) -> Floats:
        cosines = (flat @ torch.from_numpy(question).T).reshape(len(pages), longest, -1)
        if empty is not None:
            cosines.masked_fill_(empty[:, :, None], -2.0)
        total = cosines.amax(1).sum(1)
        total.topk(10)
        result: Floats = total.numpy()
        return result

    score(questions[0])
    times, cpu, scores = [], time.process_time(), []
    for question in questions:
        started = time.perf_counter()
        scores.append(score(question))
        times.append((time.perf_counter() - started) * 1000)
    return _figures(times, (time.process_time() - cpu) * 1000 / len(questions)), scores


def _exact(
    connection: psycopg.Connection[Any],
    space: int,
    owner: _Owner,
    pages: Sequence[Halves],
    questions: Sequence[Floats],
) -> dict[str, Any]:
    """The full comparison in SQL, of at most 2,000 pages, against torch over the same."""
    some = pages[:2000]
    connection.execute("reset role")
    tokens = "(select array_agg(q::text::extensions.halfvec) from jsonb_array_elements(%s) as q)"
    connection.execute("begin; delete from private.page_codebooks")

    def ask(question: Floats) -> Any:
        return connection.execute(
            "select file_id, page, score from private.find_pages(%s::smallint, "  # type: ignore[arg-type]
            + tokens
            + ", private.search_scope(%s::jsonb), 10, 200)",
            (
                space,
                json.dumps(question.tolist()),
                json.dumps({"file_ids": [str(f) for f in owner.files[: -(-len(some) // 20)]]}),
            ),
        ).fetchall()

    few = list(questions[:10])
    ours, _ = timed(connection, ask, few)
    connection.execute("rollback")
    peer, _ = _torch(some, few)
    connection.execute("set role authenticated")
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

    figures, _ = timed(connection, ask, questions[:2])
    return {
        "pages": BITS_PAGES,
        **figures,
        "cpu_ms_of_all_pages": round(figures["cpu_ms"] * len(pages) / BITS_PAGES),
    }


def _lance(pages: Sequence[Halves], questions: Sequence[Floats], lock: Path | None) -> Any:
    """LanceDB's multivector index, with as many probes as recall 0.95 takes, beside torch."""
    if not importlib.util.find_spec("lancedb"):
        return "not installed"
    import lancedb
    import pyarrow as pa

    with tempfile.TemporaryDirectory(prefix="narwhal-lance-") as folder:
        schema = pa.schema(
            [
                pa.field("id", pa.int64()),
                pa.field("vector", pa.list_(pa.list_(pa.float16(), DIMENSION))),
            ]
        )
        rows = [{"id": n, "vector": list(page)} for n, page in enumerate(pages)]
        table = lancedb.connect(folder).create_table("pages", rows, schema=schema)
        started = time.process_time()
        table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")
        built = time.process_time() - started
        with _Locked(lock):
            torch, scores = _torch(pages, questions)
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
            figures = _figures(times, (time.process_time() - cpu) * 1000 / len(questions))
            recall = _recall(found, scores)
            tried[f"nprobes {probes}, refine {refine}"] = {**figures, "recall_at_10": recall}
            if recall >= 0.95:
                break
        return {"pages": len(pages), "index_cpu_s": round(built, 1), "torch": torch, **tried}


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
    return _figures(times, (_cpu(connection) - before) / len(questions)), answers


def _figures(times: list[float], cpu: float) -> dict[str, float]:
    return {
        "least_ms": round(min(times), 1),
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(sorted(times)[int(len(times) * 0.95)], 1),
        "cpu_ms": round(cpu, 1),
    }


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
