"""users role, quota, plan, deactivate, activate; settings: on a running stack."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import psycopg
import pytest

from narwhal.cli.options import parse_size
from narwhal.local.state import StackState
from tests.cli.running import PASSWORD, CommandLine


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


def log_in(cli: CommandLine, email: str, code: int = 0) -> str:
    done = cli.run("login", email, "--password-stdin", stdin=PASSWORD + "\n")
    assert done.returncode == code, done.stderr
    return done.stderr


def claims(cli: CommandLine) -> dict[str, object]:
    """What the stored session's token says."""
    sessions = json.loads((cli.home / "session.json").read_text())
    [session] = sessions[cli.stack.api_url].values()
    token = json.loads(session)["access_token"]
    return jwt.decode(token, options={"verify_signature": False})


def test_a_role_is_given_and_the_next_token_says_it(cli: CommandLine) -> None:
    email = cli.new_user()
    assert cli.json("users", "role", email, "viewer")["role"] == "viewer"
    log_in(cli, email)
    assert claims(cli)["app_role"] == "viewer"
    assert claims(cli)["role"] == "authenticated"
    refused = cli.run("mkdir", "/x")
    assert refused.returncode == 1
    assert "FORBIDDEN" in refused.stderr
    assert cli.run("users", "role", email.upper(), "user").stdout == f"{email.upper()} is user\n"
    assert cli.run("mkdir", "/x").returncode == 0  # the row decides, not the token


def test_a_quota_is_set_in_the_words_of_people(cli: CommandLine) -> None:
    email = cli.new_user()
    assert cli.json("users", "quota", email, "50GiB")["storage_limit"] == 50 * 2**30
    assert cli.run("users", "quota", email, "1.5 MB").stdout == f"{email} uses 0 B of 1.4 MiB\n"
    assert cli.json("users", "plan", email, "free")["plan"] == "free"
    done = cli.run("users", "plan", email, "platinum")
    assert done.returncode == 1
    assert "INVALID_ARGUMENT" in done.stderr


def test_a_closed_account_is_out_everywhere_and_can_come_back(cli: CommandLine) -> None:
    email = cli.new_user()
    log_in(cli, email)
    assert cli.run("ls").returncode == 0
    assert cli.json("users", "deactivate", email)["is_active"] is False
    done = cli.run("ls")
    assert done.returncode == 1
    assert "NOT_AUTHENTICATED" in done.stderr
    assert "user_banned" in log_in(cli, email, code=1)
    assert cli.json("users", "activate", email)["is_active"] is True
    log_in(cli, email)
    assert cli.run("ls").returncode == 0


def test_the_last_administrator_stays(cli: CommandLine) -> None:
    email = cli.new_user()
    assert cli.json("users", "role", email, "admin")["role"] == "admin"
    for arguments in (["role", email, "user"], ["deactivate", email]):
        done = cli.run("users", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error [CONFLICT_STATE]")
        assert len(done.stderr.splitlines()) == 2
    other = cli.new_user()
    cli.json("users", "role", other, "admin")
    assert cli.json("users", "role", email, "user")["role"] == "user"


def test_nobody_of_that_address_is_said(cli: CommandLine) -> None:
    for arguments in (["role", "nobody@example.com", "user"], ["deactivate", "nobody@example.com"]):
        done = cli.run("users", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error [NOT_FOUND]")


def test_settings_are_listed_read_and_changed(cli: CommandLine) -> None:
    rows = cli.json("settings", "list")
    assert {"key", "value", "description", "updated_at"} == set(rows[0])
    before = cli.json("settings", "get", "uploads.ticket_ttl_s")["value"]
    assert cli.run("settings", "get", "uploads.ticket_ttl_s").stdout == f"{before}\n"
    try:
        assert cli.json("settings", "set", "uploads.ticket_ttl_s", "3600")["value"] == 3600
        assert cli.json("settings", "get", "uploads.ticket_ttl_s")["value"] == 3600
    finally:
        cli.run("settings", "set", "uploads.ticket_ttl_s", str(before))
    for value in ("soon", "[1]", "null"):
        done = cli.run("settings", "set", "uploads.ticket_ttl_s", value)
        assert done.returncode == 1, value
        assert "INVALID_ARGUMENT" in done.stderr
    for arguments in (["get", "no.such"], ["set", "no.such", "1"]):
        done = cli.run("settings", *arguments)
        assert done.returncode == 1
        assert "NOT_FOUND" in done.stderr
    assert cli.json("settings", "get", "uploads.ticket_ttl_s")["value"] == before


def test_damage_is_reported_repaired_and_gone(cli: CommandLine) -> None:
    email = cli.new_user()
    done = cli.run("reconcile", "--fix")
    assert done.returncode == 0, done.stderr
    assert "looking for ledger differences" in done.stderr
    report = cli.json("reconcile")
    assert (report["found"], report["fixed"]) == (0, 0)
    assert {finding["count"] for finding in report["findings"].values()} == {0}

    with psycopg.connect(cli.stack.database_url, autocommit=True) as connection:
        connection.execute(
            "update public.owners set storage_used = 5 where id ="
            " (select id from public.user_profiles where email = %s)",
            (email,),
        )
    report = cli.json("reconcile")
    assert report["found"] == 1
    finding = report["findings"]["ledger_differences"]
    assert (finding["count"], finding["fixed"], len(finding["samples"])) == (1, 0, 1)
    assert "ledger_differences" in cli.run("reconcile").stdout
    report = cli.json("reconcile", "--fix")
    assert (report["found"], report["fixed"]) == (1, 1)
    assert cli.json("reconcile", "--fix")["found"] == 0


def test_workers_keep_the_schedule_of_the_local_stack(cli: CommandLine) -> None:
    """Where there is no pg_cron, who works also sweeps."""
    with psycopg.connect(cli.stack.database_url, autocommit=True) as connection:
        connection.execute("update private.tasks set due_at = now(), last_run_at = null")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            waiting = connection.execute(
                "select name from private.tasks where last_run_at is null"
            ).fetchall()
            if not waiting:
                break
            time.sleep(0.5)
        assert waiting == []
        failed = connection.execute(
            "select name, last_error from private.tasks where last_error is not null"
        ).fetchall()
    assert failed == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500", 500), ("10kB", 10_000), ("1.5 MB", 1_500_000), ("50GiB", 50 * 2**30)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size
