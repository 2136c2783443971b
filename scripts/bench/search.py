"""Search at size: `hybrid_search` as an ordinary user against brute force, in one run.

Loads two owners with CHUNKS chunks each into a database of its own, then asks every question four
ways: through the RPC (both legs), its legs alone, brute force by meaning in SQL (the same products
over sequential scans of the same tables), and in numpy (vectors already in memory). Writes JSON.

Example: scripts/bench/run search --corpus corpus.jsonl.gz --queries queries.jsonl.gz
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER, EmbeddedPostgres
from scripts.bench.report import machine, write

DIMENSION = 384
CHUNKS_A_FILE = 100
CHUNK_CHARS = 900
TOPICS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000, help="chunks of each of two owners")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True, help="corpus.jsonl.gz, BEIR layout")
    parser.add_argument("--queries", type=Path, required=True, help="queries.jsonl.gz, BEIR layout")
    options = parser.parse_args()
    texts = [f"{row.get('title', '')} {row['text']}" for row in _rows(options.corpus)]
    queries = [str(row["text"])[:1000] for row in _rows(options.queries)][: options.questions]

    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        passwords = dict.fromkeys(LOGIN_ROLES, "bench")
        server = EmbeddedPostgres(Path(folder) / "data", passwords, durable=False)
        server.init()
        server.start()
        try:
            bootstrap(server.url(SUPERUSER), passwords)
            migrate(server.url("postgres"))
            with psycopg.connect(server.url(SUPERUSER), autocommit=True) as connection:
                # equal questions are asked again and again: each is to be answered anew
                connection.execute(
                    "update private.settings set value = '0' where key = 'search.cache_ttl_s'"
                )
                figures = run(connection, texts, queries, options.chunks)
        finally:
            server.stop()
    write("search", {"machine": machine(), "corpus": options.corpus.parent.name, **figures})


def run(
    connection: psycopg.Connection[Any], texts: list[str], queries: list[str], chunks: int
) -> dict[str, Any]:
    """Load, ask, compare; times in milliseconds."""
    rng = np.random.default_rng(1)
    started = time.perf_counter()
    owner, _other = (Owner(connection, texts, rng, chunks) for _ in range(2))
    load_s = time.perf_counter() - started
    connection.execute("vacuum analyze")

    # questions about the owner's own topics, not noise
    vectors = owner.vectors[rng.integers(0, chunks, len(queries))]
    vectors = vectors + rng.normal(size=vectors.shape).astype("f4") * 0.02
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    questions = list(zip(queries, vectors, strict=True))

    def rpc(options: str, with_vector: bool) -> Callable[[str, Any], Any]:
        def ask(query: str, vector: Any) -> Any:
            return connection.execute(
                "select public.hybrid_search(%s, %s::jsonb, options => %s::jsonb)",
                (query, json.dumps(vector.tolist()) if with_vector else None, options),
            ).fetchone()

        return ask

    def dense_scan(_query: str, vector: Any) -> Any:
        return connection.execute(
            "select chunk_id from private.chunk_vectors where owner_id = %s"
            " order by (embedding operator(extensions.<#>) %s::extensions.halfvec) + 0 limit 50",
            (owner.id, str(vector.tolist())),
        ).fetchall()

    def numpy_scan(_query: str, vector: Any) -> Any:
        scores = owner.vectors @ vector
        return np.argpartition(-scores, 50)[:50]

    figures: dict[str, Any] = {}
    connection.execute("set enable_indexscan = off; set enable_indexonlyscan = off")
    connection.execute("set max_parallel_workers_per_gather = 0")
    figures["sql_brute_force_dense"] = timed(dense_scan, questions)
    connection.execute("reset enable_indexscan; reset enable_indexonlyscan")
    figures["numpy_brute_force_dense"] = timed(numpy_scan, questions)

    claims = json.dumps({"sub": str(owner.id), "role": "authenticated"})
    connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
    connection.execute("set role authenticated")
    figures["hybrid_search"] = timed(rpc("{}", True), questions)
    figures["keyword_alone"] = timed(rpc('{"weights": {"vector": 0}}', False), questions)
    figures["dense_alone"] = timed(rpc('{"weights": {"keyword": 0}}', True), questions)
    connection.execute("reset role")

    dense = figures["sql_brute_force_dense"]["p50_ms"]
    return {
        "chunks_of_the_owner": chunks,
        "chunks_in_the_table": 2 * chunks,
        "questions": len(questions),
        "load_chunks_per_s": round(2 * chunks / load_s),
        "times": figures,
        "ratios": {
            "dense_alone / sql_brute_force_dense": _ratio(figures["dense_alone"], dense),
            "dense_alone / numpy_brute_force_dense": _ratio(
                figures["dense_alone"], figures["numpy_brute_force_dense"]["p50_ms"]
            ),
        },
    }


class Owner:
    """One user with CHUNKS chunks of real text and clustered random vectors, in service."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        texts: list[str],
        rng: np.random.Generator,
        chunks: int,
    ) -> None:
        self.id = uuid.uuid4()
        pick = random.Random(str(chunks))
        connection.execute(
            "insert into auth.users (id, aud, role, email, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', %s, now(), now())",
            (self.id, f"{self.id.hex}@example.test"),
        )
        centres = rng.normal(size=(TOPICS, DIMENSION)).astype("f4")
        vectors = centres[rng.integers(0, TOPICS, chunks)]
        vectors = vectors + rng.normal(size=vectors.shape).astype("f4") * 0.7
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for start in range(0, chunks, CHUNKS_A_FILE):
            passages = []
            for _ in range(min(CHUNKS_A_FILE, chunks - start)):
                text = pick.choice(texts)
                at = pick.randrange(max(1, len(text) - CHUNK_CHARS))
                passages.append(text[at : at + CHUNK_CHARS])
            with connection.transaction():
                self._add_file(connection, start, passages)

    def _add_file(
        self, connection: psycopg.Connection[Any], start: int, passages: list[str]
    ) -> None:
        file_id, version_id = uuid.uuid4(), uuid.uuid4()
        connection.execute(
            "insert into public.nodes (id, kind, name, owner_id, path, status)"
            " values (%s, 'file', %s, %s, %s, 'ready')",
            (file_id, f"file {start}.txt", self.id, [file_id]),
        )
        connection.execute(
            "insert into public.file_versions (id, file_id, no, size, status)"
            " values (%s, %s, 1, 0, 'ready')",
            (version_id, file_id),
        )
        connection.execute(
            "update public.nodes set head_version_id = %s where id = %s", (version_id, file_id)
        )
        rows = connection.execute(
            "insert into public.chunks"
            " (file_id, version_id, idx, content, char_start, char_end, language, text_hash)"
            " select %s, %s, t.idx - 1, t.content, 0, char_length(t.content), 'en',"
            " sha256(convert_to(t.content, 'UTF8'))"
            " from unnest(%s::text[]) with ordinality as t (content, idx) returning id",
            (file_id, version_id, passages),
        ).fetchall()
        connection.execute("select private.index_chunks(%s)", (version_id,))
        with connection.cursor().copy(
            "copy private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
            " from stdin"
        ) as copy:
            for (chunk_id,), vector in zip(rows, self.vectors[start:], strict=False):
                copy.write_row((1, self.id, file_id, chunk_id, str(vector.tolist())))


def timed(ask: Callable[[str, Any], Any], questions: list[tuple[str, Any]]) -> dict[str, float]:
    """Ask every question once to warm up and once for the figures."""
    for query, vector in questions[:10]:
        ask(query, vector)
    times = []
    for query, vector in questions:
        started = time.perf_counter()
        ask(query, vector)
        times.append((time.perf_counter() - started) * 1000)
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 1),
    }


def _ratio(figure: dict[str, float], peer: float) -> float:
    return round(figure["p50_ms"] / peer, 2)


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
