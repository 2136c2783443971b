"""What was said in recordings: tables only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.db.surfaces import SECRET, Calls

if TYPE_CHECKING:
    from tests.db.conftest import Drive
    from tests.db.surfaces import World

CALLS: Calls = {}


def fill(drive: Drive, world: World) -> None:
    """Give the file a transcript."""
    drive.db.all(
        "insert into public.transcripts (version_id, file_id, engine, revision, is_low_quality)"
        " values (%s, %s, 'test', '1', false)",
        world.version,
        world.file,
    )
    drive.db.all(
        "insert into public.transcript_segments (version_id, file_id, start_ms, end_ms, text)"
        " values (%s, %s, 0, 1000, %s)",
        world.version,
        world.file,
        SECRET,
    )
