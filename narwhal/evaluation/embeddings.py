"""Embeddings that are kept between runs: a model gives the same text the same vector."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from narwhal.encoders import TextEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 64


class EmbeddingCache:
    """The vectors of one model's weights in a file, by the sha256 of the text."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self.encoder = encoder
        folder.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(
            folder / f"embeddings-{encoder.revision}.sqlite3", timeout=60, isolation_level=None
        )
        self._store.execute("pragma journal_mode = wal")
        self._store.execute(
            "create table if not exists vectors (hash blob primary key, vector blob not null)"
        )

    def encode(
        self, texts: Sequence[str], report: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Embed texts in their order; `report(done, total)` tells how far the new ones are."""
        import numpy as np

        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        missing = {
            key: text for key, text in zip(hashes, texts, strict=True) if self._find(key) is None
        }
        keys = sorted(missing, key=lambda key: len(missing[key]))  # little padding in a batch
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            vectors = self.encoder.encode([missing[key] for key in batch])
            rows = [(key, vector.tobytes()) for key, vector in zip(batch, vectors, strict=True)]
            self._store.executemany("insert or ignore into vectors values (?, ?)", rows)
            if report:
                report(start + len(batch), len(keys))
        found = np.empty((len(texts), self.encoder.dimension), np.float32)
        for place, key in enumerate(hashes):
            found[place] = np.frombuffer(self._find(key) or b"", np.float32)
        return found

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _find(self, key: bytes) -> bytes | None:
        row = self._store.execute("select vector from vectors where hash = ?", (key,)).fetchone()
        return row[0] if row else None
