"""`narwhal download`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narwhal.cli.options import AsJson, AsUser, Home, Places, open_drive
from narwhal.output import Progress, human_size, report, show

if TYPE_CHECKING:
    from narwhal.drive import Drive


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("download")(download)


def download(
    paths: Places,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Local folder; created when missing.")
    ] = Path(),
    version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="This version of a file: its number, or its id."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace local files that hold something else.")
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Download files, and folders with all that is in them.

    Run it again after an interruption: it goes on where it stopped, and leaves alone what is there
    already. Every file is checked before it gets its name. A file that fails does not stop the
    others; the exit code is 1 when any failed.

    Example: narwhal download Projects/2026 --to backup
    """
    if version is not None and len(paths) > 1:
        raise typer.BadParameter("--version is for one file")
    rows: list[dict[str, Any]] = []
    with open_drive(home, as_user) as drive:
        from narwhal.downloads import targets
        from narwhal.lookups import version as find_version

        nodes = [drive.node(path) for path in paths]
        version_id = find_version(drive, paths[0], version)["id"] if version else None
        for node, target in targets(drive, nodes, to):
            rows.append(_one(drive, node, target, version_id, overwrite))
    failed = any(row.get("error") for row in rows)
    if not as_json:
        rows = [
            {**row, "size": human_size(row.get("size")), "state": row.get("error") or row["state"]}
            for row in rows
        ]
    show(rows, ["path", "size", "state", "file_id"], as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _one(
    drive: Drive, node: dict[str, Any], target: Path, version_id: str | None, overwrite: bool
) -> dict[str, Any]:
    """Download one file; a failure is reported, noted in the row, and does not stop the rest."""
    from narwhal.downloads import fetch
    from narwhal.failures import as_narwhal_error

    progress = Progress(str(node["name"]), int(node["size"]))

    def told(done: int, total: int) -> None:
        progress.total = total  # of the version, which need not be the newest
        progress.update(done)

    try:
        done = fetch(
            drive,
            node,
            target,
            version_id=version_id,
            overwrite=overwrite,
            progress=told,
        )
        return asdict(done)
    except Exception as error:
        failure = as_narwhal_error(error)
        if failure is None or failure.error in ("NOT_AUTHENTICATED", "NOT_CONFIGURED"):
            raise
        progress.close()
        report(failure)
        return {"path": str(target), "file_id": node["id"], "error": failure.error}
    finally:
        progress.close()
