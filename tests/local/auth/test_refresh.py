"""Rotation of refresh tokens, and what happens when one is presented again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.local.auth.serving import OPTIONS, AuthServer, claims_of


def age(superuser: psycopg.Connection[Any], token: str, seconds: int) -> None:
    done = superuser.execute(
        "update auth.refresh_tokens set updated_at = updated_at - make_interval(secs => %s)"
        " where token = %s and revoked",
        (seconds, token),
    )
    assert done.rowcount == 1


def tokens_of(superuser: psycopg.Connection[Any], session: dict[str, Any]) -> dict[str, bool]:
    """Return the session's refresh tokens and whether they are revoked, oldest first."""
    rows = superuser.execute(
        "select token, revoked from auth.refresh_tokens where session_id = %s order by id",
        (claims_of(session["access_token"])["session_id"],),
    )
    return dict(rows.fetchall())


def test_a_refresh_token_is_twelve_letters_and_digits_and_rotates(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    first = session["refresh_token"]
    assert len(first) == 12 and first.isascii() and first.isalnum()

    answer = server.refresh(first)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    second = answer.json()["refresh_token"]
    assert answer.json()["user"]["id"] == session["user"]["id"]
    assert tokens_of(superuser, session) == {first: True, second: False}
    parent = superuser.execute(
        "select parent from auth.refresh_tokens where token = %s", (second,)
    ).fetchone()
    assert parent == (first,)


def test_the_parent_of_the_active_token_gets_that_token_again_at_any_time(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    first = session["refresh_token"]
    second = server.refresh(first).json()["refresh_token"]
    age(superuser, first, 3600)

    again = server.refresh(first)

    assert again.status_code == 200
    assert again.json()["refresh_token"] == second
    assert tokens_of(superuser, session) == {first: True, second: False}  # no new row


def test_an_older_token_has_a_child_within_the_reuse_interval(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    first = session["refresh_token"]
    second = server.refresh(first).json()["refresh_token"]
    third = server.refresh(second).json()["refresh_token"]

    fourth = server.refresh(first).json()["refresh_token"]

    assert fourth not in (first, second, third)
    assert tokens_of(superuser, session) == {
        first: True,
        second: True,
        third: False,
        fourth: False,
    }


def test_an_older_token_after_the_interval_revokes_the_whole_session(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    first = session["refresh_token"]
    second = server.refresh(first).json()["refresh_token"]
    third = server.refresh(second).json()["refresh_token"]
    age(superuser, first, 11)

    answer = server.refresh(first)

    assert answer.status_code == 400
    assert answer.json() == {
        "code": "refresh_token_already_used",
        "message": "Invalid Refresh Token: Already Used",
    }
    assert tokens_of(superuser, session) == {first: True, second: True, third: True}
    sessions = superuser.execute(
        "select count(*) from auth.sessions where id = %s",
        (claims_of(session["access_token"])["session_id"],),
    ).fetchone()
    assert sessions == (1,)  # kept, for whoever looks into what happened
    age(superuser, third, 11)
    assert server.refresh(third).json()["code"] == "refresh_token_already_used"


def test_using_a_token_again_does_not_prolong_its_interval(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    first = session["refresh_token"]
    server.refresh(server.refresh(first).json()["refresh_token"])
    age(superuser, first, 8)
    assert server.refresh(first).is_success
    age(superuser, first, 3)
    # it is not the parent of the newest token only if somebody else refreshed since
    newest = list(tokens_of(superuser, session))[-1]
    server.refresh(newest)

    assert server.refresh(first).json()["code"] == "refresh_token_already_used"


def test_parallel_refreshes_with_one_token_all_get_the_same_successor(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    session = server.sign_up()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(server.refresh, [session["refresh_token"]] * 16))

    assert [answer.status_code for answer in answers] == [200] * 16
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert len(tokens_of(superuser, session)) == 2


def test_parallel_refreshes_of_different_sessions_do_not_disturb_each_other(
    server: AuthServer,
) -> None:
    sessions = [server.sign_up() for _ in range(4)]
    presented = [session["refresh_token"] for session in sessions] * 4
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(server.refresh, presented))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert len({answer.json()["refresh_token"] for answer in answers}) == 4


def test_a_session_that_stays_locked_is_a_conflict_and_not_a_hanging_connection(
    server: AuthServer, superuser: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narwhal.local.auth.sessions.REFRESH_PATIENCE_S", 0.2)
    session = server.sign_up()
    with superuser.transaction():
        superuser.execute(
            "select from auth.sessions where id = %s for update",
            (claims_of(session["access_token"])["session_id"],),
        )
        answer = server.refresh(session["refresh_token"])
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert server.refresh(session["refresh_token"]).is_success


@pytest.mark.parametrize("token", ["unknown-token", "abcdefghijkl", "x" * 300])
def test_unknown_refresh_tokens(server: AuthServer, token: str) -> None:
    answer = server.refresh(token)
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "refresh_token_not_found",
        "message": "Invalid Refresh Token: Refresh Token Not Found",
    }


def test_a_missing_refresh_token_is_an_oauth_error(server: AuthServer) -> None:
    answer = server.refresh("")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "invalid_request",
        "error_description": "refresh_token required",
    }


def test_banned_users_and_expired_sessions_cannot_refresh(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    banned, expired = server.sign_up(), server.sign_up()
    server.admin().update_user_by_id(banned["user"]["id"], {"ban_duration": "24h"})
    superuser.execute(
        "update auth.sessions set not_after = now() - interval '1 s' where id = %s",
        (claims_of(expired["access_token"])["session_id"],),
    )
    assert server.refresh(banned["refresh_token"]).json()["code"] == "user_banned"
    assert server.refresh(expired["refresh_token"]).json()["code"] == "session_expired"

    server.admin().update_user_by_id(banned["user"]["id"], {"ban_duration": "none"})
    assert server.refresh(banned["refresh_token"]).is_success


def test_a_reuse_interval_of_zero_forgives_only_the_parent(
    auth_url: str, superuser: psycopg.Connection[Any], tmp_path: Path
) -> None:
    with AuthServer(tmp_path, auth_url, replace(OPTIONS, reuse_interval_s=0)) as strict:
        session = strict.sign_up()
        first = session["refresh_token"]
        second = strict.refresh(first).json()["refresh_token"]
        assert strict.refresh(first).json()["refresh_token"] == second
        strict.refresh(second)
        assert strict.refresh(first).json()["code"] == "refresh_token_already_used"
