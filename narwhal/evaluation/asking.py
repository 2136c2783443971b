"""Asking `hybrid_search` as an ordinary user: through PostgREST, or as PostgREST would ask."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import psycopg
from psycopg.types.json import Jsonb

from narwhal.db import connect
from narwhal.errors import NarwhalError
from narwhal.evaluation.database import LONGEST_SEARCH, call, claims
from narwhal.settings import Settings

SECONDS = 60.0
LONGEST_PAUSE_S = 120.0
ATTEMPTS = 10
RAISE_LIMIT = "When it is the rate: narwhal settings set search.per_minute 100000"


@dataclass(frozen=True)
class User:
    """An account of the evaluation."""

    id: uuid.UUID
    email: str
    password: str


class Asker(Protocol):
    """Asks as one user."""

    def ask(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Call hybrid_search; returns its answer and how many seconds it took."""


class DirectAsker:
    """Asks over a connection of its own, with the role and the claims of the user."""

    def __init__(self, url: str, user: User) -> None:
        self.connection = connect(url, application="narwhal eval reader")
        self.connection.execute(
            "select set_config('request.jwt.claims', %s, false),"
            " set_config('statement_timeout', %s, false)",
            (claims(user.id), LONGEST_SEARCH),
        )
        self.connection.execute("set role authenticated")

    def ask(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Call hybrid_search; returns its answer and how many seconds it took."""
        if arguments.get("embedding") is not None:
            arguments = arguments | {"embedding": Jsonb(arguments["embedding"])}
        for _ in range(ATTEMPTS):
            with self.connection.cursor() as cursor:
                started = time.perf_counter()
                try:
                    answer: dict[str, Any] = call(cursor, "hybrid_search", arguments)
                except psycopg.Error as error:
                    if error.sqlstate != "PT429":
                        raise
                    time.sleep(_pause(error.diag.message_detail))
                else:
                    return answer, time.perf_counter() - started
        raise NarwhalError("hybrid_search refuses more searches of this account.", RAISE_LIMIT)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class RestAsker:
    """Asks over HTTP with the user's own token."""

    def __init__(self, settings: Settings, user: User) -> None:
        self.user = user
        self.key = settings.require("anon_key")
        self.http = httpx.Client(base_url=settings.require("supabase_url"), timeout=SECONDS)
        self._sign_in()

    def ask(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Call hybrid_search; returns its answer and how many seconds it took."""
        body = json.dumps(arguments).encode()
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            answer = self.http.post("/rest/v1/rpc/hybrid_search", content=body)
            seconds = time.perf_counter() - started
            if answer.status_code == 429:
                time.sleep(_pause(answer.json().get("details")))
            elif answer.status_code == 401:
                self._sign_in()  # the token lives for an hour
            elif answer.is_success:
                found: dict[str, Any] = answer.json()
                return found, seconds
            else:
                break
        raise NarwhalError(
            f"hybrid_search answered {answer.status_code}: {_message(answer)}", RAISE_LIMIT
        )

    def close(self) -> None:
        """Close the connection."""
        self.http.close()

    def _sign_in(self) -> None:
        answer = self.http.post(
            "/auth/v1/token?grant_type=password",
            headers={"apikey": self.key},
            json={"email": self.user.email, "password": self.user.password},
        )
        answer.raise_for_status()
        self.http.headers.update(
            {
                "apikey": self.key,
                "authorization": f"Bearer {answer.json()['access_token']}",
                "content-type": "application/json",
            }
        )


@contextmanager
def asking(url: str, settings: Settings | None, user: User) -> Iterator[Asker]:
    """Ask as `user`: through PostgREST where there is one, else over the database at `url`."""
    asker = RestAsker(settings, user) if settings else DirectAsker(url, user)
    try:
        yield asker
    finally:
        asker.close()


def _pause(details: str | None) -> float:
    """How long to wait after RATE_LIMITED."""
    try:
        pause = float(json.loads(details or "{}")["retry_after"])
    except (ValueError, KeyError, TypeError):
        pause = 1.0
    return min(pause, LONGEST_PAUSE_S)


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message"))
    except ValueError:
        return answer.text[:200]
