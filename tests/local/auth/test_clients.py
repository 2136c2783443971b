"""Journeys with the official clients."""

from __future__ import annotations

import pytest
from supabase_auth.errors import (
    AuthApiError,
    AuthInvalidCredentialsError,
    AuthWeakPasswordError,
)

from tests.local.auth.serving import PASSWORD, AuthServer, claims_of, fresh_email


def test_signing_up_opens_a_session_that_names_its_owner(server: AuthServer) -> None:
    email = fresh_email()
    answer = server.client().sign_up(
        {
            "email": email.upper(),
            "password": PASSWORD,
            "options": {"data": {"full_name": "Test Owner"}},
        }
    )

    assert answer.session is not None and answer.user is not None
    assert answer.session.expires_in == 900
    assert answer.session.token_type == "bearer"
    assert answer.user.email == email  # addresses are kept in lower case
    assert answer.user.user_metadata == {"full_name": "Test Owner", "email_verified": True}
    assert answer.user.app_metadata == {"provider": "email", "providers": ["email"]}
    [identity] = answer.user.identities or []
    assert identity.provider == "email" and identity.identity_data["email"] == email

    claims = claims_of(answer.session.access_token)
    assert claims["sub"] == answer.user.id == identity.user_id
    assert claims["iss"] == server.url
    assert claims["exp"] - claims["iat"] == 900
    assert claims["role"] == "authenticated" and claims["aal"] == "aal1"
    assert claims["email"] == email and claims["phone"] == ""
    assert claims["is_anonymous"] is False
    assert [entry["method"] for entry in claims["amr"]] == ["password"]


def test_signing_in_refreshing_and_signing_out(server: AuthServer) -> None:
    email = fresh_email()
    server.sign_up(email)
    client = server.client()

    first = client.sign_in_with_password({"email": email, "password": PASSWORD}).session
    assert first is not None
    second = client.refresh_session().session
    assert second is not None
    assert second.refresh_token != first.refresh_token
    before, after = claims_of(first.access_token), claims_of(second.access_token)
    assert after["session_id"] == before["session_id"]
    assert after["amr"] == before["amr"]  # a refresh adds no method

    user = client.get_user()
    assert user is not None and user.user.email == email
    claims = client.get_claims()
    assert claims is not None and claims["claims"]["sub"] == user.user.id

    client.sign_out()
    with pytest.raises(AuthApiError) as error:
        server.client().get_user(second.access_token)
    assert (error.value.status, error.value.code) == (403, "session_not_found")
    assert server.refresh(second.refresh_token).json()["code"] == "refresh_token_not_found"


@pytest.mark.parametrize(
    ("scope", "alive"),
    [("local", [False, True]), ("others", [True, False]), ("global", [False, False])],
)
def test_signing_out_ends_the_sessions_of_its_scope(
    server: AuthServer, scope: str, alive: list[bool]
) -> None:
    email = fresh_email()
    server.sign_up(email)
    own, other = server.sign_in(email), server.sign_in(email)

    with server.http(own["access_token"]) as http:
        answer = http.post(f"/logout?scope={scope}")

    assert (answer.status_code, answer.content) == (204, b"")
    refreshed = [server.refresh(session["refresh_token"]).is_success for session in (own, other)]
    assert refreshed == alive


def test_a_changed_password_ends_the_other_sessions(server: AuthServer) -> None:
    email = fresh_email()
    server.sign_up(email)
    client = server.client()
    client.sign_in_with_password({"email": email, "password": PASSWORD})
    other = server.sign_in(email)

    client.update_user({"password": "another horse"})

    assert server.refresh(other["refresh_token"]).json()["code"] == "refresh_token_not_found"
    assert client.refresh_session().session is not None
    with pytest.raises(AuthApiError, match="Invalid login credentials"):
        server.client().sign_in_with_password({"email": email, "password": PASSWORD})
    server.sign_in(email, "another horse")


def test_metadata_is_merged_and_null_deletes_a_key(server: AuthServer) -> None:
    session = server.sign_up(colour="blue", size=3)
    client = server.client()
    client.set_session(session["access_token"], session["refresh_token"])

    user = client.update_user({"data": {"colour": None, "shape": {"round": True}}}).user

    assert user.user_metadata == {"size": 3, "shape": {"round": True}, "email_verified": True}


def test_weak_passwords_are_explained(server: AuthServer) -> None:
    with pytest.raises(AuthWeakPasswordError) as error:
        server.client().sign_up({"email": fresh_email(), "password": "12345"})
    assert error.value.reasons == ["length"]
    with pytest.raises(AuthInvalidCredentialsError):
        server.client().sign_up({"email": fresh_email()})  # type: ignore[typeddict-item]


def test_a_code_by_mail_signs_in(server: AuthServer) -> None:
    email = fresh_email()
    client = server.client()
    client.sign_in_with_otp({"email": email, "options": {"data": {"from": "otp"}}})

    [mail] = server.mails(email)
    assert mail["type"] == "magiclink" and mail["otp"].isdigit() and len(mail["otp"]) == 6
    answer = client.verify_otp({"email": email, "token": mail["otp"], "type": "email"})

    assert answer.user is not None and answer.session is not None
    assert answer.user.user_metadata == {"from": "otp", "email_verified": True}
    assert claims_of(answer.session.access_token)["amr"][0]["method"] == "otp"
    with pytest.raises(AuthApiError, match="Token has expired or is invalid"):
        client.verify_otp({"email": email, "token": mail["otp"], "type": "email"})


def test_strangers_get_no_code_unless_accounts_may_be_made(server: AuthServer) -> None:
    email = fresh_email()
    with pytest.raises(AuthApiError) as error:
        server.client().sign_in_with_otp({"email": email, "options": {"should_create_user": False}})
    assert (error.value.status, error.value.code) == (422, "otp_disabled")
    assert server.mails(email) == []


def test_signing_up_and_confirming_with_pkce(confirming: AuthServer) -> None:
    email = fresh_email()
    client = confirming.client(flow_type="pkce")
    pending = client.sign_up({"email": email, "password": PASSWORD})
    assert pending.session is None and pending.user is not None
    with pytest.raises(AuthApiError) as error:
        client.sign_in_with_password({"email": email, "password": PASSWORD})
    assert error.value.code == "email_not_confirmed"

    [mail] = confirming.mails(email)
    assert mail["type"] == "signup" and mail["token_hash"].startswith("pkce_")
    answer = confirming.open_link(mail["link"])
    assert answer.status_code == 303
    target, _, code = answer.headers["location"].partition("?code=")
    assert target == confirming.config.site_url

    session = client.exchange_code_for_session(  # the client adds its verifier
        {"auth_code": code, "code_verifier": "", "redirect_to": ""}
    ).session
    assert session is not None and session.user.email == email
    assert session.user.user_metadata["email_verified"] is True
    [identity] = session.user.identities or []
    assert identity.identity_data["email_verified"] is True

    with confirming.http() as http:  # a code works once
        again = http.post(
            "/token?grant_type=pkce", json={"auth_code": code, "code_verifier": "v" * 43}
        )
    assert (again.status_code, again.json()["code"]) == (404, "flow_state_not_found")


def test_recovering_a_password(server: AuthServer) -> None:
    email = fresh_email()
    before = server.sign_up(email)
    client = server.client()
    client.reset_password_for_email(email)
    client.reset_password_for_email(fresh_email())  # unknown people look the same

    [mail] = server.mails(email)
    client.verify_otp({"type": "recovery", "token_hash": mail["token_hash"]})
    client.update_user({"password": "a new horse"})

    server.sign_in(email, "a new horse")
    assert not server.refresh(before["refresh_token"]).is_success


def test_reauthenticating_sends_a_code(server: AuthServer) -> None:
    session = server.sign_up()
    client = server.client()
    client.set_session(session["access_token"], session["refresh_token"])
    client.reauthenticate()
    assert [mail["type"] for mail in server.mails(session["user"]["email"])] == ["reauthentication"]


def test_single_sign_on_and_linking_say_that_they_are_off(server: AuthServer) -> None:
    session = server.sign_up()
    client = server.client()
    with pytest.raises(AuthApiError, match=r"SAML 2\.0 is disabled"):
        client.sign_in_with_sso({"domain": "example.test"})
    client.set_session(session["access_token"], session["refresh_token"])
    with pytest.raises(AuthApiError) as error:
        client.link_identity({"provider": "google"})
    assert error.value.code == "manual_linking_disabled"
    with pytest.raises(AuthApiError) as error:
        client.mfa.enroll({"factor_type": "totp", "friendly_name": "phone"})
    assert error.value.code == "mfa_totp_enroll_not_enabled"
