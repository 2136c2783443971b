"""Recordings and films: they have no text before somebody listened to them; only looked at here."""

from __future__ import annotations

from collections.abc import Iterator

from narwhal.ingest.document import Page
from narwhal.ingest.extractors import Source
from narwhal.ingest.limits import Limits

PAGED = False


def read(source: Source, _limits: Limits) -> Iterator[Page]:
    """Yield nothing; ReadError for what cannot be decoded."""
    from narwhal.ingest.sound import look

    look(source)
    yield from ()
