"""What was found out about texts, and files that are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.db.surfaces import SECRET, Calls

if TYPE_CHECKING:
    from tests.db.conftest import Drive
    from tests.db.surfaces import World

CALLS: Calls = {"find_duplicates": lambda w: {"file_id": w.file}}

READING = {"find_duplicates"}
BARE = {"find_duplicates"}


def fill(drive: Drive, world: World) -> None:
    """Give the file a key phrase."""
    drive.db.all(
        "insert into public.insights (version_id, file_id, kind, items, method, method_version)"
        " values (%s, %s, 'key_phrases', jsonb_build_array(%s::text), 'test', '1')",
        world.version,
        world.file,
        SECRET,
    )
