"""Looking for viruses: a client of clamd, which gets the bytes over a socket (INSTREAM)."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

from narwhal.errors import NarwhalError
from narwhal.ingest.services import ServiceError

SERVICE = "scanner"
_PIECE = 1024 * 1024
_MOST_ANSWER = 4096
_LENGTH = struct.Struct("!I")


def scan(path: Path, address: str, timeout_s: float) -> str | None:
    """Send the file at `path` to clamd; return the name of what it found, None when it is clean.

    `address` is tcp://host:port or unix:/path. Raises ServiceError when clamd is not there, does
    not answer in time or has a problem of its own, NarwhalError for an address that is none.
    """
    try:
        with _connect(address, timeout_s) as clamd:
            try:
                clamd.sendall(b"zINSTREAM\0")
                with path.open("rb") as file:
                    while piece := file.read(_PIECE):
                        clamd.sendall(_LENGTH.pack(len(piece)) + piece)
                clamd.sendall(_LENGTH.pack(0))
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has seen enough, and says why
            answer = _answer(clamd)
    except OSError as error:  # timeouts are among them
        raise ServiceError(SERVICE, f"clamd is not there: {error}") from error
    return _verdict(answer)


def _connect(address: str, timeout_s: float) -> socket.socket:
    parts = urlsplit(address)
    if parts.scheme == "unix" and parts.path:
        clamd = socket.socket(socket.AF_UNIX)
        try:
            clamd.settimeout(timeout_s)
            clamd.connect(parts.path)
        except OSError:
            clamd.close()
            raise
        return clamd
    if parts.scheme == "tcp" and parts.hostname:
        return socket.create_connection((parts.hostname, parts.port or 3310), timeout_s)
    raise NarwhalError(
        f"scanner.address is no place of clamd: {address}",
        "Set it like tcp://127.0.0.1:3310 or unix:/run/clamav/clamd.ctl, or to null.",
        error="NOT_CONFIGURED",
    )


def _answer(clamd: socket.socket) -> str:
    answer = b""
    while b"\0" not in answer and len(answer) < _MOST_ANSWER:
        piece = clamd.recv(_MOST_ANSWER)
        if not piece:
            break
        answer += piece
    return answer.partition(b"\0")[0].decode("utf-8", "replace").strip()


def _verdict(answer: str) -> str | None:
    """Read "stream: OK", "stream: NAME FOUND", or an error."""
    if answer == "stream: OK":
        return None
    if answer.startswith("stream: ") and answer.endswith(" FOUND"):
        return answer.removeprefix("stream: ").removesuffix(" FOUND")
    raise ServiceError(SERVICE, f"clamd answered {answer[:200]!r}")
