"""The worker's reading stages on a real database: long files in parts, pages that OCR gives up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from narwhal.ingest import pipeline
from narwhal.ingest.blobs import Blob
from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.pipeline import Stage, run_job
from narwhal.ingest.queue import Job, Queue
from tests.database import Database
from tests.db.conftest import Drive
from tests.ingest.files import pdf, text_at

LAYOUT: dict[str, Any] = {"lines": [], "headings": []}


class Blobs:
    """Bytes of one file, whatever is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, _bucket: str, _key: str) -> Blob:
        data = self.path.read_bytes()
        return Blob(self.path, len(data), hashlib.sha256(data).hexdigest())

    def release(self, _key: str) -> None:
        pass


def run(drive: Drive, path: Path, until: str) -> None:
    """Run all jobs that there are, as a worker does, up to those of a stage."""
    while jobs := drive.claim():
        (job,) = jobs
        if job["stage"] == until:
            drive.work("release_job", job)
            return
        with drive.db.as_role("narwhal_worker"):
            queue = Queue(drive.db.connection)
            stage = Stage(queue, Blobs(path), Job.from_row(job), lambda: False)  # type: ignore[arg-type]
            run_job(stage)


def test_a_long_file_is_read_in_parts_as_it_is_whole(
    db: Database, drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = db.create_user()
    lines = [
        "".join(
            text_at(60, 760 - 20 * n, f"Page {page} tells in line {n} of tides and harbours")
            for n in range(30)
        )
        for page in range(1, 6)
    ]
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(*lines))
    found: list[Any] = []
    for size in (1_000_000, 2_000):
        monkeypatch.setattr(pipeline, "_BATCH", size)
        monkeypatch.setattr(pipeline, "_CHUNKS_AT_ONCE", 3 if found else 1_000)
        ticket = drive.upload(owner, "a.pdf", on_conflict="rename")
        run(drive, path, "embed_text")
        version = ticket["version_id"]
        found.append(
            [
                db.all(
                    "select page, text, width, height, source, layout from public.pages"
                    " where version_id = %s order by page",
                    version,
                ),
                db.all(
                    "select idx, page, content, char_start, char_end, bboxes, heading, context,"
                    " language from public.chunks where version_id = %s order by idx",
                    version,
                ),
                db.one(
                    "select row(is_paged, page_count, language, truncated)::text"
                    " from public.file_versions where id = %s",
                    version,
                ),
            ]
        )
        db.all("update public.ingest_jobs set state = 'done' where state = 'queued'")
    assert len(found[0][0]) == 5
    assert len(found[0][1]) > 6
    assert found[0] == found[1]
    assert db.one("select count(*) from private.draft_chunks") == 0


def test_a_page_that_ocr_cannot_read_is_left_and_the_others_are_kept(
    db: Database, drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def read(
        _path: Path, _name: str, _mime: str, numbers: Sequence[int], *_: object
    ) -> Iterator[Page]:
        asked.append(list(numbers))
        for number in asked[-1]:
            if number == 2:
                raise ReadError("limit_time", "It took too long.")
            yield Page(number, f"Read from page {number}", 9, 9, "ocr")

    monkeypatch.setattr(pipeline, "read_pictures_in_sandbox", read)
    owner = db.create_user()
    ticket = drive.upload(owner, "scan.pdf")
    drive.run_stage(drive.claim()[0], [])
    pages = [
        {"page": n, "text": "", "source": "text", "needs_ocr": True, "layout": LAYOUT}
        for n in (1, 2, 3)
    ]
    drive.work("finish_extract", drive.claim()[0], None, True, pages)
    (tmp_path / "scan.pdf").touch()
    run(drive, tmp_path / "scan.pdf", "chunk")
    assert asked == [[1, 2, 3], [3]]
    assert db.all("select text from public.pages order by page") == [
        "Read from page 1",
        "",
        "Read from page 3",
    ]
    versions = drive.rpc(owner, "file_details", file_id=ticket["file_id"])["versions"]
    assert (versions[0]["truncated"], versions[0]["truncated_by"]) == (True, "limit_time")


def test_a_scan_of_which_nothing_is_read_fails(
    db: Database, drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Iterator[Page]:
        raise ReadError("limit_memory", "It took too much.")
        yield

    monkeypatch.setattr(pipeline, "read_pictures_in_sandbox", read)
    owner = db.create_user()
    ticket = drive.upload(owner, "scan.pdf")
    drive.run_stage(drive.claim()[0], [])
    picture = {"page": 1, "text": "", "source": "text", "needs_ocr": True, "layout": LAYOUT}
    drive.work("finish_extract", drive.claim()[0], None, True, [picture])
    (tmp_path / "scan.pdf").touch()
    run(drive, tmp_path / "scan.pdf", "chunk")
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert (details["status"], details["problem"]["error_code"]) == ("failed", "limit_memory")
