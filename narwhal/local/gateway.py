"""The gateway: one port with Auth, Storage, PostgREST and the AI service behind it.

`python -m narwhal.local.gateway HOME` serves a home whose Postgres and PostgREST run; the
supervisor starts it so.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from narwhal import __version__
from narwhal.errors import NarwhalError
from narwhal.local.auth import create_auth
from narwhal.local.config import GatewayConfig
from narwhal.local.edge import Cors, Edge, answer, answer_error
from narwhal.local.home import Home
from narwhal.local.postgres import EmbeddedPostgres
from narwhal.local.proxy import RestProxy
from narwhal.local.rest import SOCKET
from narwhal.local.state import read_state
from narwhal.local.storage import create_storage
from narwhal.service import create_service

KIB = 1024
FD_VARIABLE = "NARWHAL_GATEWAY_FD"  # the listening socket that the supervisor made
REST_BODY = 20 * 1024 * KIB
FUNCTION_BODY = 10 * 1024 * KIB


class Gateway:
    """The ASGI app of the local stack: routes by prefix, and owns what the services share."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.auth_pool = _pool(config.auth_database_url, "auth")
        self.storage_pool = _pool(config.storage_database_url, "storage")
        self.rest = RestProxy(config)
        self.services: list[Starlette] = []
        self.routes: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the life of the process."""
        if scope["type"] == "lifespan":
            await Starlette(lifespan=self._lifespan)(scope, receive, send)
            return
        path: str = scope["path"]
        for prefix, app in self.routes.items():
            if path == prefix or path.startswith(prefix + "/"):
                inner = {**scope, "root_path": prefix, "app_root_path": prefix}
                await app(inner, receive, send)
                return
        await self._other(path, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._mount()
        async with contextlib.AsyncExitStack() as stack:
            for pool in (self.auth_pool, self.storage_pool):
                await pool.open()
                stack.push_async_callback(pool.close)
            stack.push_async_callback(self.rest.aclose)
            for service in self.services:
                await stack.enter_async_context(service.router.lifespan_context(service))
            yield

    def _mount(self) -> None:
        auth = create_auth(self.config, self.auth_pool)
        storage = create_storage(self.config, self.storage_pool)
        service = create_service(self.config.api_url, self.config.anon_key)
        self.services = [auth, storage, service]
        for prefix, app, limit in (
            ("/rest/v1", self.rest, REST_BODY),
            ("/auth/v1", auth, None),  # Auth says it in words that the SDKs read
            ("/storage/v1", storage, None),  # Storage knows the size of each ticket and bucket
            ("/functions/v1/ai", service, FUNCTION_BODY),
        ):
            self.routes[prefix] = Edge(app, self.config, prefix, max_body=limit)

    async def _other(self, path: str, send: Send) -> None:
        if path == "/health":
            body = json.dumps({"status": "ok", "version": __version__}).encode()
            await answer(send, 200, body, [(b"content-type", b"application/json")])
        elif path.startswith("/realtime/v1"):
            await answer_error(
                send,
                501,
                "NOT_IMPLEMENTED",
                "Realtime is not part of the local stack.",
                "Poll with rpc or select, or use a hosted project or `supabase start`.",
            )
        elif path.startswith("/functions/v1"):
            await answer_error(
                send, 404, "NOT_FOUND", "Requested function was not found", "There is one: ai."
            )
        else:
            await answer_error(
                send,
                404,
                "NOT_FOUND",
                "There is nothing at this path.",
                "The API is under /rest/v1, /auth/v1, /storage/v1 and /functions/v1/ai.",
            )


def create_gateway(config: GatewayConfig) -> ASGIApp:
    """Return the gateway as an ASGI app, CORS included."""
    return Cors(Gateway(config))


def load_config(home: Path) -> GatewayConfig:
    """Read what the gateway needs from a home's `stack.json`."""
    state = read_state(home)
    if state is None:
        raise NarwhalError(
            f"There is no stack in {home}.", "Start one with `narwhal up`.", error="NOT_RUNNING"
        )
    places = Home(home)
    postgres = EmbeddedPostgres(places.pgdata, state.passwords, socket_dir=places.run)
    return GatewayConfig(
        api_url=state.api_url,
        site_url=state.api_url,
        jwt_secret=state.jwt_secret,
        anon_key=state.anon_key,
        service_role_key=state.service_role_key,
        publishable_key=state.publishable_key,
        secret_key=state.secret_key,
        rest_url=f"unix:{postgres.socket_dir / SOCKET}",
        storage_dir=places.storage,
        auth_database_url=postgres.url("supabase_auth_admin"),
        storage_database_url=postgres.url("supabase_storage_admin"),
    )


def _pool(url: str, name: str) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(
        url,
        name=name,
        open=False,
        min_size=1,
        max_size=15,
        timeout=10.0,
        # after a restart of Postgres no request may meet a dead connection
        check=AsyncConnectionPool.check_connection,
    )


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM, on the inherited socket or on the home's port."""
    config = load_config(Path(arguments[0]))
    descriptor = os.environ.get(FD_VARIABLE)
    if descriptor is not None:
        listener = socket.socket(fileno=int(descriptor))
    else:
        host, _, port = config.api_url.partition("//")[2].rpartition(":")
        listener = socket.create_server((host, int(port)))
    server = uvicorn.Server(
        uvicorn.Config(
            create_gateway(config),
            log_level="warning",
            access_log=False,  # URLs hold signed tokens
            ws="none",
            proxy_headers=False,  # X-Forwarded-For would let a caller invent addresses
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=5,
            limit_concurrency=1000,
        )
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
