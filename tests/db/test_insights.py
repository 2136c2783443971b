"""Insights: who has them, who sees them, and which files are found to be alike."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from narwhal.ingest.document import Page
from narwhal.ingest.insights import sketch
from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.test_versions import append, place

TEXT = " ".join(f"{word} {number}" for number in range(60) for word in ("kelp", "reef", "twine"))
FOUND = [
    {"kind": "category", "items": [{"text": "report"}], "method": "words", "method_version": "1"},
    {
        "kind": "key_phrases", "method": "phrases", "method_version": "1",
        "items": [{"text": "kelp", "page": 1, "start": 0, "end": 4, "score": 1, "count": 60}],
    },
]  # fmt: skip


@pytest.fixture(autouse=True)
def automatic(db: Database) -> None:
    """Other tests do without insights."""
    db.all("update private.settings set value = 'true' where key = 'insights.automatic'")


def analysed(drive: Drive, owner: uuid.UUID, name: str, text: str = TEXT, **more: Any) -> Any:
    """Upload a file and run all its stages; returns its ticket."""
    ticket = drive.upload(owner, name, **more)
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "insights":
                drive.work("finish_insights", job, FOUND, *_sketch(text))
            else:
                drive.run_stage(job, [text])
    return ticket


def _sketch(text: str) -> tuple[Any, Any]:
    places, bands = sketch([Page(1, text)])
    return _array(places), _array(bands)


def _array(numbers: list[int] | None) -> str | None:
    return None if numbers is None else "{" + ",".join(map(str, numbers)) + "}"


def test_insights_are_seen_by_who_reads_the_file(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    ticket = analysed(drive, owner, "kelp.txt")
    drive.share(ticket["file_id"], peer)
    for user, count in ((owner, 2), (peer, 2), (stranger, 0), (None, 0)):
        with db.as_user(user):
            assert db.one("select count(*) from public.insights") == count
    with db.as_user(peer):
        assert db.one("select method from public.insights where kind = 'category'") == "words"


def test_a_file_is_ready_without_them_and_when_they_fail(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner, "kelp.txt")
    for stage in ("detect", "extract", "chunk", "embed_text"):
        (job,) = drive.claim()
        assert job["stage"] == stage
        drive.run_stage(job, [TEXT])
    assert db.one("select status from public.nodes where kind = 'file'") == "ready"
    (job,) = drive.claim()
    assert job["stage"] == "insights"
    drive.work("fail_job", job, "internal", "it broke", True)
    assert db.one("select status from public.nodes where kind = 'file'") == "ready"


def test_a_preference_switches_them_off(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = analysed(drive, owner, "kelp.txt")
    db.all(
        "update public.user_profiles set preferences = preferences || '{\"autoAnalyze\": false}'"
        " where id = %s",
        owner,
    )
    analysed(drive, owner, "reef.txt")
    assert db.one("select count(distinct file_id) from public.insights") == 1
    # and what is read again loses those it had
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="chunk")
    drive.ingest(TEXT)
    assert db.one("select count(*) from public.insights") == 0
    assert db.one("select count(*) from private.text_sketches") == 0


def test_they_are_replaced_and_never_doubled_and_go_with_the_file(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = analysed(drive, owner, "kelp.txt")
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="insights")
    (job,) = drive.claim()
    drive.work("finish_insights", job, FOUND[:1], None, None)
    assert db.one("select array_agg(kind) from public.insights") == ["category"]
    assert db.one("select count(*) from private.text_sketches") == 0
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    drive.clean_up()
    assert db.one("select count(*) from public.insights") == 0


def test_a_copy_has_them_without_looking_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = analysed(drive, owner, "kelp.txt")
    append(db, place(db, owner, "copy.txt"), ticket["version_id"], owner)
    assert db.one("select count(*) from public.insights") == 4
    assert db.one("select count(*) from private.text_sketches") == 2
    assert [job["stage"] for job in drive.claim(9)] == []


def test_alike_files_of_the_owner_are_found_if_they_can_be_read(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    first = analysed(drive, owner, "first.txt")
    edited = analysed(drive, owner, "edited.txt", TEXT + " and a word more")
    analysed(drive, owner, "other.txt", " ".join(str(n * n) for n in range(400)))
    analysed(drive, peer, "of somebody else.txt")
    copy = place(db, owner, "copy.txt")
    append(db, copy, first["version_id"], owner)

    items = drive.rpc(owner, "find_duplicates", file_id=first["file_id"])["items"]
    assert [(i["name"], i["kind"]) for i in items] == [
        ("copy.txt", "exact"),
        ("edited.txt", "near"),
    ]
    assert items[0]["similarity"] == 1
    assert 0.8 <= items[1]["similarity"] <= 1
    few = drive.rpc(owner, "find_duplicates", file_id=first["file_id"], top_k=1)["items"]
    assert [i["name"] for i in few] == ["copy.txt"]

    drive.share(first["file_id"], peer)
    assert drive.rpc(peer, "find_duplicates", file_id=first["file_id"])["items"] == []
    drive.share(edited["file_id"], peer)
    items = drive.rpc(peer, "find_duplicates", file_id=first["file_id"])["items"]
    assert [i["file_id"] for i in items] == [edited["file_id"]]
    drive.rpc(owner, "trash_nodes", ids=[copy])
    items = drive.rpc(owner, "find_duplicates", file_id=first["file_id"])["items"]
    assert [i["name"] for i in items] == ["edited.txt"]
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "find_duplicates", file_id=first["file_id"])
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "find_duplicates", file_id=first["file_id"])
    for wrong in ({"threshold": 0.2}, {"threshold": 1.1}, {"top_k": 0}, {"top_k": 101}):
        with refused("INVALID_ARGUMENT", field=next(iter(wrong))):
            drive.rpc(owner, "find_duplicates", file_id=first["file_id"], **wrong)


def test_an_earlier_version_is_no_duplicate(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = analysed(drive, owner, "first.txt")
    changed = analysed(drive, owner, "changing.txt")
    assert drive.rpc(owner, "find_duplicates", file_id=first["file_id"])["items"]
    other = " ".join(str(n * n) for n in range(400))
    analysed(drive, owner, "changing.txt", other, file_id=changed["file_id"])
    assert drive.rpc(owner, "find_duplicates", file_id=first["file_id"])["items"] == []
