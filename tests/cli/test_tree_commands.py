"""ls, mkdir, mv, cp, find, du, rm and restore on a running stack."""

from __future__ import annotations

import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from narwhal.local.state import StackState
from narwhal.session import user_client
from tests.cli.running import CommandLine, settings_of


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


def test_find_goes_by_name_kind_type_tag_and_date(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "Plan.md", "Projects/2026")
    notes = upload(cli, owner, "notes.txt", "Projects/2026")
    upload(cli, owner, "plan.txt", "Elsewhere")

    def found(*arguments: str) -> list[str]:
        return [row["path"] for row in cli.json("find", *arguments, "--as", owner)]

    plans = ["/Projects/2026/Plan.md", "/Elsewhere/plan.txt"]
    assert sorted(found("--name", "PLAN")) == sorted(plans)
    assert found("Projects", "--name", "plan") == plans[:1]
    assert found("Projects/2026", "--type", "txt") == ["/Projects/2026/notes.txt"]
    assert found("Projects", "--kind", "folder") == ["/Projects/2026"]
    assert found("--from", "2001-01-01", "--to", "2002-01-01") == []
    assert len(found("--kind", "file", "--from", "2001-01-01")) == 3
    with user_client(settings_of(cli.stack, cli.home), owner) as client:
        client.rpc("tag_nodes", {"ids": [notes], "add": ["Urgent"]}).execute()
    assert found("--tag", "urgent") == ["/Projects/2026/notes.txt"]
    assert found("--tag", "other") == []
    assert "/Projects/2026/Plan.md" in cli.run("ls", "-r", "--as", owner).stdout


def test_attachments_are_listed_and_found_inside_of_their_mail(
    cli: CommandLine, owner: str
) -> None:
    mail = EmailMessage()
    mail["Subject"] = "Tide"
    mail["From"] = "a@x.test"
    mail["Date"] = "Fri, 21 Nov 2025 10:00:00 +0100"
    mail.set_content("See attached.")
    mail.add_attachment("ebb and flow", filename="plan.txt")
    upload(cli, owner, "a.eml", "Mail", mail.as_string())
    deadline = time.monotonic() + 60
    while not (rows := cli.json("find", "--name", "plan", "--as", owner)):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert [row["path"] for row in rows] == ["/Mail/a.eml/plan.txt"]
    assert names(cli, owner, "Mail") == ["a.eml"]


def test_du_adds_up_what_the_quota_counts(cli: CommandLine, owner: str) -> None:
    upload(cli, owner, "a.txt", "Deep/Down", "x" * 300)
    upload(cli, owner, "b.txt", "", "y" * 20)
    whole = cli.json("du", "--as", owner)
    assert whole["total_size"] == whole["usage"]["used"] == 320
    assert {item["name"]: item["total_size"] for item in whole["items"]} == {
        "Deep": 300,
        "b.txt": 20,
    }
    inner = cli.json("du", "Deep", "--as", owner)
    assert (inner["total_size"], inner["usage"]) == (300, None)
    assert "320 B of 5.0 GiB are used" in cli.run("du", "--as", owner).stdout


def test_cp_makes_a_file_of_its_own(cli: CommandLine, owner: str) -> None:
    file_id = upload(cli, owner, "plan.txt", "Projects", "the plan")
    [copied] = cli.json("cp", "Projects/plan.txt", "Projects/review.txt", "--as", owner)
    assert copied["id"] != file_id
    assert names(cli, owner, "Projects") == ["plan.txt", "review.txt"]
    cli.json("cp", "Projects", "/Archive", "--as", owner)
    assert names(cli, owner, "Archive") == ["plan.txt", "review.txt"]
    assert cli.json("du", "--as", owner)["usage"]["used"] == len("the plan")  # bytes are shared


def test_an_upload_leaves_alone_what_is_there_when_told_so(cli: CommandLine, owner: str) -> None:
    first = upload(cli, owner, "a.txt", "", "one")
    (cli.cwd / "a.txt").write_text("two")
    [skipped] = cli.json("upload", "a.txt", "--on-conflict", "skip", "--as", owner)
    assert (skipped["mode"], skipped["file_id"]) == ("skipped", first)
    [replaced] = cli.json("upload", "a.txt", "--on-conflict", "replace", "--as", owner)
    assert (replaced["mode"], replaced["file_id"]) == ("standard", first)
    assert names(cli, owner) == ["a.txt"]
