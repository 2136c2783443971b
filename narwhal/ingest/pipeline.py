"""The stages of ingestion: detect, extract, ocr, render, chunk, embed_text.

Each stage reads what its predecessor stored, and ends in one call that stores its output and the
job's state together. Running a stage twice gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import psycopg

from narwhal.encoders import TextEncoder, load_text_encoder
from narwhal.errors import NarwhalError
from narwhal.ingest.blobs import Blob, BlobStore
from narwhal.ingest.chunking import chunk
from narwhal.ingest.document import Chunk, Document, Heading, Line, Page, Picture, ReadError
from narwhal.ingest.language import detect_language
from narwhal.ingest.limits import (
    MIB,
    Limits,
    detect_in_sandbox,
    draw_in_sandbox,
    read_in_sandbox,
    read_pictures_in_sandbox,
)
from narwhal.ingest.queue import Job, LeaseLostError, Queue

EMBED_BATCH = 32


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
        message = "There is not enough space left for pictures of this file."
        stage.queue.fail(stage.job, "quota_exceeded", message, terminal=True)
    except psycopg.OperationalError:
        raise
    except NarwhalError as error:
        stage.queue.fail(stage.job, error.error.lower(), error.message, terminal=False)
    except Exception as error:  # one bad file must not end the worker
        stage.queue.fail(stage.job, "internal", f"{type(error).__name__}: {error}", terminal=False)


def run_detect(stage: Stage) -> None:
    """Hash the bytes and recognise them by content and name."""
    with _blob(stage) as blob:
        detected = detect_in_sandbox(
            blob.path,
            stage.job.name,
            stage.job.mime,
            _limits(stage.job.settings),
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
    """Read the text, page by page, under limits."""
    with _blob(stage) as blob:
        document = read_in_sandbox(
            blob.path,
            stage.job.name,
            stage.job.mime,
            _limits(stage.job.settings),
            stage.queue.passwords(stage.job),
        )
    stage.queue.finish_extract(
        stage.job,
        language=_language(document.pages),
        is_paged=document.paged,
        pages=[page_row(page) for page in document.pages],
    )


def run_ocr(stage: Stage) -> None:
    """Read pages that are pictures, storing each as soon as it is read."""
    left = stage.queue.pictures(stage.job)["left"]
    if left:
        settings = stage.job.settings
        limits = replace(
            _limits(settings),
            seconds=float(settings["ocr.time_limit_s"]) * len(left),
            memory_bytes=int(settings["ocr.memory_limit_mb"]) * MIB,
        )
        with _blob(stage) as blob:
            for page in read_pictures_in_sandbox(
                blob.path,
                stage.job.name,
                stage.job.mime,
                left,
                limits,
                stage.queue.passwords(stage.job),
            ):
                stage.check()
                stage.queue.store_page(stage.job, page_row(page))
    stored = stage.queue.pages(stage.job)
    stage.queue.finish_ocr(stage.job, _language([_page(row) for row in stored["pages"]]))


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
        }
        limits = replace(
            _limits(settings),
            seconds=float(settings["render.time_limit_s"]),
            memory_bytes=int(settings["render.memory_limit_mb"]) * MIB,
        )
        with _blob(stage) as blob:
            for picture in draw_in_sandbox(
                blob.path,
                stage.job.name,
                stage.job.mime,
                wanted,
                limits,
                stage.queue.passwords(stage.job),
            ):
                stage.check()
                _keep_picture(stage, picture)
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


def _language(pages: Sequence[Page]) -> str | None:
    """The language of a document, from the beginnings of its first pages with text."""
    return detect_language("\n".join([page.text[:2000] for page in pages if page.text][:10]))


def run_chunk(stage: Stage) -> None:
    """Cut the pages into chunks that fit the active text space."""
    stored = stage.queue.pages(stage.job)
    encoders = [load_text_encoder(space["model"], space["revision"]) for space in stored["spaces"]]
    document = Document(
        pages=tuple(_page(row) for row in stored["pages"]), paged=bool(stored["is_paged"])
    )
    chunks = chunk(
        document,
        size=int(stage.job.options["chunk_size"]),
        overlap=int(stage.job.options["chunk_overlap"]),
        count_tokens=lambda text: max((e.count_tokens(text) for e in encoders), default=0),
        max_tokens=min((int(space["max_tokens"]) for space in stored["spaces"]), default=2**31),
    )
    stage.queue.finish_chunk(stage.job, [chunk_row(piece) for piece in chunks])


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


STAGES: dict[str, Callable[[Stage], None]] = {
    "detect": run_detect,
    "extract": run_extract,
    "ocr": run_ocr,
    "render": run_render,
    "chunk": run_chunk,
    "embed_text": run_embed_text,
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


def _limits(settings: dict[str, Any]) -> Limits:
    return Limits(
        seconds=float(settings["ingest.time_limit_s"]),
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
    }
