"""Notifications."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {
    "mark_notifications_read": lambda w: {},
    "mark_notifications_read some": lambda w: {"ids": [w.more["notification"]]},
}

HARMLESS = {"mark_notifications_read"}
# ids that are not the caller's are passed over, as if they did not exist
EMPTY = {"mark_notifications_read some"}
READING = {"mark_notifications_read"}
BARE = {"mark_notifications_read", "mark_notifications_read some"}


def fill(drive: Drive, world: World) -> None:
    """What the owner is told."""
    world.more["notification"] = str(
        drive.db.one(
            "insert into public.notifications (user_id, kind, node_id)"
            " values (%s, 'comment_added', %s) returning id",
            world.owner,
            world.file,
        )
    )
