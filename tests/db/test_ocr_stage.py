"""The ocr stage: which pages it is given, what it stores, and what follows."""

from __future__ import annotations

from typing import Any

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, refused


def _page(number: int, text: str = "", *, needs_ocr: bool = False, source: str = "text") -> Any:
    return {
        "page": number, "text": text, "width": 100, "height": 50, "source": source,
        "needs_ocr": needs_ocr, "layout": {"lines": [], "headings": []},
    }  # fmt: skip


def _extracted(drive: Drive, *pages: Any) -> Any:
    """Detect and extract; returns the next job."""
    (job,) = drive.claim()
    drive.work("finish_detect", job, "0" * 64, "application/pdf", "pdf", None)
    (job,) = drive.claim()
    assert job["stage"] == "extract"
    drive.work("finish_extract", job, "en", True, list(pages))
    (job,) = drive.claim()
    return job


def _stored(db: Database) -> list[Any]:
    return db.all(
        "select page, text, source, needs_ocr from public.pages order by page",
    )


def test_pages_without_a_text_layer_are_read_before_the_file_is_cut(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "scan.pdf")
    job = _extracted(drive, _page(1, "typed"), _page(2, needs_ocr=True), _page(3, needs_ocr=True))
    assert job["stage"] == "ocr"
    assert drive.work("job_pictures", job) == {"left": [2, 3], "total": 2}
    drive.work("store_page", job, _page(2, "second", source="ocr"))
    assert drive.work("job_pictures", job) == {"left": [3], "total": 2}
    told = db.one(
        "select jsonb_build_array(pages_done, pages_total, progress) from public.ingest_jobs"
        " where stage = 'ocr'"
    )
    assert told == [1, 2, 0.5]
    with refused("CONFLICT_STATE"):
        drive.work("finish_ocr", job, "de")
    drive.work("store_page", job, _page(3, "third", source="ocr"))
    drive.work("finish_ocr", job, "de")
    assert _stored(db) == [
        (1, "typed", "text", False),
        (2, "second", "ocr", False),
        (3, "third", "ocr", False),
    ]
    assert db.one("select language from public.file_versions") == "de"
    drive.ingest("typed", "second", "third")
    hits = drive.search(owner, "third")["hits"]
    assert (hits[0]["file_id"], hits[0]["page"]) == (ticket["file_id"], 3)
    assert drive.search(db.create_user(), "third")["hits"] == []


def test_a_lost_worker_costs_no_page_that_was_stored(db: Database, drive: Drive) -> None:
    drive.upload(db.create_user(), "scan.pdf")
    lost = _extracted(drive, *(_page(number, needs_ocr=True) for number in (1, 2, 3)))
    drive.work("store_page", lost, _page(1, "first", source="ocr"))
    db.all("update public.ingest_jobs set lease_expires_at = now() - interval '1 s'")
    (job,) = drive.claim()
    assert drive.work("job_pictures", job) == {"left": [2, 3], "total": 3}
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("store_page", lost, _page(2, "late", source="ocr"))
    assert _stored(db)[0] == (1, "first", "ocr", False)
    assert _stored(db)[1] == (2, "", "text", True)


def test_reading_anew_reads_pictures_anew_and_forgets_the_stage_when_none_is_left(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "scan.pdf")
    job = _extracted(drive, _page(1, needs_ocr=True))
    drive.work("store_page", job, _page(1, "alpha", source="ocr"))
    drive.work("finish_ocr", job, None)
    drive.ingest("alpha")
    assert db.one("select language from public.file_versions") == "en"  # as it was

    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="ocr")
    (job,) = drive.claim()
    assert drive.work("job_pictures", job) == {"left": [], "total": 1}
    drive.work("finish_ocr", job, "en")
    drive.ingest("alpha")

    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="extract")
    (job,) = drive.claim()
    drive.work("finish_extract", job, "en", True, [_page(1, "bravo")])
    assert db.all("select stage from public.ingest_jobs where stage = 'ocr'") == []
    (job,) = drive.claim()
    assert job["stage"] == "chunk"
    drive.work("finish_chunk", job, chunk_rows(["bravo"]))
    drive.ingest("bravo")
    assert [hit["snippet"] for hit in drive.search(owner, "bravo")["hits"]] == ["bravo"]
    assert drive.search(owner, "alpha", embedding=None)["hits"] == []
