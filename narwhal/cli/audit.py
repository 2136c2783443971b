"""What was done, by whom: `narwhal audit`, over DATABASE_URL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.output import show
from narwhal.settings import load_settings

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("audit")(audit)


def audit(
    user: Annotated[
        str | None,
        typer.Option(metavar="EMAIL", help="Only what this account did, or an agent for it."),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only one action, such as download, share or trash.")
    ] = None,
    node: Annotated[
        UUID | None, typer.Option(metavar="ID", help="Only one file or folder, by its id.")
    ] = None,
    date_from: Annotated[
        datetime | None,
        typer.Option("--from", formats=FORMATS, help="From then on; a date begins at midnight."),
    ] = None,
    date_to: Annotated[
        datetime | None,
        typer.Option("--to", formats=FORMATS, help="Until then; a date includes its whole day."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")] = 100,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List what was done in the drive, newest first.

    Dates and times without a zone are in yours. Rows are kept when an account or a file is deleted.

    Example: narwhal audit --user ada@example.com --action download --from 2026-11-01
    """
    url = load_settings(home).require("database_url")
    if user is not None and not execute(url, "audit_user", {"user": user}):
        # deleted accounts have no address any more, their rows have their id
        raise NarwhalError(
            f"There is no account with the address {user}.",
            "See `narwhal users list`; rows of deleted accounts are listed without --user.",
            error="NOT_FOUND",
            status=404,
        )
    arguments = {
        "user": user,
        "action": action,
        "node": node,
        "date_from": with_zone(date_from),
        "date_to": end_of(date_to),
        "limit": limit,
    }
    rows = execute(url, "audit_list", arguments)
    for row in rows:
        row["who"] = row["actor_email"] or row["actor"]
        if row["on_behalf_of"]:
            row["who"] += f" for {row['on_behalf_of_email'] or row['on_behalf_of']}"
    columns = ["at", "who", "action", "name", "node_id", "ip"]
    show(rows, columns, as_json=as_json)


def with_zone(value: datetime | None) -> datetime | None:
    """Read a time without a zone as one of this machine's."""
    return value.astimezone() if value is not None and value.tzinfo is None else value


def end_of(value: datetime | None) -> datetime | None:
    """Return when the day ends, for a date; a time is itself."""
    if value is not None and value.tzinfo is None and value.time() == datetime.min.time():
        value += timedelta(days=1)
    return with_zone(value)
