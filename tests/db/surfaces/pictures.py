"""Images, where photos were taken, and where pictures are; `links` gives the file one."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {"list_pictures": lambda w: {"file_ids": [w.file]}}

PERSONAL = {"public.image_locations"}
EMPTY = {"list_pictures"}
READING = {"list_pictures"}
BARE = {"list_pictures"}


def fill(drive: Drive, world: World) -> None:
    """A photo in the owner's file, and where it was taken."""
    image = drive.db.one(
        "insert into public.images (file_id, version_id, idx, width, height, sha256)"
        " values (%s, %s, 0, 8, 8, repeat('0', 64)) returning id::text",
        world.file,
        world.version,
    )
    world.more["image"] = image
    drive.db.all(
        "insert into public.image_locations values (%s, %s, 54, 7, null)", image, world.file
    )
