"""Ingestion jobs: `narwhal jobs …`, over DATABASE_URL."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home
from narwhal.output import show, show_json
from narwhal.settings import load_settings

jobs_app = typer.Typer(no_args_is_help=True, help="Look at ingestion jobs and queue them again.")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(jobs_app, name="jobs")


@jobs_app.command("list")
def list_jobs(
    state: Annotated[
        str | None,
        typer.Option(help="Only queued, running, done, failed, dead or cancelled ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List ingestion jobs, the last changed first.

    Example: narwhal jobs list --state dead --json | jq -r '.[].error_code'
    """
    url = load_settings(home).require("database_url")
    rows = execute(url, "jobs_list", {"state": state, "limit": limit})
    columns = ["id", "name", "stage", "state", "progress", "attempts", "error_code"]
    show(rows, columns, as_json=as_json)


@jobs_app.command("retry")
def retry(
    job_ids: Annotated[
        list[UUID] | None, typer.Argument(metavar="[JOB...]", help="Jobs; none means all.")
    ] = None,
    error_code: Annotated[
        str | None, typer.Option(help="Only jobs that ended with this error code.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Queue failed and dead jobs again.

    Example: narwhal jobs retry --error-code limit_time
    """
    url = load_settings(home).require("database_url")
    rows = execute(url, "jobs_retry", {"job_ids": job_ids or None, "error_code": error_code})
    count = rows[0]["retried"]
    if as_json:
        show_json({"retried": count})
    else:
        print(f"{count} jobs queued again")
