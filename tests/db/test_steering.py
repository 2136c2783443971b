"""What people may do to a file while it is being read, and its next versions."""

from __future__ import annotations

import pytest
from psycopg import sql

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.looks import (
    LOGS,
    STAGES,
    TEXTS,
    contents,
    is_found,
    mentions,
    quota_of,
    read_until,
    status_of,
)

# People steer it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_any_stage_it_can_be_taken_up_again(
    db: Database, drive: Drive, stage: str
) -> None:
    owner = db.create_user()
    ticket, job = read_until(drive, owner, stage)
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
    assert status_of(drive, owner, ticket) == "ready"
    assert is_found(drive, owner, "alpha")


@pytest.mark.parametrize("stage", [*STAGES, None])
@pytest.mark.parametrize("held", [True, False])
def test_purged_at_any_stage_nothing_of_it_is_left(
    db: Database, drive: Drive, stage: str | None, held: bool
) -> None:
    owner = db.create_user()
    kept = drive.file(owner, "kept.txt", "golf hotel")
    before = contents(db)
    ticket, job = read_until(drive, owner, stage)
    if stage and not held:
        drive.work("release_job", job)
    assert len(mentions(db, ticket)) > 3  # control: the search for traces finds them
    assert drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]]) == 1
    if stage:
        with refused("CONFLICT_STATE"):
            drive.run_stage(job, TEXTS)
    assert drive.claim() == []
    assert quota_of(db, owner)[:2] == (10, 0)
    # rows and the object follow through the worker
    assert mentions(db, ticket) >= {"private.purge_queue", "public.nodes", "storage.objects"}
    assert drive.clean_up() == 1
    assert mentions(db, ticket) == set()
    after = contents(db)
    assert {t: after[t] for t in after.keys() - LOGS} == {
        t: before[t] for t in before.keys() - LOGS
    }
    assert status_of(drive, owner, kept) == "ready"


@pytest.mark.parametrize("stage", STAGES)
def test_trashed_at_any_stage_it_is_gone_and_stays_gone(
    db: Database, drive: Drive, stage: str
) -> None:
    owner = db.create_user()
    ticket, job = read_until(drive, owner, stage)
    assert drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]]) == 1
    with refused("CONFLICT_STATE"):
        drive.run_stage(job, TEXTS)
    with db.as_role("postgres"):
        assert db.one("select private.retry_jobs()") == 0
    assert drive.claim() == []
    assert not is_found(drive, owner, "alpha")
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
        drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="paint")
    for stage in STAGES:
        assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage=stage) == 1
        drive.ingest(*TEXTS)
        assert status_of(drive, owner, ticket) == "ready"
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
    assert {status_of(drive, owner, ticket) for ticket in tickets} == {"ready"}


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
        assert not is_found(drive, owner, "zulu")
        assert found["pending_files"] == 1
        assert found["index_lag"] >= 0
        drive.run_stage(job, ["zulu same", "yankee same"])
    found = drive.search(owner, "alpha zulu")
    assert {hit["version_id"] for hit in found["hits"]} == {second["version_id"]}
    assert not is_found(drive, owner, "alpha")
    assert is_found(drive, owner, "zulu")
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
    assert is_found(drive, owner, "alpha")
    # a third one that works takes over
    drive.upload(owner, file_id=first["file_id"])
    drive.ingest("zulu")
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert details["problem"] is None
    assert not is_found(drive, owner, "alpha")


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
    assert is_found(drive, owner, "zulu")
    drive.work("finish_detect", jobs[first["version_id"]], "0" * 64, None, None, "Unknown type.")
    assert is_found(drive, owner, "zulu")
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert (details["head_version_id"], details["status"]) == (second["version_id"], "ready")


def test_a_version_that_nothing_reads_replaces_the_text_before_it(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    second = drive.upload(owner, file_id=first["file_id"])
    drive.work("finish_detect", drive.claim()[0], "0" * 64, None, None, "Unknown type.")
    assert not is_found(drive, owner, "alpha")
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
    drive.clean_up()
    count = "select count(*) from private.text_vectors where owner_id = %s"
    assert db.one(count, owner) == 2
    drive.rpc(owner, "retry_ingest", file_id=second["file_id"], from_stage="chunk")
    drive.ingest("two")  # now with other chunks
    assert db.one(count, owner) == 1
    drive.rpc(owner, "purge_nodes", ids=[second["file_id"]])
    drive.clean_up()
    assert db.one(count, owner) == 0
    assert db.one("select count(*) from private.text_vectors") == 1  # the other owner's
