"""Options that many commands share, and the settings they lead to."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

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
