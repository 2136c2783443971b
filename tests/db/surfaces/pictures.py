"""Where the pictures of files are; `links` gives the file a thumbnail."""

from __future__ import annotations

from tests.db.surfaces import Calls

CALLS: Calls = {"list_pictures": lambda w: {"file_ids": [w.file]}}

EMPTY = {"list_pictures"}
READING = {"list_pictures"}
BARE = {"list_pictures"}
