"""Several phrasings, supposed answers, re-ranking: done with a model, or skipped and said so."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from narwhal.service import create_service
from narwhal.service.models import (
    LitellmModel,
    LitellmReranker,
    ModelError,
    Models,
    configured_models,
)
from narwhal.service.queries import QueryEncoder
from narwhal.service.techniques import merge
from narwhal.service.upstream import Upstream, _remember_status
from tests.service.test_requests import (
    SPACE,
    Answer,
    BrokenEncoder,
    CountingEncoder,
    FakePostgrest,
    refusal,
    token,
)

ALL = {"rag_fusion": True, "hyde": True, "rerank": True}


class Writer:
    """A language model whose answers are known: phrasings by the list, passages by one text."""

    def __init__(self, *phrasings: str, passage: str = "Foxes sleep at noon.") -> None:
        self.phrasings, self.passage = phrasings, passage
        self.asked: list[tuple[str, str]] = []

    async def complete(self, instruction: str, text: str, max_tokens: int) -> str:
        assert 0 < max_tokens <= 1000
        self.asked.append((instruction.split()[0], text))
        return "\n".join(self.phrasings) if "Rewrite" in instruction else self.passage


class Judge:
    """A re-ranker that likes long passages."""

    async def score(self, query: str, passages: list[str]) -> list[float]:
        assert query == "fox"
        return [float(len(passage)) for passage in passages]


class Silent:
    """A provider that is down."""

    async def complete(self, instruction: str, text: str, max_tokens: int) -> str:
        raise ModelError("RateLimitError")

    async def score(self, query: str, passages: list[str]) -> list[float]:
        raise ModelError("RateLimitError")


def hit(name: str, snippet: str = "x") -> dict[str, Any]:
    return {"chunk_id": name, "file_id": f"file {name}", "snippet": snippet, "parts": {"fused": 1}}


FOUND = {
    "fox": [hit("a"), hit("b", "longer"), hit("c", "the longest")],
    "red fox": [hit("b", "longer"), hit("d", "a passage")],
    "vixen": [hit("b", "longer"), hit("a")],
}


def library(function: str, body: dict[str, Any]) -> Any:
    if function == "embedding_space":
        return SPACE
    if function == "amend_search":
        return {"search_id": body["search_id"], "hit_count": len(body["hits"])}
    return {
        "hits": FOUND[body["query"]][: body["top_k"]],
        "degraded": body["embedding"] is None,
        "search_id": "kept" if body["options"].get("record", True) else None,
    }


Connect = Callable[..., tuple[TestClient, FakePostgrest]]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Give a client of the service with these models, in front of a PostgREST that answers."""

    def make(
        models: Models | None = None,
        encoder: QueryEncoder | None = None,
        answer: Answer = library,
    ) -> tuple[TestClient, FakePostgrest]:
        postgrest = FakePostgrest(answer)
        routes = [Route("/rest/v1/rpc/{function}", postgrest.reply, methods=["POST"])]
        transport = httpx.ASGITransport(app=Starlette(routes=routes))
        http = httpx.AsyncClient(transport=transport, event_hooks={"response": [_remember_status]})
        monkeypatch.setattr(Upstream, "http", http)
        service = create_service(
            "http://project.test", "anon-key", encoder or CountingEncoder(), models or Models()
        )
        return TestClient(service), postgrest

    return make


def search(client: TestClient, **body: Any) -> Any:
    answer = client.post("/search", json={"query": "fox", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def searches(postgrest: FakePostgrest) -> list[dict[str, Any]]:
    return [body for function, _, body in postgrest.requests if function == "hybrid_search"]


def amendments(postgrest: FakePostgrest) -> list[dict[str, Any]]:
    return [body for function, _, body in postgrest.requests if function == "amend_search"]


def shown(answer: Any, technique: str) -> dict[str, Any]:
    """What the history is told of an answer."""
    hits = [
        {name: found.get(name) for name in ("chunk_id", "file_id", "score")}
        for found in answer["hits"]
    ]
    return {"search_id": "kept", "hits": hits, "technique": technique}


def names(answer: Any) -> list[str]:
    return [found["chunk_id"] for found in answer["hits"]]


# Without a model ---------------------------------------------------------------------------------


def test_without_a_model_everything_is_skipped_and_said_so(connect: Connect) -> None:
    client, postgrest = connect()
    answer = search(client, options=ALL, top_k=2)
    assert names(answer) == ["a", "b"]
    assert (answer["techniques"], answer["phrasings"]) == ([], [])
    assert {entry["option"]: entry["reason"] for entry in answer["skipped"]} == {
        "rag_fusion": "no language model is configured",
        "hyde": "no language model is configured",
        "rerank": "no re-ranking model is configured",
    }
    assert len(searches(postgrest)) == 1  # no phrasing was made up
    assert searches(postgrest)[0]["options"] == {"technique": "plain"}
    assert answer["search_id"] == "kept"


def test_who_asks_for_nothing_gets_the_plain_answer(connect: Connect) -> None:
    client, postgrest = connect(Models(Writer("red fox"), Judge()))
    answer = search(client, options={"rag_fusion": False, "hyde": None})
    assert "skipped" not in answer
    assert searches(postgrest)[0]["options"] == {}


def test_a_model_that_is_down_costs_the_technique_and_not_the_answer(connect: Connect) -> None:
    client, _ = connect(Models(Silent(), Silent()))
    answer = search(client, options=ALL, top_k=2)
    assert names(answer) == ["a", "b"]
    assert answer["techniques"] == []
    assert {entry["option"] for entry in answer["skipped"]} == set(ALL)
    assert all("did not answer" in entry["reason"] for entry in answer["skipped"])


@pytest.mark.parametrize("option", ALL)
def test_an_option_is_true_or_false(connect: Connect, option: str) -> None:
    client, postgrest = connect()
    answer = client.post("/search", json={"query": "fox", "options": {option: "yes"}})
    assert answer.status_code == 422
    assert json.loads(answer.json()["details"])["field"] == f"options.{option}"
    assert postgrest.requests == []


# Several phrasings -------------------------------------------------------------------------------


def test_several_phrasings_are_searched_and_merged_by_rank(connect: Connect) -> None:
    writer = Writer("1. red fox", "- vixen", "FOX", "ab", "red fox", "")
    client, postgrest = connect(Models(writer))
    answer = search(client, options={"rag_fusion": True, "rrf_k": 20}, filters={"types": ["pdf"]})
    assert answer["phrasings"] == ["red fox", "vixen"]
    assert (answer["techniques"], answer["skipped"]) == (["rag_fusion"], [])
    # b: 1/12 + 1/11 + 1/11, a: 1/11 + 1/12, c: 1/13, d: 1/12
    assert names(answer) == ["b", "a", "d", "c"]
    assert answer["hits"][0]["score"] == pytest.approx(1 / 12 + 2 / 11)
    assert answer["hits"][0]["parts"] == {"fused": 1, "phrasings": answer["hits"][0]["score"]}
    asked = searches(postgrest)
    assert [body["query"] for body in asked] == ["fox", "red fox", "vixen"]
    assert all(body["filters"] == {"types": ["pdf"]} for body in asked)
    assert all(body["top_k"] == 32 and body["options"]["rrf_k"] == 20 for body in asked)
    # one search in the history, of the caller's own words
    assert [body["options"].get("record") for body in asked] == [None, False, False]
    assert asked[0]["options"]["technique"] == "fusion"
    assert answer["search_id"] == "kept"
    assert amendments(postgrest) == [shown(answer, "fusion")]


def test_a_model_without_ideas_is_skipped(connect: Connect) -> None:
    client, postgrest = connect(Models(Writer("fox", "x")))
    answer = search(client, options={"rag_fusion": True})
    assert answer["skipped"] == [
        {"option": "rag_fusion", "reason": "the model gave no other phrasing"}
    ]
    assert len(searches(postgrest)) == 1


def test_phrasings_stop_at_the_rate_limit(connect: Connect) -> None:
    def limited(function: str, body: dict[str, Any]) -> Any:
        if body.get("query") == "vixen":
            return refusal(429, "RATE_LIMITED", retry_after=9)
        return library(function, body)

    client, _ = connect(Models(Writer("red fox", "vixen")), answer=limited)
    answer = search(client, options={"rag_fusion": True})
    assert answer["phrasings"] == ["red fox"]
    assert answer["techniques"] == ["rag_fusion"]
    assert answer["skipped"][0]["option"] == "rag_fusion"


def test_merging_keeps_the_order_of_one_ranking_and_of_ties() -> None:
    rows = [hit(name) for name in "cab"]
    assert [row["chunk_id"] for row in merge([rows])] == ["c", "a", "b"]
    tied = merge([[hit("b")], [hit("a")]])
    assert [row["chunk_id"] for row in tied] == ["a", "b"]


# A supposed answer -------------------------------------------------------------------------------


def test_a_supposed_answer_is_embedded_and_the_words_stay_the_callers(connect: Connect) -> None:
    encoder = CountingEncoder()
    client, postgrest = connect(Models(Writer()), encoder)
    answer = search(client, options={"hyde": True}, top_k=2)
    assert encoder.asked == [["Foxes sleep at noon."]]
    (asked,) = searches(postgrest)
    assert (asked["query"], asked["embedding"], asked["top_k"]) == ("fox", [1.0, 0.0], 2)
    assert asked["options"]["technique"] == "hyde"
    assert (answer["techniques"], answer["search_id"]) == (["hyde"], "kept")


def test_a_supposed_answer_needs_an_encoder_and_a_search_by_meaning(connect: Connect) -> None:
    writer = Writer()
    client, _ = connect(Models(writer), BrokenEncoder())
    answer = search(client, options={"hyde": True})
    assert answer["skipped"] == [{"option": "hyde", "reason": "the text encoder is not available"}]
    client, _ = connect(Models(writer))
    writer.asked.clear()
    answer = search(client, options={"hyde": True}, mode="keyword")
    assert answer["skipped"][0]["reason"] == "a search by keyword embeds nothing"
    assert writer.asked == []


# Re-ranking --------------------------------------------------------------------------------------


def test_a_reranker_orders_what_was_found_further_down(connect: Connect) -> None:
    client, postgrest = connect(Models(reranker=Judge()))
    answer = search(client, options={"rerank": True}, top_k=2)
    assert names(answer) == ["c", "b"]
    assert answer["hits"][0]["parts"] == {"fused": 1, "rerank": 11.0}
    assert searches(postgrest)[0]["top_k"] == 8
    assert (answer["techniques"], answer["search_id"]) == (["rerank"], "kept")
    assert amendments(postgrest) == [shown(answer, "rerank")]


def test_all_of_it_at_once(connect: Connect) -> None:
    client, postgrest = connect(Models(Writer("red fox", "vixen"), Judge()))
    answer = search(client, options=ALL, top_k=3)
    assert names(answer) == ["c", "d", "b"]
    assert answer["techniques"] == ["hyde", "rag_fusion", "rerank"]
    assert answer["skipped"] == []
    assert amendments(postgrest) == [shown(answer, "fusion+hyde+rerank")]


# The history -------------------------------------------------------------------------------------


def test_the_history_is_told_what_was_not_done(connect: Connect) -> None:
    client, postgrest = connect(Models(Silent(), Silent()))
    answer = search(client, options=ALL, top_k=2)
    assert searches(postgrest)[0]["options"]["technique"] == "fusion+hyde+rerank"
    assert amendments(postgrest) == [shown(answer, "plain")]
    assert answer["search_id"] == "kept"


def test_the_history_is_told_when_fewer_are_shown_than_were_found(connect: Connect) -> None:
    client, postgrest = connect()
    answer = search(client, options={"rerank": True}, top_k=2)
    assert searches(postgrest)[0]["top_k"] == 8
    assert [hit["chunk_id"] for hit in shown(answer, "plain")["hits"]] == ["a", "b"]
    assert amendments(postgrest) == [shown(answer, "plain")]


def test_what_was_shown_as_it_was_found_is_not_told_again(connect: Connect) -> None:
    client, postgrest = connect(Models(Writer()))
    assert search(client, options={"hyde": True})["search_id"] == "kept"
    assert amendments(postgrest) == []


def test_an_answer_that_is_in_no_history_is_not_put_there(connect: Connect) -> None:
    client, postgrest = connect(Models(reranker=Judge()))
    answer = search(client, options={"rerank": True, "record": False})
    assert (answer["techniques"], answer["search_id"]) == (["rerank"], None)
    assert amendments(postgrest) == []


@pytest.mark.parametrize(
    ("status", "error"), [(409, "CONFLICT_STATE"), (404, "NOT_FOUND"), (503, "SERVICE_UNAVAILABLE")]
)
def test_an_answer_whose_history_cannot_be_told_has_no_search_id(
    connect: Connect, status: int, error: str
) -> None:
    def late(function: str, body: dict[str, Any]) -> Any:
        return refusal(status, error) if function == "amend_search" else library(function, body)

    client, _ = connect(Models(reranker=Judge()), answer=late)
    answer = search(client, options={"rerank": True}, top_k=2)
    assert names(answer) == ["c", "b"]
    assert answer["search_id"] is None


# Nobody's model without an account ---------------------------------------------------------------


def test_no_model_is_asked_for_a_token_that_is_refused_or_a_bad_question(connect: Connect) -> None:
    writer = Writer("red fox")
    client, _ = connect(
        Models(writer), answer=lambda function, body: refusal(401, "NOT_AUTHENTICATED")
    )
    answer = client.post("/search", json={"query": "fox", "mode": "keyword", "options": ALL})
    assert answer.status_code == 401

    def strict(function: str, body: dict[str, Any]) -> Any:
        if function == "embedding_space":
            return SPACE
        return refusal(422, "INVALID_ARGUMENT", field="query")

    client, _ = connect(Models(writer), answer=strict)
    for query in ("ab", "x" * 1001):
        answer = client.post("/search", json={"query": query, "options": ALL})
        assert answer.status_code == 422
    assert writer.asked == []


# Vectors of questions ----------------------------------------------------------------------------


def test_vectors_are_kept_for_each_user_on_their_own(connect: Connect) -> None:
    """Whoever asks first waits as long, whether or not somebody else asked the same before."""
    encoder = CountingEncoder()
    client, _ = connect(encoder=encoder)
    for user in ("ada", "ada", "bob", "ada", "bob"):
        client.post("/embed", json={"text": "fox"}, headers=token(user))
    assert encoder.asked == [["fox"], ["fox"]]
    # nothing is kept for those who are nobody
    for headers in ({}, {"authorization": "Bearer anon-key"}, {"authorization": "Bearer a.b.c"}):
        client.post("/embed", json={"text": "fox"}, headers=headers)
    assert len(encoder.asked) == 5


# The library behind the interfaces ---------------------------------------------------------------


def stub(**functions: Any) -> ModuleType:
    """A litellm that answers as told."""
    module = ModuleType("litellm")
    vars(module).update(functions)
    return module


def test_litellm_is_called_as_it_wants_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    async def acompletion(**call: Any) -> Any:
        seen.append(call)
        message = SimpleNamespace(content=call["messages"][1]["content"].upper())
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    async def arerank(**call: Any) -> Any:
        seen.append(call)
        rows = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        return SimpleNamespace(results=rows)

    monkeypatch.setitem(sys.modules, "litellm", stub(acompletion=acompletion, arerank=arerank))
    models = configured_models({"NARWHAL_LLM_MODEL": "some/model", "NARWHAL_RERANK_MODEL": "r/m"})
    assert isinstance(models.language, LitellmModel)
    assert isinstance(models.reranker, LitellmReranker)
    assert asyncio.run(models.language.complete("Shout.", "fox", 50)) == "FOX"
    assert asyncio.run(models.reranker.score("fox", ["owl", "fox"])) == [0.1, 0.9]
    assert (seen[0]["model"], seen[0]["max_tokens"], seen[0]["temperature"]) == (
        "some/model",
        50,
        0,
    )
    assert (seen[1]["model"], seen[1]["documents"], seen[1]["top_n"]) == ("r/m", ["owl", "fox"], 2)
    assert configured_models({}) == Models(None, None)


def test_whatever_goes_wrong_there_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**call: Any) -> Any:
        raise RuntimeError("key sk-123 is wrong")

    async def nothing(**call: Any) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=" "))])

    async def few(**call: Any) -> Any:
        return SimpleNamespace(results=[{"index": 0, "relevance_score": 0.1}])

    for module in (stub(acompletion=fail, arerank=fail), stub(acompletion=nothing, arerank=few)):
        monkeypatch.setitem(sys.modules, "litellm", module)
        with pytest.raises(ModelError) as error:
            asyncio.run(LitellmModel("some/model").complete("Shout.", "fox", 50))
        assert "sk-123" not in str(error.value)
        with pytest.raises(ModelError):
            asyncio.run(LitellmReranker("some/model").score("fox", ["a", "b"]))
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ModelError, match="narwhal"):
        asyncio.run(LitellmModel("some/model").complete("Shout.", "fox", 50))
