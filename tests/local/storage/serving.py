"""The Storage API on a port of its own: in a thread, or as a process that can be killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from storage3 import SyncStorageClient

from narwhal.local.config import GatewayConfig
from narwhal.local.storage import create_storage

SECRET = "a-test-secret-of-more-than-thirty-two-characters"
MEBI = 1024**2


def token(role: str | None = "authenticated", sub: str | None = None, **claims: Any) -> str:
    """Return a bearer token of the test stack; it lives for an hour."""
    body = {"exp": int(time.time()) + 3600, "iss": "tests"} | claims
    if role is not None:
        body["role"] = role
    if sub is not None:
        body["sub"] = sub
    return jwt.encode(body, SECRET, algorithm="HS256")


def make_config(storage_dir: Path, database_url: str, port: int, **options: Any) -> GatewayConfig:
    """Return the configuration of a server on `port`."""
    return GatewayConfig(
        api_url=f"http://127.0.0.1:{port}",
        site_url=f"http://127.0.0.1:{port}",
        jwt_secret=SECRET,
        anon_key=token("anon"),
        service_role_key=token("service_role"),
        publishable_key="",
        secret_key="",
        rest_url="",
        storage_dir=storage_dir,
        auth_database_url="",
        storage_database_url=database_url,
        **options,
    )


def make_app(config: GatewayConfig, **options: Any) -> ASGIApp:
    """Put the API where the gateway puts it."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        config.storage_database_url, open=False, min_size=1, max_size=10
    )
    storage = create_storage(config, pool, **options)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with pool, storage.router.lifespan_context(storage):
            yield

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette(lifespan=lifespan)(scope, receive, send)
        else:
            await storage({**scope, "root_path": "/storage/v1"}, receive, send)

    return app


def free_socket() -> socket.socket:
    """Return a listening socket on a free loopback port."""
    return socket.create_server(("127.0.0.1", 0))


@dataclass
class Served:
    """Where a server is."""

    config: GatewayConfig

    @property
    def url(self) -> str:
        return f"{self.config.api_url}/storage/v1"


def bearer(value: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"authorization": f"Bearer {value}"}


def sdk(server: Served, value: str) -> SyncStorageClient:
    """Return the official client with a token."""
    return SyncStorageClient(f"{server.url}/", {"apiKey": value} | bearer(value))


def raw(
    server: Served, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    """Send a path as it stands, with the service key; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.config.api_url.split(":")[2]))
    with contextlib.closing(connection):
        connection.request(
            method, "/storage/v1" + path, body, bearer(token("service_role")) | headers
        )
        answer = connection.getresponse()
        return answer.status, answer.read()


def upload_metadata(**values: str) -> str:
    """Return an `Upload-Metadata` header."""
    return ",".join(
        f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items()
    )


def files_of(server: Served, bucket: str = "") -> list[Path]:
    """Return every file with object bytes, of one bucket or with the temporary ones."""
    root = server.config.storage_dir
    folders = [root / "objects" / bucket] if bucket else [root / "objects", root / "tmp"]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


class ThreadServer(Served):
    """A server in this process."""

    def __init__(self, storage_dir: Path, database_url: str, **options: Any) -> None:
        limits = {k: options.pop(k) for k in ("max_file_size",) if k in options}
        self._listener = free_socket()
        port = self._listener.getsockname()[1]
        super().__init__(make_config(storage_dir, database_url, port, **limits))
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(self.config, **options),
                log_level="warning",
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._server.serve([self._listener]),), daemon=True
        )

    def __enter__(self) -> ThreadServer:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()


class ProcessServer(Served):
    """A server in another process, on the same port and folder after every restart."""

    def __init__(self, storage_dir: Path, database_url: str, **options: Any) -> None:
        with free_socket() as probe:
            port = probe.getsockname()[1]
        super().__init__(make_config(storage_dir, database_url, port))
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        config = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self.config).items()
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.local.storage.serving"],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([config, self.options]).encode())
        self.process.stdin.close()
        port = int(self.config.api_url.rpartition(":")[2])
        for _ in range(400):
            assert self.process.poll() is None, "the server did not start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            time.sleep(0.05)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> ProcessServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


def main() -> None:
    """Serve what standard input describes until a signal."""
    fields, options = json.load(sys.stdin)
    config = GatewayConfig(**fields)
    config = replace(config, storage_dir=Path(config.storage_dir))
    port = int(config.api_url.rpartition(":")[2])
    os.umask(0o077)
    uvicorn.run(
        make_app(config, **options),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
