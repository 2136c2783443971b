"""The local stack: `narwhal up`, `down`, `status`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from narwhal.cli.options import AsJson, Home
from narwhal.errors import NarwhalError
from narwhal.local.home import Home as Places
from narwhal.local.postgres import LOW_BYTES
from narwhal.local.process import is_alive
from narwhal.local.state import StackState, read_state
from narwhal.local.supervisor import Supervisor, already_running, start_detached, stop_stack
from narwhal.output import say, show, show_json
from narwhal.settings import default_home

JOB_STATES = ("queued", "running", "failed", "dead")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything is healthy.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            show_default="54321, or the one used last",
            help="Port of the API; 0 takes any free one.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=64, show_default="1, or as many as last time", help="Ingestion workers."
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Start the local stack: Postgres, PostgREST, the gateway, a worker.

    Applies migrations, waits until healthy, prints the URL and the keys. Runs until Ctrl-C, or in
    the background with --detach. A second start of the same home changes nothing. For
    development, demos, tests and a small team: it listens on 127.0.0.1 only.

    Example: narwhal up --detach --port 0
    """
    places = _places(home)
    if places.is_held():
        state = _wait_until_started(places)
        say(f"already running in {places.root}")
        _print(state, as_json)
        return
    try:
        if detach:
            state = start_detached(places, port=port, workers=workers, progress=say)
            _print(state, as_json)
            if state.state != "running":
                say("not everything is healthy yet: see `narwhal status`")
            return
        Supervisor(places, port=port, workers=workers, progress=say).run(
            lambda state: _print_and_stay(state, as_json)
        )
    except NarwhalError as error:
        if error.error != "ALREADY_RUNNING":
            raise
        # somebody else started it between our look and our start
        _print(_wait_until_started(places), as_json)


def down(home: Home = None) -> None:
    """Stop the local stack. Nothing is lost; `narwhal up` goes on from there.

    Example: narwhal down
    """
    places = _places(home)
    say(f"stopped {places.root}" if stop_stack(places) else f"nothing runs in {places.root}")


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what runs, where, since when, and how much work is queued.

    Example: narwhal status --json
    """
    places = _places(home)
    answer = _status(places)
    if as_json:
        show_json(answer)
        return
    say(f"{answer['state']}: {places.root}" + (f", {answer['error']}" if answer["error"] else ""))
    if answer["api_url"] and answer["state"] != "stopped":
        say(f"API: {answer['api_url']}")
    show(
        answer["services"], columns=["name", "state", "pid", "restarts", "started_at", "last_exit"]
    )
    if answer["jobs"] is not None:
        say("jobs: " + ", ".join(f"{count} {name}" for name, count in answer["jobs"].items()))


def _places(home: Path | None) -> Places:
    # one spelling of the path, whatever links lead to it
    return Places((home.expanduser() if home else default_home()).resolve())


def _status(places: Places) -> dict[str, Any]:
    state = read_state(places.root) or StackState()
    if not places.is_held() and state.state != "stopped":
        # the supervisor is gone without a word; what it started may live on
        state.state = "crashed"
        state.error = "its supervisor was killed; `narwhal up` recovers"
        for service in state.services:
            if not is_alive(service):
                service.state, service.pid = "stopped", None
    if state.error is None and state.state in ("running", "degraded"):
        state.error = _low_on_disk(places)
    return {
        "state": state.state,
        "home": str(places.root),
        "api_url": state.api_url,
        "anon_key": state.anon_key,
        "service_role_key": state.service_role_key,
        "publishable_key": state.publishable_key,
        "secret_key": state.secret_key,
        "database_url": state.database_url,
        "version": state.version,
        "error": state.error,
        "services": [service.model_dump(exclude={"create_time"}) for service in state.services],
        "jobs": _count_jobs(state),
    }


def _low_on_disk(places: Places) -> str | None:
    free = shutil.disk_usage(places.root).free
    return f"only {free // 1024**2} MiB are free on its disk" if free < LOW_BYTES else None


def _count_jobs(state: StackState) -> dict[str, int] | None:
    """Count the ingestion jobs by state; None while the database does not answer."""
    if state.state in ("stopped", "crashed"):
        return None
    try:
        with psycopg.connect(state.database_url, connect_timeout=3) as connection:
            rows: list[tuple[str, int]] = connection.execute(
                "select state, count(*) from public.ingest_jobs where state = any(%s) group by 1",
                (list(JOB_STATES),),
            ).fetchall()
    except psycopg.Error:
        return None
    return dict.fromkeys(JOB_STATES, 0) | dict(rows)


def _wait_until_started(places: Places) -> StackState:
    import time

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        state = read_state(places.root)
        if state is not None and state.state in ("running", "degraded") and places.is_held():
            return state
        if not places.is_held():
            raise NarwhalError(
                f"The stack in {places.root} did not start.",
                "Start it again, or see its logs folder.",
                error="START_FAILED",
            )
        time.sleep(0.1)
    raise already_running(places)


def _print(state: StackState, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "state": state.state,
                "api_url": state.api_url,
                "anon_key": state.anon_key,
                "service_role_key": state.service_role_key,
                "database_url": state.database_url,
            }
        )
        return
    print(f"API URL:          {state.api_url}")
    print(f"anon key:         {state.anon_key}")
    print(f"service_role key: {state.service_role_key}")
    print(f"database URL:     {state.database_url}", flush=True)


def _print_and_stay(state: StackState, as_json: bool) -> None:
    _print(state, as_json)
    say("running; stop it with Ctrl-C")
