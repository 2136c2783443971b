"""Downloads: whole trees, resumed where they stopped, checked, never outside of their folder."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from narwhal import downloads
from narwhal.downloads import fetch, local_name, targets
from narwhal.drive import Drive
from narwhal.errors import NarwhalError
from narwhal.local.state import StackState
from narwhal.session import user_client
from narwhal.settings import Settings
from tests.cli.running import CommandLine, settings_of

MIB = 2**20
SIZE = 5 * MIB


@pytest.fixture
def cli(stack: StackState, tmp_path: Path) -> CommandLine:
    return CommandLine(stack, tmp_path)


@pytest.fixture
def settings(stack: StackState, tmp_path: Path) -> Settings:
    return settings_of(stack, tmp_path / "home")


@pytest.fixture
def owner(cli: CommandLine) -> str:
    return cli.new_user()


@pytest.fixture
def drive(settings: Settings, owner: str) -> Iterator[Drive]:
    with user_client(settings, owner) as client:
        yield Drive(client, settings)


@pytest.fixture
def content() -> bytes:
    return random.Random(11).randbytes(SIZE)


@pytest.fixture
def node(drive: Drive, tmp_path: Path, content: bytes) -> dict[str, Any]:
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    return drive.details(drive.upload(path, None).file_id)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Collect the Range of every request for bytes."""
    seen: list[str | None] = []
    real: Callable[..., Any] = httpx.stream

    def watched(method: str, url: str, **options: Any) -> Any:
        seen.append(options["headers"].get("range"))
        return real(method, url, **options)

    monkeypatch.setattr(downloads.httpx, "stream", watched)
    monkeypatch.setattr(downloads, "PAUSE_S", 0.01)
    return seen


def cut(monkeypatch: pytest.MonkeyPatch, times: int, after: int = MIB) -> None:
    """Break the connection in the middle of an answer, some times."""
    left = iter(range(times))
    real = httpx.Response.iter_raw

    def breaking(self: httpx.Response, chunk_size: int | None = None) -> Iterator[bytes]:
        arrived = 0
        broken = chunk_size == downloads.BLOCK and next(left, None) is not None
        for block in real(self, chunk_size):
            yield block
            arrived += len(block)
            if broken and arrived >= after:
                raise httpx.ReadError("the line is cut")

    monkeypatch.setattr(httpx.Response, "iter_raw", breaking)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


def test_a_broken_download_goes_on_where_it_stopped(
    drive: Drive,
    node: dict[str, Any],
    tmp_path: Path,
    content: bytes,
    asked: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut(monkeypatch, 2)
    told: list[int] = []
    target = tmp_path / "out.bin"
    done = fetch(drive, node, target, progress=lambda now, _total: told.append(now))
    assert done.state == "downloaded"
    assert target.read_bytes() == content
    assert asked == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]
    assert told == sorted(told)
    assert told[-1] == SIZE
    assert leftovers(tmp_path) == []


def test_another_process_goes_on_with_what_is_there(
    drive: Drive,
    node: dict[str, Any],
    tmp_path: Path,
    content: bytes,
    asked: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "out.bin"
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "ATTEMPTS", 1)
        cut(patch, 1, 2 * MIB)
        with pytest.raises(httpx.ReadError):
            fetch(drive, node, target)
    assert not target.exists()  # never half a file under its name
    asked.clear()
    assert fetch(drive, node, target).state == "resumed"
    assert asked == [f"bytes={2 * MIB}-"]
    assert target.read_bytes() == content
    asked.clear()
    assert fetch(drive, node, target).state == "complete"
    assert asked == []


def test_a_part_that_was_damaged_is_fetched_anew(
    drive: Drive,
    node: dict[str, Any],
    tmp_path: Path,
    content: bytes,
    asked: list[str | None],
) -> None:
    sha256_is_known(drive, node, content)
    part = tmp_path / f".{node['versions'][0]['id']}.part"
    part.write_bytes(b"\0" * MIB)
    assert fetch(drive, node, tmp_path / "out.bin").state == "downloaded"
    assert asked == [f"bytes={MIB}-", None]
    assert (tmp_path / "out.bin").read_bytes() == content


def test_bytes_that_are_not_the_version_get_no_name(
    drive: Drive, node: dict[str, Any], tmp_path: Path
) -> None:
    sha256_is_known(drive, node, b"other bytes")
    with pytest.raises(NarwhalError) as error:
        fetch(drive, node, tmp_path / "out.bin")
    assert error.value.error == "CHECKSUM_MISMATCH"
    assert not (tmp_path / "out.bin").exists()
    assert leftovers(tmp_path) == []


def sha256_is_known(drive: Drive, node: dict[str, Any], content: bytes) -> None:
    """Note the hash of a version, as a worker does when it reads the bytes."""
    with psycopg.connect(drive.settings.require("database_url")) as connection:
        connection.execute(
            "update public.file_versions set sha256 = %s where file_id = %s",
            (hashlib.sha256(content).hexdigest(), node["id"]),
        )


def test_what_stands_there_is_not_replaced_unasked(
    drive: Drive, node: dict[str, Any], tmp_path: Path, content: bytes
) -> None:
    target = tmp_path / "out.bin"
    target.write_text("my own work")
    with pytest.raises(NarwhalError) as error:
        fetch(drive, node, target)
    assert error.value.error == "LOCAL_CONFLICT"
    assert target.read_text() == "my own work"
    fetch(drive, node, target, overwrite=True)
    assert target.read_bytes() == content


def test_a_link_in_the_way_is_not_followed(
    drive: Drive, node: dict[str, Any], tmp_path: Path, content: bytes
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("not yours")
    (tmp_path / "out.bin").symlink_to(outside)
    with pytest.raises(NarwhalError):
        fetch(drive, node, tmp_path / "out.bin")
    fetch(drive, node, tmp_path / "out.bin", overwrite=True)
    assert not (tmp_path / "out.bin").is_symlink()
    assert outside.read_text() == "not yours"

    folder = drive.make_folder("Reports")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "Reports").symlink_to(elsewhere)
    with pytest.raises(NarwhalError) as error:
        list(targets(drive, [folder], tmp_path / "to"))
    assert error.value.error == "LOCAL_CONFLICT"


def test_two_commands_do_not_write_one_part(
    drive: Drive, node: dict[str, Any], tmp_path: Path
) -> None:
    part = tmp_path / f".{node['versions'][0]['id']}.part"
    with downloads._locked(part), pytest.raises(NarwhalError) as error:
        fetch(drive, node, tmp_path / "out.bin")
    assert error.value.error == "LOCKED"


def test_a_token_that_expires_within_a_long_tree_is_renewed(
    drive: Drive, node: dict[str, Any], tmp_path: Path
) -> None:
    session = drive.client.auth.get_session()
    assert session is not None
    stale = session.model_copy(update={"expires_at": 1, "access_token": "stale.token.x"})
    drive.client.auth._save_session(stale)
    drive.client.auth._notify_all_subscribers("TOKEN_REFRESHED", stale)
    assert fetch(drive, node, tmp_path / "out.bin").state == "downloaded"
    renewed = drive.client.auth.get_session()
    assert renewed is not None
    assert renewed.refresh_token != session.refresh_token


def test_a_tree_comes_whole_and_once(cli: CommandLine, owner: str) -> None:
    for name in ("top.txt", "deep/er/leaf.txt", "deep/empty.txt", "deep/.hidden"):
        path = cli.cwd / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if "empty" in name else name)
    cli.json("upload", "tree", "--recursive", "--as", owner)
    cli.json("mkdir", "tree/hollow", "--as", owner)
    rows = cli.json("download", "tree", "--to", "back", "--as", owner)
    assert {row["state"] for row in rows} == {"downloaded"}
    back = cli.cwd / "back" / "tree"
    found = {p.relative_to(back).as_posix(): p.is_dir() or p.read_text() for p in back.rglob("*")}
    assert found == {
        "top.txt": "top.txt",
        "deep": True,
        "deep/er": True,
        "deep/er/leaf.txt": "deep/er/leaf.txt",
        "deep/empty.txt": "",
        "deep/.hidden": "deep/.hidden",
        "hollow": True,
    }
    (back / "top.txt").write_text("changed here")
    (back / "deep" / "empty.txt").unlink()
    rows = cli.json("download", "/tree", "--to", "back", "--as", owner, code=1)
    states = {Path(row["path"]).name: row.get("error") or row["state"] for row in rows}
    assert states == {
        "top.txt": "LOCAL_CONFLICT",
        "leaf.txt": "complete",
        "empty.txt": "downloaded",
        ".hidden": "complete",
    }


def test_a_version_is_chosen_by_its_number(cli: CommandLine, owner: str) -> None:
    for text in ("first", "second"):
        (cli.cwd / "note.txt").write_text(text)
        policy = "fail" if text == "first" else "version"
        cli.json("upload", "note.txt", "--on-conflict", policy, "--wait", "--as", owner)
    (cli.cwd / "note.txt").unlink()
    cli.json("download", "note.txt", "--as", owner)
    assert (cli.cwd / "note.txt").read_text() == "second"
    cli.json("download", "note.txt", "--version", "1", "--to", "old", "--as", owner)
    assert (cli.cwd / "old" / "note.txt").read_text() == "first"
    gone = cli.run("download", "note.txt", "--version", "7", "--as", owner)
    assert gone.returncode == 1
    assert "NOT_FOUND" in gone.stderr


def test_a_stranger_downloads_nothing(cli: CommandLine, owner: str) -> None:
    (cli.cwd / "mine.txt").write_text("mine")
    [row] = cli.json("upload", "mine.txt", "--as", owner)
    done = cli.run("download", row["file_id"], "--to", "out", "--as", cli.new_user())
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr
    assert not (cli.cwd / "out" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("name", "here", "portable"),
    [
        ("plan.pdf", "plan.pdf", "plan.pdf"),
        ("Résumé 简历.pdf", "Résumé 简历.pdf", "Résumé 简历.pdf"),
        ('What: "why"?', 'What: "why"?', "What： ＂why＂？"),  # noqa: RUF001
        ("a\\b", "a\\b", "a＼b"),  # noqa: RUF001
        ("..", "_..", "__"),
        ("a/../b", "a／..／b", "a／..／b"),  # noqa: RUF001
        ("bell\a", "bell�", "bell�"),
        ("CON", "CON", "_CON"),
        ("nul.txt", "nul.txt", "_nul.txt"),
        ("ends with a dot.", "ends with a dot.", "ends with a dot_"),
    ],
)
def test_names_are_made_safe(name: str, here: str, portable: str) -> None:
    assert local_name(name) == here
    assert local_name(name, portable=True) == portable


def test_names_that_became_alike_are_told_apart() -> None:
    taken: set[str] = set()
    assert [
        downloads._free(name, taken) for name in ("a.txt", "A.txt", "b", "a.txt", ".c", ".c")
    ] == [
        "a.txt",
        "A (2).txt",
        "b",
        "a (3).txt",
        ".c",
        ".c (2)",
    ]
