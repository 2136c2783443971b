"""The queue: leases, attempts, fencing, and what people may do to a file while it is being read."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, denied, refused
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED

STAGES = ["detect", "extract", "chunk", "embed_text"]
TEXTS = ["alpha bravo", "charlie delta"]


def test_the_stages_follow_one_another(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    seen = []
    while jobs := drive.claim():
        (job,) = jobs
        seen.append((job["stage"], _status(drive, owner, ticket), _found(drive, owner, "alpha")))
        drive.run_stage(job, TEXTS)
    assert seen == [
        ("detect", "processing", False),
        ("extract", "processing", False),
        ("chunk", "processing", False),
        ("embed_text", "processing", True),  # by keyword, as soon as there are chunks
    ]
    assert _status(drive, owner, ticket) == "ready"
    jobs = db.all("select stage, state, progress, attempts, lease_token from public.ingest_jobs")
    assert sorted(jobs) == sorted((stage, "done", 1.0, 0, None) for stage in STAGES)
    counts = db.one(
        "select (select count(*) from public.pages), (select count(*) from public.chunks),"
        " (select count(*) from private.chunk_vectors), (select count(*) from private.text_vectors)"
    )
    assert counts == (2, 2, 2, 2)


def test_a_claim_tells_all_that_a_stage_needs(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "Plan.txt", 10, mime="text/plain")
    (job,) = drive.claim()
    assert {
        key: job[key] for key in ("stage", "file_id", "version_id", "name", "mime", "size")
    } == {
        "stage": "detect",
        "file_id": ticket["file_id"],
        "version_id": ticket["version_id"],
        "name": "Plan.txt",
        "mime": "text/plain",
        "size": 10,
    }
    assert (job["bucket"], job["key"]) == ("files", ticket["key"])
    assert job["settings"]["jobs.lease_s"] == 60
    assert drive.claim() == []  # nobody else gets it


def test_a_claim_is_exclusive_among_parallel_workers(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    for number in range(30):
        drive.upload(owner, f"{number}.txt")
    workers = [connect() for _ in range(6)]
    start = Barrier(len(workers))

    def work(worker: Drive) -> list[str]:
        start.wait()
        claimed: list[str] = []
        while jobs := worker.claim(2):
            claimed += [job["id"] for job in jobs]
        return claimed

    with ThreadPoolExecutor(len(workers)) as pool:
        shares = list(pool.map(work, workers))
    everything = [job for share in shares for job in share]
    assert len(everything) == len(set(everything)) == 30


def test_parallel_workers_leave_what_one_would(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    for number in range(8):
        drive.upload(owner, f"{number}.txt")
    workers = [connect() for _ in range(3)]

    def work(worker: Drive) -> None:
        texts = ["alpha bravo", "common words"]
        idle = 0
        while idle < 20:
            jobs = worker.claim(2)
            idle = 0 if jobs else idle + 1
            for job in jobs:
                worker.run_stage(job, texts)
            time.sleep(0.005)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, workers))
    db = drive.db
    assert set(db.all("select status from public.nodes")) == {"ready"}
    assert db.one("select count(*) from public.chunks") == 16
    assert db.one("select count(*) from private.chunk_vectors") == 16
    assert db.one("select count(*) from private.text_vectors") == 2
    assert db.one("select chunk_count, total_length from private.owner_statistics") == (16, 32)


# Leases ------------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_is_taken_over_and_the_first_worker_fenced(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    drive.upload(owner)
    (lost,) = drive.claim()
    assert drive.claim() == []
    _expire_leases(db)
    (job,) = drive.claim()
    assert job["id"] == lost["id"]
    assert job["lease_token"] != lost["lease_token"]
    assert db.one("select lease_losses, attempts from public.ingest_jobs") == (1, 0)
    with refused("CONFLICT_STATE", lease="lost"):
        drive.run_stage(lost, TEXTS)
    drive.run_stage(job, TEXTS)


def test_a_heartbeat_renews_the_lease_and_progress_only_grows(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    (job,) = drive.claim()
    for progress, pages in ((0.5, 5), (0.2, 2)):
        db.all("update public.ingest_jobs set lease_expires_at = now() + interval '1 s'")
        _beat(drive, job, progress, pages, 10)
        assert db.one("select lease_expires_at - now() > interval '50 s' from public.ingest_jobs")
    with db.as_user(owner):
        row = db.one(
            "select progress, pages_done, pages_total from public.ingest_jobs where file_id = %s",
            ticket["file_id"],
        )
    assert row == (0.5, 5, 10)


def test_a_released_job_counts_nothing_against_it(db: Database, drive: Drive) -> None:
    drive.upload(db.create_user())
    (job,) = drive.claim()
    drive.work("release_job", job)
    assert db.one("select state, attempts, lease_losses from public.ingest_jobs") == (
        "queued",
        0,
        0,
    )
    (again,) = drive.claim()
    drive.work("release_job", job)  # late, and no longer its own: nothing happens
    assert drive.claim() == []
    drive.run_stage(again, TEXTS)


def test_a_job_that_loses_every_worker_is_dead(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    for losses in range(10):
        assert len(drive.claim()) == 1, losses
        _expire_leases(db)
    assert drive.claim() == []
    assert db.one("select state, error_code, lease_losses from public.ingest_jobs") == (
        "dead",
        "worker_lost",
        10,
    )
    assert _status(drive, owner, ticket) == "failed"
    assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"]) == 1
    drive.ingest(*TEXTS)
    assert _status(drive, owner, ticket) == "ready"


WRITES: dict[str, tuple[Any, ...]] = {
    "heartbeat_job": (),
    "fail_job": ("corrupt", "no", True),
    "finish_detect": ("0" * 64, "text/plain", "text", None),
    "finish_extract": ("en", True, [{"page": 1, "text": "x", "source": "text", "layout": {}}]),
    "job_pages": (),
    "finish_chunk": (chunk_rows(["x"]),),
    "job_texts": (10,),
    "store_vectors": ([{"hash": "00", "embedding": [1.0] * 384}],),
    "finish_embed_text": (),
}


@pytest.mark.parametrize("function", WRITES)
@pytest.mark.parametrize("how", ["expired", "cancelled", "trashed", "guessed"])
def test_without_the_lease_a_worker_can_do_nothing(
    db: Database, drive: Drive, function: str, how: str
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    (job,) = drive.claim()
    drive.work("heartbeat_job", job)  # control: it is the worker's
    if how == "expired":
        _expire_leases(db)
        drive.claim()
    elif how == "cancelled":
        drive.rpc(owner, "cancel_ingest", file_id=ticket["file_id"])
    elif how == "trashed":
        drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    else:
        job = job | {"lease_token": str(uuid.uuid4())}
    before = _contents(db)
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work(function, job, *WRITES[function])
    assert _contents(db) == before


def test_every_function_of_a_held_job_is_fenced(db: Database) -> None:
    """So that the list above is complete when a stage is added."""
    functions = db.all(
        "select proname from pg_proc where pronamespace = 'private'::regnamespace"
        " and has_function_privilege('narwhal_worker', oid, 'execute')"
        " and 'lease_token' = any(proargnames)"
    )
    assert set(functions) - {"release_job"} == set(WRITES)


# Errors ------------------------------------------------------------------------------------------


def test_errors_of_the_work_wait_longer_each_time_and_end_at_the_third(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    for attempt, (state, delay) in enumerate([("queued", 60), ("queued", 120), ("dead", None)]):
        (job,) = drive.claim()
        assert job["attempts"] == attempt
        assert drive.work("fail_job", job, "internal", "503 from the model", False) == state
        assert drive.claim() == []
        if delay:
            waits = db.one(
                "select extract(epoch from run_after - now())::int from public.ingest_jobs"
            )
            assert waits == delay
            assert _status(drive, owner, ticket) == "processing"
            db.all("update public.ingest_jobs set run_after = now()")
    assert _status(drive, owner, ticket) == "failed"
    problem = drive.rpc(owner, "file_details", file_id=ticket["file_id"])["problem"]
    assert problem == {
        "error_code": "internal",
        "error_message": "503 from the model",
        "new_version_failed": False,
    }
    assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"]) == 1
    assert db.one("select attempts from public.ingest_jobs") == 0
    drive.ingest(*TEXTS)
    assert drive.rpc(owner, "file_details", file_id=ticket["file_id"])["problem"] is None


def test_the_files_own_fault_wastes_no_attempts(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    (job,) = drive.claim()
    assert drive.work("fail_job", job, "encrypted_pdf", "It has a password.", True) == "failed"
    with db.as_user(owner):
        row = db.one("select state, attempts, error_code, error_message from public.ingest_jobs")
    assert row == ("failed", 0, "encrypted_pdf", "It has a password.")
    assert _status(drive, owner, ticket) == "failed"
    assert drive.claim() == []
    with db.as_user(owner):  # the bytes are still theirs
        assert len(db.all("select name from storage.objects")) == 1


def test_what_pretends_to_be_another_type_is_rejected_and_its_bytes_purged(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "invoice.pdf", 100)
    (job,) = drive.claim()
    drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert details["status"] == "rejected"
    assert details["problem"]["error_code"] == "magic_mismatch"
    assert details["quota"]["used"] == 0
    assert details["key"] is None
    with db.as_user(owner):
        assert db.all("select name from storage.objects") == []  # unreadable at once
    with db.as_role("narwhal_worker"):
        (removal,) = db.all("select private.claim_object_deletions(10)")
        assert (removal["bucket"], removal["key"]) == ("files", ticket["key"])
        assert db.all("select private.claim_object_deletions(10)") == []
        db.one("select private.finish_object_deletions(%s)", [removal["id"]])
    assert db.one("select count(*) from private.object_deletions") == 0
    with refused("CONFLICT_STATE", status="rejected"):
        drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"])


def test_an_object_that_cannot_be_removed_is_tried_again_later(db: Database, drive: Drive) -> None:
    ticket = drive.upload(db.create_user())
    db.all("delete from public.nodes")
    for delay in (60, 120, 240):
        with db.as_role("narwhal_worker"):
            (removal,) = db.all("select private.claim_object_deletions(10)")
        assert removal["key"] == ticket["key"]
        waits = "select extract(epoch from run_after - now())::int from private.object_deletions"
        assert db.one(waits) == delay
        db.all("update private.object_deletions set run_after = now()")


def test_what_nothing_reads_is_kept_and_skipped(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "model.bin")
    (job,) = drive.claim()
    drive.work("finish_detect", job, "0" * 64, "application/octet-stream", None, "Unknown type.")
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert details["status"] == "skipped"
    assert details["head_version_id"] == ticket["version_id"]
    assert details["problem"]["error_code"] == "unsupported_media"
    assert drive.claim() == []
    with db.as_user(owner):
        assert len(db.all("select name from storage.objects")) == 1


def test_a_file_without_text_is_ready_and_says_so(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.file(owner, "blank.pdf")
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert (details["status"], details["problem"]["error_code"]) == ("ready", "no_text")
    assert details["head_version_id"] == ticket["version_id"]


def test_a_second_reading_without_text_forgets_the_first(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    for _ in range(3):
        drive.run_stage(drive.claim()[0], TEXTS)
    (job,) = drive.claim()
    drive.work("fail_job", job, "internal", "no model", True)  # embed_text has failed
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="extract")
    drive.ingest()
    assert _status(drive, owner, ticket) == "ready"
    assert not _found(drive, owner, "alpha")


# People steer it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_any_stage_it_can_be_taken_up_again(
    db: Database, drive: Drive, stage: str
) -> None:
    owner = db.create_user()
    ticket, job = _until(drive, owner, stage)
    assert drive.rpc(owner, "cancel_ingest", file_id=ticket["file_id"]) == 1
    with refused("CONFLICT_STATE"):
        drive.run_stage(job, TEXTS)
    assert drive.claim() == []
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert (details["status"], details["problem"]["error_code"]) == ("failed", "cancelled")
    assert drive.rpc(owner, "cancel_ingest", file_id=ticket["file_id"]) == 0
    assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"]) == 1
    with refused("CONFLICT_STATE"):
        drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"])
    drive.ingest(*TEXTS)
    assert _status(drive, owner, ticket) == "ready"
    assert _found(drive, owner, "alpha")


@pytest.mark.parametrize("stage", [*STAGES, None])
@pytest.mark.parametrize("held", [True, False])
def test_purged_at_any_stage_nothing_of_it_is_left(
    db: Database, drive: Drive, stage: str | None, held: bool
) -> None:
    owner = db.create_user()
    kept = drive.file(owner, "kept.txt", "golf hotel")
    before = _contents(db)
    ticket, job = _until(drive, owner, stage)
    if stage and not held:
        drive.work("release_job", job)
    assert len(_mentions(db, ticket)) > 3  # control: the search for traces finds them
    assert drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]]) == 1
    if stage:
        with refused("CONFLICT_STATE"):
            drive.run_stage(job, TEXTS)
    assert drive.claim() == []
    assert _mentions(db, ticket) == {"private.object_deletions", "storage.objects"}
    # the object follows through the worker and the Storage API
    db.all("select set_config('storage.allow_delete_query', 'true', true)")
    db.all("delete from private.object_deletions")
    with db.as_service():
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        db.all("delete from storage.objects where name = %s", ticket["key"])
    assert _mentions(db, ticket) == set()
    assert _contents(db) == before
    assert _status(drive, owner, kept) == "ready"


@pytest.mark.parametrize("stage", STAGES)
def test_trashed_at_any_stage_it_is_gone_and_stays_gone(
    db: Database, drive: Drive, stage: str
) -> None:
    owner = db.create_user()
    ticket, job = _until(drive, owner, stage)
    assert drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]]) == 1
    with refused("CONFLICT_STATE"):
        drive.run_stage(job, TEXTS)
    with db.as_role("postgres"):
        assert db.one("select private.retry_jobs()") == 0
    assert drive.claim() == []
    assert not _found(drive, owner, "alpha")
    for function in ("cancel_ingest", "retry_ingest", "file_details"):
        with refused("NOT_FOUND"):
            drive.rpc(owner, function, file_id=ticket["file_id"])
    with db.as_user(owner):
        for table in ("nodes", "file_versions", "pages", "chunks", "ingest_jobs"):
            query = sql.SQL("select count(*) from public.{}").format(sql.Identifier(table))
            assert db.connection.execute(query).fetchone() == (0,), table


def test_levels_decide_who_steers(db: Database, drive: Drive) -> None:
    owner, peer, stranger = db.create_user(), db.create_user(), db.create_user()
    ticket = drive.upload(owner)
    drive.share(ticket["file_id"], peer, "comment")
    for function in ("cancel_ingest", "retry_ingest"):
        with refused("NOT_FOUND"):
            drive.rpc(stranger, function, file_id=ticket["file_id"])
        with refused("FORBIDDEN", level="comment", required="edit"):
            drive.rpc(peer, function, file_id=ticket["file_id"])
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(None, function, file_id=ticket["file_id"])
    with refused("FORBIDDEN", required="edit"):
        drive.rpc(peer, "trash_nodes", ids=[ticket["file_id"]])
    db.all("update public.shares set level = 'edit'")
    with refused("FORBIDDEN", required="manage"):
        drive.rpc(peer, "purge_nodes", ids=[ticket["file_id"]])
    assert drive.rpc(peer, "cancel_ingest", file_id=ticket["file_id"]) == 1
    assert drive.rpc(peer, "retry_ingest", file_id=ticket["file_id"]) == 1
    assert drive.rpc(peer, "trash_nodes", ids=[ticket["file_id"]]) == 1


def test_all_or_nothing_is_trashed_and_purged(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    mine = drive.upload(owner)["file_id"]
    theirs = drive.upload(stranger)["file_id"]
    for function in ("trash_nodes", "purge_nodes"):
        with refused("NOT_FOUND", id=theirs):
            drive.rpc(owner, function, ids=[mine, theirs])
        assert drive.rpc(owner, "file_details", file_id=mine)["trashed_at"] is None


def test_a_stage_that_is_none_is_refused(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.file(owner, "a.txt", *TEXTS)
    with refused("INVALID_ARGUMENT", field="from_stage"):
        drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="ocr")
    for stage in STAGES:
        assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage=stage) == 1
        drive.ingest(*TEXTS)
        assert _status(drive, owner, ticket) == "ready"
    assert db.one("select count(*) from public.chunks") == 2
    assert db.one("select chunk_count from private.owner_statistics") == 2


def test_an_operator_retries_by_error_code(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    tickets = [drive.upload(owner, f"{i}.txt") for i in range(2)]
    for job, code in zip(drive.claim(2), ("corrupt", "limit_time"), strict=True):
        drive.work("fail_job", job, code, "no", True)
    assert db.one("select private.retry_jobs(error_code => 'limit_memory')") == 0
    assert db.one("select private.retry_jobs(error_code => 'limit_time')") == 1
    states = db.all("select state from public.ingest_jobs order by state")
    assert states == ["failed", "queued"]
    assert db.one("select private.retry_jobs()") == 1
    drive.ingest(*TEXTS)
    assert {_status(drive, owner, ticket) for ticket in tickets} == {"ready"}


# Rights ------------------------------------------------------------------------------------------


def test_a_worker_can_neither_read_nor_write_a_table(db: Database, drive: Drive) -> None:
    ticket = drive.file(db.create_user(), "a.txt", *TEXTS)
    tables = db.all(
        "select c.oid::regclass::text from pg_class as c join pg_namespace as n"
        " on n.oid = c.relnamespace where n.nspname in ('public', 'private', 'storage', 'auth')"
        " and c.relkind in ('r', 'p')"
    )
    assert len(tables) > 20
    for table in tables:
        name = sql.SQL("{}").format(sql.Identifier(*_qualified(table)))
        for statement in ("select 1 from {}", "delete from {}", "insert into {} default values"):
            with denied(), db.as_role("narwhal_worker"):
                db.connection.execute(sql.SQL(statement).format(name))
    with denied(), db.as_role("narwhal_worker"):
        db.all("select private.retry_jobs()")
    with denied(), db.as_role("narwhal_worker"):
        db.all("select public.file_details(%s)", ticket["file_id"])
    with denied(), db.as_role("narwhal_worker"):
        db.all("select set_config('role', 'service_role', true)")
    assert drive.claim() == []  # control: this it may


def test_clients_cannot_touch_the_queue(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner)
    for user in (owner, None):
        with denied(), db.as_user(user):
            db.all("select private.claim_jobs('me', 1)")
        with denied(), db.as_user(user):
            db.all("update public.ingest_jobs set state = 'done'")
        with denied(), db.as_user(user):
            db.all("select lease_token from public.ingest_jobs")
    with db.as_user(owner):
        assert db.all("select stage, state from public.ingest_jobs") == [("detect", "queued")]


# Versions ----------------------------------------------------------------------------------------


def test_a_new_version_takes_over_at_once_and_whole(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", "alpha same", "charlie same")
    second = drive.upload(owner, file_id=first["file_id"])
    while jobs := drive.claim():
        (job,) = jobs
        found = drive.search(owner, "alpha zulu")
        assert [(hit["version_id"], hit["is_head"]) for hit in found["hits"]] == [
            (first["version_id"], True)
        ] * len(found["hits"])
        assert found["hits"]
        assert not _found(drive, owner, "zulu")
        assert found["pending_files"] == 1
        assert found["index_lag"] >= 0
        drive.run_stage(job, ["zulu same", "yankee same"])
    found = drive.search(owner, "alpha zulu")
    assert {hit["version_id"] for hit in found["hits"]} == {second["version_id"]}
    assert not _found(drive, owner, "alpha")
    assert _found(drive, owner, "zulu")
    assert (found["pending_files"], found["index_lag"]) == (0, 0)
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert details["head_version_id"] == second["version_id"]
    assert [version["status"] for version in details["versions"]] == ["ready", "ready"]


def test_a_version_that_fails_leaves_the_one_before_in_service(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    drive.upload(owner, file_id=first["file_id"])
    (job,) = drive.claim()
    drive.work("fail_job", job, "corrupt", "It ends too early.", True)
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert details["status"] == "ready"
    assert details["head_version_id"] == first["version_id"]
    assert details["key"] == first["key"]
    assert details["problem"] == {
        "error_code": "corrupt",
        "error_message": "It ends too early.",
        "new_version_failed": True,
    }
    assert _found(drive, owner, "alpha")
    # a third one that works takes over
    drive.upload(owner, file_id=first["file_id"])
    drive.ingest("zulu")
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert details["problem"] is None
    assert not _found(drive, owner, "alpha")


def test_unchanged_text_needs_no_new_vector(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", "one", "two", "two")
    drive.upload(owner, file_id=first["file_id"])
    for _ in range(3):
        drive.run_stage(drive.claim()[0], ["two", "three", "one"])
    (job,) = drive.claim()
    texts = drive.work("job_texts", job, 10)
    assert (texts["total"], texts["missing"]) == (3, 1)
    assert [text["content"] for text in texts["texts"]] == ["three"]
    with refused("CONFLICT_STATE"):  # not before every chunk has its vector
        drive.work("finish_embed_text", job)
    drive.run_stage(job, [])
    assert db.one("select count(*) from private.chunk_vectors") == 3
    # another owner's text is another's: nothing tells that somebody has it
    drive.upload(db.create_user())
    for _ in range(3):
        drive.run_stage(drive.claim()[0], ["one", "two"])
    assert drive.work("job_texts", drive.claim()[0], 10)["missing"] == 2


def test_the_newest_version_wins_whichever_is_read_first(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.txt")
    second = drive.upload(owner, "a.txt", file_id=first["file_id"])
    jobs = {job["version_id"]: job for job in drive.claim(2)}
    drive.run_stage(jobs[second["version_id"]], ["zulu"])
    drive.ingest("zulu")
    assert _found(drive, owner, "zulu")
    drive.work("finish_detect", jobs[first["version_id"]], "0" * 64, None, None, "Unknown type.")
    assert _found(drive, owner, "zulu")
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert (details["head_version_id"], details["status"]) == (second["version_id"], "ready")


def test_a_version_that_nothing_reads_replaces_the_text_before_it(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    second = drive.upload(owner, file_id=first["file_id"])
    drive.work("finish_detect", drive.claim()[0], "0" * 64, None, None, "Unknown type.")
    assert not _found(drive, owner, "alpha")
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert (details["head_version_id"], details["status"]) == (second["version_id"], "skipped")


def test_purged_text_takes_its_vectors_along_unless_another_file_has_it(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", "one", "two")
    second = drive.file(owner, "b.txt", "two", "three")
    drive.file(db.create_user(), "c.txt", "one")
    drive.rpc(owner, "purge_nodes", ids=[first["file_id"]])
    count = "select count(*) from private.text_vectors where owner_id = %s"
    assert db.one(count, owner) == 2
    drive.rpc(owner, "retry_ingest", file_id=second["file_id"], from_stage="chunk")
    drive.ingest("two")  # now with other chunks
    assert db.one(count, owner) == 1
    drive.rpc(owner, "purge_nodes", ids=[second["file_id"]])
    assert db.one(count, owner) == 0
    assert db.one("select count(*) from private.text_vectors") == 1  # the other owner's


# Everybody at once -------------------------------------------------------------------------------


def test_nobody_meets_a_deadlock(connect: Callable[[], Drive]) -> None:
    """People and workers do everything to the same few files for some seconds."""
    drive = connect()
    drive.db.all("update private.settings set value = '0.5' where key = 'jobs.lease_s'")
    drive.db.all("update private.settings set value = '0.01' where key = 'jobs.backoff_s'")
    owner, peer = drive.db.create_user(), drive.db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "manage")
    needed = {f"worker: {stage}" for stage in STAGES} | {f"person: {name}" for name in ACTIONS}
    seen = Counter[str]()
    start = time.monotonic()

    def going_on() -> bool:
        # on a busy machine some things take longer to happen
        return time.monotonic() < start + (5 if needed <= seen.keys() else 40)

    def play(party: tuple[str, uuid.UUID, Drive, int]) -> None:
        kind, user, mine, seed = party
        chance = random.Random(seed)
        while going_on():
            action = (_work if kind == "worker" else _meddle)(mine, user, folder, chance)
            try:
                name = action()
            except psycopg.Error as error:
                name = str(error.sqlstate)
                if name == "40P01":
                    name = f"{name} {error.diag.message_detail} {error.diag.context}"
            seen[f"{kind}: {name}"] += 1

    parties = [
        (kind, user, connect(), seed)
        for seed, (kind, user) in enumerate(
            [("worker", owner), ("worker", owner), *[("person", owner), ("person", peer)] * 2]
        )
    ]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(play, parties))
    outcomes = dict(seen)
    assert {name for name in outcomes if name.split(": ", 1)[1] not in EXPECTED} == set(), outcomes
    assert needed <= outcomes.keys(), outcomes  # control: all of it happened
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert drive.db.all(query) == []


ACTIONS = {"begin", "store", "trash", "purge", "cancel", "retry", "abort", "create", "operator"}
EXPECTED = {
    *STAGES,
    *ACTIONS,
    "expire",
    "beat",
    "PT404",
    "PT409",
    "PT413",
    "PT422",
    "PT423",
    "42501",
}


def _meddle(drive: Drive, user: uuid.UUID, folder: str, chance: random.Random) -> Callable[[], str]:
    name = f"{chance.randrange(4)}.txt"
    files = drive.db.all("select id from public.nodes where parent_id = %s", folder)
    file = str(chance.choice(files or [uuid.uuid4()]))

    def begin() -> str:
        arguments: dict[str, Any] = {"folder_id": folder, "on_conflict": "version"}
        if chance.random() < 0.3:
            arguments = {"file_id": file}
        known = drive.db.all("select sha256 from private.blobs where sha256 is not null limit 3")
        if known and chance.random() < 0.3:
            arguments["sha256"] = chance.choice(known)
        drive.ticket(user, name, 10, **arguments)
        return "begin"

    def store() -> str:
        tickets = drive.db.all("select key, created_by from public.uploads where state = 'open'")
        if tickets:
            key, holder = chance.choice(tickets)
            drive.store(holder, key, 10)
        return "store"

    def abort() -> str:
        tickets = drive.db.all(
            "select id from public.uploads where state = 'open' and created_by = %s", user
        )
        if tickets:
            drive.rpc(user, "abort_upload", upload_id=chance.choice(tickets))
        return "abort"

    def create() -> str:
        drive.rpc(user, "create_folder", name=name, parent=folder)
        return "create"

    def trash() -> str:
        drive.rpc(user, "trash_nodes", ids=files if chance.random() < 0.2 else [file])
        return "trash"

    def purge() -> str:
        drive.rpc(user, "purge_nodes", ids=chance.sample(files, min(len(files), 2)))
        return "purge"

    def cancel() -> str:
        drive.rpc(user, "cancel_ingest", file_id=file)
        return "cancel"

    def retry() -> str:
        drive.rpc(user, "retry_ingest", file_id=file, from_stage=chance.choice([None, *STAGES]))
        return "retry"

    def operator() -> str:
        drive.db.all("select private.retry_jobs()")
        return "operator"

    usual, rare = [begin, store], [abort, create, trash, purge, cancel, retry, operator]
    return chance.choice(usual if chance.random() < 0.8 else rare)


def _work(drive: Drive, user: uuid.UUID, folder: str, chance: random.Random) -> Callable[[], str]:
    def work() -> str:
        if chance.random() < 0.1:
            with drive.db.as_role("narwhal_worker"):
                drive.db.one("select private.expire_uploads()")
            return "expire"
        for job in (jobs := drive.claim(3)):
            texts = [f"common words {chance.randrange(5)}", "of all " * chance.randrange(1, 40)]
            if chance.random() < 0.1:
                continue  # this worker is lost
            if chance.random() < 0.05:
                drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)
                continue
            _beat(drive, job, 0.5, 1, 2)
            drive.run_stage(job, texts)
        if not jobs:
            time.sleep(0.002)
        return jobs[-1]["stage"] if jobs else "beat"

    return work


def _until(drive: Drive, owner: uuid.UUID, stage: str | None) -> tuple[Any, Any]:
    """Upload a file and read it up to a stage, whose job is held; all of it for None."""
    ticket = drive.upload(owner, "new.txt")
    while jobs := drive.claim():
        (job,) = jobs
        if job["stage"] == stage:
            return ticket, job
        drive.run_stage(job, TEXTS)
    return ticket, None


def _status(drive: Drive, user: uuid.UUID, ticket: Any) -> str:
    return drive.rpc(user, "file_details", file_id=ticket["file_id"])["status"]  # type: ignore[no-any-return]


def _found(drive: Drive, user: uuid.UUID, word: str) -> bool:
    return bool(drive.search(user, word, embedding=None)["hits"])


def _beat(drive: Drive, job: Any, progress: float, pages: int, total: int) -> None:
    with drive.db.as_role("narwhal_worker"):
        drive.db.one(
            "select private.heartbeat_job(%s, %s, %s::real, %s::integer, %s::integer)",
            job["id"],
            job["lease_token"],
            progress,
            pages,
            total,
        )


def _expire_leases(db: Database) -> None:
    db.all(
        "update public.ingest_jobs set lease_expires_at = now() - interval '1 s'"
        " where state = 'running'"
    )


def _qualified(table: str) -> list[str]:
    return table.split(".") if "." in table else ["public", table]


def _tables(db: Database) -> list[str]:
    return db.all(
        "select n.nspname || '.' || c.relname from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where (n.nspname in ('public', 'private') or c.oid = 'storage.objects'::regclass)"
        " and c.relkind in ('r', 'p') and not c.relispartition order by 1"
    )


def _contents(db: Database) -> dict[str, list[Any]]:
    """All rows of all tables but the owner's profile clock, as text."""
    contents = {}
    for table in _tables(db):
        name = sql.Identifier(*table.split("."))
        rows = db.connection.execute(sql.SQL("select t::text from {} as t").format(name)).fetchall()
        contents[table] = sorted(row[0] for row in rows)
    return contents


def _mentions(db: Database, ticket: Any) -> set[str]:
    """Tables with a row that has the id of a file or of its version anywhere in it."""
    chunks = db.all("select id::text from public.chunks where file_id = %s", ticket["file_id"])
    ids = [ticket["file_id"], ticket["version_id"], *chunks]
    return {
        table
        for table, rows in _contents(db).items()
        if any(part in row for row in rows for part in ids)
    }
