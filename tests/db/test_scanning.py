"""The scan stage: nothing reads a file before the scanner has, and what is infected is gone."""

from __future__ import annotations

import pytest

from tests.database import Database
from tests.db.conftest import Drive
from tests.db.invariants import UNBALANCED
from tests.db.looks import TEXTS, is_found, quota_of, status_of

INFECTED = ("infected", "The scanner found Eicar-Signature.", True)


@pytest.fixture
def scanner(db: Database) -> None:
    db.all(
        "update private.settings set value = '\"tcp://127.0.0.1:3310\"'"
        " where key = 'scanner.address'"
    )


def test_a_file_is_scanned_before_anything_reads_it(
    db: Database, drive: Drive, scanner: None
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    (job,) = drive.claim()
    assert (job["stage"], job["settings"]["scanner.address"]) == ("scan", "tcp://127.0.0.1:3310")
    assert status_of(drive, owner, ticket) == "processing"
    assert drive.claim() == []
    drive.work("finish_scan", job)
    drive.ingest(*TEXTS)
    assert status_of(drive, owner, ticket) == "ready"
    stages = db.all("select stage from public.ingest_jobs where state = 'done'")
    assert set(stages) == {"scan", "detect", "extract", "chunk", "embed_text"}


def test_without_a_scanner_nothing_waits_for_one(db: Database, drive: Drive) -> None:
    drive.upload(db.create_user())
    assert drive.claim()[0]["stage"] == "detect"


def test_nobody_can_download_what_is_infected(db: Database, drive: Drive, scanner: None) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Shared")["id"]
    drive.share(folder, peer)
    ticket = drive.upload(owner, "invoice.pdf", 100, folder_id=folder)
    with db.as_user(peer):  # control
        assert db.all("select name from storage.objects") == [ticket["key"]]
    (job,) = drive.claim()
    drive.work("fail_job", job, *INFECTED)
    for user in (owner, peer):
        with db.as_user(user):
            assert db.all("select name from storage.objects") == []
        assert drive.rpc(user, "file_details", file_id=ticket["file_id"])["key"] is None
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert details["status"] == "rejected"
    assert details["problem"]["error_code"] == "infected"
    assert quota_of(db, owner)[:2] == (0, 0)
    assert drive.claim() == []
    assert db.all(UNBALANCED) == []


def test_an_infected_version_leaves_the_one_before_it_in_service(
    db: Database, drive: Drive, scanner: None
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    drive.work("finish_scan", drive.claim()[0])
    drive.ingest(*TEXTS)
    drive.upload(owner, "a.txt", 20, file_id=ticket["file_id"])
    (job,) = drive.claim()
    drive.work("fail_job", job, *INFECTED)
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert details["head_version_id"] == ticket["version_id"]
    assert details["problem"]["new_version_failed"]
    assert is_found(drive, owner, "alpha")


def test_a_copy_of_what_was_scanned_is_not_scanned_again(
    db: Database, drive: Drive, scanner: None
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    drive.work("finish_scan", drive.claim()[0])
    drive.ingest(*TEXTS)
    drive.rpc(owner, "copy_nodes", ids=[ticket["file_id"]], on_conflict="rename")
    assert drive.claim() == []
