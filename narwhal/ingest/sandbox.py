"""The reading process: locks itself in, looks at one file, answers in lines of JSON, ends.

Run as `python -m narwhal.ingest.sandbox` with a job on stdin; see `narwhal.ingest.limits` for the
caller's side. Pages are written as they are read, so a long document is never held twice.
"""

from __future__ import annotations

import binascii
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from narwhal.ingest.detect import Detected, detect
from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source, extract_pages, extractor_for
from narwhal.ingest.limits import Limits
from narwhal.ingest.lockdown import limit_resources, lock_down


def main() -> None:
    """Read the job from stdin and answer on stdout."""
    job = json.loads(sys.stdin.buffer.read())
    limits = Limits(**job["limits"])
    path = Path(job["path"])
    if job["task"] == "ocr":
        _load_ocr()
    elif job["task"] == "draw":
        _load_drawing()
    limit_resources(limits.seconds, limits.memory_bytes)
    lock_down(path)
    try:
        detected = detect(path, job["name"], job["mime"])
        if job["task"] == "detect":
            _answer(sys.stdout, {"detected": asdict(detected)})
        elif job["task"] == "ocr":
            _read_pictures(path, detected, job["pages"], sys.stdout)
        elif job["task"] == "draw":
            _draw(path, detected, job["wanted"], sys.stdout)
        else:
            _read(path, detected, limits, sys.stdout)
    except ReadError as error:
        _answer(sys.stdout, {"error": error.code, "message": error.message})
    except MemoryError:
        mib = limits.memory_bytes // (1024 * 1024)
        message = f"Reading takes more than {mib} MiB of memory."
        _answer(sys.stdout, {"error": "limit_memory", "message": message})
    except RecursionError:
        _answer(sys.stdout, {"error": "corrupt", "message": "The file is nested too deeply."})
    sys.stdout.flush()


def _read(path: Path, detected: Detected, limits: Limits, out: TextIO) -> None:
    extractor = extractor_for(detected)
    with path.open("rb") as file:
        for page in extract_pages(Source(file, detected), limits):
            _answer(out, {"page": _values(page)})
    _answer(out, {"paged": extractor.PAGED})


def _load_ocr() -> None:
    """Load models and decoders while files may still be opened."""
    from narwhal.ingest.ocr import load_reader
    from narwhal.ingest.pictures import load_codecs

    load_codecs()
    load_reader()


def _read_pictures(path: Path, detected: Detected, numbers: list[int], out: TextIO) -> None:
    from narwhal.ingest.ocr import read_pages

    with path.open("rb") as file:
        for page in read_pages(Source(file, detected), numbers):
            _answer(out, {"page": _values(page)})
            out.flush()
    _answer(out, {"paged": True})


def _load_drawing() -> None:
    """Load decoders while files may still be opened."""
    from narwhal.ingest.pictures import load_codecs

    load_codecs()


def _draw(path: Path, detected: Detected, wanted: dict[str, Any], out: TextIO) -> None:
    from narwhal.ingest.rendering import Wanted, draw

    with path.open("rb") as file:
        for picture in draw(Source(file, detected), Wanted(**wanted)):
            data = binascii.b2a_base64(picture.data, newline=False).decode()
            _answer(out, {"picture": {**asdict(picture), "data": data}})
            out.flush()
    _answer(out, {"paged": True})


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
    }


def _answer(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message, separators=(",", ":"), ensure_ascii=False))
    out.write("\n")


if __name__ == "__main__":
    main()
