"""Ingestion: pages a CPU second through the queue, against the same work without it.

Uploads the repository's sample documents with the official client, drains the queue with one
worker, and then does the bare work in this process: reading alone, and reading, chunking and
embedding. The ratios are what the queue, Storage and Postgres cost. CPU seconds are those of the
worker with its reading processes, and of the stack; pictures that the worker draws are among them,
so `--no-pictures` leaves them out. Writes JSON.

Example: scripts/bench/run ingest --rounds 2
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
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
    parser.add_argument("--no-pictures", action="store_true", help="draw no thumbnails and pages")
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
            stack_cpu = _cpu_below(state.supervisor_pid)
            started, worker_cpu = time.perf_counter(), _cpu_of_children()
            _drain(home, pictures=not options.no_pictures)
            queue_s = time.perf_counter() - started
            worker_cpu = _cpu_of_children() - worker_cpu
            stack_cpu = _cpu_below(state.supervisor_pid) - stack_cpu
            chunks, pages = _count(state)
        finally:
            _narwhal("down", "--home", home)
    load_text_encoder()  # as the worker does once
    started, bare_cpu = time.perf_counter(), _cpu()
    bare_chunks = sum(_bare(path) for path in files)
    bare_s, bare_cpu = time.perf_counter() - started, _cpu() - bare_cpu
    reading_cpu = _cpu()
    for path in files:
        read_in_sandbox(path, path.name, None, Limits())
    reading_cpu = _cpu() - reading_cpu
    queue_rate, bare_rate = chunks / queue_s, bare_chunks / bare_s
    rounds = options.rounds  # the bare work is done once
    write(
        "ingest",
        {
            "machine": machine(),
            "files": options.rounds * len(files),
            "pages": pages,
            "chunks": chunks,
            "pictures": not options.no_pictures,
            "seconds": round(queue_s, 1),
            "chunks_per_s": round(queue_rate, 1),
            "bare_chunks_per_s": round(bare_rate, 1),
            "cpu_s": {
                "worker": round(worker_cpu, 2),
                "stack": round(stack_cpu, 2),
                "bare": round(bare_cpu * rounds, 2),
                "reading alone": round(reading_cpu * rounds, 2),
            },
            "pages_per_cpu_s": {
                "through the queue": round(pages / (worker_cpu + stack_cpu), 1),
                "read, chunk, embed": round(pages / (bare_cpu * rounds), 1),
                "read": round(pages / (reading_cpu * rounds), 1),
            },
            "ratios": {
                "time through the queue / bare work": round(bare_rate / queue_rate, 2),
                "worker CPU / bare CPU": round(worker_cpu / (bare_cpu * rounds), 2),
                "all CPU / bare CPU": round((worker_cpu + stack_cpu) / (bare_cpu * rounds), 2),
            },
        },
    )


def _cpu_of_children() -> float:
    """CPU seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + _cpu_of_children()


def _cpu_below(pid: int) -> float:
    """CPU seconds of a process and all below it, the ended ones that were waited for included."""
    total = 0.0
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _drain(home: str, *, pictures: bool) -> None:
    """Run one worker until nothing is left."""
    if pictures:
        _narwhal("worker", "--drain", "--home", home)
        return
    program = (
        "import sys; from narwhal.ingest import pipeline; del pipeline.STAGES['render'];"
        " sys.argv = ['narwhal', *sys.argv[1:]]; from narwhal.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "worker", "--drain", "--home", home]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


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
