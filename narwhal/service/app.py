"""The ASGI app: routes, and which RPC answers which of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from narwhal import __version__
from narwhal.errors import NarwhalError
from narwhal.service.answers import Refusal, refuse, unavailable
from narwhal.service.bodies import EmbedBody, Mode, SearchBody, read_body
from narwhal.service.models import Models, configured_models
from narwhal.service.queries import QueryEncoder, Space
from narwhal.service.techniques import (
    LONGEST,
    MOST_HITS,
    RERANK_DEPTH,
    SHORTEST,
    Techniques,
    merge,
)
from narwhal.service.upstream import Caller, Upstream

LONGEST_QUERY = 4000  # characters; longer ones are refused by Postgres and not embedded first
ONE_SIDE = {
    Mode.KEYWORD: {"weights": {"keyword": 1, "vector": 0}},
    Mode.SEMANTIC: {"weights": {"keyword": 0, "vector": 1}},
}


def create_service(
    supabase_url: str,
    anon_key: str,
    encoder: QueryEncoder | None = None,
    models: Models | None = None,
) -> Starlette:
    """Return the AI service of one project.

    It has no rights: whoever calls it, PostgREST is called with the same Authorization header.
    Routes: POST /search, POST /embed, GET or POST /health. `models` are those that the environment
    names, unless given.
    """
    upstream = Upstream(supabase_url, anon_key)
    service = Service(upstream, encoder or QueryEncoder(), models or configured_models())

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        yield
        await upstream.aclose()

    return Starlette(
        routes=[
            Route("/search", _answer(service.search), methods=["POST"]),
            Route("/embed", _answer(service.embed), methods=["POST"]),
            # functions.invoke sends POST unless told otherwise
            Route("/health", _answer(service.health), methods=["GET", "POST"]),
        ],
        exception_handlers={HTTPException: _not_here, Exception: _defect},
        lifespan=lifespan,
    )


class Service:
    """What the routes do."""

    def __init__(self, upstream: Upstream, encoder: QueryEncoder, models: Models) -> None:
        self.upstream = upstream
        self.encoder = encoder
        self.models = models

    async def search(self, request: Request) -> Any:
        """Embed the query and search as the caller; by keyword when there is no encoder."""
        body = await read_body(request, SearchBody)
        if body.mode is Mode.PAGES:
            raise unavailable("no space of page images is active", "hybrid")
        caller = self.upstream.as_caller(request)
        try:
            return await self._search(caller, body)
        except Refusal as refusal:
            # the active space was switched between our two calls: the next pair agrees
            if refusal.details.get("field") not in ("space", "embedding"):
                raise
            return await self._search(caller, body)

    async def embed(self, request: Request) -> dict[str, Any]:
        """Embed one text or several for signed-in callers."""
        body = await read_body(request, EmbedBody)
        caller = self.upstream.as_caller(request)
        space = await _space(caller, body.space)
        if space.kind != "text":
            raise unavailable(f"the space {space.name} has no encoder here", "keyword")
        texts = body.texts if body.texts is not None else [body.text or ""]
        vectors = await self._embed(caller, space, texts)
        answer: dict[str, Any] = {"space": space.name, "dimension": space.dimension}
        if body.texts is None:
            return {"embedding": vectors[0], **answer}
        return {"vectors": vectors, **answer}

    async def health(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Say whether search works in full (healthy) or in part (degraded). Needs no account."""
        database = "ok"
        try:
            await self.upstream.as_anybody().rpc("embedding_space", {"space": "active"})
        except Refusal as refusal:  # a refusal is an answer: PostgREST and Postgres are there
            database = "unavailable" if refusal.status >= 500 else "ok"
        except NarwhalError:
            database = "unavailable"
        encoder = "ok" if await self.encoder.is_available() else "unavailable"
        return {
            "status": "healthy" if database == encoder == "ok" else "degraded",
            "database": database,
            "text_encoder": encoder,
            "version": __version__,
            "timestamp": datetime.now(UTC).isoformat(),
        }

    async def _search(self, caller: Caller, body: SearchBody) -> Any:
        techniques, options = Techniques.of(body.options or {})
        if not techniques.asked:
            return await self._find(caller, body, options)
        await _space(caller, "active")  # nobody uses a model without an account
        if not SHORTEST <= len(body.query.strip()) <= LONGEST:
            return await self._find(caller, body, options)  # which is refused
        options["technique"] = techniques.name(techniques.possible(self.models))
        wanted = body
        if techniques.asked != ["hyde"]:  # what is merged or judged comes from further down
            more = max(1, min(body.top_k * RERANK_DEPTH, MOST_HITS))
            wanted = body.model_copy(update={"top_k": max(body.top_k, more)})
        supposed = None
        if "hyde" in techniques.asked and body.mode is Mode.KEYWORD:
            techniques.skip("hyde", "a search by keyword embeds nothing")
        else:
            supposed = await techniques.supposed_answer(self.models.language, body.query)
        answer = await self._find(caller, wanted, options, supposed)
        if supposed is not None:
            if answer["degraded"]:
                techniques.skip("hyde", "the text encoder is not available")
            else:
                techniques.done.append("hyde")
        found = answer["hits"]
        rankings = [found]
        phrasings = await techniques.phrasings(self.models.language, body.query)
        for phrasing in phrasings:
            try:
                other = await self._find(
                    caller,
                    wanted.model_copy(update={"query": phrasing}),
                    options | {"record": False},
                )
            except Refusal as refusal:
                if refusal.status != 429:
                    raise
                techniques.skip("rag_fusion", "there were too many searches in the last minute")
                break
            rankings.append(other["hits"])
        if len(rankings) > 1:
            answer["hits"] = merge(rankings)
            techniques.done.append("rag_fusion")
        answer["hits"] = await techniques.rerank(
            self.models.reranker, body.query, answer["hits"], body.top_k
        )
        if (techniques.name(techniques.done), _kept(answer["hits"])) != (
            options["technique"],
            _kept(found),
        ):
            answer["search_id"] = await _amend(caller, answer, techniques)
        return answer | {
            "techniques": techniques.done,
            "phrasings": phrasings[: len(rankings) - 1],
            "skipped": techniques.skipped,
        }

    async def _find(
        self,
        caller: Caller,
        body: SearchBody,
        options: dict[str, Any],
        embedded: str | None = None,
    ) -> Any:
        """Search once; `embedded` is what stands for the query among the vectors."""
        arguments: dict[str, Any] = {
            "query": body.query,
            "embedding": None,
            "filters": body.filters or {},
            "top_k": body.top_k,
            "options": {**ONE_SIDE.get(body.mode, {}), **options},
            "explain": body.explain,
        }
        if body.candidates is not None:
            arguments["candidates"] = body.candidates
        if body.mode is not Mode.KEYWORD and len(body.query) <= LONGEST_QUERY:
            try:
                space = await _space(caller, "active")
                [vector] = await self._embed(caller, space, [embedded or body.query])
            except NarwhalError:
                if body.mode is Mode.SEMANTIC:
                    raise
            else:
                arguments |= {"embedding": vector, "space": space.name}
        return await caller.rpc("hybrid_search", arguments)

    async def _embed(self, caller: Caller, space: Space, texts: list[str]) -> list[list[float]]:
        return await self.encoder.embed(space, texts, caller.user)


def _kept(hits: list[Any]) -> list[dict[str, Any]]:
    """Return what the history keeps of hits."""
    return [{name: hit.get(name) for name in ("chunk_id", "file_id", "score")} for hit in hits]


async def _amend(caller: Caller, answer: dict[str, Any], techniques: Techniques) -> str | None:
    """Have the history say what is shown; return the id under which it does, None for nowhere."""
    if answer["search_id"] is None:
        return None
    shown = {
        "search_id": answer["search_id"],
        "hits": _kept(answer["hits"]),
        "technique": techniques.name(techniques.done),
    }
    try:
        amended = await caller.rpc("amend_search", shown)
    except (Refusal, NarwhalError):  # too late, or not readable any more: it tells of another list
        return None
    return str(amended["search_id"])


async def _space(caller: Caller, name: str) -> Space:
    """Ask for a space; this also checks the caller's token before any work is done for them."""
    try:
        row = await caller.rpc("embedding_space", {"space": name})
    except Refusal as refusal:
        if name == "active" and refusal.details.get("field") == "space":
            raise unavailable("no text space is active", "keyword") from refusal
        raise
    return Space(row["name"], row["model"], row["revision"], row["dimension"], row["kind"])


def _answer(work: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await work(request))
        except Refusal as refusal:
            return refusal.as_response()
        except NarwhalError as error:
            return refuse(error)

    return endpoint


async def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return refuse(
        NarwhalError(
            f"{request.method} {request.url.path} is not a route",
            "The routes are POST search, POST embed and GET health.",
            error="NOT_FOUND" if status == 404 else "METHOD_NOT_ALLOWED",
            status=status,
        )
    )


async def _defect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return refuse(
        NarwhalError("the AI service failed", "Try again later.", error="INTERNAL", status=500)
    )
