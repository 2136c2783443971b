"""Ingestion: `narwhal worker`."""

from __future__ import annotations

from typing import Annotated

import typer

from narwhal.cli.options import Home
from narwhal.errors import NarwhalError
from narwhal.output import say
from narwhal.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("worker")(worker)


def worker(
    drain: Annotated[
        bool, typer.Option("--drain", help="Stop when nothing is left to do.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Jobs at the same time.")] = 1,
    home: Home = None,
) -> None:
    """Read uploaded files: claim jobs, extract text, embed it. Any number may run.

    Example: narwhal worker --drain
    """
    settings = load_settings(home)
    try:
        from narwhal.ingest.worker import run_worker
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("narwhal"):
            raise
        raise NarwhalError(
            f"the worker needs the package {error.name}",
            "Install what reads files: pip install 'narwhal[extract]'",
            error="NOT_INSTALLED",
        ) from error
    done = run_worker(settings, drain=drain, concurrency=concurrency)
    say(f"{done} jobs done")
