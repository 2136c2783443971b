"""narwhal audit on a running stack, and what requests through its gateway leave in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from narwhal.local.state import StackState
from tests.cli.running import PASSWORD, CommandLine


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


def log_in(cli: CommandLine) -> tuple[str, dict[str, str]]:
    """A new account, and the headers of its requests."""
    email = cli.new_user()
    answer = httpx.post(
        f"{cli.stack.api_url}/auth/v1/token?grant_type=password",
        headers={"apikey": cli.stack.anon_key},
        json={"email": email, "password": PASSWORD},
    )
    token = answer.json()["access_token"]
    return email, {"apikey": cli.stack.anon_key, "Authorization": f"Bearer {token}"}


def test_requests_are_told_with_address_agent_and_id(cli: CommandLine) -> None:
    email, headers = log_in(cli)
    rest = f"{cli.stack.api_url}/rest/v1"
    made = httpx.post(
        f"{rest}/rpc/create_folder",
        headers=headers | {"user-agent": "test/1", "x-forwarded-for": "198.51.100.7"},
        json={"name": "Plans"},
    )
    (row,) = cli.json("audit", "--user", email.upper(), "--action", "create_folder")
    assert row["who"] == email
    assert (row["name"], row["node_id"]) == ("Plans", made.json()["id"])
    assert row["request_id"] == made.headers["x-request-id"]
    assert (row["ip"], row["user_agent"]) == ("127.0.0.1", "test/1")  # no invented address
    assert row["at"]

    (cli.cwd / "a.txt").write_text("alpha")
    assert cli.run("upload", "a.txt", "--as", email).returncode == 0
    (row,) = cli.json("audit", "--user", email, "--action", "create_version")
    assert (row["actor"], row["who"]) == ("service", f"service for {email}")
    assert row["ip"] == "127.0.0.1"
    assert row["request_id"]

    # to anybody who is not an administrator: their own
    listed = httpx.post(f"{rest}/rpc/list_audit", headers=headers, json={"action": "create_folder"})
    assert listed.json()["total"] == 1
    assert httpx.patch(
        f"{rest}/audit_logs?id=gt.0", headers=headers, json={"action": "x"}
    ).status_code in (401, 403)
    service = {"apikey": cli.stack.service_role_key}
    for method in ("PATCH", "DELETE"):
        refused = httpx.request(
            method,
            f"{rest}/audit_logs?id=gt.0",
            headers=service,
            json={"action": "x"} if method == "PATCH" else None,
        )
        assert refused.status_code == 403, refused.text


def test_filters_narrow_the_list(cli: CommandLine) -> None:
    email, headers = log_in(cli)

    def rpc(function: str, **arguments: object) -> Any:
        url = f"{cli.stack.api_url}/rest/v1/rpc/{function}"
        return httpx.post(url, headers=headers, json=arguments).raise_for_status().json()

    folder = rpc("create_folder", name="a")["id"]
    rpc("create_folder", name="b")
    rpc("trash_nodes", ids=[folder])
    rows = cli.json("audit", "--node", folder)
    assert [row["action"] for row in rows] == ["trash", "create_folder"]
    assert len(cli.json("audit", "--user", email)) == 3
    assert len(cli.json("audit", "--user", email, "--limit", "1")) == 1
    assert len(cli.json("audit", "--user", email, "--from", "2020-01-01")) == 3
    assert cli.json("audit", "--user", email, "--to", "2020-01-01") == []
    today = rows[0]["at"][:10]
    assert cli.json("audit", "--user", email, "--from", "2020-01-01", "--to", today)
    table = cli.run("audit", "--user", email, "--action", "trash").stdout.splitlines()
    assert table[0].split() == ["AT", "WHO", "ACTION", "NAME", "NODE", "ID", "IP"]
    assert len(table) == 2


def test_an_unknown_address_is_a_failure(cli: CommandLine) -> None:
    done = cli.run("audit", "--user", "nobody@example.com")
    assert done.returncode == 1
    assert "nobody@example.com" in done.stderr
