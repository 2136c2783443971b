"""Reading a file that a test wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import narwhal.encoders  # noqa: F401 - before numpy: it decides on the number of BLAS threads
from narwhal.ingest.detect import detect
from narwhal.ingest.document import Document
from narwhal.ingest.extractors import extract
from narwhal.ingest.limits import Limits

Read = Callable[..., Document]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read bytes under a name, as the sandbox does, but in this process."""

    def read_bytes(data: bytes, name: str, limits: Limits | None = None) -> Document:
        path = tmp_path / "stored"
        path.write_bytes(data)
        return extract(path, detect(path, name), limits)

    return read_bytes
