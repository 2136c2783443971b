"""Recordings: what is decoded of them, where they are cut, and which words come out.

speech.ogg is tests/samples/ASR/spk1_snt1.wav of speechbrain (Apache-2.0): a woman who says "the
child almost hurt the small dog".
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from narwhal.encoders.speech import RATE, Segment, Utterance
from narwhal.encoders.sphinx import SphinxRecognizer, is_clear_voice
from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.hearing import choose_recognizer, listen
from narwhal.ingest.limits import MIB, Limits
from narwhal.ingest.sound import look, stretches

Samples = NDArray[np.int16]

SPEECH = Path(__file__).with_name("speech.ogg")
LIMITS = Limits(seconds=60, memory_bytes=512 * MIB)
SILENCE = np.zeros(RATE, np.int16)
# name, codec, rate of the codec
FORMATS = [
    ("a.wav", "pcm_s16le", 16_000),
    ("a.mp3", "mp3", 44_100),
    ("a.flac", "flac", 48_000),
    ("a.m4a", "aac", 44_100),
    ("a.ogg", "libopus", 24_000),
    ("a.mp4", "aac", 32_000),
    ("a.webm", "libopus", 48_000),
]


def encoded(samples: Samples, name: str, codec: str, rate: int) -> bytes:
    """A recording of these samples, at RATE, in stereo."""
    file = io.BytesIO()
    kind = {"m4a": "ipod"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "stereo", rate, frame_size=0)
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(piece)
        while piece := fifo.read(stream.frame_size or 1024, partial=True):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def source(data: bytes, name: str) -> Source:
    return Source(io.BytesIO(data), detect_file(io.BytesIO(data), name))


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Three seconds of speech."""
    with SPEECH.open("rb") as file:
        found = [s.utterance for s in stretches(source(file.read(), "a.ogg"), 0, 60_000)]
    (utterance,) = filter(None, found)
    return utterance.samples


@pytest.mark.parametrize(("name", "codec", "rate"), FORMATS)
def test_speech_is_found_where_it_stands(speech: Samples, name: str, codec: str, rate: int) -> None:
    sound = np.concatenate([SILENCE, SILENCE, speech, SILENCE, SILENCE, SILENCE])
    data = encoded(sound, name, codec, rate)
    duration_ms = len(sound) * 1000 // RATE
    medium = look(source(data, name))
    assert medium.has_sound
    assert medium.duration_ms is not None
    assert abs(medium.duration_ms - duration_ms) < 200
    found = list(stretches(source(data, name), 0, 120_000))
    (utterance,) = [stretch.utterance for stretch in found if stretch.utterance]
    assert abs(utterance.start_ms - 2000) < 400
    assert abs(utterance.end_ms - 2000 - len(speech) * 1000 // RATE) < 900
    assert abs(found[-1].reached_ms - duration_ms) < 200


def test_listening_goes_on_where_it_was_interrupted(speech: Samples) -> None:
    data = encoded(np.concatenate([speech, *[SILENCE] * 3] * 3), "a.mp3", "mp3", 44_100)
    whole = [s.utterance for s in stretches(source(data, "a.mp3"), 0, 60_000) if s.utterance]
    assert len(whole) == 3
    rest = [
        stretch.utterance
        for stretch in stretches(source(data, "a.mp3"), whole[0].end_ms, 60_000)
        if stretch.utterance
    ]
    assert len(rest) == 2
    for before, after in zip(whole[1:], rest, strict=True):
        assert abs(before.start_ms - after.start_ms) < 100


def test_a_stretch_ends_soon_after_its_end(speech: Samples) -> None:
    data = encoded(np.concatenate([speech] * 12), "a.wav", "pcm_s16le", 16_000)
    found = list(stretches(source(data, "a.wav"), 0, 10_000))
    assert 10_000 <= found[-1].reached_ms < 31_000
    assert max(len(s.utterance.samples) for s in found if s.utterance) <= 20 * RATE


@pytest.mark.parametrize("what", ["silence", "noise", "tone", "chords"])
def test_what_nobody_says_is_no_voice(what: str) -> None:
    time = np.arange(4 * RATE) / RATE
    sound = {
        "silence": 0 * time,
        "noise": np.random.default_rng(1).normal(size=len(time)) * 3000,
        "tone": 8000 * np.sin(2 * np.pi * 440 * time),
        "chords": sum(
            3000 * np.sin(2 * np.pi * f * time) * (1.2 + np.sin(4 * np.pi * time)) / 2
            for f in (262, 330, 392)
        ),
    }[what].astype(np.int16)
    data = encoded(sound, "a.wav", "pcm_s16le", 16_000)
    found = list(stretches(source(data, "a.wav"), 0, 60_000))
    assert 3900 <= found[-1].reached_ms <= 4000
    assert not any(is_clear_voice(s.utterance) for s in found if s.utterance)


def test_silence_gives_no_words(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(encoded(SILENCE, "a.mp3", "mp3", 44_100))
    (heard,) = listen(path, "a.mp3", None, 0, choose_recognizer(), LIMITS)
    assert heard.segments == ()
    assert 900 <= heard.reached_ms <= 1100


def test_music_below_a_voice_is_no_clear_voice(speech: Samples) -> None:
    assert is_clear_voice(Utterance(0, speech))
    time = np.arange(len(speech)) / RATE
    music = (6000 * np.sin(2 * np.pi * 330 * time)).astype(np.int16)
    assert not is_clear_voice(Utterance(0, speech // 2 + music))


def test_a_voice_in_a_room_that_is_not_quite_still_is_clear(speech: Samples) -> None:
    hiss = np.random.default_rng(1).normal(size=len(speech))
    assert is_clear_voice(Utterance(0, (speech + 100 * hiss).astype(np.int16)))
    assert not is_clear_voice(Utterance(0, (speech + 600 * hiss).astype(np.int16)))


def test_what_was_heard_before_changes_no_word(speech: Samples) -> None:
    recognizer = SphinxRecognizer()
    utterance = Utterance(0, speech)
    first = recognizer.recognize(utterance)
    assert first
    assert recognizer.recognize(Utterance(0, speech[::-1].copy() // 4)) != first
    assert recognizer.recognize(utterance) == first


def test_words_come_with_their_times(tmp_path: Path, speech: Samples) -> None:
    path = tmp_path / "stored"
    sound = np.concatenate([SILENCE, SILENCE, speech, SILENCE])
    path.write_bytes(encoded(sound, "a.webm", "libopus", 48_000))
    (heard,) = listen(path, "a.webm", None, 0, choose_recognizer(), LIMITS)
    (segment,) = heard.segments
    assert {"child", "almost", "small", "dog"} <= set(segment.text.split())
    assert segment.language == "en"
    assert abs(segment.start_ms - 2000) < 400
    assert 4200 < segment.end_ms < 5400


def test_a_model_in_the_worker_gets_sound_and_not_the_file(tmp_path: Path, speech: Samples) -> None:
    class Ears:
        name, revision, is_low_quality = "ears", "1", False

        def recognize(self, utterance: Utterance) -> list[Segment]:
            seconds = len(utterance.samples) / RATE
            loud = int(np.abs(utterance.samples).max())
            text = f"{seconds:.0f} s, {'loud' if loud > 1000 else 'soft'}"
            return [Segment(utterance.start_ms, utterance.end_ms, text)]

    path = tmp_path / "stored"
    path.write_bytes(encoded(np.concatenate([SILENCE, speech]), "a.flac", "flac", 16_000))
    (heard,) = listen(path, "a.flac", None, 0, Ears(), LIMITS)
    assert [segment.text for segment in heard.segments] == ["3 s, loud"]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[:40], "corrupt"),
        (lambda data: data[:60] + bytes(len(data)), "corrupt"),
        (lambda data: b"ID3" + bytes(range(256)) * 40, "corrupt"),
    ],
)
def test_what_cannot_be_decoded_says_so(damage: Callable[[bytes], bytes], code: str) -> None:
    data = damage(encoded(SILENCE, "a.m4a", "aac", 44_100))
    with pytest.raises(ReadError) as error:
        look(source(data, "a.m4a"))
    assert error.value.code == code


def test_a_cut_off_recording_is_heard_as_far_as_it_goes(speech: Samples) -> None:
    data = encoded(np.concatenate([speech, SILENCE, speech]), "a.mp3", "mp3", 44_100)
    found = list(stretches(source(data[: len(data) // 2], "a.mp3"), 0, 60_000))
    assert any(stretch.utterance for stretch in found)
    assert found[-1].reached_ms < 4000


def test_a_film_without_sound_is_silent() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    film = source(file.getvalue(), "a.mp4")
    assert look(film).has_sound is False
    assert list(stretches(film, 0, 60_000)) == []
