"""The Auth API on a port of its own, its inbox, and the official client in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import uvicorn
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.routing import Mount
from supabase_auth import SyncGoTrueAdminAPI, SyncGoTrueClient

from narwhal.local.auth import AuthOptions, create_auth
from narwhal.local.config import GatewayConfig

SECRET = "a-test-secret-of-more-than-thirty-two-characters"
SITE = "https://drive.example.test"
VERSIONED = {"X-Supabase-Api-Version": "2024-01-01"}
PASSWORD = "correct horse"
# tests ask for mail again and again, and guess as often as they like
OPTIONS = AuthOptions(mail_interval_s=0.0, password_attempts=1000)


def signed(role: str | None = None, secret: str = SECRET, **claims: Any) -> str:
    """Return a token with these claims; it lives for an hour unless they say otherwise."""
    body = {"exp": int(time.time()) + 3600} | ({"role": role} if role else {}) | claims
    return jwt.encode(body, secret, algorithm="HS256")


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


def fresh_email() -> str:
    """Return an address that nobody has yet."""
    return f"{uuid.uuid4().hex[:12]}@example.test"


class AuthServer:
    """The API in a thread of this process, mounted where the gateway mounts it."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        options: AuthOptions = OPTIONS,
        *,
        prefix: str = "/auth/v1",
        port: int = 0,
        pool_timeout: float = 10.0,
        **config: Any,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.folder = folder
        self._pool_timeout = pool_timeout
        self.url = address + prefix
        fields: dict[str, Any] = {
            "api_url": address,
            "site_url": SITE,
            "jwt_secret": SECRET,
            "anon_key": "",
            "service_role_key": "",
            "rest_url": "",
            "storage_dir": folder / "storage",
            "auth_database_url": database_url,
            "storage_database_url": "",
        }
        self.config = GatewayConfig(**fields | config)
        self.options = replace(options, mail_dir=folder / "mail")
        app = self._app(prefix)
        settings = uvicorn.Config(app, log_level="warning", ws="none", proxy_headers=False)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._server.serve([self._listener]),), daemon=True
        )

    def _app(self, prefix: str) -> Starlette:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self.config.auth_database_url,
            open=False,
            min_size=1,
            max_size=8,
            timeout=self._pool_timeout,
        )
        auth = create_auth(self.config, pool, self.options)

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with pool:
                yield

        return Starlette(routes=[Mount(prefix, auth)], lifespan=lifespan)

    def __enter__(self) -> AuthServer:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()

    # -- clients

    def client(self, **options: Any) -> SyncGoTrueClient:
        """Return the official client, holding no session."""
        return SyncGoTrueClient(
            url=self.url,
            headers=bearer(signed("anon")),
            auto_refresh_token=False,
            **options,
        )

    def admin(self) -> SyncGoTrueAdminAPI:
        """Return the official client for administration, with the service key."""
        return SyncGoTrueAdminAPI(url=self.url, headers=bearer(signed("service_role")))

    def http(self, token: str | None = None, *, versioned: bool = True) -> httpx.Client:
        """Return a plain client, for what the official ones hide."""
        headers = (VERSIONED if versioned else {}) | (bearer(token) if token else {})
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    # -- short ways

    def sign_up(self, email: str | None = None, **data: Any) -> dict[str, Any]:
        """Make a confirmed user and return the first Session."""
        with self.http() as http:
            body = {"email": email or fresh_email(), "password": PASSWORD, "data": data}
            answer = http.post("/signup", json=body)
        assert answer.status_code == 200, answer.text
        session: dict[str, Any] = answer.json()
        return session

    def sign_in(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        """Open another session."""
        with self.http() as http:
            body = {"email": email, "password": password}
            answer = http.post("/token?grant_type=password", json=body)
        assert answer.status_code == 200, answer.text
        session: dict[str, Any] = answer.json()
        return session

    def refresh(self, token: str) -> httpx.Response:
        """Present a refresh token."""
        with self.http() as http:
            return http.post("/token?grant_type=refresh_token", json={"refresh_token": token})

    def mails(self, to: str) -> list[dict[str, Any]]:
        """Return what was sent to an address, oldest first."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("mail/*.json"))]
        return [mail for mail in found if mail["to"] == to]

    def open_link(self, link: str) -> httpx.Response:
        """Open a mailed link without following where it leads."""
        return httpx.get(link, follow_redirects=False, timeout=30)


def fragment(answer: httpx.Response) -> dict[str, str]:
    """Return what a redirect's fragment carries."""
    parts = urlsplit(answer.headers["location"])
    values = parse_qs(parts.fragment, keep_blank_values=True)
    return {name: value[0] for name, value in values.items()}


def claims_of(token: str) -> dict[str, Any]:
    """Return the verified claims of an access token."""
    claims: dict[str, Any] = jwt.decode(
        token, SECRET, algorithms=["HS256"], audience="authenticated"
    )
    return claims
