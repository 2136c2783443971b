"""`narwhal upload`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narwhal.cli.options import AsJson, AsUser, Conflict, Home, OnConflict, open_drive
from narwhal.errors import NarwhalError
from narwhal.output import Progress, human_size, report, say, show

if TYPE_CHECKING:
    from narwhal.drive import Drive, Sent


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("upload")(upload)


def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders.")],
    folder: Annotated[
        str, typer.Option(metavar="PATH", help="Folder of the drive; created when missing.")
    ] = "",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Upload folders with all that is in them.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with uploads that were interrupted.")
    ] = False,
    on_conflict: OnConflict = Conflict.fail,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the files can be searched.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for one file with --wait.")
    ] = 900,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Upload files and folders, as any frontend would: a ticket, then the bytes.

    Files above 6 MiB go in parts and can be resumed. A file that fails does not stop the others;
    the exit code is 1 when any failed.

    Example: narwhal upload report.pdf talks/ --recursive --folder Projects/2026 --wait
    """
    files = list(_files(paths, recursive))
    rows: list[dict[str, Any]] = []
    with open_drive(home, as_user) as drive:
        sent: list[Sent] = []
        for path, subfolder in files:
            place = "/".join(part for part in (folder.strip("/"), str(subfolder)) if part != ".")
            done = _upload_one(drive, path, place, on_conflict.value, resume, rows)
            if done is not None:
                sent.append(done)
        for one in sent:
            rows.append(_wait_for(drive, one, timeout) if wait else asdict(one))
    failed = any(row.get("error") for row in rows)
    if not as_json:
        rows = [
            {
                **row,
                "size": human_size(row.get("size")),
                "status": row.get("error") or row.get("status") or "uploaded",
            }
            for row in rows
        ]
    show(rows, ["path", "name", "size", "mode", "status", "file_id"], as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _files(paths: list[Path], recursive: bool) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield (file, folder below the target); refuse what cannot be uploaded before any byte."""
    for path in paths:
        if path.is_dir():
            if not recursive:
                raise typer.BadParameter(f"{path} is a folder; add --recursive")
            root = path.resolve()
            # links are not followed out of the folder: it may not be the user's to read
            for file in sorted(root.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    inside = PurePosixPath(root.name) / file.parent.relative_to(root).as_posix()
                    yield file, inside
        elif path.is_file():
            yield path, PurePosixPath(".")
        else:
            raise typer.BadParameter(f"{path} is not a file")


def _upload_one(
    drive: Drive,
    path: Path,
    place: str,
    on_conflict: str,
    resume: bool,
    rows: list[dict[str, Any]],
) -> Sent | None:
    """Upload one file; a failure is reported, noted in `rows`, and does not stop the rest."""
    from narwhal.failures import as_narwhal_error

    progress = Progress(path.name, path.stat().st_size)
    try:
        folder_id = drive.folder_id(place, create=True)
        return drive.upload(
            path, folder_id, on_conflict=on_conflict, resume=resume, progress=progress.update
        )
    except Exception as error:
        failure = as_narwhal_error(error)
        if failure is None or failure.error in ("NOT_AUTHENTICATED", "NOT_CONFIGURED"):
            raise
        progress.close()
        report(failure)
        rows.append({"path": str(path), "name": path.name, "error": failure.error})
        return None
    finally:
        progress.close()


def _wait_for(drive: Drive, sent: Sent, timeout_s: float) -> dict[str, Any]:
    try:
        status = drive.wait(
            sent, timeout_s=timeout_s, progress=lambda status: say(f"{sent.name}: {status}")
        )
    except NarwhalError as error:  # not read in time; the other files may be
        report(error)
        return asdict(sent) | {"error": error.error}
    row = asdict(replace(sent, status=status))
    if status in ("failed", "rejected"):
        problem = drive.details(sent.file_id).get("problem") or {}
        row["error"] = problem.get("error_code") or status
        report(
            NarwhalError(
                f"{sent.name} is {status}: {problem.get('error_message') or 'no reason was given'}",
                "Correct the file and upload it again with --on-conflict version.",
                error=row["error"],
            )
        )
    return row
