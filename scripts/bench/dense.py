"""The dense leg by itself: exact search as it grows, files of one chunk, and the HNSW index.

One owner gets the first of CHUNKS, then more, up to the last; another one has half as many. At each
size every question is asked through `private.search_dense` and over single vectors in SQL, and what
it finds is compared with brute force in numpy. At the size --index an HNSW index is built, asked
and dropped. CPU time is that of the server's process: unlike wall time it hardly depends on what
else the machine does. Beside its peers, and end to end, search is measured by retrieval.py; what
writing costs, by writing.py.

Example: scripts/bench/run dense --chunks 10000,100000,1000000 --index 300000
"""

from __future__ import annotations

import argparse
import json
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
CHUNKS_A_FILE = 20
TOPICS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chunks", default="10000,100000", help="sizes, ascending")
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--index", type=int, help="the size at which to ask an HNSW index, too")
    parser.add_argument(
        "--single", type=int, default=100_000, help="so many files of one chunk; 0: none"
    )
    options = parser.parse_args()
    sizes = {int(size) for size in options.chunks.split(",")} | {options.index or 0} - {0}
    figures = {}
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        passwords = dict.fromkeys(LOGIN_ROLES, "bench")
        server = EmbeddedPostgres(Path(folder) / "data", passwords, durable=False)
        server.init()
        server.start()
        try:
            bootstrap(server.url(SUPERUSER), passwords)
            migrate(server.url("postgres"))
            with psycopg.connect(server.url(SUPERUSER), autocommit=True) as connection:
                bench = Bench(connection, options.questions)
                if options.single:
                    figures[f"{options.single} files of one chunk"] = bench.single(options.single)
                for size in sorted(sizes):
                    figures[str(size)] = bench.grow(size)
                    if size == options.index:
                        figures[f"{size} with hnsw"] = bench.index()
                    print(json.dumps(figures, indent=2), flush=True)
        finally:
            server.stop()
    write("dense", {"machine": machine(), "dimension": DIMENSION, "search": figures})


class Bench:
    """One database that grows."""

    def __init__(self, connection: psycopg.Connection[Any], questions: int) -> None:
        self.connection = connection
        self.questions = questions
        self.rng = np.random.default_rng(1)
        self.centres = self.rng.normal(size=(2 * TOPICS, DIMENSION)).astype("f4")
        self.owner, self.other = self._user(), self._user()
        self.vectors = np.empty((0, DIMENSION), "f2")
        self.chunks: list[uuid.UUID] = []
        connection.execute("set max_parallel_workers_per_gather = 0")

    def single(self, count: int) -> dict[str, Any]:
        """Ask an owner of so many files of one chunk each."""
        owner = self._user()
        self._load(owner, TOPICS, count, chunks_a_file=1)
        self._serve()
        scope = self._scope(owner)
        return {"search_dense": self._timed(lambda q: self._search(q, scope, 50))}

    def grow(self, size: int) -> dict[str, Any]:
        """Load up to so many chunks of one owner and half as many of another; ask and compare."""
        more = size - len(self.chunks)
        vectors, chunks = self._load(self.owner, TOPICS, more, CHUNKS_A_FILE)
        self.vectors = np.concatenate([self.vectors, vectors])
        self.chunks += chunks
        self._load(self.other, 2 * TOPICS, more // 2, CHUNKS_A_FILE)  # of other topics as well
        self._serve()
        return self._ask()

    def index(self) -> dict[str, Any]:
        """Ask again with an HNSW index, for which the owner is large enough meanwhile."""
        exact = "update private.settings set value = %s where key = 'search.exact_chunks'"
        started = time.perf_counter()
        self.connection.execute("set maintenance_work_mem = '2GB'")
        self.connection.execute(self._one("select private.vector_index_statement(1::smallint)"))
        built = time.perf_counter() - started
        self.connection.execute("analyze private.chunk_vectors")
        self.connection.execute(exact, ("0",))
        size = (
            "select pg_relation_size(('private.' || private.vector_index(1::smallint))::regclass)"
        )
        found = self._ask() | {"build_s": round(built), "mb": round(self._one(size) / 2**20)}
        name = self._one("select private.vector_index(1::smallint)")
        self.connection.execute(f"drop index private.{name}")  # type: ignore[arg-type]
        self.connection.execute(exact, ("500000",))
        return found

    def _ask(self) -> dict[str, Any]:
        scope = self._scope(self.owner)
        plan = self._one(
            "select private.explain_dense(1::smallint, %s::private.search_scope)", scope
        )
        found: dict[str, Any] = {"plan": plan}
        for where, first_topic in (("on", 0), ("off", TOPICS)):
            recall = []
            for question in self._questions(first_topic):
                hits = self._search(question, scope, 10)
                recall.append(len({self.chunks[i] for i in self._best(question)} & set(hits)) / 10)
            found[f"recall_at_10_{where}_topic"] = round(statistics.mean(recall), 4)
        found["search_dense"] = self._timed(lambda q: self._search(q, scope, 50))
        found["single_vectors_in_sql"] = self._timed(self._single_vectors)
        return found

    # -- asking

    def _scope(self, owner: uuid.UUID) -> str:
        claims = json.dumps({"sub": str(owner), "role": "authenticated"})
        self.connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
        scope: str = self._one("select private.search_scope('{}')::text")
        return scope

    def _questions(self, first_topic: int) -> list[Any]:
        kinds = self.rng.integers(first_topic, first_topic + TOPICS, self.questions)
        return list(self._vectors(kinds).astype("f4"))

    def _best(self, question: Any) -> Any:
        """The places of the ten nearest, in pieces: all in single precision would be large."""
        scores = np.concatenate(
            [
                self.vectors[start : start + 50_000].astype("f4") @ question
                for start in range(0, len(self.vectors), 50_000)
            ]
        )
        return np.argpartition(-scores, 10)[:10]

    def _search(self, question: Any, scope: str, count: int) -> list[Any]:
        rows = self.connection.execute(
            "select chunk_id from private.search_dense("
            "1::smallint, %s::extensions.halfvec, %s::private.search_scope, %s, null)",
            (str(question.tolist()), scope, count),
        ).fetchall()
        return [row[0] for row in rows]

    def _single_vectors(self, question: Any) -> Any:
        return self.connection.execute(
            "select chunk_id from private.chunk_vectors_1 where owner_id = %s"
            " order by (embedding operator(extensions.<#>) %s::extensions.halfvec) + 0 limit 50",
            (self.owner, str(question.tolist())),
        ).fetchall()

    def _timed(self, ask: Callable[[Any], Any]) -> dict[str, float]:
        questions = self._questions(0)
        for question in questions[:3]:
            ask(question)
        wall, cpu = [], []
        for question in questions:
            started, before = time.perf_counter(), self._cpu()
            ask(question)
            cpu.append(self._cpu() - before)
            wall.append((time.perf_counter() - started) * 1000)
        return {
            "wall_min_ms": round(min(wall), 1),
            "wall_p50_ms": round(statistics.median(wall), 1),
            "cpu_min_ms": round(min(cpu), 1),
            "cpu_p50_ms": round(statistics.median(cpu), 1),
        }

    def _cpu(self) -> float:
        """Milliseconds that the server's process has worked."""
        file = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")
        return int(file.read_text().split()[0]) / 1e6

    def _one(self, query: str, *args: object) -> Any:
        (value,) = self.connection.execute(query, args or None).fetchone() or (None,)  # type: ignore[arg-type]
        return value

    # -- data

    def _vectors(self, kinds: Any) -> Any:
        made = self.centres[kinds] + 0.7 * self.rng.standard_normal(
            (len(kinds), DIMENSION), dtype="f4"
        )
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made.astype("f2")

    def _user(self) -> uuid.UUID:
        user = uuid.uuid4()
        self.connection.execute(
            "insert into auth.users (id, aud, role, email, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', %s, now(), now())",
            (user, f"{user.hex}@example.test"),
        )
        return user

    def _load(
        self, owner: uuid.UUID, topics: int, count: int, chunks_a_file: int
    ) -> tuple[Any, list[uuid.UUID]]:
        """Give an owner so many more chunks, with triggers off."""
        run = self.connection.execute
        vectors = self._vectors(self.rng.integers(0, topics, count))
        chunks = [uuid.uuid4() for _ in range(count)]
        files = [uuid.uuid4() for _ in range(0, count, chunks_a_file)]
        run("set session_replication_role = 'replica'")
        run(
            "insert into public.nodes (id, kind, name, owner_id, path, status)"
            " select f, 'file', f, %s, array[f], 'ready' from unnest(%s::uuid[]) as f",
            (owner, files),
        )
        with self.connection.cursor().copy(
            "copy private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
            " from stdin (format binary)"
        ) as copy:
            copy.set_types(["int2", "uuid", "uuid", "uuid", "bytea"])
            for number, vector in enumerate(vectors):
                half = DIMENSION.to_bytes(2, "big") + b"\0\0" + vector.astype(">f2").tobytes()
                copy.write_row((1, owner, files[number // chunks_a_file], chunks[number], half))
        run(
            "insert into private.owner_statistics (owner_id, chunk_count, languages)"
            " values (%s, %s, '{en}') on conflict (owner_id) do update"
            " set chunk_count = owner_statistics.chunk_count + excluded.chunk_count",
            (owner, count),
        )
        run("set session_replication_role = 'origin'")
        return vectors, chunks

    def _serve(self) -> None:
        """Pack what was loaded into blocks."""
        self.connection.execute("select private.repack_vectors(1::smallint)")
        self.connection.execute("vacuum analyze")


if __name__ == "__main__":
    main()
