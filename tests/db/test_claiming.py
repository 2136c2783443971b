"""Whose job is next: priorities, turns of owners, services that do not answer."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive
from tests.db.looks import TEXTS, expire_leases


@pytest.fixture(autouse=True)
def first_turn(db: Database) -> None:
    """Turns start at the first owner, by id."""
    db.all("select set_config('narwhal.turn', '00000000-0000-0000-0000-000000000000', false)")


def upload_many(drive: Drive, owner: uuid.UUID, count: int) -> list[str]:
    return [drive.upload(owner, f"{n}.txt")["file_id"] for n in range(count)]


def owners_of(db: Database, jobs: list[Any]) -> list[uuid.UUID]:
    owners = dict(db.all("select id::text, owner_id from public.nodes"))
    return [owners[job["file_id"]] for job in jobs]


def test_owners_take_turns(db: Database, drive: Drive) -> None:
    many, few = db.create_user(), db.create_user()
    upload_many(drive, many, 6)
    upload_many(drive, few, 2)
    served = owners_of(db, [job for _ in range(8) for job in drive.claim()])
    assert (
        sorted(map(str, served[:2]))
        == sorted(map(str, served[2:4]))
        == sorted([str(many), str(few)])
    )
    assert served[4:] == [many] * 4


def test_several_jobs_of_one_claim_take_turns_as_well(db: Database, drive: Drive) -> None:
    owners = {db.create_user() for _ in range(3)}
    for owner in owners:
        upload_many(drive, owner, 2)
    assert set(owners_of(db, drive.claim(3))) == owners


def test_a_file_that_was_begun_is_finished_before_the_next(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first, second = upload_many(drive, owner, 2)
    seen = []
    while jobs := drive.claim():
        seen += [(job["file_id"], job["stage"]) for job in jobs]
        drive.run_stage(jobs[0], TEXTS)
    stages = ["detect", "extract", "chunk", "embed_text"]
    assert seen == [(file, stage) for file in (first, second) for stage in stages]


def test_what_somebody_waits_for_comes_before_bulk(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update private.settings set value = '2' where key = 'jobs.interactive_files'")
    bulk = upload_many(drive, owner, 5)
    for file in bulk[:2]:  # read, with all their stages, before the others
        while db.one("select status from public.nodes where id = %s", file) != "ready":
            (job,) = drive.claim()
            assert job["file_id"] in bulk[:2]
            drive.run_stage(job, TEXTS)
    later = drive.upload(owner, "now.txt")["file_id"]
    (job,) = drive.claim()
    assert job["file_id"] == later
    drive.run_stage(job, TEXTS)
    (job,) = drive.claim()  # and so do its later stages
    assert (job["file_id"], job["stage"]) == (later, "extract")
    drive.run_stage(job, TEXTS)
    drive.ingest(*TEXTS)
    assert set(db.all("select status from public.nodes")) == {"ready"}
    priorities = "select distinct priority from public.ingest_jobs where file_id = %s"
    assert db.all(priorities, bulk[4]) == [1]
    assert db.all(priorities, later) == [0]


def test_jobs_of_other_owners_are_due_though_the_turn_is_at_one_who_must_wait(
    db: Database, drive: Drive
) -> None:
    owners = [db.create_user() for _ in range(3)]
    for owner in owners:
        upload_many(drive, owner, 1)
    waiting = sorted(owners)[:2]
    db.all(
        "update public.ingest_jobs set run_after = now() + interval '1 h' where owner_id = any(%s)",
        waiting,
    )
    assert owners_of(db, drive.claim(3)) == [max(owners)]


def test_a_hundred_thousand_jobs_of_one_owner_cost_a_claim_nothing(
    db: Database, drive: Drive
) -> None:
    many, few = db.create_user(), db.create_user()
    (file,) = upload_many(drive, many, 1)
    drive.upload(few, "mine.txt")

    def pages_of_a_claim() -> int:
        with db.as_role("narwhal_worker"):
            (row,) = db.connection.execute(
                "explain (analyze, buffers, format json)"
                " select private.claim_jobs('test', 1, null, array['embed_pages', 'detect'])"
            ).fetchall()
        plan = row[0][0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    def put_back() -> None:
        db.all("update public.ingest_jobs set state = 'queued' where state = 'running'")

    pages_of_a_claim()  # what a session looks up once
    put_back()
    before = pages_of_a_claim()
    put_back()
    # of one owner: due, not due, and of a stage that this worker cannot run
    db.connection.execute("reset session authorization")
    db.connection.execute("set session_replication_role = 'replica'")  # without their versions
    db.connection.execute(
        "insert into public.ingest_jobs (file_id, version_id, owner_id, stage, run_after)"
        " select %s, gen_random_uuid(), %s, case n %% 3 when 0 then 'ocr' else 'detect' end,"
        " now() + case n %% 3 when 1 then interval '1 h' else '0' end"
        " from generate_series(1, 100000) as n",
        (file, many),
    )
    db.all("analyze public.ingest_jobs")
    assert pages_of_a_claim() < before + 500
    put_back()
    drive.claim(2)
    running = "select owner_id from public.ingest_jobs where state = 'running'"
    assert set(db.all(running)) == {many, few}


# Services -----------------------------------------------------------------------------------------


def fail(drive: Drive, job: Any, service: str = "storage") -> None:
    drive.work("fail_job", job, "service_unavailable", "It answered 503.", False, service)


def open_breaker(db: Database, drive: Drive) -> None:
    """Fail five jobs in a row, each of another file."""
    jobs = drive.claim(5)
    assert len(jobs) == 5
    for job in jobs:
        fail(drive, job)
    db.all("update public.ingest_jobs set run_after = now()")


def over(db: Database) -> None:
    """As if the break of a service were over."""
    db.all("update private.service_breakers set opened_at = opened_at - interval '61 s'")


def test_a_service_that_fails_five_times_is_left_alone(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    upload_many(drive, owner, 6)
    (other,) = drive.claim()
    drive.work("finish_detect", other, "0" * 64, "text/plain", "text", None)
    (other,) = drive.claim()
    drive.work(
        "finish_extract",
        other,
        "en",
        True,
        [{"page": 1, "text": "x", "source": "text", "layout": {}}],
    )
    assert drive.claim()[0]["stage"] == "chunk"
    expire_leases(db)
    open_breaker_jobs = drive.claim(6)
    assert [job["stage"] for job in open_breaker_jobs] == ["chunk", *["detect"] * 5]
    for job in open_breaker_jobs[1:]:
        fail(drive, job)
    db.all("update public.ingest_jobs set run_after = now()")
    assert drive.claim(6) == []  # all of them need Storage
    drive.work("release_job", open_breaker_jobs[0])
    (job,) = drive.claim(6)  # control: this one does not
    assert job["stage"] == "chunk"


def test_one_job_tries_a_service_and_closes_its_breaker(db: Database, drive: Drive) -> None:
    upload_many(drive, db.create_user(), 6)
    open_breaker(db, drive)
    assert drive.claim() == []
    over(db)
    (trial,) = drive.claim(6)
    assert drive.claim() == []
    drive.run_stage(trial, TEXTS)
    assert db.all("select service from private.service_breakers") == []
    assert len(drive.claim(6)) == 6


def test_a_trial_that_fails_opens_it_again(db: Database, drive: Drive) -> None:
    upload_many(drive, db.create_user(), 6)
    open_breaker(db, drive)
    over(db)
    (trial,) = drive.claim(6)
    fail(drive, trial)
    db.all("update public.ingest_jobs set run_after = now()")
    assert drive.claim() == []
    over(db)
    assert len(drive.claim(6)) == 1


def test_a_trial_whose_worker_is_lost_does_not_block_for_ever(db: Database, drive: Drive) -> None:
    upload_many(drive, db.create_user(), 6)
    open_breaker(db, drive)
    over(db)
    assert len(drive.claim(6)) == 1
    db.all("update private.service_breakers set trying_until = now() - interval '1 s'")
    expire_leases(db)
    assert len(drive.claim(6)) == 1


def test_failures_that_are_not_in_a_row_do_not_add_up(db: Database, drive: Drive) -> None:
    upload_many(drive, db.create_user(), 6)
    jobs = drive.claim(6)
    for job in jobs[:4]:
        fail(drive, job)
    drive.run_stage(jobs[4], TEXTS)
    fail(drive, jobs[5])
    assert db.one("select failures, opened_at from private.service_breakers") == (1, None)
    assert len(drive.claim(6)) == 1


def test_the_services_of_other_stages_are_not_touched(db: Database, drive: Drive) -> None:
    upload_many(drive, db.create_user(), 6)
    jobs = drive.claim(5)
    for job in jobs:
        fail(drive, job, "encoder 1")
    db.all("update public.ingest_jobs set run_after = now()")
    assert len(drive.claim(6)) == 6
