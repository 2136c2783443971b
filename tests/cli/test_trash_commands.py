"""trash, restore and versions on a running stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.local.state import StackState
from tests.cli.running import CommandLine


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


@pytest.fixture
def owner(cli: CommandLine) -> str:
    return cli.new_user()


def upload(cli: CommandLine, owner: str, name: str, text: str, *more: str) -> str:
    (cli.cwd / name).write_text(text)
    [row] = cli.json("upload", name, *more, "--as", owner)
    return str(row["file_id"])


def names(cli: CommandLine, owner: str, place: str = "") -> list[str]:
    return [row["name"] for row in cli.json("ls", place, "--as", owner)]


def test_what_was_deleted_comes_back_to_its_place(cli: CommandLine, owner: str) -> None:
    file_id = upload(cli, owner, "plan.txt", "the plan", "--folder", "Projects")
    cli.json("rm", "Projects/plan.txt", "--as", owner)
    [item] = cli.json("trash", "list", "--as", owner)
    assert (item["id"], item["name"]) == (file_id, "plan.txt")
    assert "plan.txt" in cli.run("trash", "list", "--as", owner).stdout
    cli.json("restore", "plan.txt", "--as", owner)
    assert names(cli, owner, "Projects") == ["plan.txt"]
    assert cli.json("trash", "list", "--as", owner) == []
    done = cli.run("restore", "plan.txt", "--as", owner)
    assert "[NOT_FOUND]" in done.stderr


def test_a_name_that_was_taken_meanwhile(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "a.txt", "one")
    cli.json("rm", "a.txt", "--as", owner)
    upload(cli, owner, "a.txt", "two")
    done = cli.run("restore", "a.txt", "--as", owner)
    assert "[CONFLICT_NAME]" in done.stderr
    cli.json("restore", "a.txt", "--on-conflict", "rename", "--as", owner)
    assert names(cli, owner) == ["a (2).txt", "a.txt"]


def test_the_trash_is_emptied_when_asked_twice(cli: CommandLine, owner: str) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        upload(cli, owner, name, name)
    cli.json("rm", "a.txt", "b.txt", "--as", owner)
    assert len(cli.json("trash", "empty", "--dry-run", "--as", owner)) == 2
    done = cli.run("trash", "empty", "--as", owner)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert len(cli.json("trash", "list", "--as", owner)) == 2
    cli.json("trash", "empty", "--yes", "--as", owner)
    assert cli.json("trash", "list", "--as", owner) == []
    assert cli.json("du", "--as", owner)["usage"]["used"] == len("c.txt")


def test_rm_purge_takes_living_and_trashed_ones(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "a.txt", "one")
    upload(cli, owner, "b.txt", "two")
    cli.json("rm", "a.txt", "--as", owner)
    cli.json("rm", "a.txt", "b.txt", "--purge", "--yes", "--as", owner)
    assert names(cli, owner) == []
    assert cli.json("trash", "list", "--as", owner) == []
    assert cli.json("du", "--as", owner)["usage"]["used"] == 0


def test_versions_are_listed_restored_and_purged(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "note.txt", "first", "--wait")
    upload(cli, owner, "note.txt", "second", "--on-conflict", "version", "--wait")
    rows = cli.json("versions", "list", "note.txt", "--as", owner)
    assert [(row["no"], row["is_head"]) for row in rows] == [(2, True), (1, False)]

    cli.json("versions", "restore", "note.txt", "1", "--as", owner)
    (cli.cwd / "note.txt").unlink()
    cli.json("download", "note.txt", "--as", owner)
    assert (cli.cwd / "note.txt").read_text() == "first"

    head = cli.run("versions", "purge", "note.txt", "3", "--yes", "--as", owner)
    assert "[CONFLICT_STATE]" in head.stderr
    unasked = cli.run("versions", "purge", "note.txt", "2", "--as", owner)
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    cli.json("versions", "purge", "note.txt", "2", "--dry-run", "--as", owner)
    cli.json("versions", "purge", "note.txt", "2", "--yes", "--as", owner)
    rows = cli.json("versions", "list", "note.txt", "--as", owner)
    assert [row["no"] for row in rows] == [3, 1]
    again = cli.json("reprocess", "note.txt", "--chunk-size", "500", "--as", owner)
    assert again["options"] == {"chunk_size": 500}
    refused = cli.run("reprocess", "note.txt", "--ocr-language", "klingon", "--as", owner)
    assert "[INVALID_ARGUMENT]" in refused.stderr
    missing = cli.run("versions", "restore", "note.txt", "9", "--as", owner)
    assert "[NOT_FOUND]" in missing.stderr
