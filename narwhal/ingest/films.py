"""Films to look at: a frame that shows what a film is, and some evenly spread over it.

Key frames only, which stand alone: a seek and one picture to decode, however long a film is.
FFmpeg's decoders by way of PyAV run on untrusted bytes: outside of tests this belongs in the
sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import av.error
import numpy as np
from PIL import Image

from narwhal.ingest.extractors import Source
from narwhal.ingest.pictures import check_size
from narwhal.ingest.sound import open_container

# where a thumbnail is looked for, in shares of the length: titles are over, and endings not told
_TELLING = (0.1, 0.2, 0.3, 0.5, 0.7, 0.05, 0.0)
_MOST_PACKETS = 2_000  # read from a place until a key frame comes
_MOST_FRAMES = 300  # decoded where all key frames are blank
_MOST_BROKEN = 20  # packets one after the other
_LEAST_CONTRAST = 24  # of 255, between the dark and the light twentieth of a picture


def frames(
    source: Source, numbers: Iterable[int], count: int, most_pixels: int
) -> Iterator[tuple[int, Image.Image]]:
    """Yield (number, picture) of those of `count` evenly spaced key frames, from 1.

    A film with fewer key frames has fewer pictures, one without pictures none. What is broken is
    left out. Raises ReadError as `sound.look` does.
    """
    with open_container(source) as container:
        stream = _pictures(container)
        if stream is None:
            return
        places = _places(container, stream, [(n + 0.5) / count for n in range(count)])
        for number in numbers:
            if number > len(places):
                return
            frame = _frame_at(container, stream, places[number - 1])
            if frame is not None:
                yield number, _shown(frame, stream, most_pixels)


def telling_frame(source: Source, most_pixels: int) -> Image.Image | None:
    """A frame from the first tenth of a film or, where that is blank, from another part of it.

    None where it has no pictures. Raises ReadError as `sound.look` does.
    """
    first: Image.Image | None = None
    with open_container(source) as container:
        stream = _pictures(container)
        if stream is None:
            return None
        for place in _places(container, stream, _TELLING):
            frame = _frame_at(container, stream, place)
            if frame is None:
                continue
            image = _shown(frame, stream, most_pixels)
            if not is_blank(image):
                return image
            first = first or image
        _seek(container, stream, 0)
        stream.codec_context.skip_frame = "DEFAULT"
        for frame in _decoded(container, stream, _MOST_FRAMES):
            image = _shown(frame, stream, most_pixels)
            if not is_blank(image):
                return image
            first = first or image
    return first


def is_blank(image: Image.Image) -> bool:
    """Whether a picture is all black, or all of some other colour."""
    dark, light = np.percentile(np.asarray(image.convert("L").resize((32, 32))), [5, 95])
    return bool(light - dark < _LEAST_CONTRAST)


def _pictures(container: Any) -> Any | None:
    """The first stream of moving pictures; covers of recordings are none."""
    for stream in container.streams.video:
        if stream.codec_context is None or stream.disposition & av.stream.Disposition.attached_pic:
            continue
        check_size((stream.codec_context.width, stream.codec_context.height))
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONKEY"
        return stream
    return None


def _places(container: Any, stream: Any, shares: Iterable[float]) -> list[int]:
    """The time stamps of the key frames at or before these shares of the film, each once."""
    start = container.start_time or 0
    length = container.duration or 0
    found: dict[int, None] = {}
    for share in shares:
        if not _seek(container, stream, start + int(length * share)):
            continue
        stamp = _next_key(container, stream)
        if stamp is not None:
            found[stamp] = None
        if not length:
            break
    return list(found)


def _seek(container: Any, stream: Any, microseconds: int) -> bool:
    try:
        container.seek(int(microseconds / 1_000_000 / stream.time_base), stream=stream)
    except (av.error.FFmpegError, OverflowError):
        return False
    return True


def _next_key(container: Any, stream: Any) -> int | None:
    try:
        for count, packet in enumerate(container.demux(stream)):
            if packet.is_keyframe and packet.pts is not None:
                return int(packet.pts)
            if count > _MOST_PACKETS:
                break
    except av.error.FFmpegError:
        pass
    return None


def _frame_at(container: Any, stream: Any, stamp: int) -> Any | None:
    """The key frame with that time stamp, or the next that can be decoded."""
    try:
        container.seek(stamp, stream=stream)
    except av.error.FFmpegError:
        return None
    return next(_decoded(container, stream, 1), None)


def _decoded(container: Any, stream: Any, most: int) -> Iterator[Any]:
    """Yield at most so many frames from where the film is; what is broken is passed over."""
    broken = count = 0
    packets = container.demux(stream)
    for _ in range(_MOST_PACKETS):
        try:
            packet = next(packets)
            decoded = packet.decode()
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError:
            broken += 1
            if broken > _MOST_BROKEN:
                return
            continue
        for frame in decoded:
            broken = 0
            yield frame
            count += 1
            if count == most:
                return


def _shown(frame: Any, stream: Any, most_pixels: int) -> Image.Image:
    """A frame as it is seen: with square pixels, upright, and not too large."""
    width, height = frame.width, frame.height
    check_size((width, height))
    ratio = stream.sample_aspect_ratio
    if ratio and 0.1 < ratio < 10:
        width, height = (width * ratio, height) if ratio > 1 else (width, height / ratio)
    scale = min(1.0, (most_pixels / (width * height)) ** 0.5)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    image: Image.Image = frame.to_image(width=size[0], height=size[1])
    turn = round(frame.rotation / 90) % 4
    return image.rotate(turn * 90, expand=True) if turn else image
