"""The reading process: locks itself in, looks at one file, answers in lines of JSON, ends.

Run as `python -m narwhal.ingest.sandbox` with a job on stdin; see `narwhal.ingest.limits` for the
caller's side. Pages are written as they are read, so a long document is never held twice.
"""

from __future__ import annotations

import binascii
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import EmbeddedImage, Page, ReadError
from narwhal.ingest.extractors import Source, extract_pages, extractor_for, stop_reading_at
from narwhal.ingest.limits import Limits
from narwhal.ingest.lockdown import limit_resources, lock_down
from narwhal.ingest.locks import unlocked

_PIECE = 768 * 1024  # bytes
_SHARE_OF_TIME = 0.85  # after which readers end by themselves, with what they have


def main() -> None:
    """Read the job from stdin and answer on stdout."""
    job = json.loads(sys.stdin.buffer.read())
    limits = Limits(**job["limits"])
    path = Path(job["path"])
    if job["task"] == "ocr":
        _load_ocr(job["languages"])
    elif job["task"] == "draw":
        _load_drawing()
    elif job["task"] == "listen":
        _load_ears(job["wanted"]["is_packaged"])
    most_seconds = limits.seconds + limits.pages * limits.page_seconds
    limit_resources(most_seconds, limits.memory_bytes)
    lock_down(path)
    if job["task"] == "read":
        stop_reading_at(time.monotonic() + _SHARE_OF_TIME * limits.seconds)
    try:
        with path.open("rb") as stored, unlocked(stored, job["passwords"]) as file:
            detected = detect_file(file, job["name"], job["mime"])
            source = Source(file, detected, tuple(job["passwords"]))
            if job["task"] == "detect":
                _answer(sys.stdout, {"detected": asdict(detected)})
            elif job["task"] == "ocr":
                _read_pictures(source, job["pages"], job["languages"], sys.stdout)
            elif job["task"] == "draw":
                _draw(source, job["wanted"], limits, sys.stdout)
            elif job["task"] == "listen":
                _listen(source, job["wanted"], sys.stdout)
            elif job["task"] == "unpack":
                _unpack(source, job["wanted"], sys.stdout)
            else:
                _read(source, limits, sys.stdout)
    except ReadError as error:
        _answer(sys.stdout, {"error": error.code, "message": error.message})
    except MemoryError:
        mib = limits.memory_bytes // (1024 * 1024)
        message = f"Reading takes more than {mib} MiB of memory."
        _answer(sys.stdout, {"error": "limit_memory", "message": message})
    except RecursionError:
        _answer(sys.stdout, {"error": "corrupt", "message": "The file is nested too deeply."})
    sys.stdout.flush()


def _read(source: Source, limits: Limits, out: TextIO) -> None:
    extractor = extractor_for(source.detected)
    # Before the pages too: when a limit ends reading, it is known what they are.
    _answer(out, {"reading": {"paged": extractor.PAGED}})
    for page in extract_pages(source, limits):
        _answer(out, {"page": _values(page)})
        out.flush()
    _answer(out, {"paged": extractor.PAGED})


def _load_ocr(languages: list[str]) -> None:
    """Load models and decoders while files may still be opened."""
    from narwhal.ingest.ocr import load_reader, uses_tesseract
    from narwhal.ingest.pictures import load_codecs

    load_codecs()
    if not uses_tesseract(languages):
        load_reader()


def _read_pictures(source: Source, numbers: list[int], languages: list[str], out: TextIO) -> None:
    from narwhal.ingest.ocr import read_pages

    for page in read_pages(source, numbers, languages):
        _answer(out, {"page": _values(page)})
        out.flush()
    _answer(out, {"paged": True})


def _load_drawing() -> None:
    """Load decoders while files may still be opened."""
    from narwhal.ingest.pictures import load_codecs

    load_codecs()


def _draw(source: Source, wanted: dict[str, Any], limits: Limits, out: TextIO) -> None:
    from narwhal.ingest.rendering import Wanted, draw

    for made in draw(source, Wanted(**wanted), limits):
        if isinstance(made, EmbeddedImage):
            _answer(out, {"image": asdict(made)})
        else:
            data = binascii.b2a_base64(made.data, newline=False).decode()
            _answer(out, {"picture": {**asdict(made), "data": data}})
        out.flush()
    _answer(out, {"paged": True})


def _load_ears(is_packaged: bool) -> None:
    """Load decoders and, where it is used, the model while files may still be opened."""
    from narwhal.encoders.sphinx import load_sphinx
    from narwhal.ingest.sound import load_decoders

    load_decoders()
    if is_packaged:
        load_sphinx()


def _listen(source: Source, wanted: dict[str, Any], out: TextIO) -> None:
    """Answer with words, or with the sound of utterances for a model that is elsewhere."""
    from narwhal.encoders.sphinx import load_sphinx
    from narwhal.ingest.sound import look, stretches

    reached = int(wanted["start_ms"])
    medium = look(source)
    for stretch in stretches(source, reached, wanted["end_ms"]):
        reached = stretch.reached_ms
        utterance = stretch.utterance
        if utterance is None:
            continue
        if wanted["is_packaged"]:
            for segment in load_sphinx().recognize(utterance):
                _answer(out, {"heard": asdict(segment)})
        else:
            sound = binascii.b2a_base64(utterance.samples.tobytes(), newline=False).decode()
            _answer(out, {"heard": {"start_ms": utterance.start_ms, "sound": sound}})
        out.flush()
    ended = {
        "reached_ms": reached,
        "duration_ms": medium.duration_ms,
        "is_end": reached < wanted["end_ms"],
    }
    _answer(out, {"heard": ended})
    _answer(out, {"paged": False})


def _unpack(source: Source, wanted: dict[str, Any], out: TextIO) -> None:
    """Answer with each file inside: what it is called, then its bytes in pieces."""
    from narwhal.ingest.members import members

    left = int(wanted["most_total_bytes"])
    for count, member in enumerate(members(source)):
        size = len(member.data)
        is_refused = count >= wanted["most_count"] or size > wanted["most_bytes"] or size > left
        head = {"member": member.member, "name": member.name, "mime": member.mime}
        _answer(out, {"member": {**head, "size": size, "is_refused": is_refused}})
        if is_refused:
            continue
        left -= size
        for start in range(0, size, _PIECE):
            data = binascii.b2a_base64(member.data[start : start + _PIECE], newline=False)
            _answer(out, {"member": {"data": data.decode()}})
        out.flush()
    _answer(out, {"paged": False})


def _values(page: Page) -> dict[str, Any]:
    return {
        "number": page.number,
        "text": page.text,
        "width": page.width,
        "height": page.height,
        "source": page.source,
        "needs_ocr": page.needs_ocr,
        "lines": [(line.start, line.end, line.box) for line in page.lines],
        "headings": [(heading.start, heading.level, heading.text) for heading in page.headings],
        "times": [(said.start, said.end, said.start_ms, said.end_ms) for said in page.times],
    }


def _answer(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message, separators=(",", ":"), ensure_ascii=False))
    out.write("\n")


if __name__ == "__main__":
    main()
