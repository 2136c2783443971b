"""users, login, upload, ls, jobs, worker and search on a running stack."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from narwhal.local.state import StackState
from narwhal.session import user_client
from narwhal.settings import Settings
from tests.cli.running import PASSWORD, CommandLine, settings_of

MIB = 2**20


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


@pytest.fixture
def owner(cli: CommandLine) -> str:
    return cli.new_user()


@pytest.fixture
def settings(cli: CommandLine) -> Settings:
    return settings_of(cli.stack, cli.home)


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def large_file(path: Path, size: int = 14 * MIB) -> Path:
    return write(path, random.Random(path.name).randbytes(size))


def test_an_account_is_created_listed_and_logs_in(cli: CommandLine) -> None:
    owner = "owner-" + os.urandom(4).hex() + "@example.com"
    made = cli.json("users", "create", owner, "--password-stdin", stdin=PASSWORD + "\n")
    assert (made["email"], made["role"]) == (owner, "user")
    [row] = [row for row in cli.json("users", "list") if row["email"] == owner]
    assert (row["role"], row["storage_used"]) == ("user", 0)
    assert PASSWORD not in cli.run("users", "list").stdout

    assert cli.run("login", owner, "--password-stdin", stdin="wrong\n").returncode == 1
    done = cli.run("login", owner, "--password-stdin", stdin=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    assert (cli.home / "session.json").stat().st_mode & 0o777 == 0o600
    assert cli.json("ls") == []

    twice = cli.run("users", "create", owner, "--password-stdin", stdin=PASSWORD + "\n")
    assert twice.returncode == 1
    assert "email_exists" in twice.stderr


def test_a_role_is_given_at_creation(cli: CommandLine) -> None:
    email = "viewer-" + os.urandom(4).hex() + "@example.com"
    cli.json(
        "users", "create", email, "--role", "viewer", "--password-stdin", stdin=PASSWORD + "\n"
    )
    [row] = [row for row in cli.json("users", "list") if row["email"] == email]
    assert row["role"] == "viewer"
    write(cli.cwd / "a.txt", "a")
    assert "FORBIDDEN" in cli.run("upload", "a.txt", "--as", email).stderr


def test_an_expired_session_is_refreshed(cli: CommandLine, owner: str) -> None:
    cli.run("login", owner, "--password-stdin", stdin=PASSWORD + "\n")
    path = cli.home / "session.json"
    sessions = json.loads(path.read_text())
    [(project, [(key, text)])] = [(p, list(s.items())) for p, s in sessions.items()]
    session = json.loads(text)
    expired = session | {"expires_at": 1, "access_token": "stale"}
    path.write_text(json.dumps({project: {key: json.dumps(expired)}}))

    assert cli.json("ls") == []
    renewed = json.loads(json.loads(path.read_text())[project][key])
    assert renewed["refresh_token"] != session["refresh_token"]


def test_acting_as_somebody_unknown_creates_nobody(cli: CommandLine) -> None:
    done = cli.run("ls", "--as", "nobody-at-all@example.com")
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr
    assert "nobody-at-all@example.com" not in cli.run("users", "list").stdout


def test_files_go_into_folders_that_are_made_on_the_way(cli: CommandLine, owner: str) -> None:
    write(cli.cwd / "Résumé 简历.txt", "about me")
    [row] = cli.json("upload", "Résumé 简历.txt", "--folder", "Work/2026", "--as", owner)
    assert row["mode"] == "standard"
    assert [r["name"] for r in cli.json("ls", "--as", owner)] == ["Work"]
    [listed] = cli.json("ls", "work/2026", "--as", owner)  # names are equal without case
    assert (listed["name"], listed["id"]) == ("Résumé 简历.txt", row["file_id"])
    table = cli.run("ls", "Work/2026", "--as", owner).stdout
    assert "Résumé 简历.txt" in table
    assert "8 B" in table

    missing = cli.run("ls", "Work/2027", "--as", owner)
    assert missing.returncode == 1
    assert "NOT_FOUND" in missing.stderr


def test_two_commands_at_once_make_one_folder(cli: CommandLine, owner: str) -> None:
    for name in ("left.txt", "right.txt"):
        write(cli.cwd / name, name)
    both = [
        cli.start("upload", name, "--folder", "New/Place", "--as", owner)
        for name in ("left.txt", "right.txt")
    ]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert [row["name"] for row in cli.json("ls", "--as", owner)] == ["New"]
    listed = cli.json("ls", "New/Place", "--as", owner)
    assert [row["name"] for row in listed] == ["left.txt", "right.txt"]


def test_conflicts_and_known_content(cli: CommandLine, owner: str) -> None:
    write(cli.cwd / "a.txt", "one")
    cli.json("upload", "a.txt", "--as", owner)
    write(cli.cwd / "a.txt", "two")
    [refused] = cli.json("upload", "a.txt", "--as", owner, code=1)
    assert refused["error"] == "CONFLICT_NAME"
    [renamed] = cli.json("upload", "a.txt", "--on-conflict", "rename", "--wait", "--as", owner)
    assert renamed["name"] == "a (2).txt"
    write(cli.cwd / "b.txt", "two")  # bytes that the owner has already
    [known] = cli.json("upload", "b.txt", "--as", owner)
    assert known["mode"] == "deduplicated"
    write(cli.cwd / "a.txt", "three")
    [version] = cli.json("upload", "a.txt", "--on-conflict", "version", "--as", owner)
    assert version["name"] == "a.txt"
    names = sorted(row["name"] for row in cli.json("ls", "--as", owner))
    assert names == ["a (2).txt", "a.txt", "b.txt"]


def test_a_failing_file_does_not_stop_the_others(cli: CommandLine, owner: str) -> None:
    for name in ("bad.exe", "good.txt"):
        write(cli.cwd / name, name)
    rows = cli.json("upload", "bad.exe", "good.txt", "--as", owner, code=1)
    assert {row["name"]: row.get("error") for row in rows} == {
        "bad.exe": "TYPE_NOT_ALLOWED",
        "good.txt": None,
    }
    assert [row["name"] for row in cli.json("ls", "--as", owner)] == ["good.txt"]


def test_a_folder_is_uploaded_with_its_tree_and_without_what_it_links_to(
    cli: CommandLine, owner: str
) -> None:
    outside = write(cli.cwd / "outside.txt", "not yours")
    for name in ("tree/top.txt", "tree/deep/er/leaf.txt", "tree/deep/empty.txt"):
        write(cli.cwd / name, "" if "empty" in name else name)
    (cli.cwd / "tree" / "link.txt").symlink_to(outside)
    rows = cli.json("upload", "tree", "--recursive", "--as", owner)
    assert len(rows) == 3
    assert sorted(r["name"] for r in cli.json("ls", "tree", "--as", owner)) == ["deep", "top.txt"]
    assert [r["name"] for r in cli.json("ls", "tree/deep/er", "--as", owner)] == ["leaf.txt"]
    assert [r["size"] for r in cli.json("ls", "tree/deep/empty.txt", "--as", owner)] == [0]


def test_a_killed_upload_goes_on_where_it_stopped(
    cli: CommandLine, owner: str, settings: Settings
) -> None:
    path = large_file(cli.cwd / "big.bin", 40 * MIB)
    process = cli.start("upload", "big.bin", "--as", owner)
    assert process.stderr is not None
    for line in process.stderr:
        if not line.startswith("big.bin:   0 %"):
            break  # at least one part has arrived
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL

    again = cli.run("upload", "big.bin", "--as", owner)
    assert again.returncode == 1
    assert "--resume" in again.stderr  # the name is held by the open ticket

    done = cli.run("upload", "big.bin", "--resume", "--json", "--as", owner)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["mode"], row["resumed"]) == ("tus", True)
    assert not done.stderr.startswith("big.bin:   0 %")  # it did not start over

    with user_client(settings, owner) as client:
        details: Any = client.rpc("file_details", {"file_id": row["file_id"]}).execute().data
        content = client.storage.from_(details["bucket"]).download(details["key"])
    assert len(details["versions"]) == 1
    assert hashlib.sha256(content).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert json.loads((cli.home / "uploads.json").read_text()) == {}


def test_an_upload_url_that_is_gone_is_replaced_under_the_same_ticket(
    cli: CommandLine, owner: str, settings: Settings
) -> None:
    large_file(cli.cwd / "gone.bin")
    process = cli.start("upload", "gone.bin", "--as", owner)
    assert process.stderr is not None
    process.stderr.readline()  # the URL is stored before progress is first told
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    [entry] = json.loads((cli.home / "uploads.json").read_text()).values()
    ticket = entry["ticket"]
    with user_client(settings, owner) as client:
        token = client.auth.get_session().access_token  # type: ignore[union-attr]
    headers = {"authorization": f"Bearer {token}", "tus-resumable": "1.0.0"}
    assert httpx.delete(ticket["upload_url"], headers=headers).status_code == 204

    [row] = cli.json("upload", "gone.bin", "--resume", "--as", owner)
    assert (row["file_id"], row["resumed"]) == (ticket["file_id"], True)


def test_a_file_is_read_and_found_by_its_owner_alone(cli: CommandLine, owner: str) -> None:
    stranger = cli.new_user()
    write(cli.cwd / "log.md", "# Log\n\nThe turbine ZX-4471 ran at ninety percent.\n")
    write(cli.cwd / "broken.pdf", b"%PDF-1.7\nthis is no PDF at all")
    # the stack's own worker reads them
    [row] = cli.json("upload", "log.md", "--folder", "Logs", "--wait", "--as", owner)
    [broken] = cli.json("upload", "broken.pdf", "--wait", "--as", owner, code=1)
    assert row["status"] == "ready"
    assert (broken["status"], broken["error"]) == ("failed", "corrupt")

    for mode in ("hybrid", "keyword", "semantic"):
        arguments = ["search", "turbine ZX-4471", "--mode", mode, "--folder", "Logs"]
        answer = cli.json(*arguments, "--type", "md", "--as", owner)
        assert answer["hits"][0]["file_id"] == row["file_id"], mode
    assert cli.json("search", "turbine ZX-4471", "--as", stranger)["hits"] == []
    read = cli.run("search", "turbine ZX-4471", "--explain", "--as", owner)
    assert read.stdout.startswith("1. /Logs/log.md")
    assert "ninety percent" in read.stdout
    assert "nothing found" in cli.run("search", "turbine ZX-4471", "--as", stranger).stderr

    failed = cli.json("jobs", "list", "--state", "failed")
    assert broken["file_id"] in [job["file_id"] for job in failed]
    [job] = [job for job in failed if job["file_id"] == broken["file_id"]]
    assert cli.json("jobs", "retry", job["id"]) == {"retried": 1}
    assert cli.start("worker", "--drain").wait(60) == 0
    deadline = time.monotonic() + 30
    while True:  # the stack's worker may have it instead of ours
        [job] = [j for j in cli.json("jobs", "list") if j["id"] == job["id"]]
        if job["state"] == "failed" or time.monotonic() > deadline:
            break
    assert (job["state"], job["error_code"]) == ("failed", "corrupt")
