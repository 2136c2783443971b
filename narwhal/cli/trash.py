"""The trash: `narwhal rm`, `restore`, `trash list` and `trash empty`."""

from __future__ import annotations

from typing import Annotated

import typer

from narwhal.cli.options import (
    AsJson,
    AsUser,
    Conflict,
    DryRun,
    Home,
    OnConflict,
    Places,
    Yes,
    confirm,
    open_drive,
)
from narwhal.output import say, show, show_json

trash_app = typer.Typer(no_args_is_help=True, help="What was deleted and can come back.")
COLUMNS = ["kind", "name", "path", "trashed_at", "id"]


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("rm")(rm)
    app.command("restore")(restore)
    app.add_typer(trash_app, name="trash")


def rm(
    paths: Places,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete for good, trashed or not, instead.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Put files and folders, with all below them, into the trash. All or nothing.

    With --purge nothing comes back; that asks first. Items that are in the trash already may be
    named too.

    Example: narwhal rm Projects/old.pdf Drafts --dry-run
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import anywhere

        nodes = [anywhere(drive, path) if purge else drive.node(path) for path in paths]
        if dry_run:
            say("would be deleted for good:" if purge else "would go to the trash:")
            show(nodes, COLUMNS, as_json=as_json)
            return
        if purge:
            confirm(f"Delete {len(nodes)} items and all below them for good?", yes)
        done = drive.rpc(
            "purge_nodes" if purge else "trash_nodes", {"ids": [node["id"] for node in nodes]}
        )
    if as_json:
        show_json({"purged" if purge else "trashed": done, "ids": [node["id"] for node in nodes]})
    else:
        say(f"{len(nodes)} items {'deleted for good' if purge else 'are in the trash'}")


def restore(
    items: Annotated[
        list[str],
        typer.Argument(metavar="ITEM...", help="Names or ids of items in the trash."),
    ],
    on_conflict: OnConflict = Conflict.fail,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Bring items back from the trash to where they were, or to the nearest folder that is left.

    Example: narwhal restore old.pdf --on-conflict rename
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import in_trash

        ids = [in_trash(drive, item)["id"] for item in items]
        answer = drive.call("restore_nodes", {"ids": ids, "on_conflict": on_conflict.value})
    show(answer["items"], ["name", "moved", "skipped", "id"], as_json=as_json)


@trash_app.command("list")
def list_trash(as_user: AsUser = None, as_json: AsJson = False, home: Home = None) -> None:
    """List what is in the trash, the latest first.

    Example: narwhal trash list --json | jq -r '.[].id'
    """
    with open_drive(home, as_user) as drive:
        rows = list(drive.pages("list_trash", {}))
    show(rows, COLUMNS, as_json=as_json)


@trash_app.command("empty")
def empty(
    yes: Yes = False,
    dry_run: DryRun = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Delete everything in the trash for good.

    Example: narwhal trash empty --dry-run
    """
    with open_drive(home, as_user) as drive:
        if dry_run or not yes:
            rows = list(drive.pages("list_trash", {}))
        if dry_run:
            say("would be deleted for good:")
            show(rows, COLUMNS, as_json=as_json)
            return
        if not yes:
            confirm(f"Delete {len(rows)} items and all below them for good?", yes)
        done = drive.rpc("empty_trash", {})
    if as_json:
        show_json({"purged": done})
    else:
        say(f"{done} files and folders are deleted for good")
