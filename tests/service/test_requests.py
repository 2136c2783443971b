"""What the AI service does with a request before and around the database."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from narwhal.errors import NarwhalError
from narwhal.service import create_service
from narwhal.service.bodies import MAX_BODY
from narwhal.service.queries import CACHE_SIZE, QueryEncoder
from narwhal.service.upstream import Upstream, _remember_status

SPACE = {
    "name": "tiny",
    "model": "tiny-model",
    "revision": "0a1b2c",
    "dimension": 2,
    "kind": "text",
}
Answer = Callable[[str, dict[str, Any]], Any]


class CountingEncoder(QueryEncoder):
    """A two-dimensional encoder that remembers what it was asked."""

    dimension = 2
    revision = SPACE["revision"]

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def _load(self, model: str, revision: str | None = None) -> Any:
        return self

    def encode(self, texts: list[str]) -> Any:
        self.asked.append(list(texts))
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)


class FakePostgrest:
    """Answers RPCs as told, and keeps the requests it got."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    async def reply(self, request: Request) -> JSONResponse:
        body = await request.json()
        function = request.path_params["function"]
        self.requests.append((function, dict(request.headers), body))
        answer = self.answer(function, body)
        if isinstance(answer, Awaitable):
            answer = await answer
        return answer if isinstance(answer, JSONResponse) else JSONResponse(answer)


def refusal(status: int, error: str, **details: Any) -> JSONResponse:
    return JSONResponse(
        {
            "code": f"PT{status}",
            "message": "No.",
            "details": json.dumps({"error": error, **details}),
            "hint": "Think.",
        },
        status_code=status,
    )


def token(user: str) -> dict[str, str]:
    """A token as PostgREST would accept it, of a user."""
    payload = base64.urlsafe_b64encode(json.dumps({"sub": user}).encode()).decode().rstrip("=")
    return {"authorization": f"Bearer head.{payload}.sign"}


def usual(function: str, body: dict[str, Any]) -> Any:
    return SPACE if function == "embedding_space" else {"hits": [], "asked": body}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[TestClient, FakePostgrest]]:
    """Give a client of the service in front of a PostgREST that answers as told."""

    def make(
        answer: Answer = usual, encoder: QueryEncoder | None = None
    ) -> tuple[TestClient, FakePostgrest]:
        postgrest = FakePostgrest(answer)
        routes = [Route("/rest/v1/rpc/{function}", postgrest.reply, methods=["POST"])]
        transport = httpx.ASGITransport(app=Starlette(routes=routes))
        http = httpx.AsyncClient(transport=transport, event_hooks={"response": [_remember_status]})
        monkeypatch.setattr(Upstream, "http", http)
        service = create_service("http://project.test", "anon-key", encoder or CountingEncoder())
        return TestClient(service), postgrest

    return make


Connect = Callable[..., tuple[TestClient, FakePostgrest]]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/search", {}, "query"),
        ("/search", {"query": 5}, "query"),
        ("/search", {"query": "fox", "mode": "psychic"}, "mode"),
        ("/search", {"query": "fox", "top_k": "8"}, "top_k"),
        ("/search", {"query": "fox", "filters": []}, "filters"),
        ("/search", {"query": "fox", "nonsense": 1}, "nonsense"),
        ("/search", "not an object", "body"),
        ("/embed", {}, "text"),
        ("/embed", {"text": "a", "texts": ["b"]}, "text"),
        ("/embed", {"texts": []}, "texts"),
        ("/embed", {"texts": ["a"] * 65}, "texts"),
        ("/embed", {"texts": ["a", 5]}, "texts.1"),
    ],
)
def test_a_wrong_body_is_refused_by_field_before_anything_is_asked(
    connect: Connect, path: str, body: Any, field: str
) -> None:
    client, postgrest = connect()
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "message", "details", "hint"}
    assert answer.json()["code"] == "PT422"
    details = json.loads(answer.json()["details"])
    assert (details["error"], details["field"]) == ("INVALID_ARGUMENT", field)
    assert postgrest.requests == []


def test_broken_json_and_large_bodies_are_refused(connect: Connect) -> None:
    client, postgrest = connect()
    assert client.post("/search", content=b"{").status_code == 422
    large = client.post("/search", json={"query": "x" * MAX_BODY})
    assert (large.status_code, large.json()["code"]) == (413, "PT413")
    assert postgrest.requests == []


def test_unknown_routes_and_methods_have_the_four_keys(connect: Connect) -> None:
    client, _ = connect()
    for method, path, status in [("POST", "/nope", 404), ("GET", "/search", 405)]:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"code", "message", "details", "hint"}


def test_only_what_identifies_the_caller_is_passed_on(connect: Connect) -> None:
    client, postgrest = connect()
    headers = {"Authorization": "Bearer me", "x-share-grant": "grant", "cookie": "a=b", "x-me": "1"}
    assert client.post("/search", json={"query": "fox"}, headers=headers).status_code == 200
    assert [function for function, _, _ in postgrest.requests] == [
        "embedding_space", "hybrid_search",
    ]  # fmt: skip
    for _, sent, _ in postgrest.requests:
        assert sent["authorization"] == "Bearer me"
        assert sent["x-share-grant"] == "grant"
        assert sent["apikey"] == "anon-key"
        assert "cookie" not in sent
        assert "x-me" not in sent


def test_without_a_token_none_is_invented(connect: Connect) -> None:
    client, postgrest = connect()
    client.post("/search", json={"query": "fox"})
    for _, sent, _ in postgrest.requests:
        assert "authorization" not in sent


@pytest.mark.parametrize(
    ("mode", "weights", "embedded"),
    [
        ("hybrid", None, True),
        ("keyword", {"keyword": 1, "vector": 0}, False),
        ("semantic", {"keyword": 0, "vector": 1}, True),
    ],
)
def test_a_mode_decides_weights_and_embedding(
    connect: Connect, mode: str, weights: dict[str, int] | None, embedded: bool
) -> None:
    client, _ = connect()
    body = {"query": "fox", "mode": mode, "top_k": 3, "options": {"rrf_k": 20}}
    asked = client.post("/search", json=body).json()["asked"]
    assert asked["options"].get("weights") == weights
    assert asked["options"]["rrf_k"] == 20
    assert asked["embedding"] == ([1.0, 0.0] if embedded else None)
    assert asked.get("space") == ("tiny" if embedded else None)
    assert asked["top_k"] == 3


def test_pages_are_not_searched_before_there_are_any(connect: Connect) -> None:
    client, _ = connect()
    answer = client.post("/search", json={"query": "fox", "mode": "pages"})
    assert answer.status_code == 503
    assert json.loads(answer.json()["details"]) == {
        "error": "SERVICE_UNAVAILABLE", "degraded_to": "hybrid",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"code": "PGRST301", "message": "JWSError", "details": None, "hint": None}),
        (400, {"code": "22P02", "message": "bad uuid", "details": None, "hint": None}),
        (401, {"code": "42501", "message": "permission denied", "details": None, "hint": None}),
    ],
)
def test_what_postgrest_refuses_comes_back_unchanged(
    connect: Connect, status: int, body: dict[str, Any]
) -> None:
    client, _ = connect(lambda function, sent: JSONResponse(body, status_code=status))
    for path, sent in [("/search", {"query": "fox"}), ("/embed", {"text": "fox"})]:
        answer = client.post(path, json=sent)
        assert (answer.status_code, answer.json()) == (status, body)


def test_a_rate_limit_says_when_to_come_back(connect: Connect) -> None:
    client, _ = connect(lambda f, b: refusal(429, "RATE_LIMITED", retry_after=17))
    answer = client.post("/search", json={"query": "fox"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")


def test_a_space_switched_in_between_is_asked_for_again(connect: Connect) -> None:
    spaces = iter([SPACE, {**SPACE, "name": "newer"}])

    def switching(function: str, body: dict[str, Any]) -> Any:
        if function == "embedding_space":
            return next(spaces)
        if body["space"] == "tiny":
            return refusal(422, "INVALID_ARGUMENT", field="space")
        return usual(function, body)

    client, _ = connect(switching)
    answer = client.post("/search", json={"query": "fox"})
    assert answer.status_code == 200
    assert answer.json()["asked"]["space"] == "newer"


class BrokenEncoder(QueryEncoder):
    """A machine without the model."""

    def _load(self, model: str, revision: str | None = None) -> Any:
        return QueryEncoder._load(self, "no-such-model")


def test_without_an_encoder_search_falls_back_to_keyword(connect: Connect) -> None:
    client, _ = connect(encoder=BrokenEncoder())
    assert client.post("/search", json={"query": "fox"}).json()["asked"]["embedding"] is None
    for path, body in [
        ("/search", {"query": "fox", "mode": "semantic"}),
        ("/embed", {"text": "fox"}),
    ]:
        answer = client.post(path, json=body)
        assert answer.status_code == 503
        details = json.loads(answer.json()["details"])
        assert details == {"error": "SERVICE_UNAVAILABLE", "degraded_to": "keyword"}


@pytest.mark.parametrize("difference", [{"dimension": 3}, {"revision": "other"}])
def test_a_vector_of_another_model_is_never_sent(
    connect: Connect, difference: dict[str, Any]
) -> None:
    def other(function: str, body: dict[str, Any]) -> Any:
        return {**SPACE, **difference} if function == "embedding_space" else usual(function, body)

    client, _ = connect(other)
    assert client.post("/embed", json={"text": "fox"}).status_code == 503
    assert client.post("/search", json={"query": "fox"}).json()["asked"]["embedding"] is None


def test_embeddings_come_one_or_many_and_are_cached(connect: Connect) -> None:
    encoder = CountingEncoder()
    client, _ = connect(encoder=encoder)
    one = client.post("/embed", json={"text": "fox"}, headers=token("ada")).json()
    assert one == {"embedding": [1.0, 0.0], "space": "tiny", "dimension": 2}
    body = {"texts": ["fox", "owl", "owl"]}
    many = client.post("/embed", json=body, headers=token("ada")).json()
    assert many["vectors"] == [[1.0, 0.0]] * 3
    assert encoder.asked == [["fox"], ["owl"]]


def test_the_cache_stays_small(connect: Connect) -> None:
    encoder = CountingEncoder()
    client, _ = connect(encoder=encoder)
    for start in range(0, CACHE_SIZE + 64, 64):
        body = {"texts": [str(n) for n in range(start, start + 64)]}
        client.post("/embed", json=body, headers=token("ada"))
    assert len(encoder._cache) == CACHE_SIZE


def test_a_silent_database_is_unavailable_and_health_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = create_service("http://127.0.0.1:9", "anon-key", CountingEncoder())
    with TestClient(service) as client:
        assert client.post("/search", json={"query": "fox"}).status_code == 503
        for method in ("GET", "POST"):
            health = client.request(method, "/health")
            assert health.status_code == 200
            assert health.json()["status"] == "degraded"
            assert health.json()["database"] == "unavailable"
            assert health.json()["text_encoder"] == "ok"


def test_health_is_good_when_the_database_answers_even_with_a_refusal(connect: Connect) -> None:
    client, _ = connect(lambda f, b: refusal(401, "NOT_AUTHENTICATED"))
    assert client.get("/health").json()["status"] == "healthy"
    client, _ = connect(encoder=BrokenEncoder())
    assert client.get("/health").json()["status"] == "degraded"


def test_a_defect_says_nothing_about_itself(connect: Connect) -> None:
    class Defective(QueryEncoder):
        async def embed(self, *args: Any) -> Any:
            raise KeyError("secret of ours")

    client, _ = connect(encoder=Defective())
    client = TestClient(client.app, raise_server_exceptions=False)
    answer = client.post("/search", json={"query": "fox"})
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_an_encoder_that_failed_to_load_is_not_tried_at_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def load(model: str, revision: str | None = None) -> Any:
        tried.append(model)
        raise NarwhalError("no weights")

    monkeypatch.setattr("narwhal.encoders.load_text_encoder", load)
    encoder = QueryEncoder()
    for _ in range(3):
        with pytest.raises(NarwhalError, match="not available"):
            encoder._load("absent")
    assert tried == ["absent"]
