# ruff: noqa: RUF001
from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from narwhal.ingest.detect import detect_file
from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import MIB, Limits, read_in_sandbox
from tests.ingest.conftest import Read
from tests.ingest.files import package


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folder = tarfile.TarInfo("plans")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_zip_is_the_list_of_its_files(read: Read) -> None:
    data = package({"plans/": "", "plans/tide table.pdf": b"x" * 40, "størrelse.txt": ""})
    page = read(data, "a.zip").pages[0]
    assert page.text == "plans/tide table.pdf\t40\nstørrelse.txt\t0"
    assert read(package({}), "empty.zip").pages[0].text == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/abs/a.txt", "abs/a.txt"),
        ("C:\\temp\\b.txt", "temp/b.txt"),
        ("C:C:../c.txt", "c.txt"),
        ("a/./../b//d.txt", "a/b/d.txt"),
        ("invoice\u202efdp.exe", "invoice fdp.exe"),
        ("line\nbreak\tand\x1b[31m", "line break and [31m"),
        ("long/" + "x" * 3000, "long/" + "x" * 995),
    ],
)
def test_names_are_made_harmless(read: Read, name: str, expected: str) -> None:
    assert read(package({name: "x", "b": ""}), "a.zip").pages[0].text == f"{expected}\t1\nb\t0"


@pytest.mark.parametrize("charset", ["cp866", "shift_jis", "gb18030", "cp437"])
def test_names_of_older_systems_are_decoded(read: Read, charset: str) -> None:
    names = {
        "cp866": ["Отчёт о тюленях.txt", "Комиссия приняла решение.txt"],
        "shift_jis": ["委員会は天候のため会議を延期.txt", "来年まで決定しました.txt"],
        "gb18030": ["由于天气原因委员会决定将会议推迟.txt", "北京是中国的首都.txt"],
        "cp437": ["plain.txt", "names.txt"],
    }[charset]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index, _ in enumerate(names):
            archive.writestr(f"{index}" * len(names[index].encode(charset)), "")
    data = out.getvalue()
    for index, name in enumerate(names):
        data = data.replace(b"%d" % index * len(name.encode(charset)), name.encode(charset))
    lines = read(data, "a.zip").pages[0].text.split("\n")
    assert lines == [f"{name}\t0" for name in names]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_is_listed_packed_or_not(read: Read, pack: Callable[[bytes], bytes]) -> None:
    data = pack(tar({"plans/tide.txt": b"x" * 40, "../../størrelse": b""}))
    assert read(data, "a.tar.gz").pages[0].text == "plans/tide.txt\t40\nstørrelse\t0"


def test_what_is_packed_but_no_archive_is_not_read() -> None:
    for data, mime in (
        (gzip.compress(b"words"), "application/gzip"),
        (b"\x1f\x8b\x08broken", "application/gzip"),
        (lzma.compress(b"words")[:20], "application/x-xz"),
    ):
        detected = detect_file(io.BytesIO(data), "a.gz")
        assert (detected.mime, detected.format) == (mime, None)


def test_archives_within_archives_are_not_opened(read: Read) -> None:
    inner = package({"secret.txt": "x"})
    assert read(package({"a.zip": inner, "b.txt": ""}), "o.zip").pages[0].text == (
        f"a.zip\t{len(inner)}\nb.txt\t0"
    )
    with pytest.raises(ReadError) as error:
        read(package({f"{i}.zip": inner for i in range(10)}), "bomb.zip")
    assert error.value.code == "unsupported_media"


def test_an_archive_that_holds_itself_is_refused(read: Read) -> None:
    size = len(package({"self.zip": b""}))
    while len(package({"self.zip": bytes(size)})) != size:
        size = len(package({"self.zip": bytes(size)}))
    with pytest.raises(ReadError) as error:
        read(package({"self.zip": bytes(size)}), "self.zip")
    assert error.value.code == "unsupported_media"


def test_the_list_is_bounded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narwhal.ingest.extractors.archive._MOST_MEMBERS", 3)
    text = read(package({f"{i}.txt": "" for i in range(9)}), "a.zip").pages[0].text
    assert text == "0.txt\t0\n1.txt\t0\n2.txt\t0\n\n\u2026"


def test_a_packed_bomb_and_a_broken_tar_end_with_a_code(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "stored"
    path.write_bytes(gzip.compress(tar({"big": bytes(200 * MIB), "z": b""})))
    with pytest.raises(ReadError) as error:
        read_in_sandbox(path, "a.tgz", limits=Limits(inflated_bytes=100 * MIB))
    assert error.value.code == "limit_memory"
    packed = gzip.compress(tar({"a": bytes(i * i * 7 % 251 for i in range(5000)), "b": b""}))
    with pytest.raises(ReadError) as error:
        read(packed[: len(packed) // 2], "a.tgz")
    assert error.value.code == "corrupt"
