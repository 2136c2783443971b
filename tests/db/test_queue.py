"""The queue: stages, leases, attempts, fencing, and who may touch it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from psycopg import sql

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, denied, refused
from tests.db.invariants import UNBALANCED
from tests.db.looks import (
    STAGES,
    TEXTS,
    beat,
    contents,
    expire_leases,
    is_found,
    status_of,
)


def test_the_stages_follow_one_another(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    seen = []
    while jobs := drive.claim():
        (job,) = jobs
        seen.append(
            (job["stage"], status_of(drive, owner, ticket), is_found(drive, owner, "alpha"))
        )
        drive.run_stage(job, TEXTS)
    assert seen == [
        ("detect", "processing", False),
        ("extract", "processing", False),
        ("chunk", "processing", False),
        ("embed_text", "processing", True),  # by keyword, as soon as there are chunks
    ]
    assert status_of(drive, owner, ticket) == "ready"
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
    expire_leases(db)
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
        beat(drive, job, progress, pages, 10)
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
        expire_leases(db)
    assert drive.claim() == []
    assert db.one("select state, error_code, lease_losses from public.ingest_jobs") == (
        "dead",
        "worker_lost",
        10,
    )
    assert status_of(drive, owner, ticket) == "failed"
    assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"]) == 1
    drive.ingest(*TEXTS)
    assert status_of(drive, owner, ticket) == "ready"


WRITES: dict[str, tuple[Any, ...]] = {
    "heartbeat_job": (),
    "fail_job": ("corrupt", "no", True),
    "finish_scan": (),
    "finish_detect": ("0" * 64, "text/plain", "text", None),
    "finish_extract": ("en", True, [{"page": 1, "text": "x", "source": "text", "layout": {}}]),
    "store_pages": ([{"page": 1, "text": "x", "source": "text", "layout": {}}], True),
    "job_passwords": (),
    "job_pictures": (),
    "store_page": ({"page": 1, "text": "x", "source": "ocr", "layout": {}},),
    "finish_ocr": ("en",),
    "job_renditions": (),
    "promise_rendition": ("d/1.webp",),
    "store_rendition": ("thumbnail", None, "d/1.webp", 5, 300, 200),
    "store_image": ({"idx": 0, "width": 1, "height": 1, "sha256": "0" * 64, "facts": {}},),
    "finish_render": (),
    "job_members": (),
    "begin_member": ("a.txt", "a.txt", 1, "text/plain", "0" * 64),
    "finish_unpack": (),
    "finish_insights": ([], None, None),
    "begin_transcript": ("pocketsphinx", "1", True),
    "store_segments": ([{"start_ms": 0, "end_ms": 9, "text": "x"}], 9, 9),
    "finish_transcribe": (),
    "job_pages": (),
    "store_chunks": (chunk_rows(["x"]), True),
    "finish_chunk": (chunk_rows(["x"]),),
    "job_texts": (10,),
    "store_vectors": ([{"hash": "00", "embedding": [1.0] * 384}],),
    "finish_embed_text": (),
    "job_page_pictures": (10,),
    "store_page_vectors": ([],),
    "finish_embed_pages": (),
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
        expire_leases(db)
        drive.claim()
    elif how == "cancelled":
        drive.rpc(owner, "cancel_ingest", file_id=ticket["file_id"])
    elif how == "trashed":
        drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    else:
        job = job | {"lease_token": str(uuid.uuid4())}
    before = contents(db)
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work(function, job, *WRITES[function])
    assert contents(db) == before


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
            assert status_of(drive, owner, ticket) == "processing"
            db.all("update public.ingest_jobs set run_after = now()")
    assert status_of(drive, owner, ticket) == "failed"
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
    assert status_of(drive, owner, ticket) == "failed"
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


def test_bytes_of_two_files_go_when_both_are_rejected(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "invoice.pdf", 100)
    (copy,) = drive.rpc(owner, "copy_nodes", ids=[ticket["file_id"]], on_conflict="rename")["items"]
    first, second = drive.claim(2)
    drive.work("fail_job", first, "magic_mismatch", "It is a program.", True)
    with db.as_user(owner):  # the other file still has them
        assert len(db.all("select name from storage.objects")) == 1
    assert drive.rpc(owner, "file_details", file_id=copy["id"])["quota"]["used"] == 100
    drive.work("fail_job", second, "magic_mismatch", "It is a program.", True)
    assert drive.rpc(owner, "file_details", file_id=copy["id"])["quota"]["used"] == 0
    with db.as_role("narwhal_worker"):
        (removal,) = db.all("select private.claim_object_deletions(10)")
    assert removal["key"] == ticket["key"]
    assert db.all(UNBALANCED) == []


def test_rejected_bytes_that_only_a_purged_file_has_are_returned(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "invoice.pdf", 100)
    (copy,) = drive.rpc(owner, "copy_nodes", ids=[ticket["file_id"]], on_conflict="rename")["items"]
    job = next(job for job in drive.claim(2) if job["file_id"] == ticket["file_id"])
    drive.rpc(owner, "purge_nodes", ids=[copy["id"]])
    drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)
    assert db.all(UNBALANCED) == []


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
    assert status_of(drive, owner, ticket) == "ready"
    assert not is_found(drive, owner, "alpha")


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


def test_a_worker_is_given_jobs_of_the_models_that_it_has(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    other = db.one("select private.create_space('other', 'm', '1', 8, 'text', 'shadow', 9)")
    drive.upload(owner)
    active = db.one("select id from public.embedding_spaces where state = 'active'")

    def claim(spaces: list[int] | None, stages: list[str] | None = None) -> list[Any]:
        with db.as_role("narwhal_worker"):
            return db.all(
                "select private.claim_jobs('me', 9, %s::smallint[], %s::text[])", spaces, stages
            )

    with db.as_role("narwhal_worker"):
        told = db.all("select private.worker_spaces()")
    assert [(space["id"], space["model"], space["dimension"]) for space in told] == [
        (active, "sentence-transformers/all-MiniLM-L6-v2", 384),
        (other, "m", 8),
    ]
    assert claim([], ["extract"]) == []
    for stage in ("detect", "extract"):
        (job,) = claim([])  # these take no model
        assert job["stage"] == stage
        drive.run_stage(job, TEXTS)
    # chunks must fit the active space
    assert claim([]) == []
    assert claim([other]) == []
    (job,) = claim([active])
    assert job["stage"] == "chunk"
    drive.run_stage(job, TEXTS)
    assert claim([]) == []
    (job,) = claim([other])
    assert job["space"]["id"] == other
    drive.work("release_job", job)
    assert {job["space"]["id"] for job in claim(None)} == {active, other}
    # nothing was counted against those that waited
    assert db.all("select distinct attempts, lease_losses from public.ingest_jobs") == [(0, 0)]


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


def _qualified(table: str) -> list[str]:
    return table.split(".") if "." in table else ["public", table]
