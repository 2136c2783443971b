"""`narwhal watch`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from narwhal.cli.options import AsJson, AsUser, Home, open_drive
from narwhal.errors import NarwhalError
from narwhal.output import report

if TYPE_CHECKING:
    from narwhal.watching import Event


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("watch")(watch)


def watch(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Folder to watch.")
    ],
    folder: Annotated[
        str, typer.Option(metavar="PATH", help="Folder of the drive; created when missing.")
    ] = "",
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at the folder.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when the drive has what the folder has.")
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Keep a folder of the drive like a folder of this computer.

    New files are uploaded, changed ones become new versions, renamed and moved ones are renamed
    and moved, deleted ones go to the trash. Hidden and temporary files and links are left out, and
    a file is sent when it has not changed between two looks. Stopped and started again, it goes on
    from where it was. With --json each line is one event.

    Example: narwhal watch ~/Documents --folder Documents
    """
    failed = False
    with open_drive(home, as_user) as drive:
        from narwhal.watching import Watcher

        watcher = Watcher(drive, directory, folder)
        try:
            while True:
                for event in watcher.step():
                    failed = failed or event.error is not None
                    _show(event, as_json)
                if once and (failed or watcher.is_in_step()):
                    break
                time.sleep(interval)
        except KeyboardInterrupt:
            return
    if failed:
        raise typer.Exit(1)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        row = {key: value for key, value in asdict(event).items() if value is not None}
        print(json.dumps(row, ensure_ascii=False), flush=True)
    elif event.error is not None:
        report(
            NarwhalError(
                f"{event.path}: {event.message}", "It is tried again later.", error=event.error
            )
        )
    else:
        was = f" (was {event.was})" if event.was else ""
        print(f"{event.what} {event.path}{was}", flush=True)
