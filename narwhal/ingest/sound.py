"""Sound of recordings and films: decoded piece by piece, and cut into what somebody says.

FFmpeg's decoders by way of PyAV. They run on untrusted bytes, so outside of tests this module
belongs in the sandbox; however long a recording is, seconds of it are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from narwhal.encoders.speech import RATE, Utterance
from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.media_types import DEMUXERS

Samples = NDArray[np.int16]

_FRAME = RATE * 30 // 1000  # samples of what is judged at a time
_VOICE_MODE = 2  # of WebRTC's detector: 0 calls more a voice, 3 less
_ONSET = (6, 10)  # voices among so many frames begin an utterance
_PAUSE = (2, 20)  # at most so many voices among so many frames end it
_LONGEST = 20_000 // 30  # frames of an utterance, then it is cut where it is quietest
_CUT = 6_000 // 30  # in so many of its last frames
_SHORTEST = 8  # voices in an utterance
_REPORT = 15_000 // 30  # frames without an utterance after which progress is told
_GAP = RATE // 5  # samples by which time stamps may differ from what was decoded
_MOST_BROKEN = 200  # packets one after the other
_UNKNOWN_CODEC = (
    av.error.DecoderNotFoundError,
    av.error.DemuxerNotFoundError,
    av.error.PatchWelcomeError,
)


@dataclass(frozen=True)
class Medium:
    """What a recording says of itself: its length, when it tells, and whether it has sound."""

    duration_ms: int | None
    has_sound: bool


@dataclass(frozen=True)
class Stretch:
    """The recording up to `reached_ms`: an utterance that ends there, or nobody speaks."""

    reached_ms: int
    utterance: Utterance | None


def load_decoders() -> None:
    """Load what is imported late."""
    import pocketsphinx  # noqa: F401 - tells voices from silence

    _resampler()


def look(source: Source) -> Medium:
    """Open a recording and decode the beginning of its sound.

    Raises ReadError: `corrupt` for a broken file, `unsupported_media` for an unknown codec.
    """
    with open_container(source) as container:
        stream = _sound(container)
        if stream is not None and next(_decoded(container, stream, 0), None) is None:
            raise _broken()
        return Medium(_duration(container), stream is not None)


def stretches(source: Source, start_ms: int, end_ms: int) -> Iterator[Stretch]:
    """Yield what stands between `start_ms` and `end_ms`, or a little after, and end there.

    The last stretch reaches at least `end_ms`, unless the sound ends before.
    """
    with open_container(source) as container:
        stream = _sound(container)
        if stream is None:
            return
        for stretch in _heard(_decoded(container, stream, start_ms), start_ms):
            yield stretch
            if stretch.reached_ms >= end_ms:
                return


def open_container(source: Source) -> Any:
    """Open a recording or a film, by the demuxer of its type only; ReadError as `look`."""
    source.file.seek(0)
    try:
        return av.open(
            source.file,
            format=DEMUXERS.get(source.detected.mime),
            metadata_errors="ignore",
        )
    except _UNKNOWN_CODEC:
        raise _unknown() from None
    except (av.error.FFmpegError, ValueError):
        raise _broken() from None


def _sound(container: Any) -> Any | None:
    """The first stream of sound; None when there is none."""
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise _unknown()
    stream.codec_context.thread_count = 1
    return stream


def _duration(container: Any) -> int | None:
    return max(0, container.duration // 1000) if container.duration else None


def _decoded(container: Any, stream: Any, start_ms: int) -> Iterator[tuple[int, Samples]]:
    """Yield (position, samples) in order, positions counted in samples from the start.

    Sound that is missing between two time stamps is left out, not filled.
    """
    zero = (container.start_time or 0) / 1_000_000
    start = start_ms * RATE // 1000
    if start_ms:
        try:
            container.seek(int((start_ms / 1000 + zero) * 1_000_000), backward=True)
        except av.error.FFmpegError:
            container.seek(0)
    at: int | None = None if start_ms else 0
    resampler = _resampler()
    for frame in _frames(container, stream):
        stamp = None if frame.time is None else int((frame.time - zero) * RATE)
        if at is None or (stamp is not None and stamp - at > _GAP):
            at = stamp or 0
        try:
            pieces = resampler.resample(frame)
        except ValueError:  # the format of the sound changes on the way
            resampler = _resampler()
            pieces = resampler.resample(frame)
        for piece in pieces:
            samples = piece.to_ndarray().reshape(-1)
            end = at + len(samples)
            if end > start:
                yield max(at, start), samples[max(0, start - at) :]
            at = end


def _resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=RATE)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield decoded frames; what is broken in between is passed over."""
    broken, is_any = 0, False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except (StopIteration, av.error.EOFError):
            return
        except _UNKNOWN_CODEC:
            raise _unknown() from None
        except av.error.FFmpegError:
            broken += 1
            if broken > _MOST_BROKEN:
                if is_any:
                    return
                raise _broken() from None
            continue
        for frame in frames:
            broken, is_any = 0, True
            yield frame


def _heard(pieces: Iterator[tuple[int, Samples]], start_ms: int) -> Iterator[Stretch]:
    """Cut sound into utterances, and tell of the silence between them."""
    from pocketsphinx import Vad

    vad = Vad(mode=_VOICE_MODE, sample_rate=RATE, frame_length=0.03)
    waiting: list[Samples] = []  # frames since the last stretch, or of the utterance
    voices: list[bool] = []
    speaks = False
    first = at = start_ms * RATE // 1000  # of `waiting`; after it
    for position, frame in _framed(pieces):
        if position != at:  # sound is missing: nobody speaks across that
            if speaks and sum(voices) >= _SHORTEST:
                yield _stretch(first, waiting)
            waiting, voices, speaks, first = [], [], False, position
        waiting.append(frame)
        voices.append(bool(vad.is_speech(frame.tobytes())))
        at = position + _FRAME
        if not speaks:
            if sum(voices[-_ONSET[1] :]) >= _ONSET[0]:
                speaks = True
                waiting, voices = waiting[-_ONSET[1] :], voices[-_ONSET[1] :]
                first = at - len(waiting) * _FRAME
            elif len(waiting) >= _REPORT:
                waiting, voices = waiting[-_ONSET[1] :], voices[-_ONSET[1] :]
                first = at - len(waiting) * _FRAME
                yield Stretch(first * 1000 // RATE, None)
            continue
        if len(waiting) >= _LONGEST:
            cut = _quietest(waiting)
            yield _stretch(first, waiting[:cut])
            first += cut * _FRAME
            waiting, voices = waiting[cut:], voices[cut:]
        elif len(voices) > _PAUSE[1] and sum(voices[-_PAUSE[1] :]) <= _PAUSE[0]:
            if sum(voices) >= _SHORTEST:
                yield _stretch(first, waiting)
            waiting, voices, speaks, first = [], [], False, at
    if speaks and sum(voices) >= _SHORTEST:
        yield _stretch(first, waiting)
    elif at > start_ms * RATE // 1000:
        yield Stretch(at * 1000 // RATE, None)


def _framed(pieces: Iterator[tuple[int, Samples]]) -> Iterator[tuple[int, Samples]]:
    """Cut samples into frames of equal length; what is left before a gap and at the end is lost."""
    left = np.empty(0, np.int16)
    expected = -1
    for position, samples in pieces:
        if position != expected:
            left = np.empty(0, np.int16)
        expected = position + len(samples)
        start = position - len(left)
        left = np.concatenate([left, samples])
        whole = len(left) - len(left) % _FRAME
        for offset in range(0, whole, _FRAME):
            yield start + offset, left[offset : offset + _FRAME]
        left = left[whole:]


def _stretch(first: int, frames: list[Samples]) -> Stretch:
    utterance = Utterance(first * 1000 // RATE, np.concatenate(frames))
    return Stretch(utterance.end_ms, utterance)


def _quietest(frames: list[Samples]) -> int:
    """Where a long utterance is best cut: after the quietest of its last frames."""
    loudness = [float(np.mean(frame.astype(np.float32) ** 2)) for frame in frames[-_CUT:]]
    return len(frames) - _CUT + int(np.argmin(loudness)) + 1


def _broken() -> ReadError:
    return ReadError("corrupt", "The recording is damaged: it cannot be decoded.")


def _unknown() -> ReadError:
    return ReadError("unsupported_media", "The recording is in a codec that nothing here decodes.")
