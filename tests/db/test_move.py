"""Moving: what goes where, who may, and what it leaves alone."""

from __future__ import annotations

from tests.database import Database
from tests.db.conftest import Drive, refused


def test_a_moved_folder_takes_everything_along(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a = drive.rpc(owner, "create_folder", name="a")["id"]
    b = drive.rpc(owner, "create_folder", name="b", parent=a)["id"]
    file = drive.upload(owner, "c.txt", folder_id=b)["file_id"]
    target = drive.rpc(owner, "create_folder", name="target")["id"]
    moved = drive.rpc(owner, "move_nodes", ids=[a], target=target)
    assert moved["items"][0]["parent_id"] == target
    assert drive.rpc(owner, "file_details", file_id=file)["path"] == "/target/a/b/c.txt"
    with refused("CYCLE", id=a):
        drive.rpc(owner, "move_nodes", ids=[a], target=b)
    with refused("CYCLE"):
        drive.rpc(owner, "move_nodes", ids=[a], target=a)
    drive.rpc(owner, "move_nodes", ids=[b])
    assert drive.rpc(owner, "file_details", file_id=file)["path"] == "/b/c.txt"
