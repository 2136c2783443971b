"""related_documents: what a file is like, and never what the caller cannot read."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused

ABOUT = {
    "walrus.txt": ["walrus tusk arctic ice colony", "walrus dives for clams below the ice"],
    "seal.txt": ["seal and walrus share the arctic ice", "clams feed the colony"],
    "budget.txt": ["quarterly budget invoice payment", "tax office deadline invoice"],
    "tax.txt": ["tax deadline payment of the invoice"],
}


@pytest.fixture
def files(db: Database, drive: Drive) -> dict[str, Any]:
    """Somebody with two files about animals and two about money."""
    owner = db.create_user()
    ids = {name: drive.file(owner, name, *texts)["file_id"] for name, texts in ABOUT.items()}
    return {"owner": owner} | ids


def _related(drive: Drive, user: uuid.UUID, file: str, **more: Any) -> list[Any]:
    return drive.rpc(user, "related_documents", file_id=file, **more)["items"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "first"),
    [("walrus.txt", "seal.txt"), ("seal.txt", "walrus.txt"), ("budget.txt", "tax.txt")],
)
def test_what_is_about_the_same_comes_first(
    drive: Drive, files: dict[str, Any], name: str, first: str
) -> None:
    items = _related(drive, files["owner"], files[name])
    assert items[0]["name"] == first
    assert files[name] not in {item["file_id"] for item in items}
    assert items[0]["snippet"] in ABOUT[first]
    assert items == sorted(items, key=lambda item: -item["score"])
    assert _related(drive, files["owner"], files[name], top_k=1) == items[:1]


def test_only_what_can_be_read_is_related(
    db: Database, drive: Drive, files: dict[str, Any]
) -> None:
    peer = db.create_user()
    with refused("NOT_FOUND", id=files["walrus.txt"]):
        _related(drive, peer, files["walrus.txt"])
    drive.share(files["walrus.txt"], peer)
    assert _related(drive, peer, files["walrus.txt"]) == []
    drive.file(peer, "mine.txt", "the arctic walrus")
    assert [i["name"] for i in _related(drive, peer, files["walrus.txt"])] == ["mine.txt"]
    drive.share(files["seal.txt"], peer)
    found = _related(drive, peer, files["walrus.txt"])
    assert {item["name"] for item in found} == {"seal.txt", "mine.txt"}
    drive.rpc(files["owner"], "trash_nodes", ids=[files["seal.txt"]])
    assert [i["name"] for i in _related(drive, peer, files["walrus.txt"])] == ["mine.txt"]


def test_what_cannot_be_compared_says_so(db: Database, drive: Drive, files: dict[str, Any]) -> None:
    owner = files["owner"]
    empty = drive.file(owner, "empty.txt")["file_id"]
    assert _related(drive, owner, empty) == []
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    with refused("INVALID_ARGUMENT", field="file_id"):
        _related(drive, owner, folder)
    with refused("INVALID_ARGUMENT", field="top_k"):
        _related(drive, owner, empty, top_k=0)
    db.all("delete from private.chunk_vectors where file_id = %s", files["walrus.txt"])
    answer = drive.rpc(owner, "related_documents", file_id=files["walrus.txt"])
    assert answer["degraded"] is True
    assert answer["items"][0]["name"] == "seal.txt"
