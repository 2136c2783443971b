"""Reading a file again with other options: what is asked, what serves meanwhile, what is kept."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, denied, refused
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import TEXTS, contents, expire_leases, is_found, mentions, status_of

NEW = ["zulu yankee", "charlie delta", "xray whiskey"]
PASSWORD = "corréct horse"


def reprocess(drive: Drive, user: uuid.UUID | None, file: str, **options: object) -> Any:
    return drive.rpc(user, "reprocess_file", file_id=file, options=options)


def pages_of(db: Database) -> list[str]:
    return db.all("select text from public.pages order by page")


def balanced(db: Database) -> None:
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == []
    for table in ("rereads", "draft_pages", "draft_chunks"):
        assert db.one(f"select count(*) from private.{table}") == 0  # type: ignore[arg-type]


def test_the_old_text_serves_until_the_new_is_whole(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "scan.pdf", *TEXTS)["file_id"]
    told = reprocess(drive, owner, file, ocr_languages=["deu", "chi_sim"])
    assert told["options"] == {"ocr_languages": ["deu", "chi_sim"]}
    assert (told["file_id"], told["from_stage"]) == (file, "extract")
    assert db.one("select status from public.nodes") == "processing"
    before = (pages_of(db), db.all("select id from public.chunks order by idx"))
    seen = []
    while jobs := drive.claim():
        (job,) = jobs
        seen.append(job["stage"])
        assert job["options"]["ocr_languages"] == ["deu", "chi_sim"]
        assert (pages_of(db), db.all("select id from public.chunks order by idx")) == before
        # by its words and by its meaning
        for embedding in ({"embedding": None}, {}):
            assert drive.search(owner, "alpha", **embedding)["hits"]
        assert not is_found(drive, owner, "zulu")
        drive.run_stage(job, NEW)
    assert seen == ["extract", "chunk", "embed_text"]
    assert status_of(drive, owner, {"file_id": file}) == "ready"
    assert pages_of(db) == NEW
    assert not is_found(drive, owner, "alpha")
    assert is_found(drive, owner, "zulu")
    assert db.one("select count(*), max(no) from public.file_versions") == (1, 1)
    assert db.one("select page_count from public.file_versions") == 3
    balanced(db)


def test_unchanged_chunks_are_not_embedded_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    reprocess(drive, owner, file)
    for _ in range(2):
        drive.run_stage(drive.claim()[0], NEW)
    (job,) = drive.claim()
    texts = drive.work("job_texts", job, 10)["texts"]
    assert [text["content"] for text in texts] == ["zulu yankee", "xray whiskey"]


@pytest.mark.parametrize("stage", ["extract", "chunk", "embed_text"])
def test_when_reading_it_again_fails_the_old_text_stays(
    db: Database, drive: Drive, stage: str
) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    reprocess(drive, owner, file)
    while (job := drive.claim()[0])["stage"] != stage:
        drive.run_stage(job, NEW)
    drive.work("fail_job", job, "limit_time", "It took too long.", True)
    details = drive.rpc(owner, "file_details", file_id=file)
    assert (details["status"], details["problem"]["error_code"]) == ("ready", "limit_time")
    assert is_found(drive, owner, "alpha")
    assert pages_of(db) == TEXTS
    # where it failed it goes on
    assert drive.rpc(owner, "retry_ingest", file_id=file) == 1
    drive.ingest(*NEW)
    assert is_found(drive, owner, "zulu")
    assert not is_found(drive, owner, "alpha")
    assert drive.rpc(owner, "file_details", file_id=file)["problem"] is None
    balanced(db)


def test_another_attempt_throws_away_what_the_failed_one_made(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    reprocess(drive, owner, file)
    for _ in range(2):
        drive.run_stage(drive.claim()[0], ["wrong words"])
    (job,) = drive.claim()
    drive.work("store_vectors", job, [])
    drive.rpc(owner, "cancel_ingest", file_id=file)
    assert status_of(drive, owner, {"file_id": file}) == "ready"
    reprocess(drive, owner, file, chunk_size=None)
    drive.ingest(*NEW)
    assert pages_of(db) == NEW
    balanced(db)


def test_a_lost_worker_changes_nothing(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    reprocess(drive, owner, file)
    (lost,) = drive.claim()
    drive.work("store_pages", lost, [_page(1, "half"), _page(2, "read")], True)
    expire_leases(db)
    (job,) = drive.claim()
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("store_pages", lost, [_page(3, "late")], False)
    drive.run_stage(job, NEW)
    drive.ingest(*NEW)
    assert pages_of(db) == NEW
    balanced(db)


def test_only_what_is_cut_otherwise_is_cut_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    told = reprocess(drive, owner, file, chunk_size=500, chunk_overlap=50)
    assert told["from_stage"] == "chunk"
    (job,) = drive.claim()
    assert job["stage"] == "chunk"
    assert {k: job["options"][k] for k in ("chunk_size", "chunk_overlap")} == {
        "chunk_size": 500,
        "chunk_overlap": 50,
    }
    assert [page["text"] for page in drive.work("job_pages", job)["pages"]] == TEXTS
    drive.run_stage(job, ["alpha bravo charlie"])
    drive.ingest()
    assert db.all("select content from public.chunks") == ["alpha bravo charlie"]
    assert pages_of(db) == TEXTS
    balanced(db)
    # a part of the options leaves the others
    assert reprocess(drive, owner, file, chunk_overlap=None)["options"] == {"chunk_size": 500}


def test_pages_and_chunks_of_a_long_file_come_in_parts(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    for _ in range(2):  # read for the first time, and again
        drive.upload(owner, "b.txt", file_id=file)
        drive.run_stage(drive.claim()[0], [])
        (job,) = drive.claim()
        drive.work("store_pages", job, [_page(9, "of an earlier run")], True)
        drive.work("store_pages", job, [_page(1, "one"), _page(2, "two")], True)
        drive.work("store_pages", job, [_page(3, "three")], False)
        assert db.one("select pages_done from public.ingest_jobs where id = %s", job["id"]) == 3
        drive.work("finish_extract", job, "en", True, None, "limit_output")
        (job,) = drive.claim()
        first = drive.work("job_pages", job, 0, 4)
        assert [page["text"] for page in first["pages"]] == ["one", "two"]
        rest = drive.work("job_pages", job, 2, 4)
        assert ([page["text"] for page in rest["pages"]], rest["last_page"]) == (["three"], 3)
        rows = chunk_rows(["one", "two", "three"])
        drive.work("store_chunks", job, rows, True)
        drive.work("store_chunks", job, rows[:2], True)
        drive.work("store_chunks", job, rows[2:], False)
        drive.work("finish_chunk", job, None)
        drive.ingest()
        details = drive.rpc(owner, "file_details", file_id=file)
        assert (details["status"], details["truncated"], details["problem"]) == (
            "ready",
            True,
            None,
        )
        assert details["versions"][0]["truncated_by"] == "limit_output"
        assert is_found(drive, owner, "three")
        balanced(db)


def test_while_it_is_read_it_cannot_be_asked_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    with refused("CONFLICT_STATE", status="queued"):
        reprocess(drive, owner, ticket["file_id"])
    drive.ingest(*TEXTS)
    reprocess(drive, owner, ticket["file_id"])
    with refused("CONFLICT_STATE", status="processing"):
        reprocess(drive, owner, ticket["file_id"])
    (job,) = drive.claim()
    with refused("CONFLICT_STATE"):
        reprocess(drive, owner, ticket["file_id"], chunk_size=500)
    drive.run_stage(job, TEXTS)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"ocr_languages": ["klingon"]}, "options.ocr_languages"),
        ({"ocr_languages": "deu"}, "options.ocr_languages"),
        ({"ocr_languages": []}, "options.ocr_languages"),
        ({"ocr_languages": [1]}, "options.ocr_languages"),
        ({"chunk_size": 0}, "options.chunk_size"),
        ({"chunk_size": "1000"}, "options.chunk_size"),
        ({"chunk_size": 1.5}, "options.chunk_size"),
        ({"chunk_size": 1e30}, "options.chunk_size"),
        ({"chunk_size": 500, "chunk_overlap": 500}, "options.chunk_overlap"),
        ({"chunk_overlap": 1000}, "options.chunk_overlap"),
        ({"chunk_overlap": -1}, "options.chunk_overlap"),
        ({"password": ""}, "options.password"),
        ({"password": "x" * 256}, "options.password"),
        ({"password": "a\nb"}, "options.password"),
        ({"password": 7}, "options.password"),
        ({"colour": "red"}, "options.colour"),
    ],
)
def test_what_no_reading_can_do_is_refused(
    db: Database, drive: Drive, options: dict[str, Any], field: str
) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    before = contents(db)
    with refused("INVALID_ARGUMENT", field=field) as found:
        reprocess(drive, owner, file, **options)
    assert found["expected"]
    if "ocr_languages" in options:
        assert {"deu", "chi_sim"} <= set(found["supported"])
    with refused("INVALID_ARGUMENT", field=field):
        drive.ticket(owner, "b.txt", options=options)
    assert contents(db) == before


def test_options_that_are_no_object_are_refused(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    with refused("INVALID_ARGUMENT", field="options"):
        drive.rpc(owner, "reprocess_file", file_id=file, options=Jsonb([1]))
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    with refused("INVALID_ARGUMENT", field="file_id"):
        reprocess(drive, owner, folder)


def test_levels_decide_who_reads_it_again(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    file = drive.file(owner, "a.txt", *TEXTS)["file_id"]
    drive.share(file, peer, "comment")
    with refused("NOT_FOUND"):
        reprocess(drive, stranger, file)
    with refused("FORBIDDEN", level="comment", required="edit"):
        reprocess(drive, peer, file)
    with refused("NOT_AUTHENTICATED"):
        reprocess(drive, None, file)
    db.all("update public.shares set level = 'edit'")
    assert reprocess(drive, peer, file)["file_id"] == file


def test_languages_come_from_the_file_the_owner_or_a_worker(db: Database, drive: Drive) -> None:
    owner = db.create_user()

    def prefer(languages: object) -> None:
        with db.as_user(owner):
            db.all(
                "update public.user_profiles set preferences = preferences || %s where id = %s",
                Jsonb({"ocrLanguages": languages}),
                owner,
            )

    with refused("INVALID_ARGUMENT", field="preferences.ocrLanguages"):
        prefer(["ara"])
    with db.as_role("narwhal_worker"):
        db.all("select private.report_ocr_languages(array['ara', 'eng', 'x/../y'])")
    prefer(["ara", "eng"])
    ticket = drive.upload(owner, "a.pdf")
    (job,) = drive.claim()
    assert job["options"] == {
        "chunk_size": 1000,
        "chunk_overlap": 200,
        "ocr_languages": ["ara", "eng"],
    }
    drive.run_stage(job, [])
    drive.ingest(*TEXTS)
    reprocess(drive, owner, ticket["file_id"], ocr_languages=["deu"])
    assert drive.claim()[0]["options"]["ocr_languages"] == ["deu"]


# Passwords ---------------------------------------------------------------------------------------


def test_a_password_reaches_workers_and_nobody_else(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "locked.pdf", options={"password": PASSWORD, "chunk_size": 700})
    (job,) = drive.claim()
    assert PASSWORD not in str(job)
    assert job["options"]["chunk_size"] == 700
    with db.as_role("narwhal_worker"):
        told = db.all("select private.job_passwords(%s, %s)", job["id"], job["lease_token"])
    assert told == [PASSWORD]
    drive.work("fail_job", job, "encrypted_pdf", "It has a password.", True)
    assert (
        reprocess(drive, owner, ticket["file_id"], password="Tr0ub4dor")["from_stage"] == "detect"
    )
    (job,) = drive.claim()
    with db.as_role("narwhal_worker"):
        told = db.all("select private.job_passwords(%s, %s)", job["id"], job["lease_token"])
    assert told == ["Tr0ub4dor", PASSWORD]
    drive.run_stage(job, [])
    drive.ingest(*TEXTS)
    where = {
        table
        for table, rows in contents(db).items()
        if any(PASSWORD in row or "Tr0ub4dor" in row for row in rows)
    }
    logged = db.all("select to_jsonb(t)::text from public.audit_logs as t")
    assert where == {"private.file_passwords"}
    assert not [row for row in logged if PASSWORD in row or "Tr0ub4dor" in row]
    assert any('"has_password": true' in row for row in logged)
    for user in (owner, None):
        with denied(), db.as_user(user):
            db.all("select * from private.file_passwords")
        with denied(), db.as_user(user):
            db.all("select private.job_passwords(%s, %s)", job["id"], job["lease_token"])
    with denied(), db.as_service():
        db.all("select * from private.file_passwords")


def test_a_file_keeps_its_newest_passwords_and_a_copy_has_them(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "a.pdf", *TEXTS)["file_id"]
    for number in [*range(7), 3]:
        drive.ticket(owner, file_id=file, options={"password": f"p{number}"})
    kept = "select password from private.file_passwords where file_id = %s order by given_at desc"
    assert db.all(kept, file) == ["p3", "p6", "p5", "p4", "p2"]
    (copied,) = drive.rpc(owner, "copy_nodes", ids=[file], target=None, on_conflict="rename")[
        "items"
    ]
    assert db.all(kept, copied["id"]) == ["p3", "p6", "p5", "p4", "p2"]


def test_purged_in_the_middle_nothing_is_left(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.file(owner, "a.txt", *TEXTS)
    reprocess(drive, owner, ticket["file_id"], password=PASSWORD)
    for _ in range(2):
        drive.run_stage(drive.claim()[0], NEW)
    (job,) = drive.claim()
    missing = drive.work("job_texts", job, 10)["texts"]
    drive.work(
        "store_vectors", job, [{"hash": t["hash"], "embedding": [1.0] * 384} for t in missing]
    )
    assert {"private.draft_chunks", "private.file_passwords"} <= mentions(db, ticket)
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    drive.clean_up()
    assert mentions(db, ticket) == set()
    assert db.one("select count(*) from private.text_vectors") == 0


def _page(number: int, text: str) -> dict[str, Any]:
    return {"page": number, "text": text, "source": "text", "layout": {}}
