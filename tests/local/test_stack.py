"""The stack as a whole: started, watched, crashed, recovered and stopped through the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from narwhal.local.state import StackState, read_state
from tests.conftest import ROOT, clean_environment


@dataclass
class Home:
    """One home and the commands that tests run on it."""

    path: Path

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "narwhal", *arguments, "--home", str(self.path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=clean_environment(),
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *more: str, workers: int = 0) -> StackState:
        self.run("up", "--detach", "--workers", str(workers), *more)
        return self.state()

    def state(self) -> StackState:
        state = read_state(self.path)
        assert state is not None
        return state

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def pids(self) -> dict[str, int]:
        return {s.name: s.pid for s in self.state().services if s.pid is not None}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One stack for the tests that leave it as they found it: running."""
    home = Home(tmp_path_factory.mktemp("running"))
    home.up("--port", "0")
    yield home
    home.run("down")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of its own; nothing of it runs after the test."""
    home = Home(tmp_path / "home")
    yield home
    home.run("down")
    assert_nothing_runs(home.path)


def assert_nothing_runs(path: Path) -> None:
    left = [
        process.cmdline()
        for process in psutil.process_iter()
        if _works_for(process, path) and process.pid != os.getpid()
    ]
    assert left == []


def _works_for(process: psutil.Process, path: Path) -> bool:
    try:
        return process.environ().get("NARWHAL_STACK_HOME") == str(path) or process.cwd() == str(
            path / "pgdata"
        )
    except (psutil.Error, OSError):
        return False


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def get(url: str, key: str | None = None, **headers: str) -> tuple[int, Any]:
    if key is not None:
        headers |= {"apikey": key, "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def leave_a_mark(state: StackState) -> str:
    """Write a row; return the address that shows it to the service key."""
    owner = uuid.uuid4()
    with psycopg.connect(state.database_url) as connection:
        connection.execute(
            "insert into public.owners (id, kind, storage_limit) values (%s, 'workspace', 1)",
            (owner,),
        )
    return f"{state.api_url}/rest/v1/owners?select=kind&id=eq.{owner}"


# -- starting and stopping ---------------------------------------------------------------------


def test_status_tells_everything_a_client_needs(running: Home) -> None:
    status = running.status()

    assert status["state"] == "running"
    assert get(status["api_url"] + "/health")[0] == 200
    assert get(status["api_url"] + "/rest/v1/nodes", status["anon_key"]) == (200, [])
    with psycopg.connect(status["database_url"]) as connection:
        assert connection.execute("select current_user::text").fetchone() == ("postgres",)
    assert status["jobs"] == {"queued": 0, "running": 0, "failed": 0, "dead": 0}
    assert [service["name"] for service in status["services"]] == ["postgres", "rest", "gateway"]
    for service in status["services"]:
        assert service["state"] == "running"
        assert psutil.pid_exists(service["pid"])


def test_a_second_up_is_harmless(running: Home) -> None:
    before = running.pids()

    again = running.run("up", "--detach")

    assert "already running" in again.stderr
    assert running.state().api_url in again.stdout
    assert running.pids() == before
    # in the foreground it ends at once too
    assert "already running" in running.run("up").stderr
    assert running.pids() == before


def test_only_the_loopback_address_is_listened_on(running: Home) -> None:
    for pid in [*running.pids().values(), running.state().supervisor_pid]:
        for connection in psutil.Process(pid).net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"


def test_secrets_are_readable_by_their_owner_only(running: Home) -> None:
    assert stat.S_IMODE((running.path / "stack.json").stat().st_mode) == 0o600
    for folder in ("logs", "storage", "pgdata", "run"):
        assert stat.S_IMODE((running.path / folder).stat().st_mode) & 0o077 == 0
    state = running.state()
    logs = b"".join(log.read_bytes() for log in (running.path / "logs").glob("*.log"))
    for secret in (state.jwt_secret, state.service_role_key, *state.passwords.values()):
        assert secret.encode() not in logs


def test_no_secret_is_on_a_command_line(running: Home) -> None:
    state = running.state()
    secrets = [state.jwt_secret, state.service_role_key, *state.passwords.values()]
    for pid in running.pids().values():
        command = " ".join(psutil.Process(pid).cmdline())
        assert not any(secret in command for secret in secrets)


def test_every_login_role_needs_its_password(running: Home) -> None:
    state = running.state()
    for role in state.passwords:
        address = state.database_url.replace(
            f"postgres:{state.passwords['postgres']}@", f"{role}:wrong@"
        )
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(address)


def test_down_loses_nothing_and_up_goes_on_with_the_same_keys(home: Home) -> None:
    first = home.up("--port", "0")
    mark = leave_a_mark(first)

    assert "stopped" in home.run("down").stderr
    assert home.status()["state"] == "stopped"
    assert home.status()["jobs"] is None
    assert_nothing_runs(home.path)
    assert "nothing runs" in home.run("down").stderr

    second = home.up()
    assert (second.api_url, second.anon_key) == (first.api_url, first.anon_key)
    assert get(mark, second.service_role_key) == (200, [{"kind": "workspace"}])


def test_two_homes_run_side_by_side(running: Home, home: Home) -> None:
    here, there = running.state(), home.up("--port", "0")
    mark = leave_a_mark(here)

    assert here.api_url != there.api_url
    assert here.jwt_secret != there.jwt_secret
    assert get(mark, here.service_role_key)[1] != []
    elsewhere = mark.replace(here.api_url, there.api_url)
    assert get(elsewhere, there.service_role_key) == (200, [])
    assert get(elsewhere, here.service_role_key)[0] == 401  # one home's key opens no other


def test_in_the_foreground_it_runs_until_interrupted(home: Home) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "narwhal", "up", "--port", "0", "--workers", "0"),
            *("--home", str(home.path)),
        ],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        assert get(f"{url}/health")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert home.status()["state"] == "stopped"


def test_a_taken_port_is_named_together_with_the_way_out(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused = home.run("up", "--detach", "--port", str(port), check=False)

    assert refused.returncode == 1
    assert f"Port {port} is taken" in refused.stderr
    assert "--port" in refused.stderr
    assert_nothing_runs(home.path)
    assert home.up("--port", str(port)).api_url.endswith(f":{port}")


def test_a_long_path_still_gets_a_socket(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 20) / "home")
    try:
        state = home.up("--port", "0")
        assert get(f"{state.api_url}/rest/v1/nodes", state.anon_key) == (200, [])
    finally:
        home.run("down")


def test_a_damaged_state_file_is_refused_and_named(home: Home) -> None:
    home.up("--port", "0")
    home.run("down")
    good = (home.path / "stack.json").read_bytes()
    (home.path / "stack.json").write_bytes(good[: len(good) // 2])

    refused = home.run("up", "--detach", check=False)

    assert refused.returncode == 1
    assert "stack.json" in refused.stderr
    (home.path / "stack.json").unlink()
    refused = home.run("up", "--detach", check=False)
    assert refused.returncode == 1  # a database whose passwords are gone is not overwritten
    assert (home.path / "pgdata").exists()
    (home.path / "stack.json").write_bytes(good)


# -- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["postgres", "rest", "gateway"])
def test_a_killed_part_is_noticed_shown_and_restarted(running: Home, name: str) -> None:
    state = running.state()
    mark = leave_a_mark(state)
    before = running.pids()
    restarts = _service(running, name)["restarts"]

    os.kill(before[name], signal.SIGKILL)

    until(lambda: _service(running, name)["restarts"] == restarts + 1)
    until(lambda: running.state().state == "running")
    after = _service(running, name)
    assert after["pid"] != before[name]
    assert "SIGKILL" in after["last_exit"]
    # everything works again, and what was written is there
    until(lambda: get(mark, state.service_role_key) == (200, [{"kind": "workspace"}]), 15)
    until(lambda: get(f"{state.api_url}/storage/v1/bucket", state.service_role_key)[0] == 200, 15)


def test_a_killed_worker_is_noticed_shown_and_restarted(home: Home) -> None:
    home.up("--port", "0", workers=2)
    before = home.pids()
    assert {"worker-1", "worker-2"} < set(before)

    os.kill(before["worker-2"], signal.SIGKILL)

    until(lambda: _service(home, "worker-2")["restarts"] == 1)
    until(lambda: home.state().state == "running")
    after = home.pids()
    assert after["worker-2"] != before["worker-2"]
    assert after["worker-1"] == before["worker-1"]
    assert "SIGKILL" in _service(home, "worker-2")["last_exit"]


@pytest.mark.long
def test_a_hanging_part_is_restarted(running: Home) -> None:
    before = running.pids()["rest"]
    os.kill(before, signal.SIGSTOP)

    until(lambda: running.pids().get("rest") not in (None, before), 120)

    assert "stopped answering" in _service(running, "rest")["last_exit"]
    until(lambda: running.state().state == "running")


def test_after_the_supervisor_is_killed_the_next_up_recovers(home: Home) -> None:
    first = home.up("--port", "0")
    mark = leave_a_mark(first)
    orphans = home.pids()
    assert first.supervisor_pid is not None
    os.kill(first.supervisor_pid, signal.SIGKILL)
    until(lambda: home.status()["state"] == "crashed")
    assert "narwhal up" in home.status()["error"]

    second = home.up()

    assert second.api_url == first.api_url
    assert set(home.pids().values()).isdisjoint(orphans.values())
    assert not any(psutil.pid_exists(pid) for pid in orphans.values())
    assert get(mark, second.service_role_key) == (200, [{"kind": "workspace"}])


def test_after_the_supervisor_is_killed_down_ends_what_it_left(home: Home) -> None:
    state = home.up("--port", "0")
    assert state.supervisor_pid is not None
    os.kill(state.supervisor_pid, signal.SIGKILL)

    home.run("down")

    assert_nothing_runs(home.path)
    assert home.status()["state"] == "stopped"


def test_leftovers_of_a_crash_never_cost_an_innocent_process_its_life(home: Home) -> None:
    home.up("--port", "0")
    home.run("down")
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        # a state and a lock that name a pid which the system has given to somebody else since
        state = home.state()
        state.state = "running"
        state.supervisor_pid = innocent.pid
        for service in state.services:
            service.pid, service.create_time = innocent.pid, time.time() - 3600
        (home.path / "stack.json").write_text(state.model_dump_json())
        (home.path / "lock").write_text(f"{innocent.pid}\n")
        (home.path / "pgdata" / "postmaster.pid").write_text(f"{innocent.pid}\n/elsewhere\n")
        if os.geteuid() == 0:
            shutil.chown(home.path / "pgdata" / "postmaster.pid", "embedded_postgres")

        assert home.status()["state"] == "crashed"
        home.up()

        assert home.status()["state"] == "running"
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def _service(home: Home, name: str) -> dict[str, Any]:
    service = home.state().service(name)
    assert service is not None
    return service.model_dump()


# -- db reset ----------------------------------------------------------------------------------


def test_reset_empties_a_running_home_and_keeps_its_keys(home: Home) -> None:
    state = home.up("--port", "0")
    mark = leave_a_mark(state)
    stored = home.path / "storage" / "some-bytes"
    stored.write_bytes(b"x")

    assert home.run("db", "reset", check=False).returncode == 2  # nobody to ask
    home.run("db", "reset", "--dry-run")
    assert get(mark, state.service_role_key)[1] != []

    home.run("db", "reset", "--yes")

    assert not stored.exists()
    until(lambda: get(mark, state.service_role_key) == (200, []), 20)
    assert home.state().service_role_key == state.service_role_key
    rows = json.loads(home.run("db", "status", "--json").stdout)
    assert {row["state"] for row in rows} == {"applied"}
    assert json.loads(home.run("db", "migrate", "--json").stdout) == {"applied": []}


def test_reset_refuses_a_database_that_is_not_the_local_stack(running: Home) -> None:
    environment = clean_environment() | {"DATABASE_URL": "postgresql://prod.example/postgres"}

    done = subprocess.run(
        [sys.executable, "-m", "narwhal", "db", "reset", "--yes", "--home", str(running.path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )

    assert done.returncode == 1
    assert "NOT_LOCAL" in done.stderr
