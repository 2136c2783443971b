"""What a file has held: `narwhal versions list`, `restore` and `purge`."""

from __future__ import annotations

from typing import Annotated

import typer

from narwhal.cli.options import (
    AsJson,
    AsUser,
    DryRun,
    Home,
    Place,
    Yes,
    confirm,
    open_drive,
)
from narwhal.output import human_size, say, show, show_json

versions_app = typer.Typer(no_args_is_help=True, help="What a file has held.")
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Its number, or its id.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(versions_app, name="versions")


@versions_app.command("list")
def list_versions(
    path: Place, as_user: AsUser = None, as_json: AsJson = False, home: Home = None
) -> None:
    """List the versions of a file, the newest first.

    Example: narwhal versions list Projects/plan.pdf
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import versions

        rows = versions(drive, path)
    if not as_json:
        rows = [
            {
                **row,
                "size": human_size(row["size"]),
                "created_at": str(row["created_at"])[:16].replace("T", " "),
            }
            for row in rows
        ]
    show(rows, ["no", "size", "status", "is_head", "created_at", "id"], as_json=as_json)


@versions_app.command("restore")
def restore(
    path: Place,
    version: Version,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make an earlier version the newest one again, as a version of its own.

    Example: narwhal versions restore Projects/plan.pdf 3
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import version as find_version

        meant = find_version(drive, path, version)
        row = drive.call(
            "restore_version", {"file_id": meant["file_id"], "version_id": meant["id"]}
        )
    if as_json:
        show_json(row)
    else:
        say(f"version {meant['no']} is the newest again")


@versions_app.command("purge")
def purge(
    path: Place,
    version: Version,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Delete a version of a file, and its bytes, for good.

    Example: narwhal versions purge Projects/plan.pdf 2 --yes
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import version as find_version

        meant = find_version(drive, path, version)
        if dry_run:
            say("would be deleted for good:")
            show([meant], ["no", "size", "status", "id"], as_json=as_json)
            return
        confirm(f"Delete version {meant['no']} for good?", yes)
        row = drive.rpc("purge_version", {"file_id": meant["file_id"], "version_id": meant["id"]})
    if as_json:
        show_json({"purged": meant["id"], "answer": row})
    else:
        say(f"version {meant['no']} is deleted")
