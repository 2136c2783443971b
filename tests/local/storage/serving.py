"""The Storage API on a port of its own: in a thread, or as a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
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
from starlette.routing import Mount

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


def make_app(config: GatewayConfig, **options: Any) -> Starlette:
    """Mount the API where the gateway mounts it."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        config.storage_database_url, open=False, min_size=1, max_size=10
    )
    storage = create_storage(config, pool, **options)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with pool, storage.router.lifespan_context(storage):
            yield

    return Starlette(routes=[Mount("/storage/v1", storage)], lifespan=lifespan)


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


class ThreadServer(Served):
    """A server in this process."""

    def __init__(self, storage_dir: Path, database_url: str, **options: Any) -> None:
        limits = {k: options.pop(k) for k in ("max_file_size",) if k in options}
        self._listener = free_socket()
        port = self._listener.getsockname()[1]
        super().__init__(make_config(storage_dir, database_url, port, **limits))
        self._server = uvicorn.Server(
            uvicorn.Config(make_app(self.config, **options), log_level="warning", ws="none")
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
        make_app(config, **options), host="127.0.0.1", port=port, log_level="warning", ws="none"
    )


if __name__ == "__main__":
    main()
