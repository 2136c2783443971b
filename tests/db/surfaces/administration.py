"""Administration of accounts."""

from __future__ import annotations

from tests.db.surfaces import Calls

CALLS: Calls = {
    "list_users": lambda w: {},
    "set_user_active": lambda w: {"user_id": w.owner, "is_active": False},
    "set_user_quota": lambda w: {"user_id": w.owner, "storage_limit": 0},
    "set_user_role": lambda w: {"user_id": w.owner, "role": "viewer"},
}
PRIVILEGED = set(CALLS)
