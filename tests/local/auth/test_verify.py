"""Mailed links and codes: once, in time, for the right address, and never sent astray."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest

from narwhal.local.auth.redirects import is_allowed
from tests.local.auth.serving import (
    OPTIONS,
    PASSWORD,
    SITE,
    AuthServer,
    claims_of,
    fragment,
    fresh_email,
)


def ask(server: AuthServer, path: str, **body: Any) -> httpx.Response:
    with server.http() as http:
        return http.post(path, json=body)


def test_a_link_leads_to_the_site_with_a_session_in_the_fragment(server: AuthServer) -> None:
    email = fresh_email()
    session = server.sign_up(email)
    with server.http() as http:
        http.post(f"/otp?redirect_to={SITE}/welcome?tab=1", json={"email": email})
    [mail] = server.mails(email)
    assert parse_qs(urlsplit(mail["link"]).query)["redirect_to"] == [f"{SITE}/welcome?tab=1"]

    answer = server.open_link(mail["link"])

    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"].startswith(f"{SITE}/welcome?tab=1#")
    values = fragment(answer)
    assert values.keys() == {
        "access_token",
        "expires_at",
        "expires_in",
        "refresh_token",
        "sb",
        "token_type",
        "type",
    }
    assert claims_of(values["access_token"])["sub"] == session["user"]["id"]
    assert values["type"] == "magiclink" and values["expires_in"] == "900"
    assert server.refresh(values["refresh_token"]).is_success


def test_a_link_works_once(server: AuthServer) -> None:
    email = fresh_email()
    ask(server, "/otp", email=email)
    [mail] = server.mails(email)
    server.open_link(mail["link"])

    answer = server.open_link(mail["link"])

    assert answer.status_code == 303
    assert fragment(answer) == {
        "error": "access_denied",
        "error_code": "otp_expired",
        "error_description": "Email link is invalid or has expired",
        "sb": "",
    }
    assert urlsplit(answer.headers["location"]).query == ""


def test_simultaneous_uses_of_a_code_open_one_session(server: AuthServer) -> None:
    email = fresh_email()
    server.sign_up(email)
    ask(server, "/otp", email=email)
    [mail] = server.mails(email)

    def use(_: int) -> int:
        return ask(server, "/verify", type="email", email=email, token=mail["otp"]).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(use, range(8))) == [200] + [403] * 7


def test_errors_of_a_pkce_link_stand_in_the_query_too(server: AuthServer) -> None:
    answer = server.open_link(f"{server.url}/verify?type=magiclink&token=pkce_0123")
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["error_code"] == ["otp_expired"] and query["error"] == ["access_denied"]
    assert fragment(answer)["error_code"] == "otp_expired"


@pytest.mark.parametrize(
    "evil",
    [
        "https://evil.test/",
        "https://drive.example.test.evil.test/",
        "https://drive.example.test@evil.test/",
        "https://evil.test\\@drive.example.test/",
        "//evil.test/",
        "http://drive.example.test/",
        "https://drive.example.test:8443/",
        "javascript:alert(1)//drive.example.test",
    ],
)
def test_a_link_never_leads_astray(server: AuthServer, evil: str) -> None:
    email = fresh_email()
    with server.http() as http:
        http.post("/otp", params={"redirect_to": evil}, json={"email": email})
    [mail] = server.mails(email)
    assert mail["redirect_to"] == SITE

    forged = httpx.URL(mail["link"]).copy_set_param("redirect_to", evil)
    for answer in (
        httpx.get(forged, headers={"Referer": evil}, follow_redirects=False),
        server.open_link(f"{server.url}/verify?type=signup&token=x&redirect_to={evil}"),
    ):
        assert answer.headers["location"].startswith(f"{SITE}#")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://localhost:3000/a?b#c", True),
        ("http://localhost:9999", True),  # native applications choose their port
        ("https://localhost:3000", False),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000/", True),
        ("http://127.0.0.1.evil.test:3000", False),
        ("http://2130706433/", False),
        ("http://user@localhost:3000/", False),
        ("ftp://127.0.0.1:3000", False),
        ("https://app.example.test/callback", True),
        ("https://app.example.test/callback/deeper", False),
        ("https://a.preview.test", True),
        ("https://a.b.preview.test", False),
        ("https://wild.test/any/thing.html", True),
        ("https://wild.test.evil.test/", False),
        ("drive://open", True),
        ("drive://open#x", True),
        ("", False),
        ("http://[::1", False),
        ("http://localhost:port", False),
        ("http://localhost:3000/\n", False),
        ("http://localhost:3000/ü", False),
    ],
)
def test_redirects_stay_on_the_site_or_the_allow_list(url: str, allowed: bool) -> None:
    allow_list = (
        "https://app.example.test/*",
        "https://*.preview.test",
        "https://wild.test/**",
        "drive://open",
    )
    assert is_allowed(url, "http://localhost:3000", allow_list) is allowed


def test_the_allow_list_is_used_for_links(auth_url: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, redirect_allow_list=("https://other.test/**",))
    email = fresh_email()
    with AuthServer(tmp_path, auth_url, options) as listed, listed.http() as http:
        http.post("/recover?redirect_to=https://other.test/x", json={"email": email})
        http.post("/otp?redirect_to=https://other.test/x", json={"email": email})
        [mail] = listed.mails(email)
        answer = listed.open_link(mail["link"])
    assert answer.headers["location"].startswith("https://other.test/x#access_token=")


# -- POST


def test_codes_expire(server: AuthServer, superuser: psycopg.Connection[Any]) -> None:
    email = fresh_email()
    user = server.sign_up(email)["user"]
    ask(server, "/recover", email=email)
    [mail] = server.mails(email)
    superuser.execute(
        "update auth.one_time_tokens set updated_at = updated_at - interval '3601 s'"
        " where user_id = %s",
        (user["id"],),
    )
    by_code = ask(server, "/verify", type="recovery", email=email, token=mail["otp"])
    by_hash = ask(server, "/verify", type="recovery", token_hash=mail["token_hash"])
    assert by_code.status_code == by_hash.status_code == 403
    assert by_code.json() == {
        "code": "otp_expired",
        "message": "Token has expired or is invalid",
    }
    assert by_hash.json()["message"] == "Email link is invalid or has expired"


def test_a_code_is_only_good_for_its_address_and_its_type(server: AuthServer) -> None:
    email, other = fresh_email(), fresh_email()
    server.sign_up(email), server.sign_up(other)
    ask(server, "/recover", email=email)
    [mail] = server.mails(email)
    for body in (
        {"type": "recovery", "email": other, "token": mail["otp"]},
        {"type": "signup", "email": email, "token": mail["otp"]},
        {"type": "email_change", "email": email, "token": mail["otp"]},
        {"type": "invite", "token_hash": mail["token_hash"]},
        # the hash is of the address followed by the code: the seam must not wander
        {"type": "recovery", "email": email + mail["otp"][0], "token": mail["otp"][1:]},
    ):
        assert ask(server, "/verify", **body).json()["code"] == "otp_expired"
    used = ask(server, "/verify", type="magiclink", email=email.upper(), token=mail["otp"])
    assert used.status_code == 200  # a recovery code signs in


@pytest.mark.parametrize(
    "body",
    [
        {"token": "123456", "email": "a@b.test"},
        {"type": "email", "email": "a@b.test"},
        {"type": "email", "email": "a@b.test", "token": "1", "token_hash": "2"},
        {"type": "email", "email": "a@b.test", "token_hash": "2"},
        {"type": "email", "token": "123456"},
        {"type": "email", "token": "123456", "email": "a@b.test", "phone": "15550100"},
        {"type": "nonsense", "token_hash": "2"},
        {"type": "sms", "token": "123456", "phone": "12345-x"},
    ],
)
def test_requests_to_verify_that_make_no_sense(server: AuthServer, body: dict[str, str]) -> None:
    answer = ask(server, "/verify", **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")


def test_codes_cannot_be_guessed_for_ever(auth_url: str, tmp_path: Path) -> None:
    email = fresh_email()
    with AuthServer(tmp_path, auth_url, replace(OPTIONS, password_attempts=3)) as strict:
        strict.sign_up(email)
        ask(strict, "/otp", email=email)
        [mail] = strict.mails(email)
        wrong = f"{(int(mail['otp']) + 1) % 10**6:06d}"
        codes = [
            ask(strict, "/verify", type="email", email=email, token=token).json()["code"]
            for token in (wrong, wrong, wrong, mail["otp"])
        ]
        # the link itself cannot be guessed, so it still works
        assert ask(strict, "/verify", type="email", token_hash=mail["token_hash"]).is_success
    assert codes == ["otp_expired"] * 3 + ["over_request_rate_limit"]


def test_mail_to_one_address_has_to_wait_whether_it_is_known_or_not(
    auth_url: str, tmp_path: Path
) -> None:
    known, unknown = fresh_email(), fresh_email()
    with AuthServer(tmp_path, auth_url, replace(OPTIONS, mail_interval_s=60)) as slow:
        slow.sign_up(known)
        for email in (known, unknown):
            assert ask(slow, "/recover", email=email).json() == {}
            answer = ask(slow, "/recover", email=email)
            assert answer.status_code == 429
            assert answer.json() == {
                "code": "over_email_send_rate_limit",
                "message": "For security purposes, you can only request this after 60 seconds.",
            }
        assert len(slow.mails(known)) == 1


def test_resending(confirming: AuthServer) -> None:
    email = fresh_email()
    ask(confirming, "/signup", email=email, password=PASSWORD)
    assert ask(confirming, "/resend", type="signup", email=email).json() == {}
    assert ask(confirming, "/resend", type="signup", email=fresh_email()).json() == {}
    first, second = confirming.mails(email)
    assert first["token_hash"] != second["token_hash"]
    assert ask(confirming, "/verify", type="signup", email=email, token=second["otp"]).is_success
    ask(confirming, "/resend", type="signup", email=email)
    assert len(confirming.mails(email)) == 2  # nothing waits any more
    for body in ({"type": "magiclink", "email": email}, {"type": "signup"}, {"type": "sms"}):
        assert ask(confirming, "/resend", **body).json()["code"] == "validation_failed"


def test_magiclink_is_another_name_of_otp(server: AuthServer) -> None:
    email = fresh_email()
    assert ask(server, "/magiclink", email=email).json() == {}
    [mail] = server.mails(email)
    assert mail["type"] == "magiclink"


def test_mail_is_kept_for_the_owner_of_the_stack_alone(server: AuthServer) -> None:
    email = fresh_email()
    ask(server, "/otp", email=email)
    folder = server.folder / "mail"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    newest = max(folder.glob("*.json"))
    assert stat.S_IMODE(newest.stat().st_mode) == 0o600
    mail = json.loads(newest.read_text())
    assert mail["to"] == email and mail["subject"] and mail["link"].startswith(server.url)
    assert list(folder.glob("*.partial")) == []


# -- changing an address


def change_email(server: AuthServer) -> tuple[str, str, dict[str, Any]]:
    """Return the present and the wanted address, and what PUT /user answered."""
    old, new = fresh_email(), fresh_email()
    server.admin().create_user({"email": old, "password": PASSWORD, "email_confirm": True})
    session = server.sign_in(old)
    with server.http(session["access_token"]) as http:
        answer = http.put("/user", json={"email": new.upper()})
    assert answer.status_code == 200, answer.text
    return old, new, answer.json()


def test_both_mailboxes_confirm_a_changed_address(confirming: AuthServer) -> None:
    old, new, user = change_email(confirming)
    assert user["email"] == old and user["new_email"] == new
    [to_old], [to_new] = confirming.mails(old), confirming.mails(new)

    first = ask(confirming, "/verify", type="email_change", token_hash=to_new["token_hash"])
    assert first.json()["code"] == "200" and "Confirmation link accepted" in first.json()["msg"]
    again = ask(confirming, "/verify", type="email_change", token_hash=to_new["token_hash"])
    assert again.json()["code"] == "otp_expired"
    answer = confirming.open_link(to_old["link"])

    assert claims_of(fragment(answer)["access_token"])["email"] == new
    user = confirming.sign_in(new)["user"]
    assert "new_email" not in user
    assert user["identities"][0]["identity_data"]["email"] == new
    assert not ask(
        confirming, "/token?grant_type=password", email=old, password=PASSWORD
    ).is_success


def test_the_first_of_two_links_says_so_in_the_browser(confirming: AuthServer) -> None:
    old, _, _ = change_email(confirming)
    [mail] = confirming.mails(old)
    assert "Confirmation link accepted" in fragment(confirming.open_link(mail["link"]))["message"]


def test_one_link_is_enough_where_addresses_need_no_confirmation(server: AuthServer) -> None:
    _, new, user = change_email(server)
    assert user["new_email"] == new
    [mail] = server.mails(new)
    verified = ask(server, "/verify", type="email_change", email=new, token=mail["otp"])
    assert verified.json()["user"]["email"] == new


def test_an_address_that_was_taken_meanwhile_is_refused(server: AuthServer) -> None:
    _, new, _ = change_email(server)
    server.sign_up(new)
    [mail] = server.mails(new)
    answer = ask(server, "/verify", type="email_change", token_hash=mail["token_hash"])
    assert (answer.status_code, answer.json()["code"]) == (422, "email_exists")


def test_an_address_of_somebody_else_cannot_be_asked_for(server: AuthServer) -> None:
    taken = server.sign_up()["user"]["email"]
    with server.http(server.sign_up()["access_token"]) as http:
        answer = http.put("/user", json={"email": taken})
    assert (answer.status_code, answer.json()["code"]) == (422, "email_exists")


def test_a_changed_password_makes_older_links_useless(server: AuthServer) -> None:
    email = fresh_email()
    session = server.sign_up(email)
    ask(server, "/recover", email=email)
    [mail] = server.mails(email)
    with server.http(session["access_token"]) as http:
        http.put("/user", json={"password": "another horse"}).raise_for_status()
    answer = ask(server, "/verify", type="recovery", token_hash=mail["token_hash"])
    assert answer.json()["code"] == "otp_expired"


# -- PKCE

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # of RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


def pkce_code(server: AuthServer, email: str, **challenge: str) -> str:
    ask(
        server,
        "/otp",
        email=email,
        **{"code_challenge": CHALLENGE, "code_challenge_method": "s256"} | challenge,
    ).raise_for_status()
    location = server.open_link(server.mails(email)[-1]["link"]).headers["location"]
    return parse_qs(urlsplit(location).query)["code"][0]


def exchange(server: AuthServer, code: str, verifier: str) -> httpx.Response:
    return ask(server, "/token?grant_type=pkce", auth_code=code, code_verifier=verifier)


def test_a_pkce_code_needs_its_verifier_and_works_once(server: AuthServer) -> None:
    email = fresh_email()
    code = pkce_code(server, email)

    wrong = exchange(server, code, "x" * 43)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "bad_code_verifier")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: exchange(server, code, VERIFIER), range(6)))

    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 5
    session = next(answer.json() for answer in answers if answer.is_success)
    assert session["user"]["email"] == email
    assert claims_of(session["access_token"])["amr"][0]["method"] == "magiclink"


def test_a_plain_challenge_is_compared_as_it_is(server: AuthServer) -> None:
    code = pkce_code(server, fresh_email(), code_challenge=VERIFIER, code_challenge_method="plain")
    assert exchange(server, code, VERIFIER).is_success


def test_a_pkce_code_expires_after_five_minutes(
    server: AuthServer, superuser: psycopg.Connection[Any]
) -> None:
    code = pkce_code(server, fresh_email())
    superuser.execute(
        "update auth.flow_state set auth_code_issued_at = now() - interval '301 s'"
        " where auth_code = %s",
        (code,),
    )
    answer = exchange(server, code, VERIFIER)
    assert (answer.status_code, answer.json()["code"]) == (422, "flow_state_expired")


def test_incomplete_and_unknown_exchanges(server: AuthServer) -> None:
    assert exchange(server, "", VERIFIER).json()["code"] == "validation_failed"
    assert exchange(server, "unknown", VERIFIER).json()["code"] == "flow_state_not_found"
    half = ask(server, "/otp", email=fresh_email(), code_challenge=CHALLENGE)
    assert half.json()["code"] == "validation_failed"


def test_no_link_code_or_exchange_lets_a_banned_user_in(server: AuthServer) -> None:
    email = fresh_email()
    user = server.sign_up(email)["user"]
    code = pkce_code(server, email)
    ask(server, "/otp", email=email)
    mail = server.mails(email)[-1]
    server.admin().update_user_by_id(user["id"], {"ban_duration": "1h"})

    answers = [
        ask(server, "/verify", type="email", email=email, token=mail["otp"]),
        ask(server, "/verify", type="email", token_hash=mail["token_hash"]),
        exchange(server, code, VERIFIER),
    ]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(403, "user_banned")] * 3
    assert fragment(server.open_link(mail["link"]))["error_code"] == "user_banned"

    server.admin().update_user_by_id(user["id"], {"ban_duration": "none"})
    assert fragment(server.open_link(mail["link"]))["access_token"]
