"""Listening to recordings, a stretch of two minutes after the other, each in a process of its own.

A recording is cut at the same places however often work on it is interrupted, so what was said does
not depend on that. What needs no weights from a hub is recognised in the sandbox; a larger model
stays in the worker, and gets the sound of utterances only.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from narwhal.encoders.speech import RATE, Recognizer, Segment, Utterance
from narwhal.encoders.sphinx import load_sphinx, sphinx_revision
from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MOST_MS, Limits, listen_in_sandbox
from narwhal.ingest.text import clean

STRETCH_MS = 120_000
_LONGEST_WORDS = 4_000  # characters of a segment


@dataclass(frozen=True)
class Heard:
    """What was said in a stretch of a recording that ends at `reached_ms`."""

    segments: tuple[Segment, ...]
    reached_ms: int
    duration_ms: int | None


class Packaged:
    """Stands for PocketSphinx, which listens in the sandbox."""

    name = "pocketsphinx"
    is_low_quality = True

    @property
    def revision(self) -> str:
        """The release, and the way in which it is used."""
        return sphinx_revision()

    def recognize(self, utterance: Utterance) -> list[Segment]:
        """The words of an utterance, in this process: recordings are listened to in the sandbox."""
        return load_sphinx().recognize(utterance)


@cache
def _packaged() -> Packaged:
    return Packaged()


def choose_recognizer() -> Recognizer:
    """The best that is had here."""
    return _packaged()


def listen(
    path: Path,
    name: str,
    mime: str | None,
    start_ms: int,
    recognizer: Recognizer,
    limits: Limits,
) -> Iterator[Heard]:
    """Yield what is said in the recording at `path` from `start_ms` on, until it ends.

    `limits` are those of one stretch. Raises ReadError as `read_in_sandbox` does.
    """
    is_end = False
    while not is_end:
        heard, is_end = _stretch(path, name, mime, start_ms, recognizer, limits)
        start_ms = heard.reached_ms
        yield heard


def _stretch(
    path: Path,
    name: str,
    mime: str | None,
    start_ms: int,
    recognizer: Recognizer,
    limits: Limits,
) -> tuple[Heard, bool]:
    is_packaged = isinstance(recognizer, Packaged)
    wanted = {
        "start_ms": start_ms,
        "end_ms": (start_ms // STRETCH_MS + 1) * STRETCH_MS,
        "is_packaged": is_packaged,
    }
    segments: list[Segment] = []
    for message in listen_in_sandbox(path, name, mime, wanted, limits):
        try:
            if "reached_ms" in message:
                reached_ms = _ms(message["reached_ms"])
                heard = Heard(tuple(segments), reached_ms, _known(message["duration_ms"]))
                return heard, bool(message["is_end"]) or reached_ms <= start_ms
            if is_packaged:
                segments.append(_segment(message))
                continue
            utterance = _utterance(message)
        except (KeyError, TypeError, ValueError):
            break
        segments += recognizer.recognize(utterance)
    raise ReadError("corrupt", "Listening gave no usable answer.")


def _segment(values: dict[str, Any]) -> Segment:
    text = clean(str(values["text"]))[:_LONGEST_WORDS].strip()
    start_ms, end_ms = _ms(values["start_ms"]), _ms(values["end_ms"])
    if not text or end_ms <= start_ms:
        raise ValueError("a segment without words, or without time")
    language, confidence = values["language"], values["confidence"]
    return Segment(
        start_ms,
        end_ms,
        text,
        None if language is None else str(language)[:8],
        None if confidence is None else min(max(float(confidence), 0.0), 1.0),
    )


def _utterance(values: dict[str, Any]) -> Utterance:
    import numpy as np

    sound = binascii.a2b_base64(values["sound"], strict_mode=True)
    if len(sound) > 60 * RATE * 2:
        raise ValueError("an utterance is longer than any")
    return Utterance(_ms(values["start_ms"]), np.frombuffer(sound, np.int16))


def _ms(value: int) -> int:
    if not 0 <= value < MOST_MS:
        raise ValueError("a time lies outside of all recordings")
    return int(value)


def _known(value: int | None) -> int | None:
    return None if value is None or not 0 <= value < MOST_MS else int(value)
