"""The dense leg by itself: exact search as it grows, the HNSW index, and what both cost to keep.

One owner gets the first of CHUNKS, then more, up to the last; another one has half as many. At each
size every question is asked through `private.search_dense`, over single vectors in SQL, and in
numpy. Then files are put in service and deleted, beside a bare table with one HNSW index. CPU time
is that of the server's process: unlike wall time it hardly depends on what else the machine does.

Example: scripts/bench/run dense --chunks 10000,100000
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
CHUNKS_A_FILE = 100
TOPICS = 200
BARE_ROWS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chunks", default="10000,100000", help="sizes, ascending")
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument(
        "--index", action="store_true", help="build the HNSW index at the last size"
    )
    options = parser.parse_args()
    sizes = [int(size) for size in options.chunks.split(",")]
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
                figures = {str(size): bench.grow(size) for size in sizes}
                kept = bench.keep()
                if options.index:
                    figures[f"{sizes[-1]} with hnsw"] = bench.index()
        finally:
            server.stop()
    write("dense", {"machine": machine(), "dimension": DIMENSION, "search": figures, "keep": kept})


class Bench:
    """One database that grows."""

    def __init__(self, connection: psycopg.Connection[Any], questions: int) -> None:
        self.connection = connection
        self.questions = questions
        self.rng = np.random.default_rng(1)
        self.centres = self.rng.normal(size=(2 * TOPICS, DIMENSION)).astype("f4")
        self.owner, self.other = self._user(), self._user()
        self.vectors = np.empty((0, DIMENSION), "f4")
        self.chunks: list[uuid.UUID] = []
        scope = {"sub": str(self.owner), "role": "authenticated"}
        connection.execute(
            "select set_config('request.jwt.claims', %s, false)", (json.dumps(scope),)
        )
        connection.execute("set max_parallel_workers_per_gather = 0")

    def grow(self, size: int) -> dict[str, Any]:
        """Load up to so many chunks of each owner, ask, and compare."""
        self._load(size - len(self.chunks))
        return self._ask()

    def index(self) -> dict[str, Any]:
        """Ask again with an HNSW index, for which the owner is large enough from now on."""
        started = time.perf_counter()
        self.connection.execute("set maintenance_work_mem = '2GB'")
        statement = self._one("select private.vector_index_statement(1::smallint)")
        self.connection.execute(statement)
        built = time.perf_counter() - started
        self.connection.execute("analyze private.chunk_vectors")
        self.connection.execute(
            "update private.settings set value = '0' where key = 'search.exact_chunks'"
        )
        return self._ask() | {"build_s": round(built)}

    def _ask(self) -> dict[str, Any]:
        scope = self._one("select private.search_scope('{}')::text")
        plan = self._one(
            "select private.explain_dense(1::smallint, %s::private.search_scope)", scope
        )
        found: dict[str, Any] = {"plan": plan}
        on = self._questions(0)
        off = self._questions(TOPICS)
        for where, questions in (("on", on), ("off", off)):
            recall = []
            for question in questions:
                hits = self._search(question, scope, 10)
                best = np.argpartition(-(self.vectors @ question), 10)[:10]
                recall.append(len({self.chunks[i] for i in best} & set(hits)) / 10)
            found[f"recall_at_10_{where}_topic"] = round(statistics.mean(recall), 4)
        found["search_dense"] = self._timed(lambda q: self._search(q, scope, 50), on)
        found["single_vectors_in_sql"] = self._timed(self._brute_force, on[:10])
        found["numpy"] = self._timed(
            lambda q: np.argpartition(-(self.vectors @ q), 50)[:50], on, of_server=False
        )
        return found

    def keep(self) -> dict[str, Any]:
        """Put files in service and delete them, beside a bare table with an HNSW index."""
        run = self.connection.execute
        run(f"create table bare (id uuid primary key, embedding extensions.halfvec({DIMENSION}))")  # type: ignore[arg-type]
        run(
            "insert into bare select chunk_id, embedding from private.chunk_vectors limit %s",
            (BARE_ROWS,),
        )
        run("create index on bare using hnsw (embedding extensions.halfvec_ip_ops)")
        times: dict[str, list[float]] = {"bare_hnsw": [], "in_service": []}
        for _ in range(6):
            version = self._version(CHUNKS_A_FILE)
            times["in_service"].append(
                self._cpu_of(lambda v=version: run("select private.serve_version(%s)", (v,)))  # type: ignore[misc]
            )
            times["bare_hnsw"].append(
                self._cpu_of(
                    lambda v=version: run(  # type: ignore[misc]
                        "insert into bare select c.id, t.embedding from public.chunks as c"
                        " inner join private.text_vectors as t on t.text_hash = c.text_hash"
                        " where c.version_id = %s",
                        (v,),
                    )
                )
            )
        inserted = {
            name: round(statistics.median(of) / CHUNKS_A_FILE, 3) for name, of in times.items()
        }
        deleted = []
        for _ in range(5):
            version = self._version(1000)
            run("select private.serve_version(%s)", (version,))
            run(
                "update public.nodes set trashed_at = now(), trash_root_id = id, purged_at = now()"
                " where head_version_id = %s",
                (version,),
            )
            started = time.perf_counter()
            assert self._one("select private.purge_batch(10)") == 1
            deleted.append((time.perf_counter() - started) * 1000)
        return {
            "insert_cpu_ms_a_chunk": inserted,
            "insert: in_service / bare_hnsw": round(
                inserted["in_service"] / inserted["bare_hnsw"], 2
            ),
            "delete_file_of_1000_chunks_ms": {
                "min": round(min(deleted), 1),
                "p50": round(statistics.median(deleted), 1),
            },
        }

    # -- asking

    def _questions(self, first_topic: int) -> list[Any]:
        kinds = self.rng.integers(first_topic, first_topic + TOPICS, self.questions)
        return list(self._vectors(kinds))

    def _search(self, question: Any, scope: str, count: int) -> list[Any]:
        rows = self.connection.execute(
            "select chunk_id from private.search_dense("
            "1::smallint, %s::extensions.halfvec, %s::private.search_scope, %s, null)",
            (str(question.tolist()), scope, count),
        ).fetchall()
        return [row[0] for row in rows]

    def _brute_force(self, question: Any) -> Any:
        return self.connection.execute(
            "select chunk_id from private.chunk_vectors_1 where owner_id = %s"
            " order by (embedding operator(extensions.<#>) %s::extensions.halfvec) + 0 limit 50",
            (self.owner, str(question.tolist())),
        ).fetchall()

    def _timed(
        self, ask: Callable[[Any], Any], questions: list[Any], *, of_server: bool = True
    ) -> dict[str, float]:
        for question in questions[:3]:
            ask(question)
        wall, cpu = [], []
        for question in questions:
            started = time.perf_counter()
            cpu.append(self._cpu_of(lambda q=question: ask(q), of_server))  # type: ignore[misc]
            wall.append((time.perf_counter() - started) * 1000)
        return {
            "wall_min_ms": round(min(wall), 1),
            "wall_p50_ms": round(statistics.median(wall), 1),
            "cpu_min_ms": round(min(cpu), 1),
            "cpu_p50_ms": round(statistics.median(cpu), 1),
        }

    def _cpu_of(self, work: Callable[[], Any], of_server: bool = True) -> float:
        process = str(self.connection.info.backend_pid) if of_server else "self"
        file = Path(f"/proc/{process}/schedstat")
        before = int(file.read_text().split()[0])
        work()
        return (int(file.read_text().split()[0]) - before) / 1e6

    def _one(self, query: str, *args: object) -> Any:
        (value,) = self.connection.execute(query, args or None).fetchone() or (None,)  # type: ignore[arg-type]
        return value

    # -- data

    def _vectors(self, kinds: Any) -> Any:
        made = self.centres[kinds] + 0.7 * self.rng.normal(size=(len(kinds), DIMENSION))
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made.astype("f2").astype("f4")

    def _user(self) -> uuid.UUID:
        user = uuid.uuid4()
        self.connection.execute(
            "insert into auth.users (id, aud, role, email, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', %s, now(), now())",
            (user, f"{user.hex}@example.test"),
        )
        return user

    def _load(self, more: int) -> None:
        """Give one so many more chunks, and another half as many, of other topics as well."""
        run = self.connection.execute
        run("set session_replication_role = 'replica'")
        for owner, topics, count in (
            (self.owner, TOPICS, more),
            (self.other, 2 * TOPICS, more // 2),
        ):
            vectors = self._vectors(self.rng.integers(0, topics, count))
            chunks = [uuid.uuid4() for _ in range(count)]
            if owner == self.owner:
                self.vectors = np.concatenate([self.vectors, vectors])
                self.chunks += chunks
            files = [uuid.uuid4() for _ in range(0, count, CHUNKS_A_FILE)]
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
                    file = files[number // CHUNKS_A_FILE]
                    copy.write_row((1, owner, file, chunks[number], half))
            run(
                "insert into private.owner_statistics (owner_id, chunk_count, languages)"
                " values (%s, %s, '{en}') on conflict (owner_id) do update"
                " set chunk_count = owner_statistics.chunk_count + excluded.chunk_count",
                (owner, count),
            )
        run("set session_replication_role = 'origin'")
        run("select private.repack_vectors(1::smallint)")
        run("vacuum analyze")

    def _version(self, count: int) -> uuid.UUID:
        """A file of another owner that has been read and embedded, but is not in service yet."""
        file, version = uuid.uuid4(), uuid.uuid4()
        run = self.connection.execute
        run("set session_replication_role = 'replica'")
        run(
            "insert into public.nodes (id, kind, name, owner_id, path, status, head_version_id)"
            " values (%s, 'file', %s, %s, %s, 'ready', %s)",
            (file, file.hex, self.other, [file], version),
        )
        run(
            "insert into public.file_versions (id, file_id, no, size, status)"
            " values (%s, %s, 1, 0, 'ready')",
            (version, file),
        )
        run(
            "insert into public.ingest_jobs (file_id, version_id, stage, space_id, state)"
            " values (%s, %s, 'embed_text', 1, 'done')",
            (file, version),
        )
        words = [" ".join(f"w{n}" for n in self.rng.zipf(1.3, 150) % 20_000) for _ in range(count)]
        run(
            "insert into public.chunks"
            " (file_id, version_id, idx, content, char_start, char_end, language, text_hash)"
            " select %s, %s, t.idx - 1, t.content, 0, 1, 'en', sha256(t.content::bytea)"
            " from unnest(%s::text[]) with ordinality as t (content, idx)",
            (file, version, words),
        )
        vectors = self._vectors(self.rng.integers(0, TOPICS, count))
        run(
            "insert into private.text_vectors (owner_id, space_id, text_hash, embedding)"
            " select %s, 1, c.text_hash, v.embedding::extensions.halfvec from public.chunks as c"
            " inner join unnest(%s::text[]) with ordinality as v (embedding, idx)"
            " on v.idx = c.idx + 1 where c.version_id = %s",
            (self.other, [str(vector.tolist()) for vector in vectors], version),
        )
        run("set session_replication_role = 'origin'")
        return version


if __name__ == "__main__":
    main()
