"""The transcribe stage: what was said becomes text that tells when it was said."""

from __future__ import annotations

import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from narwhal.ingest.blobs import Blob, BlobStore
from narwhal.ingest.pipeline import STAGES, Stage, run_job
from narwhal.ingest.queue import Queue
from narwhal.local.postgres import SUPERUSER
from tests.conftest import FreshDatabase
from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.test_queue import expire_leases
from tests.db.test_versions import ingested

SPEECH = Path(__file__).parents[1] / "ingest" / "speech.ogg"
WORDS = ("who owns the rollout", "maria owns it \U0001f40b", "until the spring")
SEGMENTS = [
    {"start_ms": 500, "end_ms": 2400, "text": WORDS[0], "language": "en", "confidence": 0.9},
    {"start_ms": 2400, "end_ms": 4000, "text": WORDS[1], "language": "en", "confidence": 0.5},
    {"start_ms": 125_000, "end_ms": 126_500, "text": WORDS[2], "language": "en", "confidence": 0.7},
]


def _heard(drive: Drive, owner: uuid.UUID, name: str = "meeting.m4a", **more: Any) -> Any:
    """Upload a recording, detect and extract it; returns its ticket and the next job."""
    ticket = drive.upload(owner, name, **more)
    (job,) = drive.claim()
    drive.work(
        "finish_detect", job, uuid.UUID(job["version_id"]).hex * 2, "audio/mp4", "audio", None
    )
    (job,) = drive.claim()
    drive.work("finish_extract", job, None, False, [])
    (job,) = [job for job in drive.claim(2) if job["stage"] != "render"]
    return ticket, job


def _listened(drive: Drive, job: Any, *segments: Any, is_low_quality: bool = True) -> None:
    """Store what was said, and cut it as the worker does: a chunk a segment."""
    assert drive.work("begin_transcript", job, "pocketsphinx", "5", is_low_quality) == 0
    drive.work("store_segments", job, list(segments), 126_500, 130_000)
    drive.work("finish_transcribe", job)
    (job,) = drive.claim()
    assert job["stage"] == "chunk"
    (page,) = drive.work("job_pages", job)["pages"] or [None]
    chunks = [
        {
            "idx": i, "page": None, "content": page["text"][start:end], "char_start": start,
            "char_end": end, "language": "en", "time_range_ms": f"[{start_ms},{end_ms})",
        }
        for i, (start, end, start_ms, end_ms) in enumerate(page["layout"]["times"])
    ]  # fmt: skip
    drive.work("finish_chunk", job, chunks)
    while jobs := drive.claim():
        for job in jobs:
            drive.run_stage(job, [])


def _state(db: Database, ticket: Any) -> Any:
    return db.connection.execute(
        "select status, error_code, language from public.file_versions where id = %s",
        (ticket["version_id"],),
    ).fetchone()


def test_what_was_said_is_found_with_its_time(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    ticket, job = _heard(drive, owner)
    assert job["stage"] == "transcribe"
    _listened(drive, job, *SEGMENTS)
    assert _state(db, ticket) == ("ready", None, "en")
    assert db.one("select text from public.pages") == "\n".join(WORDS)
    (hit, *_) = drive.search(owner, "rollout")["hits"]
    assert (hit["page"], hit["time_range_ms"]) == (None, [500, 2400])
    (hit, *_) = drive.search(owner, "spring")["hits"]
    assert hit["time_range_ms"] == [125_000, 126_500]
    assert drive.search(stranger, "spring")["hits"] == []
    with db.as_user(owner):
        assert db.all("select engine, is_low_quality, duration_ms from public.transcripts") == [
            ("pocketsphinx", True, 130_000)
        ]
        assert db.all("select text from public.transcript_segments order by start_ms") == list(
            WORDS
        )
    with db.as_user(stranger):
        assert db.all("select 1 from public.transcripts") == []
        assert db.all("select 1 from public.transcript_segments") == []


def test_silence_is_ready_without_a_word(db: Database, drive: Drive) -> None:
    ticket, job = _heard(drive, db.create_user())
    _listened(drive, job)
    assert _state(db, ticket) == ("ready", "no_speech", None)
    assert db.one("select count(*) from public.transcript_segments") == 0
    assert db.one("select count(*) from public.chunks") == 0
    assert db.one("select status from public.nodes where kind = 'file'") == "ready"


def test_what_a_poor_engine_is_not_sure_of_on_the_whole_is_dropped(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    doubtful = [segment | {"confidence": 0.3} for segment in SEGMENTS]
    poor, job = _heard(drive, owner, "french.m4a")
    _listened(drive, job, *doubtful)
    assert _state(db, poor) == ("ready", "no_speech", None)
    better, job = _heard(drive, owner, "french 2.m4a")
    _listened(drive, job, *doubtful, is_low_quality=False)
    assert _state(db, better) == ("ready", None, "en")


def test_a_lost_worker_costs_one_stretch(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    _, lost = _heard(drive, owner)
    assert drive.work("begin_transcript", lost, "pocketsphinx", "5", True) == 0
    drive.work("store_segments", lost, SEGMENTS[:2], 120_300, 130_000)
    progress = "select progress from public.ingest_jobs where stage = 'transcribe'"
    assert 0.92 < db.one(progress) < 0.93
    expire_leases(db)
    (job,) = [job for job in drive.claim(2) if job["stage"] == "transcribe"]
    assert drive.work("begin_transcript", job, "pocketsphinx", "5", True) == 120_300
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("store_segments", lost, SEGMENTS[2:], 130_000, 130_000)
    drive.work("store_segments", job, SEGMENTS[2:], 130_000, 130_000)
    drive.work("finish_transcribe", job)
    with db.as_user(owner):
        assert db.one("select text from public.pages") == "\n".join(WORDS)


def test_another_engine_begins_anew_and_so_does_reading_anew(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = _heard(drive, owner)
    drive.work("begin_transcript", job, "pocketsphinx", "5", True)
    drive.work("store_segments", job, SEGMENTS[:2], 120_300, 130_000)
    assert drive.work("begin_transcript", job, "whisper", "1", False) == 0
    assert db.one("select count(*) from private.draft_segments") == 0
    drive.work("store_segments", job, SEGMENTS, 130_000, 130_000)
    drive.work("finish_transcribe", job)
    drive.ingest(*WORDS)
    assert drive.search(owner, "rollout")["hits"]

    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="extract")
    (job,) = drive.claim()
    drive.work("finish_extract", job, None, False, [])
    (job,) = [job for job in drive.claim(2) if job["stage"] != "render"]
    spring = SEGMENTS[2] | {"text": "in the summer"}
    assert drive.work("begin_transcript", job, "whisper", "1", False) == 0
    drive.work("store_segments", job, [spring], 130_000, 130_000)
    with db.as_user(owner):  # what was said before stands until all is done
        assert db.all("select text from public.transcript_segments order by 1") == sorted(WORDS)
    drive.work("finish_transcribe", job)
    drive.ingest("in the summer")
    with db.as_user(owner):
        assert db.all("select text from public.transcript_segments") == ["in the summer"]
        assert db.all("select text from public.pages") == ["in the summer"]
    assert drive.search(owner, "rollout", embedding=None)["hits"] == []


def test_a_restored_version_has_its_transcript_without_listening(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket, job = _heard(drive, owner)
    _listened(drive, job, *SEGMENTS)
    drive.file(owner, "meeting.m4a", "other words", file_id=ticket["file_id"])
    restored = drive.rpc(
        owner, "restore_version", file_id=ticket["file_id"], version_id=ticket["version_id"]
    )
    first, again = (ingested(db, v) for v in (ticket["version_id"], restored["id"]))
    assert len(first["transcript"]) == len(SEGMENTS)
    assert again["transcript"] == first["transcript"]
    assert again["chunks"] == first["chunks"]


class _Shelf:
    """Storage with one object."""

    def __init__(self, path: Path) -> None:
        self.blob = Blob(path, path.stat().st_size, sha256(path.read_bytes()).hexdigest())

    def fetch(self, _bucket: str, _key: str) -> Blob:
        return self.blob

    def release(self, _key: str) -> None:
        pass


def test_a_worker_hears_a_recording_and_looks_at_its_words(
    fresh_database: FreshDatabase,
) -> None:
    with (
        fresh_database.connect(SUPERUSER) as connection,
        fresh_database.connect(SUPERUSER) as working,
    ):
        working.execute("set role narwhal_worker")
        db = Database(connection)
        drive = Drive(db)
        owner = db.create_user()
        db.all("update private.settings set value = 'true' where key = 'insights.automatic'")
        ticket = drive.upload(owner, "speech.ogg", SPEECH.stat().st_size)
        queue, shelf = Queue(working), cast(BlobStore, _Shelf(SPEECH))
        stages = []
        while jobs := queue.claim("test", [1], tuple(STAGES)):
            for job in jobs:
                run_job(Stage(queue, shelf, job, lambda: False))
                stages.append(job.stage)
        assert _state(db, ticket) == ("ready", None, "en")
        assert [stage for stage in stages if stage not in ("scan", "render")] == [
            "detect", "extract", "transcribe", "chunk", "embed_text", "insights",
        ]  # fmt: skip
        (hit,) = drive.search(owner, "small dog", embedding=None)["hits"]
        start_ms, end_ms = hit["time_range_ms"]
        assert 0 <= start_ms < 500
        assert 2000 < end_ms <= 3000
        kinds = db.all("select kind from public.insights order by kind")
        assert {"category", "key_phrases"} <= set(kinds)
