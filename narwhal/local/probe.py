"""Asks a local HTTP server whether it answers; no client, no connection pool, no TLS."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path


def probe(address: Path | tuple[str, int], path: str, timeout: float = 2.0) -> int | None:
    """Return the status of a GET over a Unix socket or to (host, port); None without an answer.

    `timeout` is in seconds.
    """
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    target = str(address) if isinstance(address, Path) else address
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        socket.socket(family, socket.SOCK_STREAM) as connection,
    ):
        connection.settimeout(timeout)
        connection.connect(target)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return int(connection.recv(64).split(b" ", 2)[1])
    return None
