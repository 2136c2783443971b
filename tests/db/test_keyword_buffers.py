"""What a search by keyword reads depends on the reader's own data, whatever others have."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pytest

from tests.database import Database
from tests.db.conftest import Drive

WORDS = ["bark", "dork", "lump", "tump", "rark"]
QUERIES = ["bark dork", "bark dork lump tump rark", "ba* lum*", '"bark dork" lump', "bark -tump"]
OWN_FILES = 20
CHUNKS_A_FILE = 10
DEEPER = 2  # pages more a look-up, in indexes that have got a hundred times as many rows

# files of somebody else with the same words, as the keyword index keeps them
MORE = """
with files as materialized (
    select gen_random_uuid() as id, o.id as owner_id, o.words
    from (select %s::uuid as id, %s::text[] as words) as o cross join generate_series(1, %s)
), nodes as (
    insert into public.nodes (id, kind, name, owner_id, path, status)
    select f.id, 'file', f.id, f.owner_id, array[f.id], 'ready' from files as f
), served as (
    insert into private.indexed_files
    (file_id, owner_id, version_id, chunk_count, total_length, languages, sketches)
    select f.id, f.owner_id, gen_random_uuid(), 1, 9, '{en}', '{}' from files as f
)
insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)
select f.owner_id, w, f.id, 0, array[(1::bigint << 24) | 9]
from files as f cross join unnest(f.words) as w
"""


@dataclass
class World:
    """An owner of some files, a peer whom every second one is shared with, and somebody else."""

    drive: Drive
    owner: uuid.UUID
    peer: uuid.UUID
    other: uuid.UUID

    def give(self, owner: uuid.UUID, count: int) -> None:
        """Give an owner files that nobody else can read."""
        self.drive.db.all(MORE, owner, WORDS, count)

    def looks(self) -> int:
        """How often a search may look something up: each word in each file, and each chunk."""
        return len(WORDS) * OWN_FILES + OWN_FILES * (CHUNKS_A_FILE + 1)

    def read(self, user: uuid.UUID, query: str) -> tuple[int, int]:
        """Pages that the keyword leg looks at for a user, and how many hits it finds."""
        db = self.drive.db
        with db.as_user(user):
            claims = db.one("select current_setting('request.jwt.claims')")
        db.all("select set_config('request.jwt.claims', %s, true)", claims)
        scope = db.one("select private.search_scope('{}')::text")
        call = "select * from private.search_keyword(%s, %s::private.search_scope, 50)"
        hits = len(db.all(call, query, scope))  # and whatever is only loaded once
        (found,) = db.one("explain (analyze, buffers, format json) " + call, query, scope)
        db.all("select set_config('request.jwt.claims', '', true)")
        plan = found["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], hits


@pytest.fixture
def world(db: Database, drive: Drive) -> World:
    world = World(drive, db.create_user(), db.create_user(), db.create_user())
    folder = drive.rpc(world.owner, "create_folder", name="shared")["id"]
    drive.share(folder, world.peer)
    for number in range(OWN_FILES):
        texts = [f"bark dork n{number}k{i} lump barking rark" for i in range(CHUNKS_A_FILE)]
        place = {"folder_id": folder} if number % 2 else {}
        drive.file(world.owner, f"{number}.txt", *texts, "tump " * 5, **place)
    return world


@pytest.mark.parametrize("who", ["owner", "peer"])
def test_what_others_have_costs_a_search_nothing(world: World, who: str) -> None:
    user = world.owner if who == "owner" else world.peer
    world.give(world.other, 20)
    few = {query: world.read(user, query) for query in QUERIES}
    looks = world.looks()
    # every page of the reader's own index entries a few times, and each hit by its key
    rows = world.drive.db.one(
        "select count(*) from private.chunk_terms where owner_id = %s", world.owner
    )
    for query, (pages, hits) in few.items():
        assert hits > 0, query
        assert 0 < pages <= 3 * rows + 10 * hits, query
    for more in (180, 1800):  # ten times as much, and a hundred times
        world.give(world.other, more)
        for query, (pages, hits) in few.items():
            found = world.read(user, query)
            assert found[0] <= pages + DEEPER * looks, (query, more)
            assert found[1] == hits
    # control: what the reader has does count
    if who == "owner":
        world.give(world.owner, 2000)
        for query, (pages, _) in few.items():
            assert world.read(user, query)[0] > 3 * pages, query


def test_the_rest_of_a_sharer_costs_those_shared_with_nothing(world: World) -> None:
    few = {query: world.read(world.peer, query) for query in QUERIES}
    looks = world.looks()
    for more in (200, 1800):
        world.give(world.owner, more)
        for query, (pages, hits) in few.items():
            found = world.read(world.peer, query)
            assert found[0] <= pages + DEEPER * looks, query
            assert found[1] == hits


def test_no_statistics_make_a_range_of_files_read_what_others_have(world: World) -> None:
    db = world.drive.db
    db.all("set local enable_seqscan = off")
    db.all("set local enable_bitmapscan = off")
    rows = "select t.entries from private.chunk_terms as t where %s"
    between = "t.file_id between gen_random_uuid() and gen_random_uuid()"
    plan = str(db.all("explain " + rows % between))
    assert "chunk_terms_file_id_idx" not in plan
    # control: those who want a file say what the index is for
    plan = str(db.all("explain " + rows % f"{between} and t.part >= 0"))
    assert "chunk_terms_file_id_idx" in plan
