"""Ingestion: chunks a second through the queue, against the same reading and embedding without it.

Uploads the repository's sample documents with the official client, drains the queue with one
worker, and then does the bare work (read, chunk, embed) in this process: the ratio is what leases,
Storage and Postgres cost. Writes JSON.

Example: scripts/bench/run ingest --rounds 2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from supabase import Client, ClientOptions, create_client

from narwhal.encoders import load_text_encoder
from narwhal.ingest.chunking import chunk, with_context
from narwhal.ingest.limits import Limits, read_in_sandbox
from narwhal.local.state import StackState, read_state
from scripts.bench.report import machine, write

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
PASSWORD = "correct horse battery staple"  # of accounts that live as long as the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="users with all samples each")
    options = parser.parse_args()
    files = sorted(p for p in SAMPLES.iterdir() if p.name not in ("README.md", "make.py"))
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as home:
        _narwhal("up", "--detach", "--port", "0", "--workers", "0", "--home", home)
        try:
            state = read_state(Path(home))
            assert state is not None
            for number in range(options.rounds):
                client = _sign_up(state, f"user{number}@example.test")
                for path in files:
                    _send(client, path)
            started = time.perf_counter()
            _narwhal("worker", "--drain", "--home", home)
            queue_s = time.perf_counter() - started
            chunks, pages = _count(state)
        finally:
            _narwhal("down", "--home", home)
    started = time.perf_counter()
    bare_chunks = sum(_bare(path) for path in files)
    bare_s = time.perf_counter() - started
    queue_rate, bare_rate = chunks / queue_s, bare_chunks / bare_s
    write(
        "ingest",
        {
            "machine": machine(),
            "files": options.rounds * len(files),
            "pages": pages,
            "chunks": chunks,
            "seconds": round(queue_s, 1),
            "chunks_per_s": round(queue_rate, 1),
            "bare_chunks_per_s": round(bare_rate, 1),
            "ratios": {"time through the queue / bare work": round(bare_rate / queue_rate, 2)},
        },
    )


def _narwhal(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def _sign_up(state: StackState, email: str) -> Client:
    client = create_client(state.api_url, state.anon_key, ClientOptions(auto_refresh_token=False))
    client.auth.sign_up({"email": email, "password": PASSWORD})
    client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    return client


def _send(client: Client, path: Path) -> None:
    size = path.stat().st_size
    ticket: Any = client.rpc("begin_upload", {"name": path.name, "size": size}).execute().data
    client.storage.from_(ticket["bucket"]).upload(ticket["key"], path)


def _count(state: StackState) -> tuple[int, int]:
    with psycopg.connect(state.database_url) as connection:
        row = connection.execute(
            "select (select count(*) from public.chunks), (select count(*) from public.pages)"
        ).fetchone()
        assert row is not None
        return row


def _bare(path: Path) -> int:
    encoder = load_text_encoder()
    document = read_in_sandbox(path, path.name, None, Limits())
    chunks = chunk(document, count_tokens=encoder.count_tokens, max_tokens=encoder.max_tokens)
    encoder.encode([with_context(piece.content, piece.context) for piece in chunks])
    return len(chunks)


if __name__ == "__main__":
    main()
