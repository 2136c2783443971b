"""Options that many commands share, and what they lead to: a drive, an answer to a question."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from narwhal.settings import load_settings

if TYPE_CHECKING:
    from narwhal.drive import Drive

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="NARWHAL_HOME",
        show_default="~/.narwhal",
        help="Folder of the local stack and of your session.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
AsUser = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="EMAIL",
        help="Act as this user with the service key, instead of the session of narwhal login.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="A date, a time (ISO 8601), or a span such as 12h, 7d, 4w."),
]
Place = Annotated[
    str, typer.Argument(metavar="PATH", help="A path of the drive, or the id of a file or folder.")
]
Places = Annotated[
    list[str],
    typer.Argument(metavar="PATH...", help="Paths of the drive, or ids of files and folders."),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


def read_password(from_stdin: bool, *, confirm: bool = False) -> str:
    """Read a password from stdin, or ask on the terminal; never from a flag."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if confirm and getpass.getpass("Again: ") != password:
            raise typer.BadParameter("the two passwords differ")
    else:
        raise typer.BadParameter("there is no terminal to ask on; pipe it with --password-stdin")
    if not password:
        raise typer.BadParameter("the password is empty")
    return password


SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Read a number of bytes such as 500, 10kB, 1.5GB or 50GiB."""
    found = SIZE.fullmatch(str(text).strip())
    if not found or (found[3] and not found[2]):
        raise typer.BadParameter(f"{text!r} is no size; write it like 500MB or 50GiB")
    power = " kmgt".index(found[2].lower() or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


class Conflict(Enum):
    """What to do when a name is taken."""

    fail = "fail"
    rename = "rename"
    version = "version"
    replace = "replace"
    skip = "skip"


OnConflict = Annotated[Conflict, typer.Option(help="What to do when the name is taken.")]


@contextmanager
def open_drive(home: Path | None, as_user: str | None) -> Iterator[Drive]:
    """Give the drive of whoever is logged in, or of `as_user`."""
    settings = load_settings(home)
    from narwhal.drive import Drive  # the SDK takes a while to load; misuse is told before
    from narwhal.session import user_client

    with user_client(settings, as_user) as client:
        yield Drive(client, settings)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost; refuse to guess without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on; confirm with --yes")
    typer.confirm(question, abort=True, err=True)


def moment(text: str | None, name: str = "--expires") -> str | None:
    """Read a date, a time or a span from now; times without a zone are local."""
    if text is None:
        return None
    units = {"h": "hours", "d": "days", "w": "weeks"}
    if span := re.fullmatch(r"(\d{1,4})([hdw])", text):
        return (datetime.now(UTC) + timedelta(**{units[span[2]]: int(span[1])})).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{name}: {text!r} is no date, time or span such as 7d") from None
