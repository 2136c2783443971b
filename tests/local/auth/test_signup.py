"""Signing up: what is stored, for whom, and what happens when the database refuses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bcrypt
import psycopg
import pytest

from tests.local.auth.serving import OPTIONS, PASSWORD, AuthServer, claims_of, fresh_email


def count(superuser: psycopg.Connection[Any], email: str) -> tuple[int, int]:
    """Return how many users and identities have this address."""
    row = superuser.execute(
        "select (select count(*) from auth.users where email = %(email)s),"
        " (select count(*) from auth.identities where email = %(email)s)",
        {"email": email},
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_a_user_is_stored_as_a_hosted_project_stores_it(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    email = fresh_email()
    user = server.sign_up(email, full_name="Test", email_verified=True)["user"]

    row = superuser.execute(
        "select aud, role, encrypted_password, instance_id::text, email_confirmed_at is not null,"
        " is_sso_user, is_anonymous, phone from auth.users where id = %s",
        (user["id"],),
    ).fetchone()
    assert row is not None
    assert row[:2] == ("authenticated", "authenticated")
    assert row[2].startswith("$2b$10$") and bcrypt.checkpw(PASSWORD.encode(), row[2].encode())
    assert row[3:] == ("00000000-0000-0000-0000-000000000000", True, False, False, None)
    identity = superuser.execute(
        "select provider_id, provider, identity_data from auth.identities where user_id = %s",
        (user["id"],),
    ).fetchone()
    # what a client claims about its own address is not believed
    assert identity == (
        user["id"],
        "email",
        {
            "sub": user["id"],
            "email": email,
            "full_name": "Test",
            "email_verified": False,
            "phone_verified": False,
        },
    )


def test_absent_values_are_left_out_and_addresses_are_never_null(server: AuthServer) -> None:
    user = server.sign_up()["user"]
    assert user["phone"] == "" and user["is_anonymous"] is False
    assert {
        "created_at",
        "updated_at",
        "email_confirmed_at",
        "confirmed_at",
        "last_sign_in_at",
    } <= (user.keys())
    assert not {"banned_until", "deleted_at", "invited_at", "new_email", "factors"} & user.keys()
    assert all(user[name].endswith("Z") for name in ("created_at", "updated_at", "last_sign_in_at"))


def test_a_profile_exists_at_once(server: AuthServer, superuser: psycopg.Connection[Any]) -> None:
    user = server.sign_up(full_name="Test Owner")["user"]
    profile = superuser.execute(
        "select email, full_name, role, storage_used from public.user_profiles where id = %s",
        (user["id"],),
    ).fetchone()
    assert profile == (user["email"], "Test Owner", "user", 0)


def test_an_address_signs_up_once(server: AuthServer) -> None:
    email = fresh_email()
    server.sign_up(email)
    with server.http() as http:
        answer = http.post("/signup", json={"email": email.title(), "password": PASSWORD})
    assert answer.status_code == 422
    assert answer.json() == {"code": "user_already_exists", "message": "User already registered"}


def test_simultaneous_signups_with_one_address_make_one_user(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    email = fresh_email()

    def sign_up(_: int) -> int:
        with server.http() as http:
            answer = http.post("/signup", json={"email": email, "password": PASSWORD})
            return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(sign_up, range(8)))
    assert statuses == [200] + [422] * 7
    assert count(superuser, email) == (1, 1)


def test_an_unconfirmed_account_cannot_be_taken_over_by_signing_up(server: AuthServer) -> None:
    email = fresh_email()
    server.admin().create_user({"email": email, "password": "set by the admin"})
    with server.http() as http:
        answer = http.post("/signup", json={"email": email, "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (422, "user_already_exists")


@pytest.fixture
def refusing_trigger(superuser: psycopg.Connection[Any]) -> Iterator[None]:
    """Refuse addresses that start with `at-once` in the statement, with `late` at commit."""
    superuser.execute("""
        create function public.tg_test__refuse() returns trigger language plpgsql as $$
        begin
            if new.email like tg_argv[0] || '%' then
                raise exception using errcode = 'PT409', message = 'no room for ' || new.email;
            end if;
            return null;
        end; $$;
        create trigger _900_refuse after insert on auth.users
        for each row execute function public.tg_test__refuse('at-once');
        create constraint trigger _901_refuse after insert on auth.users
        deferrable initially deferred
        for each row execute function public.tg_test__refuse('late');
    """)
    yield
    superuser.execute("drop function public.tg_test__refuse() cascade")


@pytest.mark.usefixtures("refusing_trigger")
@pytest.mark.parametrize("when", ["at-once", "late"])
def test_a_trigger_that_refuses_leaves_nothing_half_done(
    server: AuthServer, confirming: AuthServer, superuser: psycopg.Connection[Any], when: str
) -> None:
    email = f"{when}-{fresh_email()}"
    for service in (server, confirming):
        with service.http() as http:
            answer = http.post("/signup", json={"email": email, "password": PASSWORD})
            assert answer.status_code == 500
            assert answer.json() == {
                "code": "unexpected_failure",
                "message": "Database error saving new user",
            }
            assert http.post("/otp", json={"email": email}).status_code == 500
        with pytest.raises(Exception, match="Database error creating new user"):
            service.admin().create_user({"email": email, "password": PASSWORD})
    assert count(superuser, email) == (0, 0)
    profiles = superuser.execute(
        "select count(*) from public.user_profiles where email = %s", (email,)
    ).fetchone()
    assert profiles == (0,)


# -- with confirmation


def test_signing_up_with_confirmation_answers_a_user_and_mails_a_link(
    confirming: AuthServer,
) -> None:
    email = fresh_email()
    with confirming.http() as http:
        user = http.post("/signup", json={"email": email, "password": PASSWORD}).json()
        assert "access_token" not in user
        assert user["email"] == email and "email_confirmed_at" not in user
        assert user["identities"][0]["email"] == email
        refused = http.post(
            "/token?grant_type=password", json={"email": email, "password": PASSWORD}
        )
        assert refused.json()["code"] == "email_not_confirmed"

        [mail] = confirming.mails(email)
        verified = http.post(
            "/verify", json={"type": "signup", "email": email, "token": mail["otp"]}
        ).json()
    assert verified["user"]["id"] == user["id"]
    assert verified["user"]["user_metadata"]["email_verified"] is True
    confirming.sign_in(email)


def test_a_confirmed_address_gets_a_made_up_user_and_no_mail(
    confirming: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    email = fresh_email()
    real = confirming.admin().create_user(
        {"email": email, "password": "owner's own", "email_confirm": True}
    )
    body = {"email": email, "password": PASSWORD, "data": {"a": 1}}
    with confirming.http() as http:
        fake = http.post("/signup", json=body).json()
        fresh = http.post("/signup", json=body | {"email": fresh_email()}).json()
    assert fake["id"] != real.user.id
    assert fake["role"] == "" and fake["identities"] == []
    assert fake["user_metadata"] == {"a": 1} and fake["email"] == email
    assert fake.keys() == fresh.keys()
    assert confirming.mails(email) == []
    assert count(superuser, email) == (1, 1)


def test_signing_up_again_before_confirming_keeps_the_first_password(
    confirming: AuthServer,
) -> None:
    email = fresh_email()
    with confirming.http() as http:
        first = http.post("/signup", json={"email": email, "password": PASSWORD}).json()
        second = http.post("/signup", json={"email": email, "password": "intruder"}).json()
        assert second["id"] == first["id"]
        old, new = confirming.mails(email)
        for mail, status in ((old, 403), (new, 200)):
            answer = http.post("/verify", json={"type": "signup", "token_hash": mail["token_hash"]})
            assert answer.status_code == status
    confirming.sign_in(email, PASSWORD)


# -- switches


def test_anonymous_users_are_off_unless_allowed(
    server: AuthServer, auth_url: str, tmp_path: Path
) -> None:
    with server.http() as http:
        answer = http.post("/signup", json={})
    assert (answer.status_code, answer.json()["code"]) == (422, "anonymous_provider_disabled")

    with AuthServer(tmp_path, auth_url, replace(OPTIONS, anonymous_users=True)) as open_:
        client = open_.client()
        session = client.sign_in_anonymously({"options": {"data": {"a": 1}}}).session
        assert session is not None and session.user.is_anonymous
        claims = claims_of(session.access_token)
        assert claims["is_anonymous"] is True
        assert claims["amr"][0]["method"] == "anonymous"

        email = fresh_email()  # becomes a permanent user
        user = client.update_user({"email": email, "password": PASSWORD}).user
        assert not user.is_anonymous and user.email == email
        assert open_.sign_in(email)["user"]["id"] == session.user.id


def test_signups_can_be_closed(server: AuthServer, auth_url: str, tmp_path: Path) -> None:
    known = fresh_email()
    server.sign_up(known)
    with (
        AuthServer(tmp_path, auth_url, replace(OPTIONS, disable_signup=True)) as closed,
        closed.http() as http,
    ):
        for path in ("/signup", "/otp"):
            body = {"email": fresh_email(), "password": PASSWORD}
            answer = http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "signup_disabled")
        assert http.post("/otp", json={"email": known}).status_code == 200
        invited = closed.admin().invite_user_by_email(fresh_email())
        assert invited.user.invited_at is not None
