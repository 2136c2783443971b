"""Administration of accounts; quota and plans."""

from __future__ import annotations

from tests.db.conftest import Drive
from tests.db.surfaces import Calls, World

CALLS: Calls = {
    "list_users": lambda w: {},
    "set_user_active": lambda w: {"user_id": w.owner, "is_active": False},
    "set_user_quota": lambda w: {"user_id": w.owner, "storage_limit": 0},
    "set_user_role": lambda w: {"user_id": w.owner, "role": "viewer"},
    "storage_usage": lambda w: {},
}
COMMON = {"public.plans"}
PERSONAL = {"public.usage_daily"}
HARMLESS = {"storage_usage"}
READING = {"storage_usage"}
BARE = {"storage_usage"}
PRIVILEGED = {"list_users", "set_user_active", "set_user_quota", "set_user_role"}


def fill(drive: Drive, world: World) -> None:
    """The day's use of the owner, and of the closed account."""
    drive.db.all(
        "insert into public.usage_daily"
        " select o.id, now()::date, 1, 0, 2, 1, 0, 0, 0 from public.owners as o"
        " where o.id = any(%s)",
        [world.owner, world.closed],
    )
