"""What goes wrong around a worker: a Storage that fails at random, an encoder that does.

Run as `python -m tests.chaos.faults SEED` it is a worker whose encoder fails now and then.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

ENCODER_FAILS = 0.1
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection


class UnreliableStorage:
    """A proxy in front of the stack: of some connections it answers 503, resets or cuts off."""

    def __init__(self, api_url: str, seed: int) -> None:
        parts = urlsplit(api_url)
        self.upstream = (str(parts.hostname), int(parts.port or 80))
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.fails = True
        self.failures = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _decide(self) -> tuple[str, int]:
        with self.lock:
            roll, limit = self.chance.random(), self.chance.randrange(4000)
            what = "busy" if roll < 0.15 else "reset" if roll < 0.25 else "cut"
            if not self.fails or roll >= 0.35:
                what = "serve"
            self.failures += what != "serve"
        return what, limit

    def _serve(self, client: socket.socket) -> None:
        what, limit = self._decide()
        with closing(client):
            if what == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            try:
                if what == "busy":
                    client.recv(65536)
                    client.sendall(BUSY)
                    return
                with socket.create_connection(self.upstream) as server:
                    _pass_on(client, server, limit if what == "cut" else None)
            except OSError:
                pass  # either side has gone


def _pass_on(client: socket.socket, server: socket.socket, limit: int | None) -> None:
    """Carry bytes both ways until one side closes, or the answer reaches `limit` bytes."""
    while True:
        for side in select.select([client, server], [], [])[0]:
            data = side.recv(65536)
            if not data:
                return
            if side is client:
                server.sendall(data)
                continue
            client.sendall(data if limit is None else data[:limit])
            if limit is not None:
                limit -= len(data)
                if limit <= 0:
                    return


@contextmanager
def unreliable_storage(api_url: str, seed: int) -> Iterator[UnreliableStorage]:
    """Serve while the block runs."""
    proxy = UnreliableStorage(api_url, seed)
    try:
        yield proxy
    finally:
        proxy.close()


def main() -> None:
    """Run a worker whose encoder fails at random."""
    from narwhal import cli
    from narwhal.encoders import bert

    chance = random.Random(int(sys.argv.pop(1)))
    encode = bert.BertEncoder.encode

    def fail_at_random(*arguments: Any, **options: Any) -> Any:
        if chance.random() < ENCODER_FAILS:
            raise ConnectionError("the encoder is not there")
        return encode(*arguments, **options)

    bert.BertEncoder.encode = fail_at_random  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
