"""Resumable uploads on a bad line: lost answers, stale tokens, rights that are gone."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import tusclient.request
from tusclient.exceptions import TusCommunicationError

from narwhal import resumable
from narwhal.drive import Drive, Sent
from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.local.state import StackState
from narwhal.session import user_client
from narwhal.settings import Settings
from tests.cli.running import CommandLine, settings_of

MIB = 2**20
SIZE = 14 * MIB  # three parts
Patch = Callable[..., requests.Response]


@pytest.fixture
def settings(stack: StackState, tmp_path: Path) -> Settings:
    return settings_of(stack, tmp_path / "home")


@pytest.fixture
def drive(stack: StackState, settings: Settings, tmp_path: Path) -> Iterator[Drive]:
    email = CommandLine(stack, tmp_path).new_user()
    with user_client(settings, email) as client:
        yield Drive(client, settings)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "large.bin"
    file.write_bytes(random.Random(3).randbytes(SIZE))
    return file


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Collect (offset, status) of every part that reaches the server."""
    seen: list[tuple[int, int]] = []
    real: Patch = requests.patch

    def watched(url: str, **options: Any) -> requests.Response:
        answer = real(url, **options)
        seen.append((int(options["headers"]["upload-offset"]), answer.status_code))
        return answer

    monkeypatch.setattr(tusclient.request.requests, "patch", watched)
    monkeypatch.setattr(resumable, "PAUSE_S", 0.01)
    return seen


def lose_answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the given part arrive, but not what the server says about it."""
    real: Patch = requests.patch
    calls = iter(range(100))

    def losing(url: str, **options: Any) -> requests.Response:
        answer = real(url, **options)
        if next(calls) == number:
            raise requests.ConnectionError("the line is cut")
        return answer

    monkeypatch.setattr(tusclient.request.requests, "patch", losing)


def assert_arrived_once(drive: Drive, sent: Sent, path: Path) -> None:
    details = drive.details(sent.file_id)
    assert len(details["versions"]) == 1
    content = drive.client.storage.from_(details["bucket"]).download(details["key"])
    assert hashlib.sha256(content).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_parts_are_of_the_size_that_storage_wants(
    drive: Drive, path: Path, parts: list[tuple[int, int]]
) -> None:
    told: list[int] = []
    sent = drive.upload(path, None, progress=told.append)
    assert parts == [(0, 204), (6 * MIB, 204), (12 * MIB, 204)]
    assert told == sorted(told)
    assert told[-1] == SIZE
    assert_arrived_once(drive, sent, path)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_whose_answer_was_lost_is_not_sent_twice(
    drive: Drive,
    path: Path,
    parts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    lose_answer(monkeypatch, number)
    sent = drive.upload(path, None)
    assert [offset for offset, _ in parts] == [0, 6 * MIB, 12 * MIB]
    assert_arrived_once(drive, sent, path)


def test_a_token_that_expired_on_the_way_is_renewed(
    drive: Drive, path: Path, parts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = resumable.access_token
    calls = iter(range(100))
    monkeypatch.setattr(
        resumable, "access_token", lambda c: "stale.token.x" if next(calls) == 1 else real(c)
    )
    sent = drive.upload(path, None)
    assert [status for _, status in parts if status in (401, 403)] != []
    assert_arrived_once(drive, sent, path)


def test_an_expired_ticket_is_replaced_by_a_new_one(
    drive: Drive,
    path: Path,
    settings: Settings,
    parts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(resumable, "ATTEMPTS", 1)
        lose_answer(patch, 0)
        with pytest.raises(TusCommunicationError):
            drive.upload(path, None)
    with psycopg.connect(settings.require("database_url")) as connection:
        # the sweep ends tickets like this; without it the test would wait for a day
        [first] = connection.execute(
            "update public.uploads set expires_at = now() - interval '1 minute'"
            " where state in ('open', 'uploading') and created_by ="
            " (select id from auth.users where email = %s) returning file_id",
            (drive.client.auth.get_session().user.email,),  # type: ignore[union-attr]
        )
    parts.clear()
    sent = drive.upload(path, None, resume=True)
    assert not sent.resumed
    assert sent.file_id != str(first[0])
    assert [offset for offset, status in parts if status == 204] == [0, 6 * MIB, 12 * MIB]
    assert_arrived_once(drive, sent, path)


def expire_upload_url(stack_home: Path) -> None:
    """Let the URLs of all unfinished uploads expire; only time does it otherwise."""
    for file in (stack_home / "storage" / "tus").glob("*.json"):
        upload = json.loads(file.read_text())
        if not upload["finished"]:
            file.write_text(json.dumps(upload | {"expires_at": time.time() - 1}))


def test_an_upload_url_that_expired_starts_again_under_the_same_ticket(
    drive: Drive,
    path: Path,
    stack_home: Path,
    parts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(resumable, "ATTEMPTS", 1)
        lose_answer(patch, 0)
        with pytest.raises(TusCommunicationError):
            drive.upload(path, None)
    [ticket] = [entry["ticket"] for entry in json.loads(drive.ledger.path.read_text()).values()]
    expire_upload_url(stack_home)
    parts.clear()

    def expiring(url: str, **options: Any) -> requests.Response:
        if not [status for _, status in parts if status == 410] and len(parts) == 1:
            expire_upload_url(stack_home)  # and once more, between two parts
        return watched(url, **options)

    watched: Patch = tusclient.request.requests.patch
    monkeypatch.setattr(tusclient.request.requests, "patch", expiring)
    sent = drive.upload(path, None, resume=True)
    assert (sent.resumed, sent.file_id) == (True, ticket["file_id"])
    assert parts == [(0, 204), (6 * MIB, 410), (0, 204), (6 * MIB, 204), (12 * MIB, 204)]
    assert_arrived_once(drive, sent, path)


def test_an_upload_whose_right_was_taken_back_ends_with_the_reason(
    drive: Drive, stack: StackState, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = CommandLine(stack, tmp_path / "peer")
    cli.cwd.mkdir()
    peer = cli.new_user()
    folder = drive.make_folder("Shared")
    shared = drive.call(
        "share_node", {"node": folder["id"], "grantee": {"email": peer}, "level": "edit"}
    )
    real: Patch = requests.patch
    calls = iter(range(100))

    def revoking(url: str, **options: Any) -> requests.Response:
        if next(calls) == 1:
            drive.rpc("unshare_node", {"share_id": shared["id"]})
        return real(url, **options)

    monkeypatch.setattr(tusclient.request.requests, "patch", revoking)
    done = cli.run("upload", str(path), "--folder", folder["id"], "--as", peer)
    assert done.returncode == 1
    assert "[NO_TICKET]" in done.stderr
    assert "Traceback" not in done.stderr
    assert drive.details(folder["id"])["child_count"] == 0


def test_a_project_that_stays_away_is_given_up_with_a_hint(
    drive: Drive, path: Path, parts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(url: str, **options: Any) -> requests.Response:
        raise requests.ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(tusclient.request.requests, "patch", away)
        with pytest.raises(TusCommunicationError) as error:
            drive.upload(path, None)
    failure = as_narwhal_error(error.value)
    assert failure is not None
    assert "--resume" in (failure.hint or "")
    sent = drive.upload(path, None, resume=True)
    assert sent.resumed
    assert_arrived_once(drive, sent, path)


def test_waiting_ends_with_a_hint_when_nothing_is_read(drive: Drive, path: Path) -> None:
    with psycopg.connect(drive.settings.require("database_url")) as connection:
        # as if no worker were running: the queue holds every job back
        connection.execute(
            "create function private.tg_test_hold() returns trigger language plpgsql as"
            " $$ begin new.run_after := now() + interval '1 hour'; return new; end $$;"
            "create trigger _900_test_hold before insert on public.ingest_jobs"
            " for each row execute function private.tg_test_hold()"
        )
    try:
        seen: list[str] = []
        with pytest.raises(NarwhalError, match="still queued") as error:
            drive.wait(drive.upload(path, None), timeout_s=1, progress=seen.append)
        assert "narwhal worker" in (error.value.hint or "")
        assert seen == ["queued"]
    finally:
        with psycopg.connect(drive.settings.require("database_url")) as connection:
            connection.execute("drop function private.tg_test_hold() cascade")
