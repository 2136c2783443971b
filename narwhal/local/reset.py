"""Empties a running home: a new database with the same keys, and no stored bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import psycopg

from narwhal.errors import NarwhalError
from narwhal.local.home import Home
from narwhal.local.postgres import SUPERUSER, EmbeddedPostgres
from narwhal.local.process import end_leftovers
from narwhal.local.state import read_state
from narwhal.local.supervisor import prepare_database


def reset(home: Home, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """Drop everything in a home's database and storage; return the migrations applied anew.

    Accounts, files and jobs are gone; keys and passwords stay, so clients reconnect by
    themselves. A stopped home gets its new database at the next start, and [] is returned.
    Raises NarwhalError (NOT_RUNNING) when there is nothing to reset.
    """
    state = read_state(home.root)
    if state is None:
        raise NarwhalError(
            f"There is no stack in {home.root}.", "Make one with `narwhal up`.", error="NOT_RUNNING"
        )
    postgres = EmbeddedPostgres(
        home.pgdata, state.passwords, socket_dir=home.run, log=home.log("postgres")
    )
    with home.locked() as held:
        if held:
            end_leftovers(home.root, home.pgdata, state.services)
            shutil.rmtree(home.pgdata, ignore_errors=True)
            _remove_files(home)
            return []
    if not postgres.answers():
        raise NarwhalError(
            f"The database in {home.root} does not answer.",
            "See `narwhal status`, or stop the stack with `narwhal down` first.",
            error="DATABASE_UNREACHABLE",
        )
    with psycopg.connect(postgres.url(SUPERUSER, "template1"), autocommit=True) as connection:
        connection.execute("drop database postgres with (force)")
        connection.execute("create database postgres template template0")
    _remove_files(home)
    return prepare_database(postgres, progress)


def _remove_files(home: Home) -> None:
    for path in home.storage.rglob("*"):
        if path.is_file():  # the folders belong to the running gateway
            path.unlink(missing_ok=True)
