"""Administration of users with the service key."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from supabase_auth.errors import AuthApiError

from tests.local.auth.serving import (
    PASSWORD,
    SITE,
    AuthServer,
    claims_of,
    fragment,
    fresh_email,
    signed,
)

NOBODY = uuid.UUID(int=1)  # the same in every process of a parallel run

ROUTES = [
    ("GET", "/admin/users"),
    ("POST", "/admin/users"),
    ("GET", f"/admin/users/{NOBODY}"),
    ("PUT", f"/admin/users/{NOBODY}"),
    ("DELETE", f"/admin/users/{NOBODY}"),
    ("GET", f"/admin/users/{NOBODY}/factors"),
    ("POST", "/admin/generate_link"),
    ("POST", "/invite"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_service_keys_administer(server: AuthServer, method: str, path: str) -> None:
    user = server.sign_up()["access_token"]
    forged = signed("service_role", secret="y" * 40)
    for token, status, code in (
        (None, 401, "no_authorization"),
        (user, 403, "not_admin"),
        (signed("anon"), 403, "not_admin"),
        (signed(), 403, "not_admin"),
        (forged, 403, "bad_jwt"),
        (signed("service_role", exp=1), 403, "bad_jwt"),
    ):
        with server.http(token) as http:
            answer = http.request(method, path, json={})
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_creating_reading_changing_and_deleting_a_user(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    admin, email = server.admin(), fresh_email()
    user = admin.create_user(
        {
            "email": email,
            "password": PASSWORD,
            "email_confirm": True,
            "user_metadata": {"a": 1, "b": 2},
            "app_metadata": {"team": "x"},
        }
    ).user
    assert user.email_confirmed_at is not None
    assert user.user_metadata == {"a": 1, "b": 2, "email_verified": True}
    assert user.app_metadata == {"provider": "email", "providers": ["email"], "team": "x"}
    assert [identity.provider for identity in user.identities or []] == ["email"]
    session = server.sign_in(email)

    new_email = fresh_email()
    changed = admin.update_user_by_id(
        user.id,
        {
            "email": new_email,
            "user_metadata": {"a": None, "c": 3},
            "app_metadata": {"team": "y"},
        },
    ).user
    assert changed.email == new_email
    assert changed.user_metadata == {"b": 2, "c": 3, "email_verified": True}
    assert changed.app_metadata["team"] == "y"
    assert admin.get_user_by_id(user.id).user.email == new_email
    row = superuser.execute(
        "select email from public.user_profiles where id = %s", (user.id,)
    ).fetchone()
    assert row == (new_email,)
    assert server.refresh(session["refresh_token"]).is_success

    admin.update_user_by_id(user.id, {"password": "set by the admin"})
    assert not server.refresh(session["refresh_token"]).is_success
    server.sign_in(new_email, "set by the admin")

    admin.delete_user(user.id)
    with pytest.raises(AuthApiError) as error:
        admin.get_user_by_id(user.id)
    assert (error.value.status, error.value.code) == (404, "user_not_found")
    left = superuser.execute(
        "select (select count(*) from auth.identities where user_id = %(id)s)"
        " + (select count(*) from auth.sessions where user_id = %(id)s)"
        " + (select count(*) from auth.refresh_tokens where user_id = %(id)s::text)"
        " + (select count(*) from public.user_profiles where id = %(id)s)",
        {"id": user.id},
    ).fetchone()
    assert left == (0,)


def test_a_soft_deleted_user_is_forgotten_and_the_address_is_free(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    admin, email = server.admin(), fresh_email()
    session = server.sign_up(email, full_name="Somebody")
    admin.delete_user(session["user"]["id"], should_soft_delete=True)

    kept = admin.get_user_by_id(session["user"]["id"]).user
    assert kept.deleted_at is not None
    assert kept.user_metadata == {} and kept.app_metadata == {}
    row = superuser.execute(
        "select u::text || i::text from auth.users as u join auth.identities as i"
        " on i.user_id = u.id where u.id = %s",
        (session["user"]["id"],),
    ).fetchone()
    assert row is not None and email not in row[0] and "Somebody" not in row[0]
    assert not server.refresh(session["refresh_token"]).is_success
    assert server.sign_up(email)["user"]["id"] != session["user"]["id"]


def test_an_unconfirmed_user_is_confirmed_by_an_administrator(confirming: AuthServer) -> None:
    email = fresh_email()
    user = confirming.client().sign_up({"email": email, "password": PASSWORD}).user
    assert user is not None and user.email_confirmed_at is None
    admin = confirming.admin()
    assert admin.update_user_by_id(user.id, {"email_confirm": True}).user.email_confirmed_at
    confirming.sign_in(email)


def test_a_user_may_have_a_given_id_a_phone_a_role_and_a_ban(server: AuthServer) -> None:
    user_id, phone = str(uuid.uuid4()), "1555" + str(uuid.uuid4().int)[:9]
    with server.http(signed("service_role")) as http:
        body = {
            "id": user_id,
            "phone": "+" + phone,
            "phone_confirm": True,
            "role": "authenticated",
            "ban_duration": "1h30m",
        }
        user = http.post("/admin/users", json=body).json()
        assert user["id"] == user_id and user["phone"] == phone and user["email"] == ""
        assert user["app_metadata"] == {"provider": "phone", "providers": ["phone"]}
        left = datetime.fromisoformat(user["banned_until"]) - datetime.now(UTC)
        assert timedelta(minutes=89) < left <= timedelta(minutes=90)
        assert http.post("/admin/users", json=body).json()["code"] == "phone_exists"
        del body["phone"]
        body["email"] = fresh_email()
        assert http.post("/admin/users", json=body).json()["code"] == "user_already_exists"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "validation_failed"),
        ({"email": "x"}, 400, "validation_failed"),
        ({"email": "a@b.test", "password": "x" * 73}, 400, "validation_failed"),
        ({"email": "a@b.test", "password_hash": "md5"}, 400, "validation_failed"),
        (
            {"email": "a@b.test", "password": "123456", "password_hash": "x"},
            400,
            "validation_failed",
        ),
        ({"email": "a@b.test", "id": "7"}, 400, "validation_failed"),
        ({"email": "a@b.test", "id": str(uuid.UUID(int=0))}, 400, "validation_failed"),
        ({"email": "a@b.test", "ban_duration": "soon"}, 400, "validation_failed"),
        ({"email": "a@b.test", "ban_duration": "5"}, 400, "validation_failed"),
        ({"phone": "12-3"}, 400, "validation_failed"),
        ({"email": "a@b.test", "email_confirm": "yes"}, 400, "bad_json"),
    ],
)
def test_users_that_cannot_be_made(
    server: AuthServer, body: dict[str, Any], status: int, code: str
) -> None:
    with server.http(signed("service_role")) as http:
        answer = http.post("/admin/users", json=body)
        total = http.get("/admin/users?filter=a@b.test").headers["x-total-count"]
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert total == "0"


def test_a_very_long_ban_is_for_ever(server: AuthServer) -> None:
    user = server.sign_up()["user"]
    banned = server.admin().update_user_by_id(user["id"], {"ban_duration": "99999999999h"}).user
    assert str(banned.banned_until) > "2200"


def test_an_address_belongs_to_one_user(server: AuthServer) -> None:
    one, other = server.sign_up()["user"], server.sign_up()["user"]
    admin = server.admin()
    with pytest.raises(AuthApiError) as error:
        admin.create_user({"email": one["email"].upper()})
    assert error.value.code == "email_exists"
    with pytest.raises(AuthApiError) as error:
        admin.update_user_by_id(other["id"], {"email": one["email"]})
    assert error.value.code == "email_exists"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_ids_that_name_nobody(server: AuthServer, method: str) -> None:
    with server.http(signed("service_role")) as http:
        bad = http.request(method, "/admin/users/7", json={})
        gone = http.request(method, f"/admin/users/{uuid.uuid4()}", json={})
    assert (bad.status_code, bad.json()["code"]) == (404, "validation_failed")
    assert (gone.status_code, gone.json()["code"]) == (404, "user_not_found")
    assert gone.json()["message"] == "User not found"


def test_users_are_listed_page_by_page(server: AuthServer) -> None:
    mark = uuid.uuid4().hex[:8]
    emails = [f"{mark}-{number}@example.test" for number in range(5)]
    for email in emails:
        server.sign_up(email)
    with server.http(signed("service_role")) as http:
        first = http.get(f"/admin/users?page=1&per_page=2&filter={mark}")
        last = http.get(f"/admin/users?page=3&per_page=2&filter={mark}")
        rising = http.get(f"/admin/users?filter={mark}&sort=created_at asc").json()
        for query in ("page=0", "page=x", "per_page=-1", f"page={10**30}", "sort=email"):
            assert http.get(f"/admin/users?{query}").json()["code"] == "validation_failed"
        everything = http.get("/admin/users?filter=%25").json()

    assert first.headers["x-total-count"] == "5"
    assert first.headers["link"] == (
        f'</admin/users?filter={mark}&page=2&per_page=2>; rel="next", '
        f'</admin/users?filter={mark}&page=3&per_page=2>; rel="last"'
    )
    assert [user["email"] for user in first.json()["users"]] == emails[:2:-1]
    assert first.json()["aud"] == "authenticated"
    assert first.json()["users"][0]["identities"][0]["email"] == emails[4]
    assert [user["email"] for user in last.json()["users"]] == emails[:1]
    assert 'rel="next"' not in last.headers["link"]
    assert [user["email"] for user in rising["users"]] == emails
    assert everything["users"] == []  # a percent sign is a percent sign


def test_second_factors_are_listed_as_none(server: AuthServer) -> None:
    user = server.sign_up()["user"]
    assert server.admin().mfa.list_factors({"user_id": user["id"]}) == []


# -- links


def test_inviting(confirming: AuthServer) -> None:
    email = fresh_email()
    user = (
        confirming.admin()
        .invite_user_by_email(email, {"data": {"from": "admin"}, "redirect_to": f"{SITE}/welcome"})
        .user
    )
    assert user.invited_at is not None and user.user_metadata == {"from": "admin"}
    [mail] = confirming.mails(email)
    assert mail["type"] == "invite"

    answer = confirming.open_link(mail["link"])
    assert answer.headers["location"].startswith(f"{SITE}/welcome#")
    values = fragment(answer)
    assert values["type"] == "invite" and claims_of(values["access_token"])["sub"] == user.id
    client = confirming.client()
    client.set_session(values["access_token"], values["refresh_token"])
    client.update_user({"password": PASSWORD})
    confirming.sign_in(email)
    with pytest.raises(AuthApiError) as error:
        confirming.admin().invite_user_by_email(email)
    assert error.value.code == "email_exists"


def test_signing_up_with_an_invited_address_tells_nothing_of_the_invitation(
    confirming: AuthServer,
) -> None:
    email = fresh_email()
    confirming.admin().invite_user_by_email(email, {"data": {"salary": 1}})
    with confirming.http() as http:
        user = http.post("/signup", json={"email": email, "password": PASSWORD}).json()
    assert user["user_metadata"] == {} and user["identities"] == []


@pytest.mark.parametrize("kind", ["signup", "invite", "magiclink", "recovery"])
def test_generated_links_work(confirming: AuthServer, kind: str) -> None:
    email = fresh_email()
    if kind == "recovery":
        confirming.admin().create_user({"email": email})
    with confirming.http(signed("service_role")) as http:
        body = {"type": kind, "email": email, "password": PASSWORD, "data": {"a": 1}}
        link = http.post("/admin/generate_link", json=body | {"redirect_to": f"{SITE}/next"}).json()
    assert confirming.mails(email) == []  # for the caller to deliver
    assert link["email"] == email and link["redirect_to"] == f"{SITE}/next"
    assert link["verification_type"] == ("signup" if kind == "magiclink" else kind)
    assert len(link["email_otp"]) == 6 and link["hashed_token"] in link["action_link"]

    answer = confirming.open_link(link["action_link"])
    assert answer.headers["location"].startswith(f"{SITE}/next#access_token=")
    assert claims_of(fragment(answer)["access_token"])["sub"] == link["id"]


def test_generated_links_change_an_address(confirming: AuthServer) -> None:
    admin, old, new = confirming.admin(), fresh_email(), fresh_email()
    admin.create_user({"email": old, "email_confirm": True})
    links = [
        admin.generate_link({"type": kind, "email": old, "new_email": new})  # type: ignore[arg-type]
        for kind in ("email_change_current", "email_change_new")
    ]
    assert links[0].user.new_email == new
    answers = [confirming.open_link(link.properties.action_link) for link in links]
    assert "message" in fragment(answers[0])
    assert claims_of(fragment(answers[1])["access_token"])["email"] == new


def test_links_that_cannot_be_made(server: AuthServer) -> None:
    taken, free = server.sign_up()["user"]["email"], fresh_email()
    with server.http(signed("service_role")) as http:
        for body, status, code in (
            ({"type": "recovery", "email": free}, 404, "user_not_found"),
            ({"type": "signup", "email": taken, "password": PASSWORD}, 422, "email_exists"),
            ({"type": "signup", "email": free}, 400, "validation_failed"),
            ({"type": "signup", "email": free, "password": "123"}, 422, "weak_password"),
            ({"type": "invite", "email": taken}, 422, "email_exists"),
            ({"type": "sms", "email": taken}, 400, "validation_failed"),
            ({"type": "magiclink"}, 400, "validation_failed"),
            (
                {"type": "email_change_new", "email": taken, "new_email": taken},
                422,
                "email_exists",
            ),
        ):
            answer = http.post("/admin/generate_link", json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
