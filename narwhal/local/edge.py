"""The rules at the edge of the gateway: CORS, which key counts, whence a request came, its size.

Plain ASGI, so that bodies stream through in both directions.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from narwhal.local.config import GatewayConfig

METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
REQUEST_HEADERS = ",".join(
    [
        "authorization",
        "apikey",
        "x-client-info",
        "content-type",
        "x-supabase-api-version",
        "x-upsert",
        "x-signature",
        "prefer",
        "range",
        "range-unit",
        "accept",
        "accept-profile",
        "content-profile",
        "cache-control",
        "if-none-match",
        "x-metadata",
        "x-region",
        "tus-resumable",
        "upload-length",
        "upload-offset",
        "upload-metadata",
        "upload-defer-length",
        "upload-concat",
        "x-http-method-override",
        "x-request-id",
        "x-share-grant",
        "idempotency-key",
    ]
)
RESPONSE_HEADERS = ",".join(
    [
        "content-range",
        "content-location",
        "location",
        "upload-offset",
        "upload-length",
        "upload-metadata",
        "upload-expires",
        "tus-resumable",
        "tus-version",
        "tus-extension",
        "tus-max-size",
        "x-total-count",
        "link",
        "x-supabase-api-version",
        "x-sb-error-code",
        "x-request-id",
        "etag",
    ]
)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,200}")

Headers = list[tuple[bytes, bytes]]


class Cors:
    """Answers preflights for every path and lets any page read every answer.

    Safe with any origin, since nothing here is decided by cookies.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        # an OPTIONS without this header is TUS asking for capabilities
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in names:
            await answer(
                send,
                204,
                b"",
                [
                    (b"access-control-allow-origin", b"*"),
                    (b"access-control-allow-methods", METHODS.encode()),
                    (b"access-control-allow-headers", REQUEST_HEADERS.encode()),
                    (b"access-control-max-age", b"3600"),
                ],
            )
            return

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                # PostgREST speaks CORS too; two answers would be one too many for a browser
                headers = [
                    (name, value)
                    for name, value in message["headers"]
                    if not name.lower().startswith(b"access-control-")
                ]
                headers.append((b"access-control-allow-origin", b"*"))
                headers.append((b"access-control-expose-headers", RESPONSE_HEADERS.encode()))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_cors)


class Edge:
    """What happens to a request before a service sees it, as hosted projects' gateways do.

    `prefix` is the service's path, `max_body` its largest request in bytes (None: the service
    decides), `rewrite_key` whether an API key becomes an Authorization header.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: GatewayConfig,
        prefix: str,
        *,
        max_body: int | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.prefix = prefix
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        headers = [*self._forwarded(scope), (b"x-request-id", request_id)]
        # S3's own signature is in Authorization
        if not scope["path"].startswith("/storage/v1/s3"):
            headers = authorize(headers, self.config)
        scope = {**scope, "headers": headers}

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [(n, v) for n, v in message["headers"] if n.lower() != b"x-request-id"]
                message = {**message, "headers": [*others, (b"x-request-id", request_id)]}
            await send(message)

        if self.max_body is None:
            await self.app(scope, receive, identified)
            return
        await self._limited(scope, receive, identified, self.max_body)

    def _forwarded(self, scope: Scope) -> Headers:
        headers = [
            (n, v)
            for n, v in scope["headers"]
            if not n.startswith(b"x-forwarded-") and n != b"x-request-id"
        ]
        host = _value(headers, b"host") or self.config.api_url.partition("//")[2]
        port = host.rpartition(":")[2] if host[-1:].isdigit() and ":" in host else "80"
        client = scope.get("client")
        headers += [
            (b"x-forwarded-proto", scope.get("scheme", "http").encode()),
            (b"x-forwarded-host", host.encode("latin-1")),
            (b"x-forwarded-port", port.encode("latin-1")),
            (b"x-forwarded-prefix", self.prefix.encode()),
        ]
        if client:
            headers.append((b"x-forwarded-for", str(client[0]).encode()))
        return headers

    async def _limited(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        length = _value(scope["headers"], b"content-length")
        if length is not None and (not length.isdigit() or int(length) > limit):
            await _too_large(send, limit)
            return
        received = 0
        started = refused = False

        async def counted() -> Message:
            nonlocal received, refused
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    refused = True
                    return {"type": "http.disconnect"}
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            if refused and not started:
                return  # the service's own complaint about the broken body
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except Exception:
            if not refused or started:
                raise
        if refused and not started:
            await _too_large(send, limit)


def authorize(headers: Iterable[tuple[bytes, bytes]], config: GatewayConfig) -> Headers:
    """Return the headers with the Authorization that the services should see.

    A user's token passes unchanged. Else the API key counts: an `sb_…` key stands for the JWT of
    its role, and an old-style key is such a JWT itself.
    """
    headers = list(headers)
    authorization = _value(headers, b"authorization")
    if authorization and not authorization.startswith("Bearer sb_"):
        return headers
    key = _value(headers, b"apikey") or ""
    if not key and authorization:
        key = authorization.removeprefix("Bearer ")
    if config.secret_key and key == config.secret_key:
        key = config.service_role_key
    elif config.publishable_key and key == config.publishable_key:
        key = config.anon_key
    headers = [(name, value) for name, value in headers if name != b"authorization"]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode("latin-1")))
    return headers


async def answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole response."""
    if body or status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_error(
    send: Send, status: int, code: str, message: str, hint: str | None = None
) -> None:
    """Send an error in the four keys of PostgREST."""
    body = {"code": code, "message": message, "details": None, "hint": hint}
    await answer(send, status, json.dumps(body).encode(), [(b"content-type", b"application/json")])


async def _too_large(send: Send, limit: int) -> None:
    await answer_error(
        send,
        413,
        "PT413",
        f"The request is larger than {limit // 1024} KiB.",
        "Files go to Storage; split large writes.",
    )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the caller's own id of the request, or a new one: logs and the audit keep it."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4()).encode()


def _value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)
