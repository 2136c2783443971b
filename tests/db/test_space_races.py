"""Flips, rollbacks, new and retired spaces beside uploads and searches, all at once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.conftest import FreshDatabase
from tests.db import test_spaces as life
from tests.db.conftest import Drive
from tests.db.invariants import UNEQUAL, UNNEEDED

Connect = Callable[[], Drive]
SECONDS = 4.0
SECONDS_AT_MOST = 30.0
SEARCHES_A_SECOND, SEARCHERS = 20, 4
# what whoever changes spaces is told when it is not the moment; they try again
NOT_NOW = ("PT423", "PT409")


class Crowd:
    """Threads that work until told to stop; what any of them raised is raised in the end."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None], every_s: float = 0.0) -> None:
        def run() -> None:
            try:
                while not self.stopping.wait(every_s):
                    work()
            except BaseException as error:
                self.errors.append(error)
                self.stopping.set()

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def attempt(drive: Drive, call: Any, *arguments: object) -> Any:
    """Call; None when it was refused because this is not the moment."""
    try:
        return drive.db.one(call, *arguments)
    except psycopg.Error as error:
        if error.sqlstate not in NOT_NOW:
            raise
        return None


def test_searches_see_one_space_or_the_other_while_files_come_and_spaces_change(
    connect: Connect, fresh_database: FreshDatabase
) -> None:
    admin = connect()
    reader, writer = admin.db.create_user(), admin.db.create_user()
    for number in range(3):
        admin.file(
            reader, f"{number}.txt", *(f"{word} {life.WORDS[number]}" for word in life.WORDS)
        )
    life.fill(admin)
    expected = {
        space: life.order(life.ask(admin, reader, "alpha bravo", space))
        for space in ("minilm-l6-v2", "next")
    }
    assert expected["next"] != expected["minilm-l6-v2"]
    assert all(len(hits) == 15 for hits in expected.values())

    crowd = Crowd()
    answers: list[Any] = []
    uploads: list[str] = []
    flips: list[str] = []
    others: list[str] = []

    def search(drive: Drive) -> None:
        answers.append(life.ask(drive, reader, "alpha bravo"))

    def upload(drive: Drive) -> None:
        uploads.append(drive.upload(writer, f"{uuid.uuid4()}.txt")["file_id"])

    def read(drive: Drive) -> None:
        for job in drive.claim():
            try:
                if job["stage"] == "embed_text":
                    life.finish(drive, job)
                else:
                    drive.run_stage(job, [f"{job['file_id']} alpha", "golf hotel"])
            except psycopg.Error as error:
                # a space that was retired takes its jobs along
                if '"lease": "lost"' not in (error.diag.message_detail or ""):
                    raise

    def flip(drive: Drive) -> None:
        before = drive.db.one(
            "select name from public.embedding_spaces where state = 'active' and kind = 'text'"
        )
        if before == "next":
            assert attempt(drive, "select private.rollback_space()")
        elif not attempt(drive, "select private.activate_space('next')"):
            return
        flips.append(before)
        time.sleep(0.3)
        for name in expected:
            while drive.db.one("select private.settle_space((private.space_named(%s)).id)", name):
                pass

    def come_and_go(drive: Drive) -> None:
        name = f"other-{len(others)}"
        life.MODELS[name] = life.turned
        try:
            space = life.add(drive.db, name)["id"]
        except psycopg.Error as error:
            if error.sqlstate != "PT423":
                raise
            return
        others.append(name)
        life.queue_all(drive.db, name)
        assert drive.db.one("select private.retire_space(%s)", name)
        while drive.db.one("select private.holds_rows(%s::smallint)", space):
            drive.db.one("select private.empty_space(%s::smallint, 50)", space)
        drive.db.one("select private.shrink_space(%s::smallint)", space)

    admin.db.all("update private.settings set value = '0' where key = 'spaces.retire_grace_s'")
    for _ in range(SEARCHERS):  # a little more often, since a search takes its time
        drive = connect()
        crowd.start(lambda drive=drive: search(drive), 0.75 * SEARCHERS / SEARCHES_A_SECOND)  # type: ignore[misc]
    for work, every_s in (
        (upload, 0.15),
        (read, 0.0),
        (read, 0.0),
        (flip, 0.1),
        (come_and_go, 0.3),
    ):
        drive = connect()
        crowd.start(lambda work=work, drive=drive: work(drive), every_s)  # type: ignore[misc]
    deadline = time.monotonic() + SECONDS_AT_MOST
    started = time.monotonic()
    while time.monotonic() < deadline and not crowd.stopping.is_set():
        time.sleep(0.1)
        if time.monotonic() - started > SECONDS and len(flips) >= 4 and len(others) >= 2:
            break
    crowd.stop()

    assert len(answers) > SECONDS * SEARCHES_A_SECOND / 4  # a busy machine asks less often
    assert len(flips) >= 4
    assert len(others) >= 2
    assert len(uploads) > 5
    assert {answer["space"] for answer in answers} == set(expected)
    for answer in answers:
        assert life.order(answer) == expected[answer["space"]]

    # what was uploaded meanwhile is complete in every space that is left, and nothing of the others
    while jobs := admin.claim():
        for job in jobs:
            if job["stage"] == "embed_text":
                life.finish(admin, job)
            else:
                admin.run_stage(job, [f"{job['file_id']} alpha", "golf hotel"])
    assert admin.db.all("select distinct status from public.nodes") == ["ready"]
    for name in expected:
        assert life.show(admin.db, name)["missing_chunks"] == 0
    for query in (UNEQUAL, UNNEEDED):
        assert admin.db.all(query) == []
    for name in others:
        space = life.show(admin.db, name)
        assert (space["vectors"], space["texts"], space["jobs"]["done"]) == (0, 0, 0)


@pytest.mark.parametrize("first", ["finish", "activate"])
def test_a_file_that_is_finished_during_a_flip_is_ready_only_with_the_new_vectors(
    connect: Connect, first: str
) -> None:
    admin, worker = connect(), connect()
    owner = admin.db.create_user()
    life.fill(admin)
    admin.upload(owner, "a.txt")
    while (job := admin.claim()[0])["stage"] != "embed_text":
        admin.run_stage(job, ["alpha"])
    assert job["space"]["name"] == "minilm-l6-v2"
    texts = admin.work("job_texts", job, 10)["texts"]
    vectors = [{"hash": t["hash"], "embedding": life.embed(t["content"])} for t in texts]
    admin.work("store_vectors", job, vectors)
    finish = "select private.finish_embed_text(%s, %s)"
    if first == "finish":
        # its transaction is open: the flip waits for its end, and sees what it served
        with worker.db.connection.transaction():
            worker.db.one(finish, job["id"], job["lease_token"])
            told: list[Any] = []

            def activate() -> None:
                try:
                    told.append(admin.db.one("select private.activate_space('next')"))
                except psycopg.Error as error:
                    told.append(error.diag.message_primary)

            thread = threading.Thread(target=activate)
            thread.start()
            time.sleep(0.5)
            assert told == []
        thread.join()
        assert told == ['The space "next" lacks 1 chunks of 1 files.']
        assert admin.db.one("select status from public.nodes") == "ready"
    else:
        # the flip came first: the file waits for the space that is searched now
        assert admin.db.one("select private.activate_space('next')")["changed"]
        worker.db.one(finish, job["id"], job["lease_token"])
        assert admin.db.one("select status from public.nodes") == "processing"
        life.embed_all(admin)
        assert admin.db.one("select status from public.nodes") == "ready"
        assert len(life.ask(admin, owner, "alpha")["hits"]) == 1


def test_a_back_fill_is_locked_while_another_runs_and_free_when_it_is_gone(
    connect: Connect,
) -> None:
    one, other = connect(), connect()
    life.add(one.db, "next")
    life.add(one.db, "third")
    with one.db.connection.transaction():
        assert one.db.one("select private.lock_backfill('next')")["name"] == "next"
        for name in ("next", "third"):
            with pytest.raises(psycopg.Error) as error:
                other.db.one("select private.lock_backfill(%s)", name)
            assert error.value.sqlstate == "PT423"
    assert other.db.one("select private.lock_backfill('next')")
    # jobs that are left belong to a back-fill that goes on: of the same space, and of no other
    owner = one.db.create_user()
    life.MODELS["third"] = life.turned
    life.upload_text(one, owner, "a.txt", "alpha")
    one.db.all("delete from public.ingest_jobs where space_id <> 1")
    life.queue_all(one.db)
    assert other.db.one("select private.lock_backfill('next')")
    with pytest.raises(psycopg.Error, match="is being back-filled"):
        other.db.one("select private.lock_backfill('third')")
