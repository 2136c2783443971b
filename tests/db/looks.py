"""What tests look at: a file's state, an owner's sums, every row of every table."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive

STAGES = ["detect", "extract", "chunk", "embed_text"]
TEXTS = ["alpha bravo", "charlie delta"]
KEPT = {  # they remember what was, by id
    "private.quota_ledger",
    "public.audit_logs",
    # what searches, and changes that concern them, leave behind: test_result_cache.py
    "private.epochs",
    "private.kept_hits",
    "private.search_rates",
    "public.query_analytics",
}


def read_until(drive: Drive, owner: uuid.UUID, stage: str | None) -> tuple[Any, Any]:
    """Upload a file and read it up to a stage, whose job is held; all of it for None."""
    ticket = drive.upload(owner, "new.txt")
    while jobs := drive.claim():
        (job,) = jobs
        if job["stage"] == stage:
            return ticket, job
        drive.run_stage(job, TEXTS)
    return ticket, None


def status_of(drive: Drive, user: uuid.UUID, ticket: Any) -> str:
    """Return the status of a ticket's file, as a user sees it."""
    return drive.rpc(user, "file_details", file_id=ticket["file_id"])["status"]  # type: ignore[no-any-return]


def is_found(drive: Drive, user: uuid.UUID, word: str) -> bool:
    """Whether a keyword search finds anything."""
    return bool(drive.search(user, word, embedding=None)["hits"])


def beat(drive: Drive, job: Any, progress: float, pages: int, total: int) -> None:
    """Renew a lease and report progress."""
    with drive.db.as_role("narwhal_worker"):
        drive.db.one(
            "select private.heartbeat_job(%s, %s, %s::real, %s::integer, %s::integer)",
            job["id"],
            job["lease_token"],
            progress,
            pages,
            total,
        )


def expire_leases(db: Database) -> None:
    """As if no worker had renewed its lease in time."""
    db.all(
        "update public.ingest_jobs set lease_expires_at = now() - interval '1 s'"
        " where state = 'running'"
    )


def _tables(db: Database) -> list[str]:
    return db.all(
        "select n.nspname || '.' || c.relname from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where (n.nspname in ('public', 'private') or c.oid = 'storage.objects'::regclass)"
        " and c.relkind in ('r', 'p') and not c.relispartition order by 1"
    )


LOGS = {"public.audit_logs", "private.quota_ledger"}  # append-only


def contents(db: Database) -> dict[str, list[Any]]:
    """Return all rows of all tables, as text; those apart that only ever grow.

    Words that no name has any more are forgotten first, as the schedule does.
    """
    while db.one("select private.forget_names(10000)"):
        pass
    contents = {}
    for table in _tables(db):
        if table in KEPT:
            continue
        name = sql.Identifier(*table.split("."))
        rows = db.connection.execute(sql.SQL("select t::text from {} as t").format(name)).fetchall()
        contents[table] = sorted(row[0] for row in rows)
    return contents


def mentions(db: Database, ticket: Any) -> set[str]:
    """Tables with a row that has the id of a file or of its version anywhere in it.

    Not the logs: their rows outlive what they tell about.
    """
    chunks = db.all("select id::text from public.chunks where file_id = %s", ticket["file_id"])
    ids = [ticket["file_id"], ticket["version_id"], *chunks]
    return {
        table
        for table, rows in contents(db).items()
        if table != "public.audit_logs" and any(part in row for row in rows for part in ids)
    }


def versions_of(drive: Drive, user: uuid.UUID, ticket: Any) -> list[int]:
    """Return the numbers of a file's versions, newest first."""
    details = drive.rpc(user, "file_details", file_id=ticket["file_id"])
    return [version["no"] for version in details["versions"]]


def quota_of(db: Database, owner: uuid.UUID) -> tuple[int, int, int]:
    """Return what an owner has used, reserved and may use, in bytes."""
    return db.one(  # type: ignore[no-any-return]
        "select storage_used, storage_reserved, storage_limit from public.owners where id = %s",
        owner,
    )


def hits_of(drive: Drive, user: uuid.UUID | None, query: str, **more: Any) -> list[Any]:
    """Search, with filters and options as dicts; return the hits."""
    for key in ("filters", "options"):
        if key in more:
            more[key] = Jsonb(more[key])
    return drive.search(user, query, **more)["hits"]  # type: ignore[no-any-return]
