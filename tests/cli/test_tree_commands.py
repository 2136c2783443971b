"""ls, mkdir, mv, cp, find, du, rm and restore on a running stack."""

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


def upload(cli: CommandLine, owner: str, name: str, folder: str = "", text: str = "") -> str:
    path = cli.cwd / name
    path.write_text(text or name)
    [row] = cli.json("upload", name, "--folder", folder, "--as", owner)
    return str(row["file_id"])


def names(cli: CommandLine, owner: str, place: str = "") -> list[str]:
    return [row["name"] for row in cli.json("ls", place, "--as", owner)]


def refused(cli: CommandLine, *arguments: str, error: str, code: int = 1) -> str:
    """Run a command that must fail in two lines; return what it said."""
    done = cli.run(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert f"[{error}]" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_folders_are_made_with_and_without_what_is_above(cli: CommandLine, owner: str) -> None:
    [made] = cli.json("mkdir", "Projects", "--as", owner)
    assert (made["kind"], made["name"]) == ("folder", "Projects")
    refused(cli, "mkdir", "projects", "--as", owner, error="CONFLICT_NAME")
    refused(cli, "mkdir", "Other/Deep", "--as", owner, error="NOT_FOUND")
    [deep] = cli.json("mkdir", "-p", "/Projects/2026/Reports", "--as", owner)
    [again] = cli.json("mkdir", "-p", "projects/2026/reports", "--as", owner)
    assert deep["id"] == again["id"]
    assert names(cli, owner, "Projects") == ["2026"]
    # an id is as good as a path
    [inside] = cli.json("ls", made["id"], "--as", owner)
    assert inside["name"] == "2026"


def test_a_path_through_a_file_leads_nowhere(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "plain.txt")
    assert "file" in refused(cli, "mkdir", "plain.txt/Below", "--as", owner, error="NOT_FOUND")
    refused(cli, "ls", "plain.txt/Below", "--as", owner, error="NOT_FOUND")
    refused(cli, "mkdir", "-p", "plain.txt", "--as", owner, error="NOT_FOUND")


def test_mv_renames_moves_and_does_both(cli: CommandLine, owner: str) -> None:
    file_id = upload(cli, owner, "draft.txt")
    cli.json("mkdir", "Done", "Drafts", "--as", owner)
    cli.json("mv", "draft.txt", "Draft.TXT", "--as", owner)  # a change of case alone
    assert names(cli, owner) == ["Done", "Draft.TXT", "Drafts"]
    cli.json("mv", "Draft.TXT", "/Drafts", "--as", owner)
    assert names(cli, owner, "Drafts") == ["Draft.TXT"]
    [moved] = cli.json("mv", "Drafts/Draft.TXT", "Done/final.txt", "--as", owner)
    assert (moved["id"], moved["name"]) == (file_id, "final.txt")
    assert names(cli, owner, "Done") == ["final.txt"]
    refused(cli, "mv", "Done/final.txt", "Drafts", "/Drafts", "--as", owner, error="CYCLE")
    assert names(cli, owner, "Done") == ["final.txt"]
    cli.json("mv", file_id, "/", "--as", owner)
    assert names(cli, owner) == ["Done", "Drafts", "final.txt"]


def test_mv_passes_by_what_has_the_old_name_in_the_new_place(cli: CommandLine, owner: str) -> None:
    cli.json("mkdir", "There", "--as", owner)
    upload(cli, owner, "a.txt", "There", "the one that is there")
    upload(cli, owner, "a.txt", "", "the one that moves")
    cli.json("mv", "a.txt", "There/b.txt", "--as", owner)
    assert names(cli, owner, "There") == ["a.txt", "b.txt"]
    upload(cli, owner, "c.txt")
    refused(cli, "mv", "c.txt", "There/b.txt", "--as", owner, error="CONFLICT_NAME")
    assert names(cli, owner) == ["c.txt", "There"]
    upload(cli, owner, "a.txt")
    cli.json("mv", "a.txt", "There", "--on-conflict", "skip", "--as", owner)
    assert names(cli, owner) == ["a.txt", "c.txt", "There"]
    cli.json("mv", "a.txt", "There", "--on-conflict", "rename", "--as", owner)
    assert names(cli, owner, "There") == ["a (2).txt", "a.txt", "b.txt"]


def test_mv_of_a_folder_into_itself_is_a_cycle(cli: CommandLine, owner: str) -> None:
    cli.json("mkdir", "-p", "Top/Inner", "--as", owner)
    refused(cli, "mv", "Top", "Top/Inner", "--as", owner, error="CYCLE")


def test_the_top_level_cannot_be_moved_or_deleted(cli: CommandLine, owner: str) -> None:
    for command in (["mv", "/", "/"], ["rm", "/"]):
        refused(cli, *command, "--as", owner, error="INVALID_ARGUMENT")


def test_rm_says_first_what_would_go(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "old.txt")
    [row] = cli.json("rm", "old.txt", "--dry-run", "--as", owner)
    assert row["name"] == "old.txt"
    assert names(cli, owner) == ["old.txt"]
    done = cli.json("rm", "old.txt", "--as", owner)
    assert done["ids"] == [row["id"]]
    assert names(cli, owner) == []
    refused(cli, "rm", "old.txt", "--as", owner, error="NOT_FOUND")


def test_rm_purge_wants_a_yes(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "old.txt")
    done = cli.run("rm", "old.txt", "--purge", "--as", owner)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert names(cli, owner) == ["old.txt"]
