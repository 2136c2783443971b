"""Supervision without a stack: pauses between restarts, slow starts, full disks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

from narwhal.errors import NarwhalError
from narwhal.local import postgres
from narwhal.local.home import Home
from narwhal.local.postgres import LOGIN_ROLES, EmbeddedPostgres, require_space
from narwhal.local.process import (
    CHECKS_BEFORE_RESTART,
    LONGEST_PAUSE_S,
    Service,
    end_leftovers,
    spawn,
)

Usage = namedtuple("Usage", "total used free")


def service(tmp_path: Path, code: str, **options: object) -> Service:
    log = tmp_path / "log"
    return Service(
        "part",
        spawn=lambda: spawn(
            [sys.executable, "-c", code], home=tmp_path, service="part", log=log, env={}
        ),
        is_healthy=lambda: False,
        log=log,
        **options,  # type: ignore[arg-type]
    )


def settle(part: Service, seconds: float = 10) -> None:
    """Step until the process that runs now has ended."""
    deadline = time.monotonic() + seconds
    while part.state != "restarting":
        assert time.monotonic() < deadline
        part.step()
        time.sleep(0.01)


def test_pauses_between_restarts_grow_and_have_an_end(tmp_path: Path) -> None:
    part = service(tmp_path, "import sys; print('fatal: no luck'); sys.exit(3)")
    part.start()
    pauses = []
    for _ in range(3):
        settle(part)
        pauses.append(part._next_start - time.monotonic())
        part._next_start = 0
        part.step()
    part._pause = 1000 * LONGEST_PAUSE_S
    settle(part)
    part._wait()

    assert pauses[0] < pauses[1] < pauses[2]
    assert part._pause == LONGEST_PAUSE_S
    assert part.restarts == 3
    assert part.last_exit == "exited with 3: fatal: no luck"
    assert part.status().pid is None
    part.stop()


def test_a_part_that_never_becomes_healthy_is_ended_and_tried_again(tmp_path: Path) -> None:
    part = service(tmp_path, "import time; time.sleep(60)", startup_s=0.2)
    part.start()
    process = part.process
    assert process is not None

    settle(part)

    assert process.poll() is not None
    assert "did not become healthy" in (part.last_exit or "")
    part.stop()


def test_a_part_that_stops_answering_is_replaced(tmp_path: Path) -> None:
    part = service(tmp_path, "import time; time.sleep(60)")
    part.is_healthy = lambda: True
    part.start()
    part.step()
    assert part.state == "running"
    process = part.process
    assert process is not None

    part.is_healthy = lambda: False
    for check in range(CHECKS_BEFORE_RESTART):
        assert part.state == "running", check
        part._next_check = 0
        part.step()

    assert part.state == "restarting"
    assert part.last_exit == "stopped answering"
    assert process.poll() is not None
    part.stop()


def test_a_part_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"  # noqa: E501
    part = service(tmp_path, code, stop_s=0.2)
    part.start()
    process = part.process
    assert process is not None
    while "on" not in part.log.read_text():
        time.sleep(0.01)

    part.stop()

    assert process.poll() == -9
    assert part.state == "stopped"


def test_a_part_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    part = service(tmp_path, "")
    part.start()
    settle(part)

    def full() -> subprocess.Popen[bytes]:
        raise NarwhalError("The disk is full.")

    part.spawn = full
    part._next_start = 0
    part.step()

    assert part.state == "restarting"
    assert part.last_exit == "The disk is full."


def test_grandchildren_of_a_dead_part_are_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True)"
    )
    part = spawn(
        [sys.executable, "-c", code],
        home=tmp_path, service="part", log=tmp_path / "log", env={},
    )  # fmt: skip
    part.wait()
    grandchild = int((tmp_path / "log").read_text())

    assert end_leftovers(tmp_path / "elsewhere", tmp_path, []) == []
    assert end_leftovers(tmp_path, tmp_path, [], service="other") == []
    assert end_leftovers(tmp_path, tmp_path, [], service="part") == [f"part ({grandchild})"]
    assert end_leftovers(tmp_path, tmp_path, []) == []


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_space(tmp_path / "not" / "yet" / "there")  # control: there is space
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 5, 5))
    passwords = dict.fromkeys(LOGIN_ROLES, "x")

    with pytest.raises(NarwhalError) as error:
        EmbeddedPostgres(tmp_path / "pgdata", passwords).init()

    assert error.value.error == "DISK_FULL"
    assert "--home" in (error.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_is_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initdb = tmp_path / "bin" / "initdb"
    initdb.parent.mkdir()
    initdb.write_text(
        "#!/bin/sh\necho 'initdb: error: could not write: No space left on device' >&2\nexit 1\n"
    )
    initdb.chmod(0o755)
    (tmp_path / "bin" / "postgres").touch()
    monkeypatch.setattr(postgres, "binaries", lambda: tmp_path / "bin")
    (tmp_path / "home").mkdir()

    with pytest.raises(NarwhalError) as error:
        EmbeddedPostgres(tmp_path / "home" / "pgdata", dict.fromkeys(LOGIN_ROLES, "x")).init()

    assert error.value.error == "DISK_FULL"
    assert list((tmp_path / "home").iterdir()) == []  # neither half a cluster nor a password


def test_a_home_with_a_long_path_gets_the_same_short_socket_folder_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("deep" * 20)
    folders = set()
    for temporary in (tmp_path, home):  # the supervisor's TMPDIR need not be the client's
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        folders.add(EmbeddedPostgres(home / "pgdata", {}).socket_dir)

    [folder] = folders
    assert len(str(folder)) <= postgres.MAX_SOCKET_DIR
    assert folder != EmbeddedPostgres(home / "other" / "pgdata", {}).socket_dir


def test_one_process_at_a_time_holds_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.holder() is None
    with home.locked() as first, home.locked() as second:
        assert (first, second) == (True, False)
        assert home.is_held()
    assert not home.is_held()
    with home.locked() as again:
        assert again
