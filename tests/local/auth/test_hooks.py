"""The custom access token hook: the role in the token is the one of the row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest

from tests.local.auth.serving import PASSWORD, AuthServer, claims_of, fresh_email

OURS = "select pg_get_functiondef('private.custom_access_token_hook(jsonb)'::regprocedure)"


@contextmanager
def hook(connection: psycopg.Connection[Any], body: LiteralString | None) -> Iterator[None]:
    """Replace the hook's body for one block; no hook at all for None."""
    row = connection.execute(OURS).fetchone()
    assert row is not None
    grant = (
        "grant execute on function private.custom_access_token_hook(jsonb) to supabase_auth_admin"
    )
    connection.execute("drop function private.custom_access_token_hook(jsonb)")
    try:
        if body is not None:
            connection.execute(
                "create function private.custom_access_token_hook(event jsonb) returns jsonb"
                f" language sql as $$ {body} $$"
            )
            connection.execute(grant)
        yield
    finally:
        connection.execute("drop function if exists private.custom_access_token_hook(jsonb)")
        connection.execute(row[0])
        connection.execute(
            "revoke execute on function private.custom_access_token_hook(jsonb) from public"
        )
        connection.execute(grant)


def test_every_token_says_the_role_of_the_row(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    email = fresh_email()
    session = server.sign_up(email, app_role="admin", role="admin")
    assert claims_of(session["access_token"])["app_role"] == "user"
    assert claims_of(session["access_token"])["role"] == "authenticated"
    superuser.execute(
        "update public.user_profiles set role = 'viewer' where id = %s", (session["user"]["id"],)
    )
    assert claims_of(server.sign_in(email)["access_token"])["app_role"] == "viewer"
    refreshed = server.refresh(session["refresh_token"]).json()
    assert claims_of(refreshed["access_token"])["app_role"] == "viewer"
    # what people write about themselves stays where it is
    with server.http(refreshed["access_token"]) as http:
        changed = http.put("/user", json={"data": {"app_role": "admin"}})
        assert changed.status_code == 200
    claims = claims_of(server.sign_in(email)["access_token"])
    assert claims["app_role"] == "viewer"
    assert claims["user_metadata"]["app_role"] == "admin"


def test_a_database_without_the_hook_gives_plain_tokens(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    with hook(superuser, None):
        session = server.sign_up()
    assert "app_role" not in claims_of(session["access_token"])


def test_the_hook_gets_what_auth_promises(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    email = fresh_email()
    body: LiteralString = """
        select jsonb_build_object('claims', event -> 'claims' || jsonb_build_object(
            'given', event - 'claims'
        ))
    """
    with hook(superuser, body):
        first = server.sign_up(email)
        given = claims_of(first["access_token"])["given"]
        again = server.refresh(first["refresh_token"]).json()
    assert given["user_id"] == first["user"]["id"]
    assert given["authentication_method"] == "password"
    assert given["metadata"]["name"] == "customize-access-token"
    method = claims_of(again["access_token"])["given"]["authentication_method"]
    assert method == "token_refresh"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (
            """select '{"error": {"http_code": 403, "message": "Not today."}}'::jsonb""",
            403,
            "Not today.",
        ),
        ("""select '{"error": {"message": "Broken."}}'::jsonb""", 500, "Broken."),
        ("select '{}'::jsonb", 500, "output claims field is missing"),
        ("""select '{"claims": {"sub": "x"}}'::jsonb""", 500, "aud is required"),
        ("select jsonb_build_object('claims', null::jsonb)", 500, "aud is required"),
    ],
)
def test_a_hook_that_refuses_or_fails_lets_nobody_in(
    server: AuthServer,
    superuser: psycopg.Connection[Any],
    body: LiteralString,
    status: int,
    message: str,
) -> None:
    email = fresh_email()
    server.sign_up(email)
    sessions = "select count(*) from auth.sessions as s join auth.users as u on u.id = s.user_id"
    with hook(superuser, body), server.http() as http:
        answer = http.post(
            "/token?grant_type=password", json={"email": email, "password": PASSWORD}
        )
    assert answer.status_code == status
    assert message in answer.json()["message"]
    row = superuser.execute(f"{sessions} where u.email = %s", (email,)).fetchone()
    assert row == (1,)  # the one of sign-up: nothing of the refused one stays
    assert server.sign_in(email)["access_token"]


def test_nobody_but_auth_may_call_the_hook(superuser: psycopg.Connection[Any]) -> None:
    rows = superuser.execute(
        "select r.rolname from pg_roles as r where not r.rolsuper"
        " and r.rolname not like 'pg\\_%'"
        " and has_function_privilege(r.oid, 'private.custom_access_token_hook(jsonb)', 'execute')"
    ).fetchall()
    # postgres made it
    assert {name for (name,) in rows} == {"supabase_auth_admin", "postgres"}
