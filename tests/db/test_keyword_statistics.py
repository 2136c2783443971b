"""Whatever is done to files, the keyword index and its statistics are what a recount gives."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows
from tests.db.invariants import UNEQUAL, UNNEEDED, UNSERVED

TEXTS = {
    "en": "the quick brown foxes jump over lazy dogs ISO-27001",
    "de": "die schnellen braunen Füchse springen über faule Hunde",
    "zh": "我喜欢红色的猫坐在垫子上",
    None: "words of unknown origin",
}

# the languages and sketches of each file, computed again; an owner's languages may be more
UNLIKE = """
with found as (
    select n.id as file_id, n.owner_id, c.idx, coalesce(c.language, '') as language,
        array_agg(hashtext(l.lexeme) order by hashtext(l.lexeme)) as hashes
    from public.nodes as n
    inner join public.chunks as c on c.file_id = n.id and c.version_id = n.head_version_id
    cross join lateral private.lexemes(c.content, c.language) as l
    group by n.id, n.owner_id, c.idx, c.language
), sketched as (
    select *, hashes[1:3] || hashes[greatest(cardinality(hashes) - 2, 1):] as sketch
    from found
)
select 'languages', f.file_id
from private.indexed_files as f
where f.languages
    <> array(select distinct s.language from found as s where s.file_id = f.file_id order by 1)
union all
select 'sketches', s.file_id
from sketched as s
left join private.indexed_files as f on f.file_id = s.file_id
where f.sketches[6 * s.idx + 1:6 * s.idx + 6] is distinct from s.sketch
    and cardinality(s.hashes) >= 3
union all
select 'owner', s.owner_id
from found as s
left join private.owner_statistics as o on o.owner_id = s.owner_id
where not coalesce(s.language = any(o.languages), false)
"""


class Walk:
    """Two people who do anything at random, and may each write in a folder of the other."""

    def __init__(self, drive: Drive, seed: int) -> None:
        self.drive = drive
        self.chance = random.Random(seed)
        self.owners = [drive.db.create_user(), drive.db.create_user()]
        self.shared = [
            drive.rpc(owner, "create_folder", name="shared")["id"] for owner in self.owners
        ]
        for folder, peer in zip(self.shared, reversed(self.owners), strict=True):
            drive.share(folder, peer, "edit")
        self.alive: dict[str, int] = {}  # whose each file is
        self.trashed: dict[str, int] = {}
        self.done = Counter[str]()

    def step(self) -> None:
        """Do something."""
        if not self.alive:
            self.new()
            return
        steps = [self.new, self.new, self.version, self.again, self.older, self.move, self.copy]
        self.chance.choice([*steps, self.trash, self.restore, self.purge])()

    def new(self) -> None:
        """Upload a file."""
        whose = self.chance.randrange(2)
        self.alive[self._ingest(whose, name=f"{uuid.uuid4()}.txt")] = whose

    def version(self) -> None:
        """Upload a version."""
        file, whose = self._any(self.alive)
        self._ingest(whose, name="x.txt", file_id=file)

    def again(self) -> None:
        """Cut a file into chunks once more."""
        file, whose = self._any(self.alive)
        self.drive.rpc(self.owners[whose], "retry_ingest", file_id=file, from_stage="chunk")
        self._work()
        self.done["again"] += 1

    def older(self) -> None:
        """Go back to the first version."""
        file, whose = self._any(self.alive)
        with self.drive.db.as_role("postgres"):
            versions = self.drive.db.all(
                "select v.id from public.file_versions as v inner join public.nodes as n"
                " on n.id = v.file_id and n.head_version_id <> v.id where n.id = %s order by v.no",
                file,
            )
        if versions:
            self.drive.rpc(
                self.owners[whose], "restore_version", file_id=file, version_id=versions[0]
            )
            self._work()
            self.done["older"] += 1

    def move(self) -> None:
        """Move a file into the other's folder: it is theirs from then on."""
        file, whose = self._any(self.alive)
        self.drive.rpc(
            self.owners[whose],
            "move_nodes",
            ids=[file],
            target=self.shared[1 - whose],
            on_conflict="rename",
        )
        self.alive[file] = 1 - whose
        self.done["move"] += 1

    def copy(self) -> None:
        """Copy a file, to oneself or into the other's folder."""
        file, whose = self._any(self.alive)
        to = self.chance.randrange(2)
        (item,) = self.drive.rpc(
            self.owners[whose],
            "copy_nodes",
            ids=[file],
            target=self.shared[to],
            on_conflict="rename",
        )["items"]
        self._work()
        self.alive[item["id"]] = to
        self.done["copy"] += 1

    def trash(self) -> None:
        """Put a file into the trash, where it stays in the index."""
        file, whose = self._any(self.alive)
        self.drive.rpc(self.owners[whose], "trash_nodes", ids=[file])
        self.trashed[file] = self.alive.pop(file)
        self.done["trash"] += 1

    def restore(self) -> None:
        """Take a file out of the trash."""
        if self.trashed:
            file, whose = self._any(self.trashed)
            self.drive.rpc(self.owners[whose], "restore_nodes", ids=[file], on_conflict="rename")
            self.alive[file] = self.trashed.pop(file)
            self.done["restore"] += 1

    def purge(self) -> None:
        """Delete a file for good; sometimes its rows are still there for a while."""
        file, whose = self._any(self.alive)
        self.drive.rpc(self.owners[whose], "purge_nodes", ids=[file])
        del self.alive[file]
        if self.chance.random() < 0.5:
            self.drive.clean_up()
        self.done["purge"] += 1

    def _any(self, files: dict[str, int]) -> tuple[str, int]:
        return self.chance.choice(sorted(files.items()))

    def _ingest(self, whose: int, **more: Any) -> str:
        ticket = self.drive.upload(self.owners[whose], **more)
        self._work()
        self.done["version" if "file_id" in more else "new"] += 1
        return str(ticket["file_id"])

    def _work(self) -> None:
        languages = self.chance.choices(list(TEXTS), k=self.chance.randrange(5))
        texts = [
            TEXTS[language] + f" {self.chance.choice('abcdef') * 3}" * self.chance.randrange(4)
            for language in languages
        ]
        while jobs := self.drive.claim():
            for job in jobs:
                if job["stage"] == "chunk":
                    rows = chunk_rows(texts)
                    for row, language in zip(rows, languages, strict=True):
                        row["language"] = language
                    self.drive.work("finish_chunk", job, rows)
                else:
                    self.drive.run_stage(job, texts)


@pytest.mark.parametrize("seed", range(2))
def test_no_edit_makes_the_index_drift(db: Database, drive: Drive, seed: int) -> None:
    walk = Walk(drive, seed)
    for number in range(60):
        walk.step()
        if number % 4 == 3:
            for query in (UNEQUAL, UNLIKE, UNNEEDED, UNSERVED):
                assert db.all(query) == [], walk.done
    assert set(walk.done) == {
        *("new", "version", "again", "older", "move", "copy", "trash", "restore", "purge")
    }
    assert db.one("select count(*) from private.chunk_terms") > 0
    # control: the comparison sees what has drifted
    db.all("update private.indexed_files set languages = '{xx}', sketches = '{}'")
    assert {row[0] for row in db.all(UNLIKE)} == {"languages", "sketches"}
