"""The AI service in front of a real stack: the caller's token decides what exists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from narwhal.drive import Drive
from narwhal.local.state import StackState
from narwhal.service import create_service
from narwhal.service.queries import QueryEncoder
from narwhal.session import access_token, user_client
from narwhal.settings import Settings
from tests.cli.running import CommandLine, settings_of

TEXT = "The keeper of the lighthouse wrote the weather down. Invoice ZX-4471 was paid in March.\n"


class NoEncoder(QueryEncoder):
    """A machine without any model."""

    def _load(self, model: str, revision: str | None = None) -> Any:
        return QueryEncoder._load(self, "no-such-model")


@pytest.fixture(scope="module")
def settings(stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(stack, tmp_path_factory.mktemp("service-home"))


@pytest.fixture(scope="module")
def people(
    stack: StackState, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Give the tokens of an owner with one file that was read, and of a stranger."""
    folder: Path = tmp_path_factory.mktemp("service")
    cli = CommandLine(stack, folder)
    (folder / "keeper.txt").write_text(TEXT)
    owner, stranger = cli.new_user(), cli.new_user()
    with user_client(settings, owner) as mine, user_client(settings, stranger) as theirs:
        drive = Drive(mine, settings)
        sent = drive.upload(folder / "keeper.txt", None)
        assert drive.wait(sent, timeout_s=90) == "ready"
        yield {"owner": access_token(mine), "stranger": access_token(theirs)}


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[TestClient]:
    app = create_service(settings.require("supabase_url"), settings.require("anon_key"))
    with TestClient(app) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("mode", "query"),
    [
        ("keyword", "ZX-4471"),
        ("semantic", "who looks after the light on the coast?"),
        ("hybrid", "lighthouse weather"),
    ],
)
def test_every_mode_finds_the_passage_for_its_owner_and_for_nobody_else(
    service: TestClient, people: dict[str, str], mode: str, query: str
) -> None:
    body = {"query": query, "mode": mode, "explain": True}
    found = service.post("/search", json=body, headers=bearer(people["owner"])).json()
    assert found["hits"][0]["name"] == "keeper.txt"
    assert found["degraded"] is False  # asked for by keyword is not degraded
    nothing = service.post("/search", json=body, headers=bearer(people["stranger"])).json()
    assert nothing["hits"] == []


def test_embeddings_have_the_length_of_the_active_space(
    service: TestClient, people: dict[str, str]
) -> None:
    body = {"texts": ["a fox", "an owl"]}
    answer = service.post("/embed", json=body, headers=bearer(people["owner"])).json()
    assert [len(vector) for vector in answer["vectors"]] == [answer["dimension"]] * 2
    assert abs(sum(x * x for x in answer["vectors"][0]) - 1) < 1e-5


@pytest.mark.parametrize("path", ["/search", "/embed"])
@pytest.mark.parametrize("headers", [{}, bearer("not.a.token")])
def test_no_token_and_a_bad_token_are_401(
    service: TestClient, people: dict[str, str], path: str, headers: dict[str, str]
) -> None:
    body = {"query": "lighthouse"} if path == "/search" else {"text": "lighthouse"}
    answer = service.post(path, json=body, headers=headers)
    assert answer.status_code == 401
    assert set(answer.json()) == {"code", "message", "details", "hint"}
    control = service.post(path, json=body, headers=bearer(people["owner"]))
    assert control.status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "ab"}, "query"),
        ({"query": "x" * 1001}, "query"),
        ({"query": "x" * 5000}, "query"),
        ({"query": "fox", "filters": {"colour": "red"}}, "filters.colour"),
        ({"query": "fox", "top_k": 0}, "top_k"),
    ],
)
def test_what_postgres_checks_is_reported_by_field(
    service: TestClient, people: dict[str, str], body: dict[str, Any], field: str
) -> None:
    answer = service.post("/search", json=body, headers=bearer(people["owner"]))
    assert answer.status_code == 422
    details = json.loads(answer.json()["details"])
    assert (details["error"], details["field"]) == ("INVALID_ARGUMENT", field)


def test_an_unknown_space_is_an_invalid_argument(
    service: TestClient, people: dict[str, str]
) -> None:
    body = {"text": "fox", "space": "no-such-space"}
    answer = service.post("/embed", json=body, headers=bearer(people["owner"]))
    assert answer.status_code == 422
    assert json.loads(answer.json()["details"])["field"] == "space"


def test_without_a_model_search_answers_by_keyword_and_says_so(
    settings: Settings, people: dict[str, str]
) -> None:
    app = create_service(
        settings.require("supabase_url"), settings.require("anon_key"), NoEncoder()
    )
    with TestClient(app) as client:
        answer = client.post(
            "/search", json={"query": "lighthouse"}, headers=bearer(people["owner"])
        ).json()
        assert answer["degraded"] is True
        assert answer["hits"][0]["name"] == "keeper.txt"
        embed = client.post("/embed", json={"text": "fox"}, headers=bearer(people["owner"]))
        assert embed.status_code == 503
        assert json.loads(embed.json()["details"])["degraded_to"] == "keyword"
        assert client.get("/health").json()["status"] == "degraded"


def test_health_needs_nobody(service: TestClient, people: dict[str, str]) -> None:
    answer = service.get("/health").json()
    assert (answer["status"], answer["database"], answer["text_encoder"]) == (
        "healthy", "ok", "ok",
    )  # fmt: skip
