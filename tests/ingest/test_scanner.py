"""The client of clamd, against a server that speaks as clamd does."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from narwhal.errors import NarwhalError
from narwhal.ingest.scanner import scan
from narwhal.ingest.services import ServiceError

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + rb"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def _receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def clamd(client: socket.socket) -> None:
    """INSTREAM: pieces with their lengths until an empty one, at most 3,000,000 bytes."""
    assert _receive(client, 10) == b"zINSTREAM\0"
    data = b""
    while size := struct.unpack("!I", _receive(client, 4))[0]:
        data += _receive(client, size)
        if len(data) > 3_000_000:
            client.sendall(b"INSTREAM size limit exceeded. ERROR\0")
            return
    client.sendall(b"stream: Eicar-Signature FOUND\0" if EICAR in data else b"stream: OK\0")


@contextmanager
def serving(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    def run() -> None:
        client, _ = listener.accept()
        with client:
            serve(client)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        listener.close()


def ask(data: bytes, tmp_path: Path, serve: Callable[[socket.socket], None] = clamd) -> str | None:
    path = tmp_path / "file"
    path.write_bytes(data)
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, serve):
        return scan(path, f"tcp://127.0.0.1:{listener.getsockname()[1]}", 5)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2_500_000])
def test_clean_files_are_sent_whole(tmp_path: Path, size: int) -> None:
    assert ask(b"a" * size, tmp_path) is None
    assert ask(b"a" * size + EICAR, tmp_path) == "Eicar-Signature"


def test_clamd_may_listen_on_a_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(EICAR)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "clamd.ctl"))
    listener.listen()
    with serving(listener, clamd):
        assert scan(path, f"unix:{tmp_path}/clamd.ctl", 5) == "Eicar-Signature"


def test_a_file_that_is_too_long_for_clamd_is_not_called_clean(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="size limit"):
        ask(b"a" * 4_000_000, tmp_path)


@pytest.mark.parametrize("answer", [b"", b"stream: OK", b"stream: OKAY\0", b"UNKNOWN COMMAND\0"])
def test_only_a_clear_answer_counts(tmp_path: Path, answer: bytes) -> None:
    def serve(client: socket.socket) -> None:
        client.recv(2**16)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(2**16):
            pass

    if answer == b"stream: OK":
        assert ask(b"a", tmp_path, serve) is None  # the end of the connection ends it as well
    else:
        with pytest.raises(ServiceError):
            ask(b"a", tmp_path, serve)


def test_a_clamd_that_is_not_there_or_says_nothing_is_a_service_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServiceError) as error:
            scan(path, f"tcp://127.0.0.1:{port}", 0.2)
        assert error.value.service == "scanner"
    with pytest.raises(ServiceError):
        scan(path, f"tcp://127.0.0.1:{port}", 1)
    with pytest.raises(ServiceError):
        scan(path, f"unix:{tmp_path}/nothing", 1)


@pytest.mark.parametrize("address", ["127.0.0.1:3310", "http://127.0.0.1", "unix:", ""])
def test_an_address_that_is_none_says_so(tmp_path: Path, address: str) -> None:
    with pytest.raises(NarwhalError, match="no place of clamd"):
        scan(tmp_path, address, 1)
