"""Migrations: `narwhal db migrate`, `db status`, `db reset`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.local import migrate as migrations
from narwhal.local.home import Home as Places
from narwhal.local.state import read_state
from narwhal.output import say, show, show_json
from narwhal.settings import Settings, load_settings

db_app = typer.Typer(
    name="db",
    help="Migrations, on the local stack or on any DATABASE_URL.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(db_app)


@db_app.command("migrate")
def migrate(home: Home = None, as_json: AsJson = False) -> None:
    """Apply the migrations that are pending. A second run changes nothing.

    Refuses a database that was migrated from other files.

    Example: DATABASE_URL=postgresql://… narwhal db migrate
    """
    applied = migrations.migrate(load_settings(home).require("database_url"))
    if as_json:
        show_json({"applied": applied})
        return
    for file in applied:
        say(f"applied {file}")
    say(f"{len(applied)} migrations applied" if applied else "nothing to apply")


@db_app.command("status")
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Compare the database with the migrations of this version.

    Example: narwhal db status --json
    """
    rows = migrations.status(load_settings(home).require("database_url"))
    show(
        [vars(row) for row in rows],
        columns=["version", "name", "state", "applied_at"],
        as_json=as_json,
    )


@db_app.command("reset")
def reset(
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete all accounts, files and jobs of the local stack, and migrate anew.

    The keys stay. Only for the local stack: a hosted project is reset with the Supabase CLI.

    Example: narwhal db reset --yes
    """
    settings = load_settings(home)
    places = _local(settings)
    if dry_run:
        say(f"would delete every account, file and job in {places.root}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; confirm with --yes")
        typer.confirm(f"Delete every account, file and job in {places.root}?", abort=True, err=True)
    from narwhal.local.reset import reset as reset_home

    applied = reset_home(places)
    then = f"{len(applied)} migrations applied" if applied else "`narwhal up` migrates it"
    say(f"{places.root} is empty; {then}")


def _local(settings: Settings) -> Places:
    """Return the home whose database the settings name; any other database is refused."""
    state = read_state(settings.home)
    own = state.database_url if state else None
    if settings.database_url not in (None, own):
        raise NarwhalError(
            "DATABASE_URL names a database that is not this home's local stack.",
            "Unset it to reset the local stack; for a hosted project: supabase db reset --linked",
            error="NOT_LOCAL",
        )
    return Places(settings.home.resolve())
