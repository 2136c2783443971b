"""The job queue as a worker sees it: claim, report, store, under a lease that Postgres checks.

The rules (leases, attempts, fencing, what follows a stage) are functions of schema `private`;
here they only get names and types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from narwhal.ingest.document import EmbeddedImage, Picture
from narwhal.ingest.unpacking import Unpacked

PENDING_CHANNEL = "narwhal_jobs"


class LeaseLostError(Exception):
    """The job was cancelled, its file deleted, or its lease ran out: nothing may be written."""


@dataclass(frozen=True)
class Job:
    """A claimed job: one stage of one version, with what the stage needs to know."""

    id: str
    lease_token: str
    stage: str
    file_id: str
    version_id: str
    name: str
    mime: str | None
    format: str | None
    size: int
    bucket: str | None
    key: str | None
    space: dict[str, Any] | None
    options: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Job:
        """Read a row of `private.claim_jobs`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


class Queue:
    """The queue's functions over one connection of the role narwhal_worker."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection

    def spaces(self) -> list[dict[str, Any]]:
        """Read the spaces that files are embedded in."""
        rows = self.connection.execute("select private.worker_spaces()").fetchall()
        return [row[0] for row in rows]

    def claim(
        self, worker: str, space_ids: Sequence[int], stages: Sequence[str], count: int = 1
    ) -> list[Job]:
        """Take up to `count` jobs that are due, of these stages, and of these spaces or none."""
        rows = self.connection.execute(
            "select private.claim_jobs(%s, %s, %s::smallint[], %s::text[])",
            (worker, count, list(space_ids), list(stages)),
        ).fetchall()
        return [Job.from_row(row[0]) for row in rows]

    def wait(self, seconds: float) -> None:
        """Wait for the doorbell, at most so long."""
        self.connection.execute(f"listen {PENDING_CHANNEL}")
        for _ in self.connection.notifies(timeout=seconds, stop_after=1):
            pass

    def heartbeat(
        self,
        job: Job,
        progress: float | None = None,
        pages_done: int | None = None,
        pages_total: int | None = None,
    ) -> None:
        """Renew the lease and report progress (0 to 1); raises LeaseLostError."""
        self._call(
            "select private.heartbeat_job(%s, %s, %s::real, %s::integer, %s::integer)",
            job,
            progress,
            pages_done,
            pages_total,
        )

    def release(self, job: Job) -> None:
        """Hand a job back untouched."""
        self._call("select private.release_job(%s, %s)", job)

    def fail(
        self, job: Job, code: str, message: str, *, terminal: bool, service: str | None = None
    ) -> str:
        """Record an error; terminal when the file itself is at fault. Returns the job's state.

        `service` is the outside service that failed, if one did.
        """
        return str(
            self._call(
                "select private.fail_job(%s, %s, %s, %s, %s, %s)",
                job,
                code,
                message,
                terminal,
                service,
            )
        )

    def finish_scan(self, job: Job) -> None:
        """End the stage; the scanner found nothing."""
        self._call("select private.finish_scan(%s, %s)", job)

    def finish_detect(
        self,
        job: Job,
        *,
        sha256: str,
        mime: str | None,
        file_format: str | None,
        skip_reason: str | None = None,
    ) -> None:
        """Store what the bytes are."""
        self._call(
            "select private.finish_detect(%s, %s, %s, %s, %s, %s)",
            job,
            sha256,
            mime,
            file_format,
            skip_reason,
        )

    def store_pages(self, job: Job, pages: list[dict[str, Any]], *, is_first: bool) -> None:
        """Keep some pages of a long file; the first call drops those of an earlier run."""
        self._call("select private.store_pages(%s, %s, %s, %s)", job, Jsonb(pages), is_first)

    def finish_extract(
        self,
        job: Job,
        *,
        language: str | None,
        is_paged: bool,
        pages: list[dict[str, Any]] | None,
        truncated_by: str | None = None,
    ) -> None:
        """End the stage with all pages, or with None when `store_pages` has them."""
        self._call(
            "select private.finish_extract(%s, %s, %s, %s, %s, %s)",
            job,
            language,
            is_paged,
            None if pages is None else Jsonb(pages),
            truncated_by,
        )

    def passwords(self, job: Job) -> list[str]:
        """Read the passwords to try on the job's file, the newest first; log none of them."""
        passwords: list[str] = self._call(
            "select coalesce(array_agg(p), '{}') from private.job_passwords(%s, %s) as p", job
        )
        return passwords

    def report_ocr_languages(self, codes: Sequence[str]) -> None:
        """Tell which languages Tesseract has here."""
        self.connection.execute("select private.report_ocr_languages(%s::text[])", (list(codes),))

    def pictures(self, job: Job) -> dict[str, Any]:
        """Read `{left: numbers of pages, total}`: what OCR has to do."""
        pictures: dict[str, Any] = self._call("select private.job_pictures(%s, %s)", job)
        return pictures

    def store_page(self, job: Job, page: dict[str, Any]) -> None:
        """Keep what OCR read on a page."""
        self._call("select private.store_page(%s, %s, %s)", job, Jsonb(page))

    def finish_ocr(self, job: Job, language: str | None, truncated_by: str | None = None) -> None:
        """End the stage; every page is stored, unless a limit ended it."""
        self._call("select private.finish_ocr(%s, %s, %s, %s)", job, language, truncated_by)

    def finish_insights(
        self,
        job: Job,
        insights: list[dict[str, Any]],
        sketch: list[int] | None,
        bands: list[int],
    ) -> None:
        """Store what was found out about the text, all at once."""
        self._call(
            "select private.finish_insights(%s, %s, %s, %s::integer[], %s::bigint[])",
            job,
            Jsonb(insights),
            sketch,
            bands,
        )

    def begin_transcript(self, job: Job, engine: str, revision: str, is_low_quality: bool) -> int:
        """Begin to listen with an engine; returns from where on, in ms of the recording."""
        return int(
            self._call(
                "select private.begin_transcript(%s, %s, %s, %s, %s)",
                job,
                engine,
                revision,
                is_low_quality,
            )
        )

    def store_segments(
        self,
        job: Job,
        segments: list[dict[str, Any]],
        reached_ms: int,
        duration_ms: int | None,
    ) -> None:
        """Keep what was said up to `reached_ms`."""
        self._call(
            "select private.store_segments(%s, %s, %s, %s, %s)",
            job,
            Jsonb(segments),
            reached_ms,
            duration_ms,
        )

    def finish_transcribe(self, job: Job) -> None:
        """End the stage: what was said is the text of the file."""
        self._call("select private.finish_transcribe(%s, %s)", job)

    def pages(self, job: Job, after: int = 0, characters: int | None = None) -> dict[str, Any]:
        """Read `{is_paged, language, last_page, pages, spaces}` of the job's version.

        Of the pages those after one, until they have so many characters.
        """
        pages: dict[str, Any] = self._call(
            "select private.job_pages(%s, %s, %s, %s)", job, after, characters
        )
        return pages

    def store_chunks(self, job: Job, chunks: list[dict[str, Any]], *, is_first: bool) -> None:
        """Keep some chunks of a long file; the first call drops those of an earlier run."""
        self._call("select private.store_chunks(%s, %s, %s, %s)", job, Jsonb(chunks), is_first)

    def finish_chunk(self, job: Job, chunks: list[dict[str, Any]] | None) -> None:
        """Put the chunks in service, all at once; None when `store_chunks` has them."""
        self._call(
            "select private.finish_chunk(%s, %s, %s)",
            job,
            None if chunks is None else Jsonb(chunks),
        )

    def texts(self, job: Job, count: int) -> dict[str, Any]:
        """Read `{total, missing, texts: [{hash, content}]}`, at most `count` texts."""
        texts: dict[str, Any] = self._call("select private.job_texts(%s, %s, %s)", job, count)
        return texts

    def store_vectors(self, job: Job, vectors: list[dict[str, Any]]) -> None:
        """Keep vectors `[{hash, embedding}]`."""
        self._call("select private.store_vectors(%s, %s, %s)", job, Jsonb(vectors))

    def finish_embed_text(self, job: Job) -> None:
        """End the stage and put the vectors in service."""
        self._call("select private.finish_embed_text(%s, %s)", job)

    def renditions(self, job: Job) -> dict[str, Any]:
        """Read `{left: pages, thumbnail: bool, images}`: what is to be drawn, what is there."""
        renditions: dict[str, Any] = self._call("select private.job_renditions(%s, %s)", job)
        return renditions

    def promise_rendition(self, job: Job, key: str) -> None:
        """Announce an object: it goes again in an hour unless it is recorded."""
        self._call("select private.promise_rendition(%s, %s, %s)", job, key)

    def store_rendition(self, job: Job, picture: Picture, key: str) -> None:
        """Record a picture whose bytes are in the bucket derived."""
        self._call(
            "select private.store_rendition(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            job,
            picture.kind,
            picture.page,
            key,
            len(picture.data),
            picture.width,
            picture.height,
            picture.image,
        )

    def store_image(self, job: Job, image: EmbeddedImage) -> None:
        """Record an image of the job's version."""
        place = image.location
        values = asdict(image) | {
            "location": place
            and {"latitude": place[0], "longitude": place[1], "altitude_m": place[2]}
        }
        self._call("select private.store_image(%s, %s, %s)", job, Jsonb(values))

    def finish_render(self, job: Job) -> None:
        """End the stage; what an earlier run made and this one did not goes."""
        self._call("select private.finish_render(%s, %s)", job)

    def is_to_be_unpacked(self, job: Job) -> bool:
        """Whether files are to be taken out of the job's version."""
        return bool(self._call("select private.job_members(%s, %s)", job))

    def begin_member(self, job: Job, member: Unpacked) -> dict[str, Any] | None:
        """Make a file of what is inside of the job's; `{bucket, key}` where its bytes go, if any.

        Raises psycopg.Error with the SQLSTATE of what an upload would be refused for.
        """
        place: dict[str, Any] | None = self._call(
            "select private.begin_member(%s, %s, %s, %s, %s, %s, %s)",
            job,
            member.member,
            member.name,
            len(member.data),
            member.mime,
            hashlib.sha256(member.data).hexdigest(),
        )
        return place

    def finish_unpack(
        self, job: Job, members: list[str] | None = None, refused: str | None = None
    ) -> None:
        """End the stage: all members that there are, and a sentence about what was left inside."""
        self._call("select private.finish_unpack(%s, %s, %s::text[], %s)", job, members, refused)

    def _call(self, statement: LiteralString, job: Job, *values: object) -> Any:
        try:
            row = self.connection.execute(statement, (job.id, job.lease_token, *values)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == "PT409" and "lease" in (error.diag.message_detail or ""):
                raise LeaseLostError(job.id) from error
            raise
        return row[0] if row else None
