"""What turns speech into words: the shape of a recogniser, and which one is had on this machine.

Recognisers get utterances, stretches of sound in which somebody speaks, and tell when each part of
their text was said. They import neither a database nor a network client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE = 16_000


@dataclass(frozen=True)
class Utterance:
    """Sound from `start_ms` of a recording: int16 of shape (samples,), one channel at RATE Hz."""

    start_ms: int
    samples: NDArray[np.int16]

    @property
    def end_ms(self) -> int:
        """Where it ends in the recording."""
        return self.start_ms + len(self.samples) * 1000 // RATE


@dataclass(frozen=True)
class Segment:
    """Words and when they were said, in ms of the recording; start_ms < end_ms.

    `language` is an ISO 639-1 code, or None where the recogniser cannot tell; `confidence` is
    0..1, or None.
    """

    start_ms: int
    end_ms: int
    text: str
    language: str | None = None
    confidence: float | None = None


class Recognizer(Protocol):
    """Equal `name` and `revision` mean equal words for equal sound."""

    @property
    def name(self) -> str:
        """The engine, e.g. `pocketsphinx`."""

    @property
    def revision(self) -> str:
        """Which release or which weights."""

    @property
    def is_low_quality(self) -> bool:
        """Whether its words are good for finding a place, and not for quoting."""

    def recognize(self, utterance: Utterance) -> list[Segment]:
        """The words of an utterance, in order; none where it is no speech."""
