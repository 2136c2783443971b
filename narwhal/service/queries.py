"""Query embeddings: one model a process, loaded on first use, and a small cache."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from narwhal.errors import NarwhalError
from narwhal.service.answers import unavailable

if TYPE_CHECKING:
    from narwhal.encoders import TextEncoder

CACHE_SIZE = 1024
RETRY_S = 30.0  # an encoder that failed to load is not tried again at every request
THREADS = 2
DEFAULT = ""  # health cannot ask for the active space: it has no account

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Space:
    """An embedding space as rpc embedding_space describes it."""

    name: str
    model: str
    revision: str
    dimension: int
    kind: str


# user, space (all of it: once retired, its name may stand for another model), sha256 of the text
Key = tuple[str, Space, bytes]


def _key(user: str, space: Space, text: str) -> Key:
    return user, space, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class QueryEncoder:
    """Embeds short texts in threads, so that a model never blocks the event loop."""

    def __init__(self) -> None:
        self._encoders: dict[tuple[str, str | None], TextEncoder] = {}  # by model and revision
        self._failed: dict[tuple[str, str | None], float] = {}  # when
        self._loading = threading.Lock()
        self._cache: OrderedDict[Key, list[float]] = OrderedDict()
        self._limiter: anyio.CapacityLimiter | None = None

    async def embed(
        self, space: Space, texts: list[str], user: str | None = None
    ) -> list[list[float]]:
        """Return one L2-normalised vector of the space's dimension for each text.

        Vectors are kept by content, the least recently used go first; for each user on their own,
        since how fast an answer comes would tell whether somebody asked the same before. Raises
        SERVICE_UNAVAILABLE when the model cannot be used here, or is not the space's.
        """
        cache = self._cache
        keys = {text: _key(user, space, text) for text in texts} if user else {}
        vectors = {text: cache[key] for text, key in keys.items() if key in cache}
        missing = list(dict.fromkeys(text for text in texts if text not in vectors))
        if missing:
            fresh = await self._in_thread(space, missing)
            vectors.update(zip(missing, fresh, strict=True))
        for text, key in keys.items():
            cache[key] = vectors[text]
            cache.move_to_end(key)
        while len(cache) > CACHE_SIZE:
            cache.popitem(last=False)
        return [vectors[text] for text in texts]

    async def is_available(self) -> bool:
        """Whether the default model can be loaded here; loads it when it was not yet."""
        try:
            await anyio.to_thread.run_sync(self._load, DEFAULT, limiter=self._threads())
        except NarwhalError:
            return False
        return True

    async def _in_thread(self, space: Space, texts: list[str]) -> list[list[float]]:
        def work() -> list[list[float]]:
            encoder = self._load(space.model, space.revision)
            if (encoder.revision, encoder.dimension) != (space.revision, space.dimension):
                raise unavailable(f"the model {space.model} here does not fit the space", "keyword")
            rows: list[list[float]] = encoder.encode(texts).tolist()
            return rows

        return await anyio.to_thread.run_sync(work, limiter=self._threads())

    def _threads(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # belongs to the event loop that runs us
            self._limiter = anyio.CapacityLimiter(THREADS)
        return self._limiter

    def _load(self, model: str, revision: str | None = None) -> TextEncoder:
        with self._loading:
            key = (model, revision)
            if key in self._encoders:
                return self._encoders[key]
            if time.monotonic() - self._failed.get(key, -RETRY_S) < RETRY_S:
                raise unavailable(f"the text encoder {model} is not available", "keyword")
            try:
                from narwhal.encoders import load_text_encoder

                encoder = load_text_encoder(model, revision) if model else load_text_encoder()
            except Exception as error:  # whatever a model's loader raises, keyword search works
                log.warning("cannot load the text encoder %s: %s", model, error)
                self._failed[key] = time.monotonic()
                raise unavailable(
                    f"the text encoder {model} is not available", "keyword"
                ) from error
            self._encoders[key] = encoder
            return encoder
