"""The history of searches, and statistics over it."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from tests.db.conftest import Drive, embed
from tests.db.surfaces import SECRET, Calls, World

CALLS: Calls = {
    "admin_analytics": lambda w: {},
    "amend_search": lambda w: {
        "search_id": w.more["search"],
        "hits": Jsonb([{"file_id": w.file}]),
    },
    "clear_query_history": lambda w: {},
    "search_replay": lambda w: {"search_id": w.more["search"]},
}

PERSONAL = {"public.query_analytics"}
HARMLESS = {"clear_query_history"}
READING = {"amend_search", "clear_query_history", "search_replay"}
BARE = {"clear_query_history"}
FOREIGN = {"amend_search", "search_replay"}
PRIVILEGED = {"admin_analytics"}


def fill(drive: Drive, world: World) -> None:
    """Search once as the owner."""
    answer = drive.rpc(world.owner, "hybrid_search", query=SECRET, embedding=Jsonb(embed(SECRET)))
    world.more["search"] = answer["search_id"]
