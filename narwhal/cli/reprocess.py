"""`narwhal reprocess`: read a file again with other options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from narwhal.cli.options import (
    AsJson,
    AsUser,
    Home,
    PasswordStdin,
    Place,
    open_drive,
    read_password,
)
from narwhal.output import say, show_json


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command("reprocess")(reprocess)


def reprocess(
    path: Place,
    ocr_languages: Annotated[
        list[str] | None,
        typer.Option(
            "--ocr-language", metavar="CODE", help="Such as deu or chi_sim; may be given again."
        ),
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Longest passage that search finds, in characters.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Characters that neighbouring passages share.")
    ] = None,
    password_stdin: PasswordStdin = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Read a file again; the old text is found until the new one is complete.

    Options that are not given stay as they were. The password opens a locked PDF or Office
    document, and is kept for later readings.

    Example: narwhal reprocess Scans/letter.pdf --ocr-language deu --ocr-language chi_sim
    """
    given = {
        "ocr_languages": ocr_languages or None,
        "chunk_size": chunk_size,
        "chunk_overlap": chunk_overlap,
        "password": read_password(from_stdin=True) if password_stdin else None,
    }
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with open_drive(home, as_user) as drive:
        file_id = drive.node(path)["id"]
        answer = drive.call("reprocess_file", {"file_id": file_id, "options": options})
    if as_json:
        show_json(answer)
    else:
        say(f"{path} is read again; narwhal jobs list tells how far it is")
