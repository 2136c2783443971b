"""Speech to words without weights from a hub: PocketSphinx with its packaged model.

It knows American English, and hears English words in any language and in music. So sound that is
not like a voice in a quiet room is not asked about, and what it is least sure of is left out.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from narwhal.encoders.speech import RATE, Segment, Utterance

_WAY = 2  # of listening, counted up when the same sound may give other words
_WORDS, _LEARNING = "_default", "learning"  # what it listens for
_FRAME_MS = 10
_NO_WORD = re.compile(r"[<\[+]")  # silence, noise, and other fillers
_VARIANT = re.compile(r"\(\d+\)$")
_LEAST_SURE = 0.25  # mean posterior of an utterance's words, by their length
_LEAST_RATE, _MOST_RATE = 0.7, 6.0  # words a second
# Between its syllables a voice falls silent; music goes on. Told by the loudness of short frames:
_LOUD_FRAME = RATE * 32 // 1000
_RANGE_DB = 20.0  # least difference between the loud and the soft ones
_SOFT_SHARE = 0.33  # at least so many have less than half of the energy of the second around


class SphinxRecognizer:
    """PocketSphinx; one utterance after the other, not for use by several threads at once."""

    name = "pocketsphinx"
    is_low_quality = True

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        # normalised by the utterance alone: nothing that was heard before changes what is heard
        self._decoder: Any = Decoder(samprate=float(RATE), cmn="batch", loglevel="FATAL")
        self._decoder.add_keyphrase(_LEARNING, "hello")
        self.revision = sphinx_revision()

    def recognize(self, utterance: Utterance) -> list[Segment]:
        """One segment with the words of the utterance, or none."""
        if not is_clear_voice(utterance):
            return []
        decoder = self._decoder
        with warnings.catch_warnings():  # said to be unnecessary: only this forgets the noise
            warnings.simplefilter("ignore", DeprecationWarning)
            decoder.start_stream()
        # Its noise removal starts from the first frame of a stream and needs seconds to learn. So
        # it hears all twice, at first for one word only, which takes a tenth of the time.
        for search in (_LEARNING, _WORDS):
            decoder.activate_search(search)
            decoder.start_utt()
            decoder.process_raw(utterance.samples.tobytes(), full_utt=True)
            decoder.end_utt()
        if decoder.hyp() is None:
            return []
        words = [word for word in decoder.seg() if not _NO_WORD.match(word.word)]
        frames = sum(word.end_frame - word.start_frame + 1 for word in words)
        if not frames:
            return []
        sure = sum((w.end_frame - w.start_frame + 1) * min(w.prob, 1.0) for w in words) / frames
        rate = len(words) * RATE / len(utterance.samples)
        if sure < _LEAST_SURE or not _LEAST_RATE <= rate <= _MOST_RATE:
            return []
        return [
            Segment(
                start_ms=utterance.start_ms + words[0].start_frame * _FRAME_MS,
                end_ms=utterance.start_ms + (words[-1].end_frame + 1) * _FRAME_MS,
                text=" ".join(_VARIANT.sub("", word.word) for word in words),
                language="en",
                confidence=round(sure, 3),
            )
        ]


def is_clear_voice(utterance: Utterance) -> bool:
    """Whether loud and soft follow each other as in speech without music or noise below it."""
    sound = utterance.samples.astype(np.float32) / 32768
    step = _LOUD_FRAME // 2
    count = (len(sound) - _LOUD_FRAME) // step + 1
    if count < 1:
        return False
    frames = np.lib.stride_tricks.sliding_window_view(sound, _LOUD_FRAME)[::step][:count]
    energy = np.mean(frames**2, axis=1)
    low, high = np.percentile(10 * np.log10(energy + 1e-8), [10, 90])
    second = min(count, RATE // step)
    around = np.lib.stride_tricks.sliding_window_view(energy, second)[:: max(1, second // 2)]
    soft = np.mean(around < 0.5 * np.mean(around, axis=1, keepdims=True))
    return bool(high - low >= _RANGE_DB and soft >= _SOFT_SHARE)


def sphinx_revision() -> str:
    """The release, and the way in which it is used."""
    return f"{version('pocketsphinx')}-{_WAY}"


@cache
def load_sphinx() -> SphinxRecognizer:
    """Load the packaged model, once a process."""
    return SphinxRecognizer()
