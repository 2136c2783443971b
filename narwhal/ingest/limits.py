"""What reading one file may cost, and the sandbox that holds it to that.

Reading happens in a fresh process (`narwhal.ingest.sandbox`) that inherits no secret and answers
in JSON over a pipe. Whatever a file does to it, the caller gets a Document or a ReadError in time.
"""

from __future__ import annotations

import binascii
import compileall
import contextlib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from narwhal.ingest.detect import Detected
from narwhal.ingest.document import (
    LIMITS,
    READ_ERRORS,
    Box,
    Document,
    EmbeddedImage,
    Heading,
    Line,
    Page,
    Picture,
    ReadError,
    Spoken,
)
from narwhal.ingest.text import clean

MIB = 1024 * 1024
_ROOT = Path(__file__).parents[2]  # the folder that holds the package
# JSON of a page is at most so many bytes for each of its characters, and for the whole answer.
_BYTES_PER_CHARACTER = 16
_BYTES_FREE = 16 * MIB
_FULL_PAGE = 200  # characters
_START_S = 20.0  # for loading the models of OCR
MOST_MS = 1 << 31  # beyond any time in a recording
_LOOK_S = 0.05  # how often the memory of the reading process is looked at
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}


@dataclass(frozen=True)
class Limits:
    """Bounds for reading one file; beyond any of them reading ends.

    What was read until then is kept; when there is nothing, or no part of it stands alone, it is a
    ReadError.

    seconds:        wall clock of the reading process (`limit_time`), and
    page_seconds:   what each page with text adds to that: a long document may take its time
    memory_bytes:   what that process may occupy, its libraries included (`limit_memory`)
    inflated_bytes: what one compressed part of a file may unfold to (`limit_memory`)
    characters:     text of the whole document (`limit_output`)
    pages:          pages, slides or sheets (`limit_output`)
    """

    seconds: float = 28.0
    memory_bytes: int = 512 * MIB
    inflated_bytes: int = 1024 * MIB
    characters: int = 20_000_000
    pages: int = 20_000
    page_seconds: float = 0.05

    def time_for(self, page: Page) -> float:
        """What a page adds to the time, in seconds."""
        return self.page_seconds if len(page.text) >= _FULL_PAGE else 0.0


def read_in_sandbox(
    path: Path,
    name: str,
    mime: str | None = None,
    limits: Limits | None = None,
    passwords: Sequence[str] = (),
) -> Document:
    """Read the file at `path`, uploaded as `name`, in a process of its own.

    `passwords` are tried when it is locked.
    A limit that ends reading in the middle is noted in the document. Raises ReadError,
    `unsupported_media` for a file that nothing here reads; a crash of the reader
    is `corrupt`, or `limit_memory` where it had used most of its memory.
    """
    with reading_in_sandbox(path, name, mime, limits, passwords) as reading:
        pages = tuple(reading)
    return Document(pages, reading.paged, reading.truncated_by)


@contextlib.contextmanager
def reading_in_sandbox(
    path: Path,
    name: str,
    mime: str | None = None,
    limits: Limits | None = None,
    passwords: Sequence[str] = (),
) -> Iterator[Reading]:
    """Like `read_in_sandbox`, but page by page; a document may be larger than the memory here."""
    with _reader(path, name, mime, limits or Limits(), "read", passwords) as answer:
        yield Reading(answer)


class Reading:
    """The pages of a file as they come, once; what they are is known when they have ended.

    When a limit ends reading after something was read, the pages end, too, and `truncated_by` is
    the limit.
    """

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer
        self.paged = False
        self.truncated_by: str | None = None

    def __iter__(self) -> Iterator[Page]:
        """Yield the pages; raises ReadError as `read_in_sandbox` does."""
        has_some = False
        while True:
            try:
                message = self._answer.next()
            except ReadError as error:
                if error.code not in LIMITS or not has_some:
                    raise
                self.paged = self._answer.paged
                self.truncated_by = error.code
                return
            if not isinstance(message, Page):
                assert isinstance(message, bool)
                self.paged = message
                return
            has_some = has_some or bool(message.text.strip()) or message.needs_ocr
            yield message


def read_pictures_in_sandbox(
    path: Path,
    name: str,
    mime: str | None,
    numbers: Sequence[int],
    limits: Limits,
    passwords: Sequence[str] = (),
    languages: Sequence[str] = (),
) -> Iterator[Page]:
    """Read pages of the file at `path` by OCR, in a process of its own; yield each as it is done.

    `limits.seconds` is that of each page; `languages` are those of the pages, none for any. Raises
    ReadError as `read_in_sandbox` does.
    """
    all_of_it = replace(limits, seconds=limits.seconds * len(numbers))
    more = {"pages": list(numbers), "languages": list(languages)}
    with _reader(path, name, mime, all_of_it, "ocr", passwords, **more) as answer:
        answer.wait(limits.seconds + _START_S)
        while isinstance(message := answer.next(), Page):
            yield message
            answer.wait(limits.seconds)


def draw_in_sandbox(
    path: Path,
    name: str,
    mime: str | None,
    wanted: dict[str, Any],
    limits: Limits,
    passwords: Sequence[str] = (),
) -> Iterator[Picture | EmbeddedImage]:
    """Draw the file at `path` in a process of its own; yield each picture and image as it is done.

    `wanted` holds the values of `narwhal.ingest.rendering.Wanted`. Raises ReadError as
    `read_in_sandbox` does.
    """
    with _reader(path, name, mime, limits, "draw", passwords, wanted=wanted) as answer:
        while isinstance(message := answer.next(), Picture | EmbeddedImage):
            yield message


def listen_in_sandbox(
    path: Path, name: str, mime: str | None, wanted: dict[str, Any], limits: Limits
) -> Iterator[dict[str, Any]]:
    """Listen to a stretch of the recording at `path` in a process of its own; yield what it tells.

    `wanted` is `{start_ms, end_ms, is_packaged}`; `narwhal.ingest.hearing` makes sense of the
    answers. Raises ReadError as `read_in_sandbox` does.
    """
    with _reader(path, name, mime, limits, "listen", wanted=wanted) as answer:
        while isinstance(message := answer.next(), dict):
            yield message


def unpack_in_sandbox(
    path: Path, name: str, mime: str | None, wanted: dict[str, Any], limits: Limits
) -> Iterator[dict[str, Any]]:
    """Take the file at `path` apart in a process of its own; yield each answer.

    `wanted` is `{most_count, most_bytes, most_total_bytes}`; `narwhal.ingest.unpacking` makes sense
    of the answers. Raises ReadError as `read_in_sandbox` does.
    """
    with _reader(path, name, mime, limits, "unpack", wanted=wanted) as answer:
        while isinstance(message := answer.next(), dict):
            yield message


def detect_in_sandbox(
    path: Path,
    name: str,
    mime: str | None = None,
    limits: Limits | None = None,
    passwords: Sequence[str] = (),
) -> Detected:
    """Like `narwhal.ingest.detect.detect`, in a process of its own: archives lie about themselves.

    Raises ReadError as `detect` and `read_in_sandbox` do.
    """
    with _reader(path, name, mime, limits or Limits(), "detect", passwords) as answer:
        message = answer.next()
    assert isinstance(message, Detected)
    return message


@contextlib.contextmanager
def _reader(
    path: Path,
    name: str,
    mime: str | None,
    limits: Limits,
    task: str,
    passwords: Sequence[str] = (),
    **more: Any,
) -> Iterator[_Answer]:
    """Start a reading process; in the end it is gone, whatever happened."""
    _compile()
    job = {
        "task": task,
        "path": str(path.resolve()),
        "name": name,
        "mime": mime,
        "limits": asdict(limits),
        "passwords": list(passwords),
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-S", "-s", "-P", "-m", "narwhal.ingest.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        cwd="/",
        start_new_session=True,
    )
    try:
        yield _Answer(process, limits, json.dumps(job).encode())
    finally:
        _end(process)


@cache
def _compile() -> None:
    """Compile the readers once: the sandbox may not write, so it could never keep the result."""
    compileall.compile_dir(Path(__file__).parent, quiet=2)


def _environment() -> dict[str, str]:
    """What the reader needs to import the package, and nothing of the worker's own settings."""
    paths = [str(_ROOT), *(path for path in sys.path if path and path != str(_ROOT))]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the reader with everything it may have started, and collect it."""
    # Not collected yet, even an ended process keeps its number: no other group can be hit.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


class _Answer:
    """The reader's answer: lines of JSON, believed in nothing but their shape."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, job: bytes) -> None:
        """Send the job."""
        self._process = process
        self._limits = limits
        self._left_s = limits.seconds  # of waiting here: what the caller does meanwhile is its own
        self.paged = False
        self._most_memory = 0
        self._characters = self._pages = 0
        self._left = self._lines()
        assert process.stdin is not None
        try:
            process.stdin.write(job)
            process.stdin.close()
        except BrokenPipeError:
            raise self._died() from None

    def wait(self, seconds: float) -> None:
        """Allow so much time from here on."""
        self._left_s = seconds

    def next(self) -> Page | Picture | EmbeddedImage | Detected | dict[str, Any] | bool:
        """Return what comes next: a page, picture or image, or what ends the answer.

        That is what was detected, or `Document.paged`.

        Raises ReadError for anything else, and for an answer that ends too early.
        """
        for line in self._left:
            try:
                message = json.loads(line)
                if "reading" in message:
                    self.paged = bool(message["reading"]["paged"])
                    continue
                if "page" in message:
                    return self._counted(_page(message["page"]))
                if "picture" in message:
                    return _picture(message["picture"])
                if "heard" in message:
                    return dict(message["heard"])
                if "member" in message:
                    return dict(message["member"])
                if "image" in message:
                    return _image(message["image"])
                if "detected" in message:
                    return _detected(message["detected"])
                if "paged" in message:
                    return bool(message["paged"])
                _raise_error(message["error"], message["message"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ReadError("corrupt", "Reading the file gave no usable answer.") from None
        raise self._died()

    def _counted(self, page: Page) -> Page:
        self._characters += len(page.text)
        self._pages += 1
        if self._characters > self._limits.characters or self._pages > self._limits.pages:
            raise ReadError("limit_output", "The file has more text than is allowed.")
        self._left_s += self._limits.time_for(page)
        return page

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines as they come, until the reader is done, dead or late."""
        assert self._process.stdout is not None
        left = self._limits.characters * _BYTES_PER_CHARACTER + _BYTES_FREE
        pending: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                if self._left_s <= 0:
                    raise self._late()
                asked = time.monotonic()
                is_there = selector.select(min(self._left_s, _LOOK_S))
                self._left_s -= time.monotonic() - asked
                if not is_there:
                    self._look()
                    continue
                piece = os.read(self._process.stdout.fileno(), MIB)
                if not piece:
                    return
                left -= len(piece)
                if left < 0:
                    raise ReadError("limit_output", "The file has more text than is allowed.")
                *ends, rest = piece.split(b"\n")
                for end in ends:
                    yield b"".join([*pending, end])
                    pending = []
                pending.append(rest)

    def _look(self) -> None:
        """Note the reader's memory, to tell later what it died of."""
        try:
            statm = Path(f"/proc/{self._process.pid}/statm").read_bytes()
            pages = int(statm.split()[1])
        except (OSError, ValueError, IndexError):
            return
        self._most_memory = max(self._most_memory, pages * os.sysconf("SC_PAGE_SIZE"))

    def _late(self) -> ReadError:
        return ReadError("limit_time", f"Reading took longer than {self._limits.seconds:g} s.")

    def _died(self) -> ReadError:
        """What to say of a reader that ended without an answer."""
        while True:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended:
                break
            if self._left_s <= 0:
                return self._late()
            time.sleep(0.001)
            self._left_s -= 0.001
        died_of = ended.si_status if ended.si_code != os.CLD_EXITED else 0
        if died_of == signal.SIGXCPU:
            return self._late()
        full = self._most_memory > 0.7 * self._limits.memory_bytes
        if died_of == signal.SIGKILL or (died_of in _CRASHES and full):
            mib = self._limits.memory_bytes // MIB
            return ReadError("limit_memory", f"Reading takes more than {mib} MiB of memory.")
        return ReadError("corrupt", "The file is damaged: reading it crashed.")


def _raise_error(code: str, message: str) -> NoReturn:
    if code not in READ_ERRORS:
        raise ValueError(code)
    raise ReadError(code, clean(str(message))[:500])


def _detected(values: dict[str, Any]) -> Detected:
    """Build what was recognised from the reader's JSON; ValueError for a wrong shape."""
    texts = {name: values[name] for name in ("mime", "format", "charset")}
    if not isinstance(texts["mime"], str) or any(
        text is not None and (not isinstance(text, str) or len(text) > 200)
        for text in texts.values()
    ):
        raise ValueError("what was recognised is not a few short words")
    return Detected(**texts)


def _picture(values: dict[str, Any]) -> Picture:
    """Build a picture from the reader's JSON; ValueError or TypeError for a wrong shape."""
    kind, page, image = values["kind"], values["page"], values["image"]
    if (kind, page is not None, image is not None) not in (
        ("thumbnail", False, False),
        ("page", True, False),
        ("image", False, True),
    ):
        raise ValueError("not a picture that is asked for")
    data = binascii.a2b_base64(values["data"])
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("not a WEBP")
    return Picture(
        kind=kind,
        page=None if page is None else int(page),
        width=int(values["width"]),
        height=int(values["height"]),
        data=data,
        image=None if image is None else int(image),
    )


def _image(values: dict[str, Any]) -> EmbeddedImage:
    """Build an image from the reader's JSON; ValueError or TypeError for a wrong shape."""
    for text in (values["context"], values["description"], values["mime"] or ""):
        if clean(text) != text or len(text) > 2000:
            raise ValueError("the text holds what cannot be stored")
    if not re.fullmatch("[0-9a-f]{64}", values["sha256"]):
        raise ValueError("not a hash")
    box, place, page = values["box"], values["location"], values["page"]
    facts: dict[str, str | float] = {}
    for name, value in list(values["facts"].items())[:20]:
        facts[str(name)[:40]] = clean(value)[:200] if isinstance(value, str) else _number(value)
    return EmbeddedImage(
        idx=int(values["idx"]),
        page=None if page is None else int(page),
        box=None if box is None else _box(box),
        context=values["context"],
        description=values["description"],
        mime=values["mime"],
        width=int(values["width"]),
        height=int(values["height"]),
        sha256=values["sha256"],
        facts=facts,
        location=None
        if place is None
        else (
            _number(place[0]),
            _number(place[1]),
            None if place[2] is None else _number(place[2]),
        ),
    )


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = values
    return _share(x0), _share(y0), _share(x1), _share(y1)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


def _page(values: dict[str, Any]) -> Page:
    """Build a page from the reader's JSON; ValueError or TypeError for a wrong shape."""
    text = values["text"]
    if clean(text) != text:
        raise ValueError("the text holds what cannot be stored")
    return Page(
        number=int(values["number"]),
        text=text,
        width=_size(values["width"]),
        height=_size(values["height"]),
        source=_source(values["source"]),
        needs_ocr=bool(values["needs_ocr"]),
        lines=tuple(
            Line(
                _offset(start, text),
                _offset(end, text),
                _box(box),
            )
            for start, end, box in values["lines"]
        ),
        headings=tuple(
            Heading(_offset(start, text), int(level), clean(str(title))[:500])
            for start, level, title in values["headings"]
        ),
        times=tuple(
            _spoken(_offset(start, text), _offset(end, text), *times)
            for start, end, *times in values["times"]
        ),
    )


def _spoken(start: int, end: int, start_ms: int, end_ms: int) -> Spoken:
    if not (start < end and 0 <= start_ms < end_ms < MOST_MS):
        raise ValueError("a time lies outside of all recordings")
    return Spoken(start, end, int(start_ms), int(end_ms))


def _source(value: str) -> str:
    if value not in ("text", "ocr", "mixed"):
        raise ValueError("text comes from a text layer, from OCR, or from both")
    return value


def _offset(value: int, text: str) -> int:
    if not 0 <= value <= len(text):
        raise ValueError("an offset lies outside the text")
    return int(value)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("a box lies outside the page")
    return float(value)


def _size(value: float | None) -> float | None:
    if value is None:
        return None
    return float(value) if math.isfinite(value) else None
