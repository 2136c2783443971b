"""How much is searched, and how well that goes: `narwhal analytics`, over DATABASE_URL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from narwhal.cli.audit import FORMATS, end_of, with_zone
from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.output import show, show_json
from narwhal.settings import load_settings

FIGURES = [
    "total_users",
    "active_users",
    "total_queries",
    "avg_latency_ms",
    "p95_latency_ms",
    "avg_hits",
    "queries_without_hits",
    "degraded_queries",
    "cached_queries",
    "total_tokens",
    "total_cost",
]


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("analytics")(analytics)


def analytics(
    date_from: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=FORMATS, help="From then on; 30 days before --to unless given."
        ),
    ] = None,
    date_to: Annotated[
        datetime | None,
        typer.Option("--to", formats=FORMATS, help="Until then; a date includes its whole day."),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Count and average the recorded searches of everybody; never what was searched for.

    Dates and times without a zone are in yours; days in the answer are UTC. Searches of people who
    have switched their history off do not count.

    Example: narwhal analytics --from 2026-11-01 --to 2026-11-30
    """
    first, last = with_zone(date_from), end_of(date_to)
    if first is not None and last is not None and last <= first:
        raise NarwhalError(
            "--to must be later than --from", "Exchange them?", error="INVALID_ARGUMENT", status=422
        )
    url = load_settings(home).require("database_url")
    (row,) = execute(url, "analytics", {"date_from": first, "date_to": last})
    statistics: dict[str, Any] = row["statistics"]
    if as_json:
        show_json(statistics)
        return
    show([{"figure": name, "value": statistics[name]} for name in FIGURES], ["figure", "value"])
    if statistics["total_queries"]:
        print()
        show(statistics["queries_by_day"], ["day", "queries", "users", "avg_latency_ms"])
        print()
        for top in statistics["top_users"]:
            top["who"] = top["email"] or top["user_id"]
        show(statistics["top_users"], ["who", "queries", "avg_latency_ms"])
