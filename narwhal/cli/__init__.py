"""The `narwhal` command: one module per group, each adding itself with `register(app)`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Annotated

import typer

from narwhal import __version__
from narwhal.cli import (
    analytics,
    audit,
    download,
    drive,
    jobs,
    reconcile,
    reprocess,
    search,
    settings,
    sharing,
    spaces,
    trash,
    tree,
    users,
    versions,
    watch,
    worker,
)
from narwhal.cli import eval as evaluation
from narwhal.output import report, say

app = typer.Typer(
    name="narwhal",
    help="A drive on Supabase that understands its files.\n\n"
    "Start with: narwhal up --detach; narwhal users create you@example.com; "
    "narwhal login you@example.com; narwhal upload FILE --wait; narwhal search 'a question'",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name in ("stack", "db"):
    try:
        importlib.import_module(f"narwhal.cli.{name}").register(app)
    except ModuleNotFoundError as error:
        # without the `local` extra there is no local stack to command
        if (error.name or "").startswith("narwhal"):
            raise
for module in (
    users,
    drive,
    watch,
    tree,
    trash,
    versions,
    sharing,
    download,
    search,
    worker,
    jobs,
    reprocess,
    evaluation,
    audit,
    analytics,
    settings,
    spaces,
    reconcile,
):
    module.register(app)


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; failures are two lines on stderr and exit code 1."""
    # whatever a command has started must not outlive it: leave by the `finally` of each
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except Exception as error:
        from narwhal.failures import as_narwhal_error

        failure = as_narwhal_error(error)
        if failure is not None:
            report(failure)
        elif os.environ.get("NARWHAL_DEBUG"):
            raise
        else:  # a defect of ours; its message may hold anything, so it is not printed
            say(f"error: unexpected {type(error).__name__}")
            say("hint: Set NARWHAL_DEBUG=1 and run it again to see where.")
        raise SystemExit(1) from None
