"""The sandbox: whatever the reading process does, the caller gets a document or a code in time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from narwhal.ingest.detect import detect
from narwhal.ingest.document import Heading, Line, ReadError
from narwhal.ingest.extractors import FullError
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.limits import MIB, Limits, detect_in_sandbox, read_in_sandbox
from tests.ingest.files import docx, package, paragraph, pdf, text_at

PYTHON = sys.executable  # the fixture below puts another in its place
Program = Callable[[str], None]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a program of the test's own in the place of the reading process."""

    def install(source: str) -> None:
        program = tmp_path / "reader"
        program.write_text(f"#!{PYTHON}\nimport json, os, signal, sys, time\n{source}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr("narwhal.ingest.limits.sys.executable", str(program))

    return install


def stored(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(data)
    return path


def code_of(path: Path, name: str = "a.txt", limits: Limits | None = None) -> str:
    """How reading fails, or ends before the file does."""
    try:
        document = read_in_sandbox(path, name, limits=limits)
    except ReadError as error:
        return error.code
    assert document.truncated_by
    return document.truncated_by


def test_a_document_comes_back_whole(tmp_path: Path) -> None:
    objects = {
        100: "<</Type/Outlines/First 101 0 R/Last 101 0 R/Count 1>>",
        101: "<</Title(Tides)/Parent 100 0 R/Dest[10 0 R/Fit]>>",
    }
    data = pdf(text_at(60, 720, "Tides"), "", catalog_extra="/Outlines 100 0 R", objects=objects)
    document = read_in_sandbox(stored(tmp_path, data), "a.pdf", "application/pdf")

    first, second = document.pages
    assert document.paged
    assert (first.text, first.width, first.height) == ("Tides", 600, 800)
    assert first.headings == (Heading(0, 1, "Tides"),)
    assert isinstance(first.lines[0], Line)
    assert first.lines[0].box[0] == pytest.approx(0.1, abs=0.01)
    assert (second.number, second.text) == (2, "")


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"MZ\x90" + b"\x00" * 99, "a.pdf", "magic_mismatch"),
        (pdf("", user_password="x"), "a.pdf", "encrypted_pdf"),
        (b"", "a.docx", "corrupt"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 99, "a.png", "corrupt"),
    ],
)
def test_codes_come_back_too(tmp_path: Path, data: bytes, name: str, code: str) -> None:
    assert code_of(stored(tmp_path, data), name) == code


def test_too_much_text_too_many_pages_too_little_time(tmp_path: Path) -> None:
    text = stored(tmp_path, b"word " * 1000)
    assert code_of(text, limits=Limits(characters=4_998)) == "limit_output"
    assert read_in_sandbox(text, "a.txt", limits=Limits(characters=5_000)).pages[0].text
    assert code_of(text, limits=Limits(seconds=0.001)) == "limit_time"
    pages = stored(tmp_path, pdf("", "", ""))
    assert code_of(pages, "a.pdf", Limits(pages=2)) == "limit_output"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold RLIMIT_AS")
def test_memory_is_bounded_in_python_and_in_c(tmp_path: Path) -> None:
    text = stored(tmp_path, b"word " * (8 * MIB))
    limits = Limits(memory_bytes=64 * MIB, characters=10**9)
    assert code_of(text, limits=limits) == "limit_memory"
    # One paragraph: the parser gathers all of it before it hands anything on.
    large = stored(tmp_path, docx(paragraph("".join(f"{i:x} " for i in range(4_000_000)))))
    assert code_of(large, "a.docx", limits) == "limit_memory"


def test_a_reader_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, reader: Program
) -> None:
    pids = tmp_path / "pids"
    reader(
        f"child = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    )
    started = time.monotonic()
    assert code_of(stored(tmp_path, b""), limits=Limits(seconds=1)) == "limit_time"
    assert time.monotonic() - started < 5
    both = pids.read_text().split()
    assert len(both) == 2
    for pid in both:
        assert not _is_running(int(pid))


def _is_running(pid: int) -> bool:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if status == "Z":  # dead; whoever adopted it has not noticed yet
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "corrupt"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "limit_memory"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "limit_time"),
        ("hog = bytearray(90 << 20)\ntime.sleep(0.3)\nos.abort()", "limit_memory"),
        ("sys.exit(1)", "corrupt"),
        ("os.close(0)\nsys.exit(0)", "corrupt"),
    ],
)
def test_a_reader_that_dies_leaves_a_code(
    tmp_path: Path, reader: Program, source: str, code: str
) -> None:
    reader(source)
    limits = Limits(seconds=20, memory_bytes=100 * MIB)
    assert code_of(stored(tmp_path, b""), limits=limits) == code


def page(**values: object) -> str:
    whole = {"number": 1, "text": "abc", "width": 1, "height": 1, "lines": [], "headings": []}
    whole |= {"times": []}
    whole |= {"source": "text", "needs_ocr": False}
    return f"print({json.dumps(json.dumps({'page': {**whole, **values}}))}, flush=True)"


DONE = "print(json.dumps({'paged': True}))"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("print('no json')", "corrupt"),
        ("print('[' * 100000)", "corrupt"),
        ("print('{}')", "corrupt"),
        ("""print('{"error": "made_up", "message": ""}')""", "corrupt"),
        (page(), "corrupt"),  # and no end
        (page(text="a\x00") + "\n" + DONE, "corrupt"),
        (page(text="\ud800") + "\n" + DONE, "corrupt"),
        (page(text=7) + "\n" + DONE, "corrupt"),
        (page(source="made up") + "\n" + DONE, "corrupt"),
        (page(lines=[[0, 4, [0, 0, 1, 1]]]) + "\n" + DONE, "corrupt"),
        (page(lines=[[0, 3, [0, 0, 1, 1.5]]]) + "\n" + DONE, "corrupt"),
        (page(headings=[[-1, 1, "x"]]) + "\n" + DONE, "corrupt"),
        (f"while True: {page(text='x' * 400)}", "limit_output"),
        (f"while True: {page()}", "limit_output"),
        ("while True: print('x' * 100000, end='')", "limit_output"),
    ],
)
def test_an_answer_is_not_believed(tmp_path: Path, reader: Program, source: str, code: str) -> None:
    reader(source)
    limits = Limits(seconds=20, characters=1000, pages=50)
    assert code_of(stored(tmp_path, b""), limits=limits) == code


def test_words_of_the_reader_are_cleaned(tmp_path: Path, reader: Program) -> None:
    title = page(headings=[[0, 1, "a\x00b\ud800c"]])
    reader(f"{title}\nprint(json.dumps({{'error': 'corrupt', 'message': 'x\\0y'}}))")
    with pytest.raises(ReadError) as error:
        read_in_sandbox(stored(tmp_path, b""), "a.txt")
    assert error.value.message == "xy"
    reader(f"{title}\n{DONE}")
    document = read_in_sandbox(stored(tmp_path, b""), "a.txt")
    assert document.pages[0].headings == (Heading(0, 1, "abc"),)


def test_no_secret_reaches_the_reader(
    tmp_path: Path, reader: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NARWHAL_SERVICE_KEY", "very-secret")
    descriptor = os.open(stored(tmp_path, b"x"), os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    reader(
        "seen = json.dumps([dict(os.environ), sys.argv, sorted(os.listdir('/proc/self/fd'))])\n"
        "print(json.dumps({'page': {'number': 1, 'text': seen, 'width': None, 'height': None,"
        " 'source': 'text', 'needs_ocr': False,"
        f" 'lines': [], 'headings': [], 'times': []}}}}))\n{DONE}"
    )
    try:
        seen = read_in_sandbox(tmp_path / "stored", "private-name.txt").pages[0].text
    finally:
        os.close(descriptor)
    environment, arguments, descriptors = json.loads(seen)
    assert set(environment) <= {"PYTHONPATH", "PYTHONUTF8", "LC_ALL", "LC_CTYPE"}
    assert "private-name" not in str(arguments)  # anybody may list a process's arguments
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the listing itself


ATTEMPTS = """
import json, os, socket, sys, threading
from pathlib import Path
from narwhal.ingest.lockdown import limit_resources, lock_down
allowed, other = map(Path, sys.argv[1:])
limit_resources(20, 256 << 20)
lock_down(allowed)
attempts = {
    "read": lambda: allowed.read_bytes(),
    "import": lambda: __import__("narwhal.ingest.extractors.pdf"),
    "read another file": lambda: other.read_bytes(),
    "list a folder": lambda: os.listdir(other.parent),
    "write": lambda: allowed.write_bytes(b"x"),
    "create": lambda: (allowed.parent / "new").write_bytes(b"x"),
    "delete": lambda: allowed.unlink(),
    "socket": lambda: socket.socket(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "thread": lambda: threading.Thread(target=int).start(),
    "fork": lambda: os.fork() or os._exit(0),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "signal": lambda: os.kill(os.getppid(), 0),
    "memory": lambda: bytearray(300 << 20),
}
done = {}
for name, attempt in attempts.items():
    try:
        attempt()
        done[name] = True
    except (OSError, MemoryError, RuntimeError):
        done[name] = False
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """What a locked-down process managed to do."""
    allowed = tmp_path_factory.mktemp("a") / "allowed"
    other = tmp_path_factory.mktemp("b") / "other"
    for path in (allowed, other):
        path.write_bytes(b"content")
    run = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(allowed), str(other)],
        capture_output=True,
        check=True,
        text=True,
    )
    result: dict[str, bool] = json.loads(run.stdout)
    return result


def test_the_reader_can_read_its_file_and_load_its_code(done: dict[str, bool]) -> None:
    assert done["read"]
    assert done["import"]
    assert done["thread"]


@pytest.mark.skipif(sys.platform != "linux", reason="resource limits differ")
@pytest.mark.parametrize("attempt", ["write", "create", "memory"])
def test_resource_limits_hold(done: dict[str, bool], attempt: str) -> None:
    assert not done[attempt]


@pytest.mark.skipif(not Path("/proc/sys/kernel/seccomp").exists(), reason="no seccomp here")
@pytest.mark.parametrize("attempt", ["socket", "unix socket", "fork", "run", "signal"])
def test_system_calls_are_closed(done: dict[str, bool], attempt: str) -> None:
    assert not done[attempt]


def _has_landlock() -> bool:
    import ctypes

    if sys.platform != "linux":
        return False
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return bool(version >= 1)


@pytest.mark.skipif(not _has_landlock(), reason="no Landlock here")
@pytest.mark.parametrize("attempt", ["read another file", "list a folder", "delete"])
def test_other_files_are_closed(done: dict[str, bool], attempt: str) -> None:
    assert not done[attempt]


def test_bombs_and_loops_of_office_files_end_early(tmp_path: Path) -> None:
    types = {"[Content_Types].xml": "<Types/>"}
    spaces = b"<w:document>" + b" " * (80 * MIB) + b"</w:document>"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    nested = "<w:tbl><w:tr><w:tc>" * 3000 + paragraph("bottom") + "</w:tc></w:tr></w:tbl>" * 3000
    bomb = package({**types, "word/document.xml": spaces})
    entities = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><w:document>&l9;</w:document>'

    assert code_of(stored(tmp_path, bomb), "a.docx") == "limit_memory"
    laugh = stored(tmp_path, package({**types, "word/document.xml": entities}))
    assert code_of(laugh, "a.docx") == "corrupt"
    assert read_in_sandbox(stored(tmp_path, docx(nested)), "a.docx").pages[0].text == "bottom"


def test_an_external_entity_reads_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    xml = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]><w:document>&e;</w:document>'
    data = package({"[Content_Types].xml": "<Types/>", "word/document.xml": xml})
    assert code_of(stored(tmp_path, data), "a.docx") == "corrupt"


def test_a_page_tree_that_contains_itself_ends(tmp_path: Path) -> None:
    data = pdf(text_at(9, 9, "x"))
    looped = data.replace(b"/Kids[10 0 R]/Count 1>>", b"/Kids[2 0 R]/Count 99>>  ")
    assert len(looped) != len(data) or looped != data
    assert code_of(stored(tmp_path, looped), "a.pdf", Limits(seconds=20)) in (
        "corrupt",
        "limit_output",
    )


def test_a_file_is_recognised_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "notes.html"
    path.write_text("<!doctype html><p>Hello", encoding="utf-8")
    assert detect_in_sandbox(path, path.name) == detect(path, path.name)


def test_a_disguised_program_is_refused_by_the_other_process_too(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"MZ" + bytes(200))
    with pytest.raises(ReadError) as refusal:
        detect_in_sandbox(path, path.name)
    assert refusal.value.code == "magic_mismatch"


def test_what_was_read_before_a_limit_is_kept(tmp_path: Path) -> None:
    text = stored(tmp_path, "wörd ".encode() * 1000)
    document = read_in_sandbox(text, "a.txt", limits=Limits(characters=998))
    assert (document.truncated_by, document.paged) == ("limit_output", False)
    assert document.pages[0].text == "wörd " * 198 + "wörd"

    pages = stored(tmp_path, pdf(*(text_at(60, 720, f"Page {n}") for n in range(1, 6))))
    document = read_in_sandbox(pages, "a.pdf", limits=Limits(pages=3))
    assert [page.text for page in document.pages] == ["Page 1", "Page 2", "Page 3"]
    assert (document.truncated_by, document.paged) == ("limit_output", True)
    document = read_in_sandbox(pages, "a.pdf", limits=Limits(characters=14))
    assert [page.text for page in document.pages] == ["Page 1", "Page 2", "Pa"]
    assert document.pages[2].lines == ()

    paragraphs = stored(tmp_path, docx("".join(paragraph(f"Line {n}") for n in range(500))))
    document = read_in_sandbox(paragraphs, "a.docx", limits=Limits(characters=50))
    assert document.pages[0].text == "Line 0\n\nLine 1\n\nLine 2\n\nLine 3\n\nLine 4\n\nLine 5"
    assert document.truncated_by == "limit_output"

    rows = stored(tmp_path, b"a,b\n" * 1000)
    document = read_in_sandbox(rows, "a.csv", limits=Limits(characters=100))
    assert document.pages[0].text == "\n".join(["a\tb"] * 25)


def test_a_file_without_end_costs_no_more_than_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    with path.open("wb") as file:
        file.write("größe,zahl\n".encode())
        for _ in range(40):
            file.write(b"1234567890,abcdefgh\n" * 50_000)
        file.seek(2**31)
        file.write(b"\n")
    limits = Limits(characters=2_000_000, memory_bytes=200 * MIB)
    document = read_in_sandbox(path, "a.csv", limits=limits)
    assert document.truncated_by == "limit_output"
    assert document.pages[0].text.startswith("größe\tzahl\n1234567890\tabcdefgh\n")
    assert 1_900_000 < len(document.pages[0].text) <= 2_000_000


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("time.sleep(60)", "limit_time"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "limit_memory"),
        ("""print('{"error": "limit_memory", "message": "x"}')""", "limit_memory"),
    ],
)
def test_a_reader_that_ends_in_the_middle_leaves_what_it_gave(
    tmp_path: Path, reader: Program, source: str, code: str
) -> None:
    begins = "print(json.dumps({'reading': {'paged': True}}))"
    reader(f"{begins}\n{page()}\n{page(number=2)}\n{source}")
    document = read_in_sandbox(stored(tmp_path, b""), "a.txt", limits=Limits(seconds=1))
    assert [page.number for page in document.pages] == [1, 2]
    assert (document.truncated_by, document.paged) == (code, True)
    # pages of nothing are nothing
    empty = page(text="")
    reader(f"{begins}\n{empty}\n{source}")
    with pytest.raises(ReadError) as error:
        read_in_sandbox(stored(tmp_path, b""), "a.txt", limits=Limits(seconds=1))
    assert error.value.code == code


def test_pages_with_text_give_a_document_more_time(tmp_path: Path, reader: Program) -> None:
    full = page(text="word " * 100)
    reader(f"for _ in range(8):\n {full}\n time.sleep(0.3)\n{DONE}")
    limits = Limits(seconds=1, page_seconds=0.4)
    assert len(read_in_sandbox(stored(tmp_path, b""), "a.txt", limits=limits).pages) == 8
    limits = Limits(seconds=1, page_seconds=0)
    assert code_of(stored(tmp_path, b""), limits=limits) == "limit_time"


def test_readers_end_by_themselves_when_their_time_is_nearly_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("narwhal.ingest.extractors._deadline", 0.0)
    blocks = Blocks(Limits())
    with pytest.raises(FullError) as error:
        for number in range(10_000):
            blocks.add(f"Row {number}", gap=1)
    assert error.value.code == "limit_time"
    assert error.value.page(1).text.startswith("Row 0\nRow 1\n")
