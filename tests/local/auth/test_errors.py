"""Error bodies, headers, and who is turned away."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from tests.local.auth.serving import (
    PASSWORD,
    SECRET,
    VERSIONED,
    AuthServer,
    bearer,
    fresh_email,
    signed,
)


def wrong_password(server: AuthServer, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/token?grant_type=password",
        json={"email": fresh_email(), "password": "wrong"},
        headers=headers,
    )


@pytest.mark.parametrize("asked", ["2024-01-01", "2031-12-31"])
def test_a_versioned_error_has_a_word_and_echoes_the_version(
    server: AuthServer, asked: str
) -> None:
    answer = wrong_password(server, **{"X-Supabase-Api-Version": asked})
    assert answer.status_code == 400
    assert answer.headers["x-supabase-api-version"] == "2024-01-01"
    assert answer.headers["x-sb-error-code"] == "invalid_credentials"
    assert answer.json() == {
        "code": "invalid_credentials",
        "message": "Invalid login credentials",
    }


@pytest.mark.parametrize("asked", [None, "2023-12-31", "2024-13-01", "soon", "2024-W01-1"])
def test_an_error_for_older_clients_has_the_status_and_a_msg(
    server: AuthServer, asked: str | None
) -> None:
    answer = wrong_password(server, **({"X-Supabase-Api-Version": asked} if asked else {}))
    assert answer.status_code == 400
    assert "x-supabase-api-version" not in answer.headers
    assert answer.headers["x-sb-error-code"] == "invalid_credentials"
    assert answer.json() == {
        "code": 400,
        "error_code": "invalid_credentials",
        "msg": "Invalid login credentials",
    }


@pytest.mark.parametrize("versioned", [True, False])
def test_a_weak_password_comes_with_reasons(server: AuthServer, versioned: bool) -> None:
    with server.http(versioned=versioned) as http:
        answer = http.post("/signup", json={"email": fresh_email(), "password": "12345"})
    body = answer.json()
    assert answer.status_code == 422
    assert body["weak_password"] == {"reasons": ["length"]}
    assert body["code" if versioned else "error_code"] == "weak_password"


def test_successful_answers_echo_no_version(server: AuthServer) -> None:
    with server.http() as http:
        assert "x-supabase-api-version" not in http.get("/settings").headers


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b"null", "bad_json"),
        (b'{"email": 1}', "bad_json"),
        (b'{"email": NaN}', "bad_json"),
        (b'{"data": {"big": 1e999}}', "bad_json"),
        (b'{"email": "\\ud800"}', "bad_json"),
        (b'{"email": "a\\u0000@b.c"}', "bad_json"),
        (b'{"data": {"a": ["\\u0000"]}}', "bad_json"),
        (b'{"email": "\xff"}', "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"email": "nobody", "password": "123456"}', "validation_failed"),
        (b'{"email": "a@b@c.test", "password": "123456"}', "validation_failed"),
        (b'{"email": "a b@c.test", "password": "123456"}', "validation_failed"),
        (b'{"email": "a@b.test"}', "validation_failed"),
        (b'{"email": "a@b.test", "phone": "+15550100", "password": "123456"}', "validation_failed"),
        (b'{"email": "a@b.test", "password": "123456", "data": []}', "bad_json"),
        (
            b'{"email": "a@b.test", "password": "123456", "code_challenge": "short",'
            b' "code_challenge_method": "s256"}',
            "validation_failed",
        ),
        (b'{"phone": "+15550100", "password": "123456"}', "phone_provider_disabled"),
    ],
)
def test_bad_bodies_are_refused_politely(server: AuthServer, body: bytes, code: str) -> None:
    with server.http() as http:
        answer = http.post("/signup", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == code


def test_a_backslash_before_u0000_is_ordinary_text(server: AuthServer) -> None:
    text = r"\u0000"  # as six characters
    session = server.sign_up(note=text)
    assert session["user"]["user_metadata"]["note"] == text


def test_bodies_of_more_than_a_megabyte_are_refused(server: AuthServer) -> None:
    with server.http() as http:
        fits = b'{"email": "a@b.test", "data": {"x": "' + b"x" * (1024**2 - 60) + b'"}}'
        assert http.post("/signup", content=fits).json()["code"] == "validation_failed"
        answer = http.post("/signup", content=fits + b" " * 100)
        chunked = http.post("/signup", content=iter([fits, b" " * 100]))
    for refused in (answer, chunked):
        assert refused.status_code == 413
        assert refused.json()["code"] == "request_entity_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/signup", 405)]
)
def test_unknown_routes_answer_in_the_same_form(
    server: AuthServer, method: str, path: str, status: int
) -> None:
    with server.http() as http:
        answer = http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, "unknown")


# -- who calls


def test_requests_without_a_bearer_token(server: AuthServer) -> None:
    with server.http() as http:
        for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
            answer = http.get("/user", headers=headers)
            assert answer.status_code == 401
            assert answer.json() == {
                "code": "no_authorization",
                "message": "This endpoint requires a valid Bearer token",
            }


def none_token() -> str:
    return jwt.encode({"sub": str(uuid.uuid4()), "role": "service_role"}, "", algorithm="none")


@pytest.mark.parametrize(
    ("token", "status", "code", "message"),
    [
        ("abc", 403, "bad_jwt", "invalid JWT: unable to parse or verify signature"),
        (signed(sub="x", secret="another" * 6), 403, "bad_jwt", "signature is invalid"),
        (none_token(), 403, "bad_jwt", "invalid JWT: unable to parse or verify signature"),
        (signed(sub="x", exp=int(time.time()) - 1), 403, "bad_jwt", "token is expired"),
        (signed("anon"), 403, "bad_jwt", "invalid claim: missing sub claim"),
        (signed(sub="no-uuid"), 400, "bad_jwt", "invalid claim: sub claim must be a UUID"),
        (signed(sub=5), 400, "bad_jwt", "invalid claim: sub claim must be a UUID"),
        (signed(sub=str(uuid.uuid4())), 403, "user_not_found", "User from sub claim"),
    ],
)
def test_tokens_that_name_nobody(
    server: AuthServer, token: str, status: int, code: str, message: str
) -> None:
    with server.http(token) as http:
        for answer in (http.get("/user"), http.put("/user", json={}), http.post("/logout")):
            assert answer.status_code == status
            assert answer.json()["code"] == code
            assert message in answer.json()["message"]


def test_a_session_of_somebody_else_does_not_count(server: AuthServer) -> None:
    one, other = server.sign_up(), server.sign_up()
    session_id = jwt.decode(
        one["access_token"], SECRET, algorithms=["HS256"], audience="authenticated"
    )["session_id"]
    with server.http(signed(sub=other["user"]["id"], session_id=session_id)) as http:
        answer = http.get("/user")
    assert (answer.status_code, answer.json()["code"]) == (403, "session_not_found")


def test_a_banned_user_is_turned_away_everywhere_and_told_only_with_the_password(
    server: AuthServer,
) -> None:
    email = fresh_email()
    session = server.sign_up(email)
    server.admin().update_user_by_id(session["user"]["id"], {"ban_duration": "1h30m"})
    with server.http(session["access_token"]) as http:
        answer = http.get("/user")
        assert (answer.status_code, answer.json()["code"]) == (403, "user_banned")
        for password, code in ((PASSWORD, "user_banned"), ("wrong", "invalid_credentials")):
            answer = http.post(
                "/token?grant_type=password", json={"email": email, "password": password}
            )
            assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_no_user_may_change_their_own_app_metadata(server: AuthServer) -> None:
    with server.http(server.sign_up()["access_token"]) as http:
        answer = http.put("/user", json={"app_metadata": {"role": "admin"}})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_admin")


@pytest.mark.parametrize("grant", ["", "magic", "id_token", "web3"])
def test_unsupported_grants(server: AuthServer, grant: str) -> None:
    with server.http() as http:
        answer = http.post(f"/token?grant_type={grant}", json={"provider": "google"})
    expected = {
        "id_token": (400, "provider_disabled"),
        "web3": (422, "web3_provider_disabled"),
    }
    assert (answer.status_code, answer.json()["code"]) == expected.get(
        grant, (400, "invalid_credentials")
    )


def test_a_database_that_is_away_is_a_503_that_clients_retry(
    cluster: Any, auth_database: str, tmp_path: Any
) -> None:
    url = cluster.url("supabase_auth_admin", auth_database).replace("test-", "wrong-")
    with AuthServer(tmp_path, url, pool_timeout=1.0) as broken:
        answer = httpx.post(
            f"{broken.url}/token?grant_type=refresh_token",
            json={"refresh_token": "x" * 12},
            headers=VERSIONED,
            timeout=30,
        )
    assert (answer.status_code, answer.json()["code"]) == (503, "unexpected_failure")


def test_what_is_not_offered_says_so(server: AuthServer) -> None:
    with server.http() as http:
        known = http.get("/authorize?provider=google")
        unknown = http.get("/authorize?provider=nobody")
        callback = http.get("/callback?state=x&redirect_to=https://evil.test")
    assert known.status_code == unknown.status_code == 400
    assert known.json()["message"] == "Unsupported provider: provider is not enabled"
    assert unknown.json()["message"] == ("Unsupported provider: Provider nobody could not be found")
    assert callback.status_code == 303
    assert callback.headers["location"].startswith(server.config.site_url + "?error=")


def test_settings_health_and_keys(server: AuthServer, confirming: AuthServer) -> None:
    with server.http() as http:
        settings = http.get("/settings").json()
        keys = http.get("/.well-known/jwks.json")
        assert http.get("/health").json()["name"] == "GoTrue"
    assert settings["external"]["email"] is True
    assert settings["external"]["anonymous_users"] is settings["external"]["google"] is False
    assert settings["mailer_autoconfirm"] is True
    with confirming.http() as http:
        assert http.get("/settings").json()["mailer_autoconfirm"] is False
    assert keys.json() == {"keys": []}
    assert keys.headers["cache-control"] == "public, max-age=600"


def test_no_secret_is_written_to_the_log(
    server: AuthServer,
    superuser: psycopg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # a row that breaks a constraint is quoted in the server's detail, hash included
    superuser.execute(
        "alter table auth.users add constraint no_leaks check (email not like 'leak%')"
    )
    try:
        with server.http() as http:
            answer = http.post(
                "/signup", json={"email": f"leak-{fresh_email()}", "password": PASSWORD}
            )
    finally:
        superuser.execute("alter table auth.users drop constraint no_leaks")
    assert answer.status_code == 500
    assert "Database error saving new user" in caplog.text
    assert "$2b$" not in caplog.text and PASSWORD not in caplog.text
    assert bearer("x")["Authorization"] not in caplog.text
