"""`/rest/v1`: requests go to PostgREST and answers come back, both as streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import jwt
from starlette.types import Message, Receive, Scope, Send

from narwhal.local.config import GatewayConfig
from narwhal.local.edge import Headers, answer_error

# about one connection, not the request (RFC 9110, 7.6.1)
HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)
ROLES = frozenset(["anon", "authenticated", "service_role"])


class RestProxy:
    """An ASGI app that stands for PostgREST. Mounted at a path, it strips that path."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        uds = config.rest_url.removeprefix("unix:")
        is_socket = uds != config.rest_url
        self.base = "http://postgrest" if is_socket else config.rest_url.rstrip("/")
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=uds if is_socket else None,
                verify=False,  # plain HTTP on this machine
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
            ),
            timeout=httpx.Timeout(None, connect=5.0),
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        """Close the connections to PostgREST."""
        await self.client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        if scope["type"] != "http":
            return
        headers: Headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP and name not in (b"host", b"expect")
        ]
        role = self._foreign_role(headers)
        if role is not None:
            await answer_error(send, 403, "42501", f'permission denied to set role "{role}"', None)
            return
        names = {name for name, _ in headers}
        is_chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        has_body = is_chunked or b"content-length" in names
        # not the client's build_request, which would add headers that the caller did not send
        request = httpx.Request(
            scope["method"],
            self._url(scope),
            headers=[(b"host", b"postgrest"), *headers],
            content=_body(receive) if has_body else None,
        )
        started = False
        try:
            response = await self.client.send(request, stream=True)
            try:
                await send(
                    {
                        "type": "http.response.start",
                        "status": response.status_code,
                        "headers": [
                            (name.lower(), value)
                            for name, value in response.headers.raw
                            # the server adds its own date
                            if name.lower() not in HOP_BY_HOP and name.lower() != b"date"
                        ],
                    }
                )
                started = True
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()
        except (httpx.TransportError, _DisconnectedError) as error:
            if started:
                raise  # the client must see a broken answer as broken
            if isinstance(error, _DisconnectedError):
                return
            await answer_error(
                send,
                503,
                "PGRST000",
                "PostgREST does not answer.",
                "It is being restarted; try again in a moment. See `narwhal status`.",
            )

    def _url(self, scope: Scope) -> str:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").removeprefix(scope.get("root_path", "")) or "/"
        query = scope["query_string"].decode("latin-1")
        return f"{self.base}{path}" + (f"?{query}" if query else "")

    def _foreign_role(self, headers: Headers) -> str | None:
        """Return the role of a valid token that no API caller may have; else None.

        PostgREST judges everything else about tokens.
        """
        for name, value in headers:
            scheme, _, token = value.decode("latin-1").partition(" ")
            if name != b"authorization" or scheme.lower() != "bearer":
                continue
            try:
                claims = jwt.decode(
                    token.strip(),
                    self.config.jwt_secret,
                    algorithms=["HS256"],
                    options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                return None
            role = claims.get("role")
            if role is not None and role not in ROLES:
                return str(role)
        return None


class _DisconnectedError(Exception):
    """The client went away, or sent more than it may, before its request was whole."""


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return
