"""Writing: what a passage costs to put in service, and a file to delete, beside a bare table.

One owner gets chunks of whole sentences drawn at random from the collections given (BEIR layout),
in files of several sizes, through the functions that a worker calls: chunks and vectors arrive as
JSON, and every trigger, the keyword index, its statistics and the vectors in service are included.
The peer is a table of the same columns with one HNSW index and as many rows, which gets the same
JSON in one insert a file. Measured once as the product comes, without an HNSW index of its own,
and once with it, beside a table whose index is built with the same parameters. Files are deleted
from the drive by each way that removes chunks: the batch that purges, the swap for a new version,
and cutting a file anew.

CPU time is that of the server's process: unlike wall time it hardly depends on what else the
machine does.

Example: scripts/bench/run writing path/to/scifact path/to/npl
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER, EmbeddedPostgres
from scripts.bench.report import machine, write
from scripts.bench.retrieval import CHUNK_CHARS, DIMENSION, TOPICS, real_text

DELETED_CHUNKS = 1000  # in each file that is deleted
BARS = {"insert": 1.5, "delete_ms": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("collections", type=Path, nargs="+", help="folders in BEIR layout")
    parser.add_argument("--rows", type=int, default=20_000, help="in the tables beforehand")
    parser.add_argument("--chunks", default="1,100,1000", help="chunks a file, several sizes")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    sentences, _ = real_text(options.collections, 0)
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
                figures = Bench(connection, sentences, options.rounds).run(options.rows, sizes)
        finally:
            server.stop()
    write("writing", {"machine": machine(), "rows": options.rows, "bars": BARS} | figures)


@dataclass(frozen=True)
class File:
    """A file that the bench has put in service."""

    id: uuid.UUID
    version: uuid.UUID


class Bench:
    """One database, and the bare table in it."""

    def __init__(
        self, connection: psycopg.Connection[Any], sentences: list[str], rounds: int
    ) -> None:
        self.connection = connection
        self.sentences = sentences
        self.rounds = rounds
        self.pick = random.Random(1)
        self.rng = np.random.default_rng(1)
        self.centres = self.rng.normal(size=(TOPICS, DIMENSION)).astype("f4")
        self.wall = 0.0
        self.owner = uuid.uuid4()
        self._run(
            "insert into auth.users (id, aud, role, email, created_at, updated_at)"
            " values (%s, 'authenticated', 'authenticated', 'bench@example.test', now(), now())",
            self.owner,
        )

    def run(self, rows: int, sizes: list[int]) -> dict[str, Any]:
        """Fill both, measure, and measure once more with an HNSW index in service, too."""
        self._run(BARE)
        self._run(INDEX_BARE)
        for _ in range(0, rows, 1000):
            self._insert_both(1000)
        self._run("vacuum analyze")
        figures: dict[str, Any] = {
            "insert, cpu ms a chunk": self._inserted(sizes),
            "delete a file of 1000 chunks": self._deleted(),
        }
        statement: str = self._one("select private.vector_index_statement(1::smallint)")
        self._run("set maintenance_work_mem = '1GB'")
        self._run(statement)
        self._run("drop index bare_embedding_idx")
        self._run(INDEX_BARE + statement[statement.index("with (") :])
        self._run("vacuum analyze")
        figures["insert with an HNSW index in service, cpu ms a chunk"] = self._inserted(sizes[1:2])
        return figures

    def _inserted(self, sizes: list[int]) -> dict[str, Any]:
        figures = {}
        for size in sizes:
            taken = [self._insert_both(size) for _ in range(max(self.rounds, 4000 // size // 20))]
            ours, bare = zip(*taken, strict=True)
            figures[f"files of {size}"] = {
                "ours": round(statistics.median(ours) / size, 3),
                "bare_hnsw": round(statistics.median(bare) / size, 3),
                "ours / bare_hnsw": round(statistics.median(ours) / statistics.median(bare), 2),
            }
        return figures

    def _deleted(self) -> dict[str, Any]:
        ways: dict[str, Callable[[File], None]] = {
            "purge_batch": self._purge,
            "out of service for a new version": self._swap,
            "cut anew into one chunk": self._cut_anew,
            "bare_hnsw": self._delete_bare,
        }
        figures = {}
        for name, delete in ways.items():
            taken = []
            for _ in range(self.rounds):
                file = self._file()
                self._insert(file, self._rows(DELETED_CHUNKS), bare=name == "bare_hnsw")
                if name == "purge_batch":
                    self._run(TRASH, file.id)
                taken.append((self._cpu_of(lambda d=delete, f=file: d(f)), self.wall))  # type: ignore[misc]
            cpu, wall = zip(*taken, strict=True)
            figures[name] = {
                "wall_min_ms": round(min(wall), 1),
                "wall_p50_ms": round(statistics.median(wall), 1),
                "cpu_p50_ms": round(statistics.median(cpu), 1),
            }
        return figures

    # -- inserting

    def _insert_both(self, count: int) -> tuple[float, float]:
        rows = self._rows(count)
        return self._insert(self._file(), rows), self._insert(self._file(), rows, bare=True)

    def _insert(self, file: File, rows: list[dict[str, Any]], bare: bool = False) -> float:
        """Put the chunks of a file in service; returns the CPU milliseconds."""
        if bare:
            return self._cpu_of(lambda: self._run(INSERT_BARE, file.id, Jsonb(rows)))
        chunk = self._job(file, "chunk")
        chunks = Jsonb([{k: v for k, v in row.items() if k != "embedding"} for row in rows])
        took = self._cpu_of(
            lambda: self._run("select private.finish_chunk(%s, %s, %s)", *chunk, chunks)
        )
        hashes = self._one(
            "select array_agg(encode(c.text_hash, 'hex') order by c.idx) from public.chunks as c"
            " where c.version_id = %s",
            file.version,
        )
        vectors = Jsonb(
            [{"hash": h, "embedding": r["embedding"]} for h, r in zip(hashes, rows, strict=True)]
        )
        embed = self._job(file, "embed_text")
        took += self._cpu_of(
            lambda: self._run("select private.store_vectors(%s, %s, %s)", *embed, vectors)
        )
        return took + self._cpu_of(
            lambda: self._run("select private.finish_embed_text(%s, %s)", *embed)
        )

    # -- deleting

    def _purge(self, _: File) -> None:
        assert self._one("select private.purge_batch(10)") == 1

    def _swap(self, file: File) -> None:
        self._run("select private.unserve_version(%s)", file.version)

    def _cut_anew(self, file: File) -> None:
        job = self._job(file, "chunk")
        self._run("select private.finish_chunk(%s, %s, '[]')", *job)

    def _delete_bare(self, file: File) -> None:
        self._run("delete from bare where file_id = %s", file.id)

    # -- data

    def _file(self) -> File:
        """A file without chunks, as the stage before left it."""
        file = File(uuid.uuid4(), uuid.uuid4())
        self._run(
            "insert into public.nodes (id, kind, name, owner_id, path, status)"
            " values (%s, 'file', %s, %s, %s, 'processing')",
            file.id,
            file.id.hex,
            self.owner,
            [file.id],
        )
        self._run(
            "insert into public.file_versions (id, file_id, no, size, status)"
            " values (%s, %s, 1, 0, 'processing')",
            file.version,
            file.id,
        )
        return file

    def _job(self, file: File, stage: str) -> tuple[uuid.UUID, uuid.UUID]:
        """A job of the file that a worker holds: its id and lease token."""
        return self.connection.execute(  # type: ignore[return-value]
            "insert into public.ingest_jobs"
            " (file_id, version_id, stage, space_id, state, lease_token, lease_expires_at)"
            " values (%s, %s, %s, case when %s = 'embed_text' then 1 end, 'running',"
            " gen_random_uuid(), now() + interval '1 hour')"
            " on conflict (version_id, stage, space_id) do update set state = 'running',"
            " lease_token = excluded.lease_token, lease_expires_at = excluded.lease_expires_at"
            " returning id, lease_token",
            (file.id, file.version, stage, stage),
        ).fetchone()

    def _rows(self, count: int) -> list[dict[str, Any]]:
        """Chunks as a worker sends them, each with its vector."""
        vectors = self.centres[self.rng.integers(0, TOPICS, count)]
        vectors = vectors + 0.7 * self.rng.normal(size=(count, DIMENSION))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = []
        for number, vector in enumerate(vectors):
            content = ""
            while len(content) < CHUNK_CHARS * 0.8:
                content = f"{content} {self.pick.choice(self.sentences)}"[:CHUNK_CHARS].lstrip()
            rows.append(
                {
                    "idx": number,
                    "content": content,
                    "char_start": 0,
                    "char_end": len(content),
                    "language": "en",
                    "embedding": [round(float(x), 6) for x in vector],
                }
            )
        return rows

    # -- the database

    def _run(self, query: str, *arguments: object) -> None:
        self.connection.execute(query, arguments or None)

    def _one(self, query: str, *arguments: object) -> Any:
        row = self.connection.execute(query, arguments or None).fetchone()
        return row[0] if row else None

    def _cpu_of(self, work: Callable[[], Any]) -> float:
        """CPU milliseconds of the server for some work; wall-clock ones are kept in `wall`."""
        file = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")
        before, started = int(file.read_text().split()[0]), time.perf_counter()
        work()
        self.wall = (time.perf_counter() - started) * 1000
        return (int(file.read_text().split()[0]) - before) / 1e6


BARE = f"""
create table bare (
    file_id uuid, idx integer, content text, char_start integer, char_end integer, language text,
    embedding extensions.halfvec({DIMENSION}), primary key (file_id, idx)
)
"""
TRASH = """
update public.nodes set trashed_at = now(), trash_root_id = id, purged_at = now() where id = %s
"""
INDEX_BARE = "create index on bare using hnsw (embedding extensions.halfvec_ip_ops) "
INSERT_BARE = """
insert into bare
select %s, r.idx, r.content, r.char_start, r.char_end, r.language,
    r.embedding::text::extensions.halfvec
from jsonb_to_recordset(%s) as r (
    idx integer, content text, char_start integer, char_end integer, language text, embedding jsonb
)
"""


if __name__ == "__main__":
    main()
