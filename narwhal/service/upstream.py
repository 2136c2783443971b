"""PostgREST as the caller sees it: their token goes along, so Row Level Security decides."""

from __future__ import annotations

import base64
import json
from contextvars import ContextVar
from typing import Any

import httpx
from postgrest import AsyncPostgrestClient
from postgrest.exceptions import APIError
from starlette.requests import Request

from narwhal.errors import NarwhalError
from narwhal.service.answers import Refusal

# What identifies the caller and what their policies read; nothing else is passed on.
FORWARDED = ("authorization", "apikey", "x-share-grant")
TIMEOUT_S = 30.0

_status: ContextVar[int] = ContextVar("status", default=502)


class Upstream:
    """The project's PostgREST. Holds connections and the public key, no secret."""

    def __init__(self, supabase_url: str, anon_key: str) -> None:
        self.rest_url = f"{supabase_url.rstrip('/')}/rest/v1"
        self.anon_key = anon_key
        self._http: httpx.AsyncClient | None = None

    def as_caller(self, request: Request) -> Caller:
        """Return the RPCs as the sender of this request may call them."""
        headers = {"apikey": self.anon_key}
        headers.update(
            {name: request.headers[name] for name in FORWARDED if name in request.headers}
        )
        return Caller(self, headers)

    def as_anybody(self) -> Caller:
        """Return the RPCs as somebody without an account may call them."""
        return Caller(self, {"apikey": self.anon_key, "authorization": f"Bearer {self.anon_key}"})

    @property
    def http(self) -> httpx.AsyncClient:
        """The shared connections, made inside the event loop that uses them."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=TIMEOUT_S, event_hooks={"response": [_remember_status]}
            )
        return self._http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None


class Caller:
    """One caller's view of the database. `user` is whom their token names, None for nobody."""

    def __init__(self, upstream: Upstream, headers: dict[str, str]) -> None:
        self.user = _user_of(headers.get("authorization", ""))
        self._client = AsyncPostgrestClient(
            upstream.rest_url, headers=headers, http_client=upstream.http, retry_enabled=False
        )

    async def rpc(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call an RPC; raises Refusal with PostgREST's own answer, or SERVICE_UNAVAILABLE."""
        try:
            answer = await self._client.rpc(function, arguments).execute()
        except APIError as error:
            raise Refusal(_status.get(), error.json()) from error
        except httpx.TransportError as error:
            raise NarwhalError(
                "the database does not answer",
                "Try again later.",
                error="SERVICE_UNAVAILABLE",
                status=503,
            ) from error
        return answer.data


def _user_of(authorization: str) -> str | None:
    """Return whom a token names; it is true only once PostgREST has accepted the token."""
    try:
        payload = authorization.removeprefix("Bearer ").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        user = claims.get("sub")
    except (IndexError, ValueError, AttributeError):
        return None
    return user if isinstance(user, str) else None


async def _remember_status(response: httpx.Response) -> None:
    # the official client raises without the HTTP status; the caller must get the same one
    _status.set(response.status_code)
