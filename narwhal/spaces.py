"""Embedding spaces, as whoever holds the database manages them.

The rules are functions of schema `private` (the migrations space_comparison, spaces and
space_backfill); here are the steps that take several of them, and what needs a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from narwhal.db import connect
from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error

if TYPE_CHECKING:
    from narwhal.encoders import TextEncoder

POLL_S = 0.5
STALLED_S = 30.0
TRIES = 40  # to find a moment in which the tables of vectors are free
EMPTY_AT_ONCE = 10_000
Report = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A model of the hub that has a short name here."""

    name: str
    revision: str
    dimension: int
    max_tokens: int


MODELS = {
    "bge-m3": Model("BAAI/bge-m3", "5617a9f61b028005a4858fdac845db406aefb181", 1024, 8192),
}
# What packaged models were made for; all others are taken to read any language.
LANGUAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("en",), "all-MiniLM-L6-v2": ("en",)}


def describe_model(
    name: str,
    model: str | None = None,
    revision: str | None = None,
    dimension: int | None = None,
    max_tokens: int | None = None,
    kind: str = "text",
    languages: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Find out what a space needs to know of its model.

    That is {model, revision, dimension, max_tokens, languages}; languages is None for any.
    A model that can be loaded here speaks for itself, and what was said about it must agree; one
    that runs elsewhere has to be described. Raises NarwhalError INVALID_ARGUMENT.
    """
    known = MODELS.get(model or name)
    model = known.name if known else model or name
    revision = revision or (known.revision if known else None)
    dimension = dimension or (known.dimension if known else None)
    max_tokens = max_tokens or (known.max_tokens if known else None)
    encoder = _local_encoder(model) if kind == "text" else None
    if encoder is not None:
        for field, said, found in (
            ("dimension", dimension, encoder.dimension),
            ("revision", revision, encoder.revision),
        ):
            if said is not None and said != found:
                raise _invalid(
                    field, f"The model {model} here has {field} {found}, not {said}.", found
                )
        revision, dimension = encoder.revision, encoder.dimension
        max_tokens = min(max_tokens or encoder.max_tokens, encoder.max_tokens)
        languages = languages or LANGUAGES.get(model)
    if dimension is None:
        raise _invalid("dimension", f"The model {model} is not here: say its dimension with --dim.")
    if revision is None:
        raise _invalid(
            "revision",
            f"The model {model} is not here: say with --revision which commit of it workers load.",
        )
    return {
        "model": model,
        "revision": revision,
        "dimension": dimension,
        "max_tokens": max_tokens or 512,
        "languages": list(languages) if languages else None,
    }


def _local_encoder(model: str) -> TextEncoder | None:
    """Load a model that needs no network; None when it is not here."""
    from pathlib import Path

    from narwhal.encoders import load_text_encoder

    try:
        return load_text_encoder(model)
    except ModuleNotFoundError:  # installed without the `extract` extra
        return None
    except NarwhalError:
        if Path(model).expanduser().is_dir():
            raise  # it is here, and cannot be used
        return None


def _invalid(field: str, message: str, expected: object = None) -> NarwhalError:
    return NarwhalError(
        message,
        "Correct it and run the command again.",
        error="INVALID_ARGUMENT",
        status=422,
        details={"field": field} | ({} if expected is None else {"expected": expected}),
    )


class Spaces:
    """The spaces of one database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = connect(url, application="narwhal spaces")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def all(self) -> list[dict[str, Any]]:
        """Describe all spaces."""
        rows = self.connection.execute("select private.list_spaces()").fetchall()
        return [row[0] for row in rows]

    def named(self, name: str) -> dict[str, Any]:
        """Describe one space; raises NOT_FOUND."""
        space: dict[str, Any] = self._one(
            "select private.describe_space(private.space_named(%s))", name
        )
        return space

    def add(self, name: str, kind: str, described: dict[str, Any]) -> dict[str, Any]:
        """Register a space."""
        space: dict[str, Any] = self._when_free(
            "select private.add_space(%s, %s, %s, %s, %s, %s, %s)",
            name,
            described["model"],
            described["revision"],
            described["dimension"],
            kind,
            described["max_tokens"],
            described.get("languages"),
        )
        return space

    def index(self, name: str) -> dict[str, Any]:
        """Say whether a space has an HNSW index, and whether one pays."""
        described: dict[str, Any] = self._one(
            "select private.describe_index((private.space_named(%s)).id)", name
        )
        return {"name": name, **described}

    def build_index(self, name: str) -> dict[str, Any]:
        """Build the HNSW index of a space unless it has one; searches and writes go on."""
        found = self.index(name)
        if found["is_valid"]:
            return found
        if found["index"]:  # an earlier one was broken off, or is being built
            self._remove_index(found["index"])
        statement = self._one(
            "select private.vector_index_statement((private.space_named(%s)).id)", name
        )
        self.connection.execute("set statement_timeout = 0")
        self.connection.execute(statement)
        return self.index(name)

    def drop_index(self, name: str) -> dict[str, Any]:
        """Remove the HNSW index of a space; searches are exact from then on."""
        found = self.index(name)
        if found["index"]:
            self._remove_index(found["index"])
        return self.index(name)

    def _remove_index(self, index: str) -> None:
        schema, table = index.split(".")
        self.connection.execute("set statement_timeout = 0")
        self.connection.execute(
            sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(schema, table))
        )

    def estimate(
        self, name: str, rate: float | None, price: float | None, workers: int
    ) -> dict[str, Any]:
        """Say what a back-fill will take."""
        estimate: dict[str, Any] = self._one(
            "select private.estimate_backfill("
            "(private.space_named(%s)).id, %s::real, %s::real, %s)",
            name,
            rate,
            price,
            workers,
        )
        return estimate

    def backfill(self, name: str, report: Report, *, wait: bool) -> dict[str, Any]:
        """Queue what a space lacks, and wait until workers have done it; returns the space.

        Raises LOCKED while another one is under way, CONFLICT_STATE when something failed. However
        it ends, what is done is done, and the next one goes on from there.
        """
        with connect(self.url, application="narwhal back-fill") as holder, holder.transaction():
            # the transaction stays open: its lock ends with this process, even a killed one
            row = holder.execute("select private.lock_backfill(%s)", (name,)).fetchone()
            assert row is not None
            space_id = int(row[0]["id"])
            for _ in range(3):  # what somebody was changing meanwhile takes another round
                queued = self._queue(space_id)
                report(f"{queued} files queued")
                if not wait:
                    return self.named(name)
                failed = self._wait(space_id, report)
                space: dict[str, Any] = self._when_free(
                    "select private.complete_backfill(%s::smallint)", space_id
                )
                if space["missing_chunks"] == 0 or failed or not queued:
                    break
        if space["state"] == "building":
            raise NarwhalError(
                f'The space "{name}" still lacks {space["missing_chunks"]} chunks of '
                f"{space['missing_files']} files; {space['jobs']['failed']} jobs failed.",
                "See why: narwhal jobs list --state dead; then run the back-fill again.",
                error="CONFLICT_STATE",
                status=409,
                details={
                    key: space[key] for key in ("name", "missing_files", "missing_chunks", "jobs")
                },
            )
        return space

    def activate(self, name: str, wait_s: float, report: Report) -> dict[str, Any]:
        """Make a space the one that is searched; wait so long for files that are being read."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                answer: dict[str, Any] = self._when_free("select private.activate_space(%s)", name)
                break
            except psycopg.Error as error:
                failure = as_narwhal_error(error)
                if (
                    failure is None
                    or "missing_chunks" not in failure.details
                    or time.monotonic() >= deadline
                ):
                    raise
                report(failure.message)
                time.sleep(POLL_S)
        self._settle(name)
        return answer

    def rollback(self, kind: str) -> dict[str, Any]:
        """Go back to the space that was active before."""
        answer: dict[str, Any] = self._when_free("select private.rollback_space(%s)", kind)
        self._settle(answer["space"])
        return answer

    def retire(self, name: str, report: Report) -> dict[str, Any]:
        """Take a space out of use and remove its vectors in batches; returns what is left of it.

        Killed, it goes on when it is called again.
        """
        space = self._when_free("select private.retire_space(%s)", name)
        if space["wait_s"] > 0:
            report(f"waiting {space['wait_s']:.0f} s for searches under way")
            time.sleep(float(space["wait_s"]))
        removed = 0
        while self._one("select private.holds_rows(%s::smallint)", space["id"]):
            count = self._one(
                "select private.empty_space(%s::smallint, %s)", space["id"], EMPTY_AT_ONCE
            )
            removed += count
            report(f"{removed} rows removed")
            if not count:  # somebody has the last ones locked
                time.sleep(POLL_S)
        while self._one("select private.shrink_space(%s::smallint)", space["id"]):
            pass
        return self.named(name) | {"removed": removed}

    def compare(self, name: str, other: str | None, samples: int, top_k: int) -> dict[str, Any]:
        """Say how far two spaces agree about the neighbours of passages picked at random."""
        space, beside = self._pair(name, other)
        overlap: dict[str, Any] = self._one(
            "select private.compare_spaces(%s::smallint, %s::smallint, %s, %s)",
            space["id"],
            beside["id"],
            samples,
            top_k,
        )
        return {"space": space["name"], "with": beside["name"], **overlap}

    def compare_questions(
        self, name: str, other: str | None, questions: list[str], email: str, top_k: int
    ) -> dict[str, Any]:
        """Say how far two spaces agree about real questions to the files of one user."""
        space, beside = self._pair(name, other)
        owner = self.owner_id(email)
        found = [self._nearest(each, owner, questions, top_k) for each in (space, beside)]
        parts = [
            len(set(a) & set(b)) / min(top_k, max(len(a), len(b)))
            for a, b in zip(*found, strict=True)
            if a or b
        ]
        return {
            "space": space["name"],
            "with": beside["name"],
            "samples": len(parts),
            "top_k": top_k,
            "overlap": round(sum(parts) / len(parts), 4) if parts else None,
            "least": round(min(parts), 4) if parts else None,
        }

    def record(
        self,
        name: str,
        collection: str,
        *,
        ndcg: float,
        recall: float | None,
        mrr: float | None,
        questions: int,
        has_passed: bool = True,
        fingerprint: str | None = None,
    ) -> None:
        """Keep what an evaluation found for a space: activation looks at it."""
        self._one(
            "select private.record_evaluation(%s, %s, %s::real, %s::real, %s::real, %s, %s, %s)",
            name,
            collection,
            ndcg,
            recall,
            mrr,
            questions,
            has_passed,
            Jsonb({"fingerprint": fingerprint}),
        )

    def record_figures(self, figures: dict[str, Any], *, has_passed: bool) -> None:
        """Keep the figures of an evaluation: those of hybrid search by a reader of everything."""
        whole = next(iter(figures["shares"].values()))
        hybrid = whole["modes"]["hybrid"]
        self.record(
            figures["space"],
            figures["collection"],
            ndcg=hybrid["ndcg_at_10"],
            recall=hybrid["recall_at_100"],
            mrr=hybrid["mrr_at_10"],
            questions=whole["questions"],
            has_passed=has_passed,
            fingerprint=figures["fingerprint"],
        )

    def owner_id(self, email: str) -> str:
        """Return the personal owner of a user; raises NOT_FOUND."""
        found = self._one(
            "select id::text from public.user_profiles where lower(email) = lower(%s)", email
        )
        if found is None:
            raise NarwhalError(
                f"There is no user {email}.",
                "See: narwhal users list",
                error="NOT_FOUND",
                status=404,
            )
        return str(found)

    def import_vectors(
        self, space_id: int, owner_id: str | None, rows: list[dict[str, Any]]
    ) -> int:
        """Store vectors `[{chunk_id, embedding, text_hash}]` of chunks; returns how many fitted."""
        return int(
            self._one(
                "select private.import_vectors(%s::smallint, %s::uuid, %s)",
                space_id,
                owner_id,
                Jsonb(rows),
            )
        )

    def serve_imported(self, space_id: int) -> None:
        """Put files in service whose chunks all have vectors now."""
        last = None
        while True:
            last = self._one(
                "select private.serve_imported(%s::smallint, %s::uuid)", space_id, last
            )
            if last is None:
                return

    def _pair(self, name: str, other: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        space = self.named(name)
        if other is None:
            other = self._one(
                "select s.name from public.embedding_spaces as s"
                " where s.id = private.active_space_id(%s)",
                space["kind"],
            )
        if other is None or other == name:
            raise NarwhalError(
                f'There is nothing to compare "{name}" with.',
                "Name another space: narwhal spaces compare NAME --with OTHER",
                error="CONFLICT_STATE",
                status=409,
            )
        return space, self.named(other)

    def _nearest(
        self, space: dict[str, Any], owner: object, questions: list[str], top_k: int
    ) -> list[list[str]]:
        from narwhal.ingest.pipeline import space_encoder

        vectors = space_encoder(space).encode(questions)
        return [
            self._one(
                "select private.nearest_chunks("
                "%s::smallint, %s, %s::extensions.halfvec, %s)::text[]",
                space["id"],
                owner,
                "[" + ",".join(f"{x:.6f}" for x in vector) + "]",
                top_k,
            )
            for vector in vectors
        ]

    def _queue(self, space_id: int) -> int:
        queued = 0
        last: str | None = None
        while True:
            batch = self._one(
                "select private.queue_backfill(%s::smallint, %s::uuid)", space_id, last
            )
            queued += int(batch["queued"])
            last = batch["last"]
            if last is None:
                return queued

    def _wait(self, space_id: int, report: Report) -> int:
        """Wait until no job is left; returns how many failed."""
        left_before, moved = -1, time.monotonic()
        while True:
            jobs = self._one("select private.space_jobs(%s::smallint)", space_id)
            left = jobs["queued"] + jobs["running"]
            if left != left_before:
                left_before, moved = left, time.monotonic()
                report(f"{jobs['done']} files done, {left} to do, {jobs['failed']} failed")
            elif not jobs["running"] and time.monotonic() - moved > STALLED_S:
                moved = time.monotonic()
                report(
                    "no worker takes the jobs: is one running that has the model? narwhal worker"
                )
            if left == 0:
                return int(jobs["failed"])
            time.sleep(POLL_S)

    def _settle(self, name: str) -> None:
        while self._one("select private.settle_space((private.space_named(%s)).id)", name):
            pass

    def _when_free(self, statement: LiteralString, *arguments: object) -> Any:
        """Call what needs a free moment of the tables; they are in use by searches and workers."""
        for attempt in range(TRIES):
            try:
                return self._one(statement, *arguments)
            except psycopg.Error as error:
                if error.sqlstate != "PT423" or attempt == TRIES - 1:
                    raise
                time.sleep(0.05)
        raise AssertionError("unreachable")

    def _one(self, statement: LiteralString, *arguments: object) -> Any:
        row = self.connection.execute(statement, arguments).fetchone()
        return row[0] if row else None
