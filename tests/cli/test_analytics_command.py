"""narwhal analytics on a running stack, and searches through its gateway."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from narwhal.local.state import StackState
from tests.cli.running import PASSWORD, CommandLine


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


def test_searches_are_counted_and_not_quoted(cli: CommandLine) -> None:
    email = cli.new_user()
    signed_in = httpx.post(
        f"{cli.stack.api_url}/auth/v1/token?grant_type=password",
        headers={"apikey": cli.stack.anon_key},
        json={"email": email, "password": PASSWORD},
    ).json()
    rest = f"{cli.stack.api_url}/rest/v1"
    headers = {
        "apikey": cli.stack.anon_key,
        "Authorization": f"Bearer {signed_in['access_token']}",
    }
    before = cli.json("analytics")["total_queries"]
    answers = [
        httpx.post(f"{rest}/rpc/hybrid_search", headers=headers, json={"query": "zanzibar"}).json()
        for _ in range(3)
    ]
    # a GET is read-only: it is answered, and not remembered
    got = httpx.get(f"{rest}/rpc/hybrid_search?query=zanzibar", headers=headers)
    assert (got.status_code, got.json()["hits"], got.json()["search_id"]) == (200, [], None)

    found = cli.json("analytics", "--from", "2020-01-01")
    assert found["total_queries"] == before + 3
    assert found["cached_queries"] >= 2
    assert "zanzibar" not in str(found)
    assert {"email": email, "queries": 3} in [
        {"email": top["email"], "queries": top["queries"]} for top in found["top_users"]
    ]
    printed = cli.run("analytics")
    assert printed.returncode == 0
    assert "total_queries" in printed.stdout
    assert email in printed.stdout
    assert cli.json("analytics", "--to", "2020-01-01")["total_queries"] == 0
    wrong = cli.run("analytics", "--from", "2026-01-02", "--to", "2026-01-01")
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr

    # the rows are the searcher's
    rows = httpx.get(f"{rest}/query_analytics?order=created_at", headers=headers).json()
    assert [row["id"] for row in rows] == [answer["search_id"] for answer in answers]
    replay = httpx.post(
        f"{rest}/rpc/search_replay", headers=headers, json={"search_id": rows[0]["id"]}
    ).json()
    assert (replay["query"], replay["hits"]) == ("zanzibar", [])


def test_searches_over_the_limit_are_429(cli: CommandLine) -> None:
    email = cli.new_user()
    assert cli.run("settings", "set", "search.per_minute", "2").returncode == 0
    try:
        for _ in range(2):
            assert cli.run("search", "zanzibar", "--as", email).returncode == 0
        refused = cli.run("search", "zanzibar", "--as", email)
    finally:
        assert cli.run("settings", "set", "search.per_minute", "100000").returncode == 0
    assert refused.returncode == 1
    assert "RATE_LIMITED" in refused.stderr
