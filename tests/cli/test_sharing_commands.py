"""share, link, and what is shared seen from the other side, on a running stack."""

from __future__ import annotations

from pathlib import Path

import pytest
from supabase import create_client

from narwhal.local.state import StackState
from tests.cli.running import CommandLine


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


@pytest.fixture
def owner(cli: CommandLine) -> str:
    return cli.new_user()


@pytest.fixture
def peer(cli: CommandLine) -> str:
    return cli.new_user()


@pytest.fixture
def plan(cli: CommandLine, owner: str) -> str:
    (cli.cwd / "plan.txt").write_text("the plan")
    [row] = cli.json("upload", "plan.txt", "--folder", "Projects/2026", "--as", owner)
    return str(row["file_id"])


def test_what_is_shared_is_there_until_it_is_taken_back(
    cli: CommandLine, owner: str, peer: str, plan: str
) -> None:
    made = cli.json(
        "share", "add", "Projects", peer, "--level", "edit", "--expires", "7d", "--as", owner
    )
    assert (made["level"], made["grantee"]) == ("edit", {"email": peer})
    assert made["expires_at"] is not None
    [listed] = cli.json("share", "list", "Projects/2026", "--as", owner)
    assert (listed["id"], listed["inherited_from"]["name"]) == (made["id"], "Projects")
    assert peer in cli.run("share", "list", "Projects", "--as", owner).stdout

    assert cli.json("ls", "--as", peer) == []
    [item] = cli.json("ls", "/Shared with me", "--as", peer)
    assert (item["name"], item["level"]) == ("Projects", "edit")
    [file] = cli.json("ls", "/Shared with me/Projects/2026", "--as", peer)
    assert file["id"] == plan
    cli.json("download", "/Shared with me/Projects", "--to", "theirs", "--as", peer)
    assert (cli.cwd / "theirs/Projects/2026/plan.txt").read_text() == "the plan"
    (cli.cwd / "note.txt").write_text("a note")
    cli.json("upload", "note.txt", "--folder", "/Shared with me/Projects", "--as", peer)
    cli.json("mkdir", "-p", "/Shared with me/Projects/New/Deep", "--as", peer)
    names = [row["name"] for row in cli.json("ls", "Projects", "--as", owner)]
    assert names == ["2026", "New", "note.txt"]

    cli.json("share", "remove", "Projects", peer.upper(), "--as", owner)
    assert cli.json("ls", "Shared with me", "--as", peer) == []
    for place in ("/Shared with me/Projects", plan):
        done = cli.run("ls", place, "--as", peer)
        assert done.returncode == 1
        assert "[NOT_FOUND]" in done.stderr
    again = cli.run("share", "remove", "Projects", peer, "--as", owner)
    assert "[NOT_FOUND]" in again.stderr


def test_items_that_are_called_alike_are_told_apart_by_id(
    cli: CommandLine, owner: str, peer: str
) -> None:
    other = cli.new_user()
    ids = []
    for who in (owner, other):
        [made] = cli.json("mkdir", "Team", "--as", who)
        cli.json("share", "add", "Team", peer, "--as", who)
        ids.append(made["id"])
    done = cli.run("ls", "/Shared with me/Team", "--as", peer)
    assert "[AMBIGUOUS]" in done.stderr
    assert all(node_id in done.stderr for node_id in ids)
    assert cli.json("ls", ids[0], "--as", peer) == []
    # nothing is made beside what was meant
    done = cli.run("mkdir", "-p", "/Shared with me/Nothing/New", "--as", peer)
    assert "[NOT_FOUND]" in done.stderr
    assert cli.json("ls", "--as", peer) == []


def test_a_link_opens_it_until_it_is_revoked(cli: CommandLine, owner: str, plan: str) -> None:
    made = cli.json(
        *(
            "link",
            "create",
            "Projects/2026/plan.txt",
            "--password-stdin",
            "--expires",
            "2030-01-01",
        ),
        *("--expires", "2030-01-01", "--max-downloads", "3", "--as", owner),
        stdin="s3cret\n",
    )
    anon = create_client(cli.stack.api_url, cli.stack.anon_key)
    arguments = {"token": made["token"], "password": "s3cret"}
    opened = anon.rpc("open_share_link", arguments).execute().data
    assert opened["node"]["id"] == plan
    [listed] = cli.json("link", "list", plan, "--as", owner)
    assert (listed["id"], listed["opens"], listed["max_downloads"]) == (made["id"], 1, 3)
    assert "token" not in listed
    cli.json("link", "revoke", made["id"], "--as", owner)
    [listed] = cli.json("link", "list", plan, "--as", owner)
    assert listed["state"] == "revoked"
    shown = cli.run("link", "create", plan, "--as", owner).stdout
    assert len(shown.strip()) >= 32


def test_a_date_that_is_none_is_misuse(cli: CommandLine, owner: str) -> None:
    done = cli.run("link", "create", "Projects", "--expires", "soon", "--as", owner)
    assert done.returncode == 2
    assert "soon" in done.stderr
