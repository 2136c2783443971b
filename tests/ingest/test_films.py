"""Films to look at: which of their frames are drawn, and how."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import Picture, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.films import frames, telling_frame
from narwhal.ingest.limits import MIB, Limits, draw_in_sandbox

MOST = 1_000_000
WANTED = {"pages": [1, 2, 3, 4], "thumbnail": True, "dpi": 144, "most_pixels": MOST, "frames": 4}


def film(black: int = 0, seconds: int = 8, key_every: int = 5, name: str = "a.mp4") -> bytes:
    """Five frames a second: first black, then a light left half that darkens as time goes by."""
    file = io.BytesIO()
    kind = {"mkv": "matroska"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    with av.open(file, "w", format=kind) as container:
        stream: Any = container.add_stream("mpeg4", rate=5, options={"sc_threshold": "1000000000"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.gop_size = key_every
        for number in range(5 * seconds):
            picture = np.zeros((64, 96, 3), np.uint8)
            if number >= 5 * black:
                picture[:, :48] = 250 - 20 * (number // 5)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return file.getvalue()


def source(data: bytes, name: str = "a.mp4") -> Source:
    return Source(io.BytesIO(data), detect_file(io.BytesIO(data), name))


def second_of(image: Image.Image) -> int:
    """Which second of the film this is."""
    grey = image.convert("L").resize((8, 8)).getpixel((1, 4))
    assert isinstance(grey, int)
    return round((250 - grey) / 20)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_frames_are_spread_over_the_film(name: str) -> None:
    drawn = list(frames(source(film(name=name), name), [1, 2, 3, 4], 4, MOST))
    assert [(number, second_of(image)) for number, image in drawn] == [
        (1, 1), (2, 3), (3, 5), (4, 7),
    ]  # fmt: skip
    ((number, image),) = frames(source(film(name=name), name), [3], 4, MOST)
    assert (number, second_of(image), image.size) == (3, 5, (96, 64))


def test_a_film_with_few_key_frames_has_as_many_pages() -> None:
    drawn = list(frames(source(film(key_every=20)), [1, 2, 3, 4], 4, MOST))
    assert [(number, second_of(image)) for number, image in drawn] == [(1, 0), (2, 4)]


@pytest.mark.parametrize(("black", "second"), [(0, 1), (3, 3)])
def test_the_thumbnail_is_not_black(black: int, second: int) -> None:
    image = telling_frame(source(film(black=black, seconds=12)), MOST)
    assert image is not None
    assert second_of(image) == second


def test_a_frame_is_found_where_all_key_frames_are_black() -> None:
    image = telling_frame(source(film(black=2, seconds=4, key_every=100)), MOST)
    assert image is not None
    assert second_of(image) == 2
    image = telling_frame(source(film(black=4, seconds=4)), MOST)
    assert image is not None
    assert image.convert("L").getextrema() == (0, 0)


def test_a_film_that_was_held_upright_is_shown_so() -> None:
    """As telephones store it: lying, and to be turned by a quarter, clockwise."""
    data = bytearray(film())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    image = telling_frame(source(bytes(data)), MOST)
    assert image is not None
    assert image.size == (64, 96)
    top, bottom = (image.convert("L").getpixel((32, y)) for y in (12, 84))
    assert isinstance(top, int) and isinstance(bottom, int)
    assert top > bottom + 100


def test_a_large_frame_is_drawn_smaller() -> None:
    ((_, image),) = frames(source(film(seconds=1)), [1], 1, 1536)
    assert image.size == (48, 32)


def test_a_recording_without_pictures_has_none() -> None:
    with Path(__file__).with_name("speech.ogg").open("rb") as file:
        sound = Source(file, detect_file(file, "a.ogg"))
        assert telling_frame(sound, MOST) is None
        assert list(frames(sound, [1], 1, MOST)) == []


def test_films_are_drawn_in_the_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(film())
    limits = Limits(seconds=30, memory_bytes=512 * MIB)
    drawn = list(draw_in_sandbox(path, "a.mp4", None, WANTED, limits))
    assert all(isinstance(picture, Picture) for picture in drawn)
    assert [(p.kind, p.page) for p in drawn if isinstance(p, Picture)] == [
        ("thumbnail", None), ("page", 1), ("page", 2), ("page", 3), ("page", 4),
    ]  # fmt: skip
    assert [p.page for p in draw_in_sandbox(
        path, "a.mp4", None, {**WANTED, "pages": [4], "thumbnail": False}, limits
    )] == [4]  # fmt: skip


@pytest.mark.parametrize("end", [40, 3000])
def test_a_damaged_film_says_so_or_shows_what_it_has(tmp_path: Path, end: int) -> None:
    path = tmp_path / "stored"
    path.write_bytes(film(name="a.mkv")[:end])
    limits = Limits(seconds=30, memory_bytes=512 * MIB)
    try:
        drawn = list(draw_in_sandbox(path, "a.mkv", None, WANTED, limits))
    except ReadError as error:
        assert (error.code, end) == ("corrupt", 40)
    else:
        assert end == 3000
        assert drawn
