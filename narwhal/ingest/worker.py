"""The worker: claims jobs until it is told to stop, renews its leases, cleans up.

Any number of workers may run, and any of them may be killed at any time: a lost lease sends the
job to another one, and Postgres refuses what the first would still write.
"""

from __future__ import annotations

import base64
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psycopg

from narwhal.codebooks import train_due
from narwhal.db import connect
from narwhal.errors import NarwhalError
from narwhal.ingest import tesseract
from narwhal.ingest.blobs import BlobStore
from narwhal.ingest.models import Models
from narwhal.ingest.pipeline import STAGES, Stage, StoppedError, run_job
from narwhal.ingest.queue import Job, LeaseLostError, Queue
from narwhal.settings import Settings

POLL_S = 2.0
SWEEP_EVERY_S = 10.0
RECONNECT_S = 1.0
STOP_GRACE_S = 10.0
DELETIONS_AT_ONCE = 100
DOCUMENTS_AT_ONCE = 10
MOVE_EVERY_S = 1.0
MOVES_AT_ONCE = 10
PURGE_AT_ONCE = 200
PURGE_EVERY_S = 1.0
TRAIN_EVERY_S = 60.0

log = logging.getLogger("narwhal.worker")
Connection = psycopg.Connection[tuple[object, ...]]


def run_worker(settings: Settings, *, drain: bool, concurrency: int = 1) -> int:
    """Process jobs with `concurrency` threads; return how many were run.

    `drain` ends when no job is due; otherwise SIGTERM or SIGINT ends it: jobs under way get
    STOP_GRACE_S seconds, then go back to the queue. Raises NarwhalError when the database cannot
    be reached at the start.
    """
    with tempfile.TemporaryDirectory(prefix="narwhal-worker-") as folder:
        worker = Worker(settings, Path(folder))
        return worker.run(drain=drain, concurrency=concurrency)


class Worker:
    """One process: threads that run jobs, and one each for leases, for what is gone, for upkeep."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.database_url = settings.require("worker_database_url")
        self.blobs = BlobStore(
            settings.require("supabase_url"), settings.require("service_role_key"), folder
        )
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.models = Models()
        self.stopping = threading.Event()
        self.drained = threading.Event()
        self.lock = threading.Lock()
        self.running: dict[str, Job] = {}
        self.heartbeat_s = 15.0
        self.done = 0

    def run(self, *, drain: bool, concurrency: int) -> int:
        """Run until drained or stopped."""
        connect(self.database_url).close()  # a wrong URL is said now, not retried for ever
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        threads = [
            threading.Thread(target=self._work, args=(drain,), name=f"job-{n}", daemon=True)
            for n in range(concurrency)
        ]
        # apart from each other: a purge may wait for locks, a lease must not
        keepers = [
            threading.Thread(target=self._keep, args=(what, keep), name=what, daemon=True)
            for what, keep in (
                ("keeper", self._keep_leases),
                ("models", self._keep_models),
                ("cleaner", self._keep_clean),
                ("sweeper", self._keep_swept),
                ("mover", self._keep_moving),
            )
        ]
        keepers.append(threading.Thread(target=self._keep_trained, name="trainer", daemon=True))
        for thread in [*keepers, *threads]:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not self.stopping.wait(0.1):
            pass
        deadline = time.monotonic() + STOP_GRACE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._release_all()
        self.drained.set()
        # a drained worker leaves nothing behind
        ending = [keeper for keeper in keepers if keeper.name in ("cleaner", "mover")]
        while drain and any(keeper.is_alive() for keeper in ending):
            if self.stopping.wait(0.1):
                break
        self.stopping.set()
        for keeper in keepers:
            keeper.join(STOP_GRACE_S)
        return self.done

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping on signal %s", number)
        self.stopping.set()

    # Jobs ---------------------------------------------------------------------------------------

    def _work(self, drain: bool) -> None:
        while not self.stopping.is_set():
            try:
                with connect(self.database_url, application="narwhal worker") as connection:
                    self._work_on(Queue(connection), drain)
                    return
            except (psycopg.OperationalError, NarwhalError) as error:
                log.warning("the database went away: %s", error)
                self.stopping.wait(RECONNECT_S)

    def _work_on(self, queue: Queue, drain: bool) -> None:
        name = f"{self.name}/{threading.current_thread().name}"
        while not self.models.local.wait(0.2) and not self.stopping.is_set():
            pass
        while not self.stopping.is_set():
            knows_all = self.models.all.is_set()
            written = write_documents(queue.connection, self.blobs)
            jobs = queue.claim(name, self.models.space_ids, tuple(STAGES))
            for job in jobs:
                self._run(queue, job)
            if jobs or written:
                continue
            if drain and knows_all and not self.running:
                return
            queue.wait(0.2 if drain else POLL_S)

    def _run(self, queue: Queue, job: Job) -> None:
        self.heartbeat_s = float(job.settings["jobs.heartbeat_s"])
        with self.lock:
            self.running[job.id] = job
        started = time.monotonic()
        try:
            run_job(Stage(queue, self.blobs, job, self.stopping.is_set))
            outcome = "ended"
        except LeaseLostError:
            outcome = "lost its lease"
        except StoppedError:
            queue.release(job)
            outcome = "was handed back"
        finally:
            with self.lock:
                self.running.pop(job.id, None)
                self.done += 1
        log.info(
            "%s of %s %s after %.2f s", job.stage, job.file_id, outcome, time.monotonic() - started
        )

    # Leases and housekeeping --------------------------------------------------------------------

    def _keep(self, what: str, keep: Callable[[Connection], None]) -> None:
        while not self.stopping.is_set():
            try:
                with connect(self.database_url, application=f"narwhal worker {what}") as connection:
                    keep(connection)
                    return
            except (psycopg.OperationalError, NarwhalError) as error:
                log.warning("the database went away: %s", error)
                self.stopping.wait(RECONNECT_S)

    def _keep_leases(self, connection: Connection) -> None:
        queue = Queue(connection)
        renewed = time.monotonic()
        while not self.stopping.wait(min(1.0, self.heartbeat_s)):
            now = time.monotonic()
            if now - renewed >= self.heartbeat_s:
                renewed = now
                self._renew(queue)

    def _keep_models(self, connection: Connection) -> None:
        queue = Queue(connection)
        queue.report_ocr_languages(sorted(tesseract.languages()))
        while not self.stopping.is_set():
            self.models.look(queue.spaces())
            self.stopping.wait(POLL_S)

    def _keep_clean(self, connection: Connection) -> None:
        while not self.stopping.is_set():
            removed = purge_nodes(connection) + remove_objects(connection, self.blobs)
            if not removed and self.drained.is_set():
                return
            if not removed:
                self.stopping.wait(PURGE_EVERY_S)

    def _keep_swept(self, connection: Connection) -> None:
        """Do what is due; the schedule is in the database, so that any number may try."""
        connection.execute("set statement_timeout = 0")  # a night's work may take its time
        while not self.stopping.is_set():
            if not sweep(connection):
                self.stopping.wait(SWEEP_EVERY_S)

    def _keep_moving(self, connection: Connection) -> None:
        # apart from cleaning: a hard revoke is a promise in seconds, a purge takes its time
        while not self.stopping.is_set():
            moved = move_objects(connection, self.blobs)
            if not moved and self.drained.is_set():
                return
            if not moved:
                self.stopping.wait(MOVE_EVERY_S)

    def _keep_trained(self) -> None:
        """Train codebooks of pages that are due; what is broken off goes on the next time."""

        def check(_done: int, _total: int) -> None:
            if self.stopping.is_set():
                raise StoppedError

        while not self.stopping.wait(TRAIN_EVERY_S):
            try:
                # seldom needed, so no connection is kept for it
                with connect(self.database_url, application="narwhal worker trainer") as connection:
                    connection.execute("set statement_timeout = 0")
                    for codebook in train_due(connection, check):
                        log.info("trained %s for %s pages", codebook.space, codebook.pictures)
            except StoppedError:
                return
            except (psycopg.Error, NarwhalError) as error:
                log.warning("codebooks were not trained: %s", error)

    def _renew(self, queue: Queue) -> None:
        with self.lock:
            jobs = list(self.running.values())
        for job in jobs:
            try:
                queue.heartbeat(job)
            except LeaseLostError:
                log.info("%s of %s lost its lease", job.stage, job.file_id)

    def _release_all(self) -> None:
        with self.lock:
            jobs = list(self.running.values())
        if not jobs:
            return
        try:
            with connect(self.database_url) as connection:
                for job in jobs:
                    Queue(connection).release(job)
        except (psycopg.Error, NarwhalError) as error:
            log.warning("leases will have to run out: %s", error)


def sweep(connection: Connection) -> bool:
    """Do the task of the schedule that is due longest; return whether there was one."""
    row = connection.execute("select private.sweep()").fetchone()
    answer = row[0] if row else None
    if not isinstance(answer, dict):
        return False
    if answer["error"]:
        log.warning("%s: %s", answer["task"], answer["error"])
    else:
        log.info("%s: %s", answer["task"], answer["result"])
    return True


def purge_nodes(connection: Connection) -> int:
    """Remove a batch of rows of purged files; return how many. Killed anywhere, it goes on."""
    row = connection.execute("select private.purge_batch(%s)", (PURGE_AT_ONCE,)).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def write_documents(connection: Connection, blobs: BlobStore) -> int:
    """Write saved documents to Storage; return how many. What fails comes again."""
    rows = connection.execute("select private.claim_documents(%s)", (DOCUMENTS_AT_ONCE,)).fetchall()
    written = 0
    for (row,) in rows:
        assert isinstance(row, dict)
        try:
            data = base64.b64decode(row["content"])
            blobs.store(str(row["bucket"]), str(row["key"]), data, str(row["mime"]))
            written += 1
        except Exception as error:  # Storage down, or the document's ticket has ended
            log.warning("a document could not be written: %s", error)
    return written


def move_objects(connection: Connection, blobs: BlobStore) -> int:
    """Give objects of hard-revoked links new keys; return how many. What fails comes again.

    Postgres follows the move by itself (blobs, what is to be removed, the revocation), in Storage's
    own transaction: a worker that is killed here leaves nothing half done.
    """
    rows = connection.execute("select private.claim_key_rotations(%s)", (MOVES_AT_ONCE,)).fetchall()
    moved = 0
    for (row,) in rows:
        assert isinstance(row, dict)
        try:
            blobs.move(str(row["bucket"]), str(row["key"]), str(row["new_key"]))
            moved += 1
        except Exception as error:  # Storage down, or purged meanwhile
            log.warning("an object could not be moved: %s", error)
    return moved


def remove_objects(connection: Connection, blobs: BlobStore) -> int:
    """Remove objects of purged blobs from Storage; return how many. What fails comes again."""
    rows = connection.execute(
        "select private.claim_object_deletions(%s)", (DELETIONS_AT_ONCE,)
    ).fetchall()
    by_bucket: dict[str, list[dict[str, object]]] = {}
    for (row,) in rows:
        assert isinstance(row, dict)
        by_bucket.setdefault(str(row["bucket"]), []).append(row)
    removed = 0
    for bucket, objects in by_bucket.items():
        try:
            blobs.remove(bucket, [str(item["key"]) for item in objects])
        except Exception as error:  # Storage down: the queue brings them again
            log.warning("objects could not be removed: %s", error)
            continue
        connection.execute(
            "select private.finish_object_deletions(%s::bigint[])",
            ([item["id"] for item in objects],),
        )
        removed += len(objects)
    return removed
