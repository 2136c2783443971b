"""The stages of ingestion, from scan to insights.

Each stage reads what its predecessor stored, and ends in one call that stores its output and the
job's state together. Running a stage twice gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any
from uuid import uuid4

import psycopg

from narwhal.encoders import TextEncoder, load_text_encoder
from narwhal.errors import NarwhalError
from narwhal.ingest import tesseract
from narwhal.ingest.blobs import Blob, BlobStore
from narwhal.ingest.chunking import chunk_pages
from narwhal.ingest.document import (
    Chunk,
    Document,
    EmbeddedImage,
    Heading,
    Line,
    Page,
    Picture,
    ReadError,
    Spoken,
    joined,
)
from narwhal.ingest.hearing import choose_recognizer, listen
from narwhal.ingest.insights import analyse, insight_row, sketch
from narwhal.ingest.language import detect_language
from narwhal.ingest.limits import (
    MIB,
    Limits,
    detect_in_sandbox,
    draw_in_sandbox,
    read_pictures_in_sandbox,
    reading_in_sandbox,
)
from narwhal.ingest.queue import Job, LeaseLostError, Queue
from narwhal.ingest.scanner import scan
from narwhal.ingest.services import ServiceError, using
from narwhal.ingest.text import clean
from narwhal.ingest.unpacking import Unpacked, unpack

EMBED_BATCH = 32
_BATCH = 1_000_000  # characters of a file that are held at a time
_MOST_INSIGHTFUL = 2_000_000  # characters of a document that insights are found in
_PAGE_COST = 500  # characters that the places on a page weigh as much as
_CHUNKS_AT_ONCE = 1_000
_TELLING, _TELLING_PAGES = 2_000, 10  # characters of pages that tell the language
_MOST_FAILURES = 3  # pages that OCR gives up before it leaves the rest


class StoppedError(Exception):
    """The worker was asked to stop; the job goes back to the queue."""


class NoSpaceError(Exception):
    """The owner has no room for what a stage makes beside the file."""


@dataclass(frozen=True)
class Stage:
    """What a running stage works with."""

    queue: Queue
    blobs: BlobStore
    job: Job
    should_stop: Callable[[], bool]

    def check(self) -> None:
        """Raise StoppedError when the worker was asked to stop."""
        if self.should_stop():
            raise StoppedError


def run_job(stage: Stage) -> None:
    """Run one claimed job to its end, and record a failure as what it is.

    Raises LeaseLostError, StoppedError, and psycopg.OperationalError when the database is gone;
    in these cases nothing was recorded and the job stays with the queue.
    """
    try:
        STAGES[stage.job.stage](stage)
    except (LeaseLostError, StoppedError):
        raise
    except ReadError as error:
        stage.queue.fail(stage.job, error.code, error.message, terminal=True)
    except NoSpaceError:
        message = "There is not enough space left for what this file holds."
        stage.queue.fail(stage.job, "quota_exceeded", message, terminal=True)
    except psycopg.OperationalError:
        raise
    except ServiceError as error:
        stage.queue.fail(
            stage.job, "service_unavailable", error.message, terminal=False, service=error.service
        )
    except NarwhalError as error:
        stage.queue.fail(stage.job, error.error.lower(), error.message, terminal=False)
    except Exception as error:  # one bad file must not end the worker
        stage.queue.fail(stage.job, "internal", f"{type(error).__name__}: {error}", terminal=False)


def run_scan(stage: Stage) -> None:
    """Have clamd look at the bytes; what it finds is the end of the version."""
    settings = stage.job.settings
    address = settings["scanner.address"]
    if address and stage.job.size <= int(settings["scanner.max_bytes"]):
        with _blob(stage) as blob:
            found = scan(blob.path, str(address), float(settings["scanner.timeout_s"]))
        if found is not None:
            raise ReadError("infected", f"The scanner found {clean(found)[:200]}.")
    stage.queue.finish_scan(stage.job)


def run_detect(stage: Stage) -> None:
    """Hash the bytes and recognise them by content and name."""
    with _blob(stage) as blob:
        detected = detect_in_sandbox(
            blob.path,
            stage.job.name,
            stage.job.mime,
            _limits(stage.job),
            stage.queue.passwords(stage.job),
        )
        stage.queue.finish_detect(
            stage.job,
            sha256=blob.sha256,
            mime=detected.mime,
            file_format=detected.format,
            skip_reason=None
            if detected.format
            else f"Nothing here reads files of the type {detected.mime}.",
        )


def run_extract(stage: Stage) -> None:
    """Read the text, page by page, under limits; a long file is stored while it is read."""
    beginning: list[Page] = []
    rows: list[dict[str, Any]] = []
    stored = length = 0
    with (
        _blob(stage) as blob,
        reading_in_sandbox(
            blob.path,
            stage.job.name,
            stage.job.mime,
            _limits(stage.job),
            stage.queue.passwords(stage.job),
        ) as reading,
    ):
        for page in reading:
            if page.text and len(beginning) < _TELLING_PAGES:
                beginning.append(replace(page, text=page.text[:_TELLING], lines=(), headings=()))
            rows.append(page_row(page))
            length += len(page.text) + _PAGE_COST
            if length > _BATCH:
                stage.check()
                stage.queue.store_pages(stage.job, rows, is_first=not stored)
                stored += len(rows)
                rows, length = [], 0
    if stored and rows:
        stage.queue.store_pages(stage.job, rows, is_first=False)
    stage.queue.finish_extract(
        stage.job,
        language=_language(beginning),
        is_paged=reading.paged,
        pages=None if stored else rows,
        truncated_by=reading.truncated_by,
    )


def run_ocr(stage: Stage) -> None:
    """Read pages that are pictures, storing each as soon as it is read."""
    languages = stage.job.options.get("ocr_languages") or ()
    if not tesseract.can_read(languages):
        raise NarwhalError(
            f"OCR of this worker does not read all of {', '.join(languages)}.",
            "Install these languages of Tesseract where workers run.",
            error="SERVICE_UNAVAILABLE",
        )
    left = stage.queue.pictures(stage.job)["left"]
    problem: ReadError | None = None
    failures = 0
    while left and failures < _MOST_FAILURES:
        try:
            for number in _read_pictures(stage, left):
                left.remove(number)
        except ReadError as error:
            # one page that is too much, or crashes the reader, does not spoil the others
            problem = error
            failures += 1
            del left[0]
    stored = stage.queue.pages(stage.job, 0, _BATCH)
    pages = [_page(row) for row in stored["pages"]]
    if problem is not None and not any(page.text for page in pages):
        raise problem
    stage.queue.finish_ocr(stage.job, _language(pages), problem.code if problem else None)


def _read_pictures(stage: Stage, numbers: Sequence[int]) -> Iterator[int]:
    """Read these pages and store each; yield its number."""
    settings = stage.job.settings
    limits = replace(
        _limits(stage.job),
        seconds=float(settings["ocr.time_limit_s"]),
        memory_bytes=int(settings["ocr.memory_limit_mb"]) * MIB,
    )
    with _blob(stage) as blob:
        for page in read_pictures_in_sandbox(
            blob.path,
            stage.job.name,
            stage.job.mime,
            numbers,
            limits,
            stage.queue.passwords(stage.job),
            stage.job.options.get("ocr_languages") or (),
        ):
            stage.check()
            if page.source == "mixed":
                (row,) = stage.queue.pages(stage.job, page.number - 1, 1)["pages"]
                page = joined(_page(row), page)
            stage.queue.store_page(stage.job, page_row(page))
            yield page.number


def run_render(stage: Stage) -> None:
    """Draw a thumbnail and pages, storing each as soon as it is drawn."""
    settings = stage.job.settings
    todo = stage.queue.renditions(stage.job)
    if todo["left"] or todo["thumbnail"]:
        wanted = {
            "pages": todo["left"],
            "thumbnail": todo["thumbnail"],
            "dpi": int(settings["render.dpi"]),
            "most_pixels": int(settings["render.most_pixels"]),
            "images": todo["images"],
            "frames": int(settings["render.frames"]),
        }
        limits = replace(
            _limits(stage.job),
            seconds=float(settings["render.time_limit_s"]),
            memory_bytes=int(settings["render.memory_limit_mb"]) * MIB,
        )
        with _blob(stage) as blob:
            for made in draw_in_sandbox(
                blob.path,
                stage.job.name,
                stage.job.mime,
                wanted,
                limits,
                stage.queue.passwords(stage.job),
            ):
                stage.check()
                if isinstance(made, EmbeddedImage):
                    stage.queue.store_image(stage.job, made)
                else:
                    _keep_picture(stage, made)
    stage.queue.finish_render(stage.job)


def _keep_picture(stage: Stage, picture: Picture) -> None:
    """Write a picture to Storage, then its row; an object whose row never comes goes again."""
    key = f"{stage.job.file_id}/{stage.job.version_id}/{uuid4()}.webp"
    stage.queue.promise_rendition(stage.job, key)
    stage.blobs.store("derived", key, picture.data, "image/webp")
    try:
        stage.queue.store_rendition(stage.job, picture, key)
    except psycopg.Error as error:
        if error.sqlstate == "PT413":
            raise NoSpaceError from error
        raise


def run_transcribe(stage: Stage) -> None:
    """Listen to a recording, storing what was said in each stretch as soon as it was heard."""
    settings = stage.job.settings
    limits = replace(
        _limits(stage.job),
        seconds=float(settings["transcribe.time_limit_s"]),
        memory_bytes=int(settings["transcribe.memory_limit_mb"]) * MIB,
    )
    recognizer = choose_recognizer()
    reached_ms = stage.queue.begin_transcript(
        stage.job, recognizer.name, recognizer.revision, recognizer.is_low_quality
    )
    with _blob(stage) as blob:
        for heard in listen(
            blob.path, stage.job.name, stage.job.mime, reached_ms, recognizer, limits
        ):
            stage.check()
            stage.queue.store_segments(
                stage.job,
                [asdict(segment) for segment in heard.segments],
                heard.reached_ms,
                heard.duration_ms,
            )
    stage.queue.finish_transcribe(stage.job)


def _language(pages: Sequence[Page]) -> str | None:
    """The language of a document, from the beginnings of its first pages with text."""
    texts = [page.text[:_TELLING] for page in pages if page.text]
    return detect_language("\n".join(texts[:_TELLING_PAGES]))


def run_chunk(stage: Stage) -> None:
    """Cut the pages into chunks that fit the active text space."""
    stored = stage.queue.pages(stage.job, 0, _BATCH)
    encoders = [load_text_encoder(space["model"], space["revision"]) for space in stored["spaces"]]
    beginning = Document(
        pages=tuple(_page(row) for row in stored["pages"]), paged=bool(stored["is_paged"])
    )
    chunks = chunk_pages(
        beginning,
        _pages(stage, beginning.pages, stored["last_page"]),
        size=int(stage.job.options["chunk_size"]),
        overlap=int(stage.job.options["chunk_overlap"]),
        count_tokens=lambda text: max((e.count_tokens(text) for e in encoders), default=0),
        max_tokens=min((int(space["max_tokens"]) for space in stored["spaces"]), default=2**31),
    )
    is_first = True
    rows: list[dict[str, Any]] = []
    for piece in chunks:
        if len(rows) == _CHUNKS_AT_ONCE:
            stage.check()
            stage.queue.store_chunks(stage.job, rows, is_first=is_first)
            is_first, rows = False, []
        rows.append(chunk_row(piece))
    if not is_first:
        stage.queue.store_chunks(stage.job, rows, is_first=False)
    stage.queue.finish_chunk(stage.job, rows if is_first else None)


def _pages(stage: Stage, beginning: Sequence[Page], last: int | None) -> Iterator[Page]:
    """All pages of a job's version, of which the first are here already."""
    at = 0
    for page in beginning:
        yield page
        at = page.number
    while last is not None and at < last:
        for row in stage.queue.pages(stage.job, at, _BATCH)["pages"]:
            yield _page(row)
            at = row["page"]
        stage.queue.heartbeat(stage.job, progress=at / (last + 1))


def run_embed_text(stage: Stage) -> None:
    """Embed what has no vector yet; vectors stored before an interruption stay."""
    space = stage.job.space
    if space is None:
        raise ValueError("embed_text needs a space")
    encoder = space_encoder(space)
    while True:
        stage.check()
        batch = stage.queue.texts(stage.job, EMBED_BATCH)
        if not batch["texts"]:
            break
        with using(f"encoder {space['id']}"):
            embeddings = encoder.encode([text["content"] for text in batch["texts"]])
        stage.queue.store_vectors(
            stage.job,
            [
                {"hash": text["hash"], "embedding": [round(float(x), 6) for x in embedding]}
                for text, embedding in zip(batch["texts"], embeddings, strict=True)
            ],
        )
        left = batch["missing"] - len(batch["texts"])
        stage.queue.heartbeat(stage.job, progress=1 - left / max(batch["total"], 1))
    stage.queue.finish_embed_text(stage.job)


def run_insights(stage: Stage) -> None:
    """Find out what the text tells about itself."""
    stored = stage.queue.pages(stage.job, 0, _BATCH)
    pages: list[Page] = []
    length = 0
    beginning = [_page(row) for row in stored["pages"]]
    for page in _pages(stage, beginning, stored["last_page"]):
        stage.check()
        pages.append(replace(page, lines=(), headings=(), times=()))
        length += len(page.text)
        if length > _MOST_INSIGHTFUL:
            break
    places, bands = sketch(pages)
    stage.queue.finish_insights(
        stage.job,
        [insight_row(found) for found in analyse(pages, stage.job.name, stage.job.format)],
        places,
        bands,
    )


def run_unpack(stage: Stage) -> None:
    """Make files of a mail's attachments; those that are there already are left as they are."""
    settings = stage.job.settings
    if not stage.queue.is_to_be_unpacked(stage.job):
        stage.queue.finish_unpack(stage.job)
        return
    limits = replace(
        _limits(stage.job),
        seconds=float(settings["unpack.time_limit_s"]),
        memory_bytes=int(settings["unpack.memory_limit_mb"]) * MIB,
        characters=int(settings["unpack.max_total_bytes"]) // 8,  # room for so much in base64
    )
    wanted = {
        "most_count": int(settings["unpack.max_count"]),
        "most_bytes": int(settings["unpack.max_bytes"]),
        "most_total_bytes": int(settings["unpack.max_total_bytes"]),
    }
    found: list[str] = []
    refused: list[str] = []
    with _blob(stage) as blob:
        for member in unpack(blob.path, stage.job.name, stage.job.mime, wanted, limits):
            stage.check()
            found.append(member.member)
            if member.is_refused or not _keep_member(stage, member):
                refused.append(member.name)
    sentence = f"These stay inside: {', '.join(refused)}" if refused else None
    stage.queue.finish_unpack(stage.job, found, sentence)


def _keep_member(stage: Stage, member: Unpacked) -> bool:
    """Make a file of a member; False where an upload of it would be refused."""
    try:
        place = stage.queue.begin_member(stage.job, member)
    except psycopg.Error as error:
        detail = error.diag.message_detail or ""
        if "QUOTA_EXCEEDED" in detail:
            raise NoSpaceError from error
        if error.sqlstate in ("PT413", "PT415", "PT422"):
            return False
        raise
    if place is not None:
        stage.blobs.store(
            place["bucket"], place["key"], member.data, member.mime or "application/octet-stream"
        )
    return True


STAGES: dict[str, Callable[[Stage], None]] = {
    "scan": run_scan,
    "detect": run_detect,
    "extract": run_extract,
    "ocr": run_ocr,
    "transcribe": run_transcribe,
    "render": run_render,
    "unpack": run_unpack,
    "chunk": run_chunk,
    "embed_text": run_embed_text,
    "insights": run_insights,
}


@contextmanager
def _blob(stage: Stage) -> Iterator[Blob]:
    job = stage.job
    if job.bucket is None or job.key is None:
        raise NarwhalError("The bytes of this version are gone.", error="OBJECT_MISSING")
    blob = stage.blobs.fetch(job.bucket, job.key)
    try:
        yield blob
    finally:
        stage.blobs.release(job.key)


def space_encoder(space: dict[str, Any]) -> TextEncoder:
    """Load the encoder of a space; raises NarwhalError when the model here has other weights."""
    encoder = load_text_encoder(space["model"], space["revision"])
    if (encoder.revision, encoder.dimension) != (space["revision"], space["dimension"]):
        raise NarwhalError(
            f"The model {space['model']} here ({encoder.revision}, {encoder.dimension} numbers) is "
            f"not that of the space {space['name']} ({space['revision']}, {space['dimension']}).",
            error="SERVICE_UNAVAILABLE",
        )
    return encoder


def _limits(job: Job) -> Limits:
    settings = job.settings
    return Limits(
        seconds=float(settings["ingest.time_limit_s"])
        + float(settings["ingest.time_limit_per_mb_s"]) * job.size / MIB,
        memory_bytes=int(settings["ingest.memory_limit_mb"]) * MIB,
        characters=int(settings["ingest.output_limit_chars"]),
    )


def page_row(page: Page) -> dict[str, Any]:
    """Lay a page out as `finish_extract` takes it."""
    return {
        "page": page.number,
        "text": page.text,
        "width": page.width,
        "height": page.height,
        "source": page.source,
        "needs_ocr": page.needs_ocr,
        "layout": {
            "lines": [
                [line.start, line.end, *(round(x, 4) for x in line.box)] for line in page.lines
            ],
            "headings": [[h.start, h.level, h.text] for h in page.headings],
            **({"times": [list(astuple(said)) for said in page.times]} if page.times else {}),
        },
    }


def _page(row: dict[str, Any]) -> Page:
    layout = row["layout"]
    return Page(
        number=row["page"],
        text=row["text"],
        width=row["width"],
        height=row["height"],
        source=row["source"],
        lines=tuple(
            Line(start, end, (x0, y0, x1, y1)) for start, end, x0, y0, x1, y1 in layout["lines"]
        ),
        headings=tuple(Heading(start, level, text) for start, level, text in layout["headings"]),
        times=tuple(Spoken(*values) for values in layout.get("times", ())),
    )


def chunk_row(piece: Chunk) -> dict[str, Any]:
    """Lay a chunk out as `finish_chunk` takes it."""
    return {
        "idx": piece.idx,
        "page": piece.page,
        "content": piece.content,
        "char_start": piece.char_start,
        "char_end": piece.char_end,
        "bboxes": [[round(x, 4) for x in box] for box in piece.bboxes],
        "heading": piece.heading,
        "context": piece.context,
        "language": piece.language,
        "time_range_ms": "[{},{})".format(*piece.time_range_ms) if piece.time_range_ms else None,
    }
