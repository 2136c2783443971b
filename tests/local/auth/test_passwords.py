"""Passwords: what is accepted, imported hashes, guessing."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2i

from narwhal.local.auth import imported_hashes
from narwhal.local.auth.errors import AuthError
from narwhal.local.auth.limits import AttemptLimit, MailInterval
from narwhal.local.auth.passwords import is_known_hash
from tests.local.auth.serving import OPTIONS, PASSWORD, AuthServer, fresh_email, signed

# published with Firebase's own implementation of its scrypt
FIREBASE = (
    "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210w"
    "jLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC"
    "/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
)
# of the reference implementation's tests: password `password`, salt `somesalt`
ARGON2ID = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


def argon2i(password: bytes) -> str:
    salt = b"another salt"
    derived = Argon2i(salt=salt, length=24, iterations=3, lanes=2, memory_cost=64).derive(password)
    salt_text, hash_text = (
        base64.b64encode(value).decode().rstrip("=") for value in (salt, derived)
    )
    return f"$argon2i$v=19$m=64,t=3,p=2${salt_text}${hash_text}"


@pytest.mark.parametrize(
    ("hashed", "password"),
    [
        (FIREBASE, "user1password"),
        (ARGON2ID, "password"),
        (argon2i(b"p\xc3\xa4ssword"), "pässword"),
        ("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", None),
        ("$2y$04$iwpL5QVJVyE6OsdhNWoyDeP6FqjDmNjTnYgXNjhXuYjKGfzqSZYHG", None),
    ],
)
def test_imported_hashes_open_the_account(
    server: AuthServer, hashed: str, password: str | None
) -> None:
    assert is_known_hash(hashed)
    email = fresh_email()
    with server.http(signed("service_role")) as http:
        http.post(
            "/admin/users", json={"email": email, "password_hash": hashed, "email_confirm": True}
        ).raise_for_status()
        wrong = http.post("/token?grant_type=password", json={"email": email, "password": "wrong"})
    assert wrong.json()["code"] == "invalid_credentials"
    if password is not None:
        server.sign_in(email, password)


@pytest.mark.parametrize(
    "hashed",
    [
        "",
        "plain",
        "$2b$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",  # would take days
        ARGON2ID.replace("m=65536", "m=9999999"),
        ARGON2ID.replace("argon2id", "argon2d"),
        ARGON2ID.replace("v=19", "v=16"),
        FIREBASE.replace("n=14", "n=30"),
        FIREBASE.replace("n=14", "n=0"),
        FIREBASE.replace("v=1,", "v=2,"),
    ],
)
def test_other_hashes_are_not_imported(hashed: str) -> None:
    assert not is_known_hash(hashed)
    assert imported_hashes.parse(hashed) is None


@pytest.mark.parametrize(
    ("password", "status"),
    [("12345", 422), ("123456", 200), ("x" * 72, 200), ("x" * 73, 400), ("ü" * 37, 400)],
)
def test_passwords_have_six_to_seventy_two_bytes(
    server: AuthServer, password: str, status: int
) -> None:
    email = fresh_email()
    with server.http() as http:
        answer = http.post("/signup", json={"email": email, "password": password})
    assert answer.status_code == status
    if status == 400:
        assert answer.json() == {
            "code": "validation_failed",
            "message": "Password cannot be longer than 72 characters",
        }
    if status == 200:
        server.sign_in(email, password)


def test_what_follows_the_seventy_second_byte_counts(server: AuthServer) -> None:
    email, password = fresh_email(), "x" * 72
    with server.http() as http:
        http.post("/signup", json={"email": email, "password": password}).raise_for_status()
        answer = http.post(
            "/token?grant_type=password", json={"email": email, "password": password + "y"}
        )
    assert answer.json()["code"] == "invalid_credentials"


def test_the_same_password_is_no_change(server: AuthServer) -> None:
    with server.http(server.sign_up()["access_token"]) as http:
        answer = http.put("/user", json={"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (422, "same_password")
        assert http.put("/user", json={"password": "12345"}).json()["code"] == "weak_password"
        assert http.put("/user", json={"password": "x" * 73}).status_code == 400


def test_a_weak_password_set_earlier_still_signs_in_with_a_warning(server: AuthServer) -> None:
    email = fresh_email()
    server.admin().create_user({"email": email, "password": "1234", "email_confirm": True})
    assert server.sign_in(email, "1234")["weak_password"] == {
        "message": "Password should be at least 6 characters.",
        "reasons": ["length"],
    }
    assert "weak_password" not in server.sign_up()


def test_an_account_without_a_password_is_not_opened_by_an_empty_one(server: AuthServer) -> None:
    email = fresh_email()
    server.admin().create_user({"email": email, "email_confirm": True})
    with server.http() as http:
        for password in ("", "nobody", None):
            answer = http.post(
                "/token?grant_type=password", json={"email": email, "password": password}
            )
            assert answer.json()["code"] == "invalid_credentials"


@pytest.mark.parametrize("body", [{}, {"email": "a@b.test", "phone": "1"}, {"password": "x"}])
def test_signing_in_needs_an_address(server: AuthServer, body: dict[str, str]) -> None:
    with server.http() as http:
        answer = http.post("/token?grant_type=password", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")


def test_unknown_addresses_take_as_much_work_as_wrong_passwords(
    server: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    email, bare = fresh_email(), fresh_email()
    server.sign_up(email)
    server.admin().create_user({"email": bare, "email_confirm": True})
    costs: list[bytes] = []
    checkpw = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[:7])
        return checkpw(password, hashed)

    monkeypatch.setattr("bcrypt.checkpw", counted)
    with server.http() as http:
        for who in (email, bare, fresh_email()):
            for password in ("wrong", "x" * 100):
                body = {"email": who, "password": password}
                answer = http.post("/token?grant_type=password", json=body)
                assert answer.json()["code"] == "invalid_credentials"
    assert costs == [b"$2b$10$"] * 6


# -- guessing


def test_wrong_passwords_end_in_429_for_this_address_only(auth_url: str, tmp_path: Path) -> None:
    email, other = fresh_email(), fresh_email()
    with AuthServer(tmp_path, auth_url, replace(OPTIONS, password_attempts=3)) as strict:
        strict.sign_up(email), strict.sign_up(other)

        def attempt(who: str, password: str) -> tuple[int, str]:
            with strict.http() as http:
                answer = http.post(
                    "/token?grant_type=password", json={"email": who, "password": password}
                )
                return answer.status_code, answer.json().get("code", "")

        # a success forgets the failures before it
        assert [attempt(email, word)[0] for word in ("a", "b", PASSWORD)] == [400, 400, 200]
        assert [attempt(email.upper(), word)[0] for word in "abc"] == [400] * 3
        # the right password does not help now: a guesser could not be told from the owner
        for password in ("d", PASSWORD):
            assert attempt(email, password) == (429, "over_request_rate_limit")
        assert attempt(other, PASSWORD)[0] == 200

        unknown = fresh_email()  # looks the same
        assert [attempt(unknown, word)[0] for word in "abcd"] == [400] * 3 + [429]

        hurried = fresh_email()
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda n: attempt(hurried, str(n))[0], range(8)))
        assert sorted(statuses) == [400] * 3 + [429] * 5


def test_the_window_passes() -> None:
    now = [0.0]
    limit = AttemptLimit(2, 300, clock=lambda: now[0])

    def fail(code: str = "wrong") -> str:
        with pytest.raises(AuthError) as error, limit.attempt("key", "wrong"):
            raise AuthError(400, code, "no")
        return error.value.code

    assert [fail(), fail("other"), fail(), fail()] == [
        "wrong",
        "other",
        "wrong",
        "over_request_rate_limit",
    ]
    now[0] = 299.0
    assert fail() == "over_request_rate_limit"
    now[0] = 301.0
    assert fail() == "wrong"
    with pytest.raises(ZeroDivisionError), limit.attempt("key", "wrong"):
        raise ZeroDivisionError  # our own mistakes are nobody's guess
    with limit.attempt("key", "wrong"):
        pass
    assert [fail(), fail(), fail()] == ["wrong", "wrong", "over_request_rate_limit"]


def test_a_failed_mail_gives_its_turn_back() -> None:
    now = [0.0]
    interval = MailInterval(10, clock=lambda: now[0])
    with pytest.raises(ZeroDivisionError), interval.slot("recovery", "a"):
        raise ZeroDivisionError
    with interval.slot("recovery", "a"):
        pass
    with interval.slot("confirmation", "a"), interval.slot("recovery", "b"):
        pass
    now[0] = 9.5
    with pytest.raises(AuthError, match="after 1 seconds"), interval.slot("recovery", "a"):
        pass
    now[0] = 10.0
    with interval.slot("recovery", "a"):
        pass
