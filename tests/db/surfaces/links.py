"""Links."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {}
PERSONAL = {"public.share_links"}


def fill(drive: Drive, world: World) -> None:
    """A link to the owner's folder."""
    world.more["link"] = str(
        drive.db.one(
            "insert into public.share_links (node_id, level, created_by)"
            " values (%s, 'view', %s) returning id",
            world.folder,
            world.owner,
        )
    )
