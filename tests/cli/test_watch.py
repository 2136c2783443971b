"""`narwhal watch`: a folder of the drive follows a folder of this computer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from narwhal.drive import Drive
from narwhal.local.state import StackState
from narwhal.session import user_client
from narwhal.watching import is_ignored
from tests.cli.running import CommandLine, settings_of


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


def watch(cli: CommandLine, owner: str, root: Path, *more: str, fails: bool = False) -> list[Any]:
    """Let the drive catch up; return (what, path) of each event."""
    done = cli.run(
        "watch",
        str(root),
        "--folder",
        "Mirror",
        "--as",
        owner,
        "--once",
        "--interval",
        "0.1",
        "--json",
        *more,
    )
    assert done.returncode == int(fails), done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [(event["what"], event["path"]) for event in events]


def tree(cli: CommandLine, owner: str) -> dict[str, tuple[str, int]]:
    """Each file of the drive below Mirror: its id, and how many versions it has."""
    with user_client(settings_of(cli.stack, cli.home), owner) as client:
        drive = Drive(client, settings_of(cli.stack, cli.home))
        top = drive.folder_id("Mirror")
        items = drive.children(top, recursive=True)
        files = [drive.details(item["id"]) for item in items if item["kind"] == "file"]
        return {
            file["path"].removeprefix("/Mirror/"): (file["id"], len(file["versions"]))
            for file in files
        }


def test_the_drive_follows_a_folder(cli: CommandLine, tmp_path: Path) -> None:
    owner, root = cli.new_user(), tmp_path / "mine"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "sub" / "b.txt").write_text("bravo")
    for name in ("~$a.docx", ".hidden", "c.txt.part", "d.tmp"):
        (root / name).write_text("half")
    (root / "link.txt").symlink_to(root / "a.txt")
    assert watch(cli, owner, root) == [("uploaded", "a.txt"), ("uploaded", "sub/b.txt")]
    first = tree(cli, owner)
    assert set(first) == {"a.txt", "sub/b.txt"}
    assert watch(cli, owner, root) == []

    # while nobody watched
    (root / "a.txt").write_text("alpha, changed")
    (root / "sub" / "b.txt").rename(root / "c.txt")
    os.utime(root / "c.txt", ns=((stat := (root / "c.txt").stat()).st_atime_ns, stat.st_mtime_ns))
    (root / "new.txt").write_text("new")
    assert watch(cli, owner, root) == [
        ("changed", "a.txt"),
        ("renamed", "c.txt"),
        ("uploaded", "new.txt"),
    ]
    second = tree(cli, owner)
    assert second["a.txt"] == (first["a.txt"][0], 2)
    assert second["c.txt"] == first["sub/b.txt"]

    os.utime(root / "new.txt")  # touched, with the same content
    (root / "c.txt").unlink()
    assert watch(cli, owner, root) == [("trashed", "c.txt")]
    assert set(tree(cli, owner)) == {"a.txt", "new.txt"}


def test_what_the_drive_has_already_is_not_sent_again(cli: CommandLine, tmp_path: Path) -> None:
    owner, root = cli.new_user(), tmp_path / "mine"
    root.mkdir()
    (root / "a.txt").write_text("alpha")
    sent = cli.json("upload", str(root / "a.txt"), "--folder", "Mirror", "--as", owner, "--wait")
    assert watch(cli, owner, root) == []
    assert tree(cli, owner) == {"a.txt": (sent[0]["file_id"], 1)}


def test_a_file_that_is_refused_does_not_stop_the_others(cli: CommandLine, tmp_path: Path) -> None:
    owner, root = cli.new_user(), tmp_path / "mine"
    root.mkdir()
    (root / "a.exe").write_text("MZ")
    (root / "b.txt").write_text("bravo")
    assert watch(cli, owner, root, fails=True) == [("failed", "a.exe"), ("uploaded", "b.txt")]


def test_a_killed_watcher_goes_on_and_a_missing_folder_deletes_nothing(
    cli: CommandLine, tmp_path: Path
) -> None:
    owner, root = cli.new_user(), tmp_path / "mine"
    root.mkdir()
    (root / "a.txt").write_text("alpha")
    command = ["watch", str(root), "--folder", "Mirror", "--as", owner, "--interval", "0.1"]
    process = cli.start(*command, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["path"] == "a.txt"
    (root / "b.txt").write_text("bravo")
    assert json.loads(process.stdout.readline())["path"] == "b.txt"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (root / "c.txt").write_text("charlie")
    assert watch(cli, owner, root)[-1] == ("uploaded", "c.txt")
    assert {path: count for path, (_, count) in tree(cli, owner).items()} == {
        "a.txt": 1,
        "b.txt": 1,
        "c.txt": 1,
    }

    process = cli.start(*command)
    assert process.stdout is not None
    (root / "d.txt").write_text("delta")
    assert process.stdout.readline() == "uploaded d.txt\n"
    root.rename(tmp_path / "away")
    assert process.wait(timeout=30) == 1
    assert process.stderr is not None
    assert "cannot be read" in process.stderr.read()
    assert set(tree(cli, owner)) == {"a.txt", "b.txt", "c.txt", "d.txt"}


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        (".git", True),
        ("~$plan.docx", True),
        ("a.txt~", True),
        ("film.mp4.crdownload", True),
        ("Thumbs.db", True),
        ("plan.docx", False),
        ("part.txt", False),
        ("tmp", False),
    ],
)
def test_temporary_files_are_known_by_their_names(name: str, ignored: bool) -> None:
    assert is_ignored(name) is ignored
