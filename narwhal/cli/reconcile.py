"""What should not be there: `narwhal reconcile`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.output import say, show, show_json
from narwhal.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("reconcile")(reconcile)


def reconcile(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what is found.")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Compare rows, objects, quota and index with each other; repair them with --fix.

    Runs beside any number of workers: what somebody is changing, or what is younger than the
    setting reconcile.grace_s, is left alone. Each kind of damage is a transaction of its own.
    Exits with 0 when the report is complete, whatever is in it, and with 1 when --fix left
    something unrepaired; found is 0 in the report when all is well.

    Example: narwhal reconcile --fix --json | jq .found
    """
    url = load_settings(home).require("database_url")
    findings: dict[str, dict[str, Any]] = {}
    for row in execute(url, "reconcile_kinds", {}):
        kind = row["kind"]
        say(f"looking for {kind.replace('_', ' ')}")
        (answer,) = execute(url, "reconcile_kind", {"kind": kind, "fix": fix})
        findings[kind] = answer["finding"]
    found = sum(finding["count"] for finding in findings.values())
    fixed = sum(finding["fixed"] for finding in findings.values())
    if as_json:
        show_json({"found": found, "fixed": fixed, "findings": findings})
    else:
        rows = [
            {"kind": kind, **finding, "samples": ", ".join(finding["samples"][:3])}
            for kind, finding in findings.items()
            if finding["count"]
        ]
        show(rows, ["kind", "count", "fixed", "samples"])
        say(f"{found} found, {fixed} repaired" if fix else f"{found} found")
    if fix and fixed < found:
        raise NarwhalError(
            f"{found - fixed} of {found} could not be repaired: somebody was changing them",
            "Run it again: narwhal reconcile --fix",
            error="CONFLICT_STATE",
        )
