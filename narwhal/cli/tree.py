"""Folders and files: `narwhal ls`, `find`, `du`, `mkdir`, `mv` and `cp`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from narwhal.cli.options import (
    AsJson,
    AsUser,
    Conflict,
    Home,
    OnConflict,
    Places,
    moment,
    open_drive,
)
from narwhal.output import human_size, show, show_json

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["kind", "name", "size", "status", "updated_at", "id"]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A folder of the drive, / for the top, or a path.")
]


class Kind(StrEnum):
    """What a node can be."""

    file = "file"
    folder = "folder"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (ls, find, du, mkdir, mv, cp):
        app.command(command.__name__)(command)


def ls(
    path: Annotated[str, typer.Argument(help="A path of the drive, or an id.")] = "",
    sort: Annotated[
        str, typer.Option(help="name, updated_at, created_at or size; -size and so on reverse.")
    ] = "name",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also what is in the folders below.")
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List a folder of the drive, the top level when no path is given.

    What others have shared with you is in '/Shared with me'.

    Example: narwhal ls Projects/2026 --json | jq -r '.[] | select(.status=="failed").name'
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import below

        rows = below(drive, path, {}, sort=sort) if recursive else list(drive.listing(path, sort))
    _show_nodes(rows, as_json, with_path=recursive)


def find(
    folder: Annotated[str, typer.Argument(help="Where to look; the whole drive if left out.")] = "",
    name: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only files, or only folders.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this extension; may be repeated.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Only with this tag; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Changed then or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Changed then or before.")
    ] = None,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Find files and folders by name, type, tag and date, in a folder and all below it.

    What is in the files is found by narwhal search.

    Example: narwhal find Projects --type pdf --from 2026-01-01
    """
    wanted = {
        "name_contains": name,
        "kinds": [kind.value] if kind else None,
        "types": types,
        "tags": tags,
        "updated_from": moment(since, "--from"),
        "updated_to": moment(until, "--to"),
    }
    filters = {key: value for key, value in wanted.items() if value}
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import below

        rows = below(drive, folder, filters)
    _show_nodes(rows, as_json, with_path=True)


def du(
    path: Annotated[str, typer.Argument(help="A path of the drive, or an id.")] = "",
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Show how much the files in a folder take, item by item; without a path also your quota.

    Example: narwhal du Projects --json | jq '.total_size'
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import usage

        answer = usage(drive, path)
    if as_json:
        show_json(answer)
        return
    rows = [{**item, "size": human_size(item["total_size"])} for item in answer["items"]]
    rows.append({"size": human_size(answer["total_size"]), "name": "total"})
    show(rows, ["size", "kind", "name"])
    if answer["usage"] is not None:
        quota = answer["usage"]
        print(f"{human_size(quota['used'])} of {human_size(quota['limit'])} are used")


def mkdir(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders to make.")],
    parents: Annotated[
        bool,
        typer.Option("--parents", "-p", help="Also make what is missing above; take what exists."),
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make folders.

    Example: narwhal mkdir --parents Projects/2026/Reports
    """
    with open_drive(home, as_user) as drive:
        rows = [drive.make_folder(path, parents=parents) for path in paths]
    _show_nodes(rows, as_json)


def mv(
    sources: Places,
    target: Target,
    on_conflict: OnConflict = Conflict.fail,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Move files and folders into a folder, or give one of them another name. All or nothing.

    When the target is no folder yet, its last part is the new name.

    Example: narwhal mv Drafts/plan.pdf Drafts/notes.md /Projects
    """
    _arrange("move_nodes", sources, target, on_conflict, as_user, as_json, home)


def cp(
    sources: Places,
    target: Target,
    on_conflict: OnConflict = Conflict.fail,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Copy files and folders, with all below them, into a folder or to another name.

    The copies share their bytes with the originals until either changes.

    Example: narwhal cp Projects/plan.pdf 'Projects/plan for review.pdf'
    """
    _arrange("copy_nodes", sources, target, on_conflict, as_user, as_json, home)


def _arrange(
    function: Literal["move_nodes", "copy_nodes"],
    sources: list[str],
    target: str,
    on_conflict: Conflict,
    as_user: str | None,
    as_json: bool,
    home: Path | None,
) -> None:
    with open_drive(home, as_user) as drive:
        from narwhal.arranging import arrange

        rows = arrange(drive, function, sources, target, on_conflict.value)
    show(rows, ["name", "skipped", "id"], as_json=as_json)


def _show_nodes(rows: list[dict[str, Any]], as_json: bool, *, with_path: bool = False) -> None:
    if not as_json:
        rows = [
            {
                **row,
                "size": human_size(row.get("size")) if row["kind"] == "file" else "",
                "updated_at": str(row["updated_at"])[:16].replace("T", " "),
            }
            for row in rows
        ]
    columns = ["path" if column == "name" and with_path else column for column in COLUMNS]
    show(rows, columns, as_json=as_json)
