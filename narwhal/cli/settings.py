"""Limits, rates and defaults: `narwhal settings …`, rows of private.settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.output import show, show_json
from narwhal.settings import load_settings

settings_app = typer.Typer(
    no_args_is_help=True, help="Limits, rates and defaults, in the database; never secrets."
)
Key = Annotated[str, typer.Argument(help="Its name, such as uploads.max_size.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(settings_app, name="settings")


@settings_app.command("list")
def list_settings(as_json: AsJson = False, home: Home = None) -> None:
    """List all settings with what they mean.

    Example: narwhal settings list
    """
    rows = _rows(home)
    if not as_json:
        rows = [row | {"value": json.dumps(row["value"])} for row in rows]
    show(rows, ["key", "value", "description"], as_json=as_json)


@settings_app.command("get")
def get(key: Key, as_json: AsJson = False, home: Home = None) -> None:
    """Print the value of one setting, as JSON; with --json all that is known about it.

    Example: narwhal settings get uploads.max_size
    """
    for row in _rows(home):
        if row["key"] == key:
            show_json(row if as_json else row["value"])
            return
    raise NarwhalError(
        f'there is no setting "{key}"', "See them all: narwhal settings list", error="NOT_FOUND"
    )


@settings_app.command("set")
def change(
    key: Key,
    value: Annotated[str, typer.Argument(help='JSON, such as 30 or ["exe"]; other text as it is.')],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Change a setting. It counts from the next request on.

    Example: narwhal settings set uploads.ticket_ttl_s 3600
    """
    try:
        wanted: Any = json.loads(value)
    except ValueError:
        wanted = value
    url = load_settings(home).require("database_url")
    (row,) = execute(url, "settings_set", {"key": key, "value": json.dumps(wanted)})
    if as_json:
        show_json(row)
    else:
        print(f"{key} = {json.dumps(row['value'])}")


def _rows(home: Path | None) -> list[dict[str, Any]]:
    return execute(load_settings(home).require("database_url"), "settings_list", {})
