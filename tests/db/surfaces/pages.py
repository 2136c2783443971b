"""Search by what pages and images look like."""

from __future__ import annotations

import numpy as np
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive
from tests.db.pictures import draw, make_space, paint
from tests.db.surfaces import SECRET, Calls, World

PICTURE = draw(np.random.default_rng(0))
VECTORS = Jsonb(PICTURE.tolist())

CALLS: Calls = {
    "search_pages": lambda w: {"vectors": VECTORS, "options": Jsonb({"heat": True})},
    "search_pages file": lambda w: {
        "vectors": VECTORS,
        "filters": Jsonb({"file_ids": [w.more["pictured"]], "owner_ids": [str(w.owner)]}),
        "explain": True,
    },
    "search_pages folder": lambda w: {
        "vectors": VECTORS,
        "filters": Jsonb({"folder_id": w.folder}),
    },
    "search_images": lambda w: {"embedding": Jsonb(PICTURE[0].tolist()), "explain": True},
}

HARMLESS = {"search_pages", "search_images"}
EMPTY = {"search_pages file"}
READING = {"search_pages", "search_images"}
OPEN = READING


def prepare(db: Database) -> None:
    """Spaces that pages and images are searched in; none is active otherwise."""
    make_space(db, "page")
    make_space(db, "image")


def fill(drive: Drive, world: World) -> None:
    """A page and an image that hold no text."""
    page = paint(drive, world.owner, f"{SECRET} page.pdf", PICTURE, folder_id=world.folder)
    paint(
        drive, world.owner, f"{SECRET}.png", PICTURE[:1], mime="image/png", folder_id=world.folder
    )
    world.more["pictured"] = page["file_id"]
