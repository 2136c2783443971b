"""What a chunk is about beside what it says: its title and headings, read by search, not shown."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from narwhal.ingest.chunking import with_context
from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, embed
from tests.db.looks import hits_of

TITLE = "Harbour seals of the coast"
TEXTS = (f"{TITLE}\n\nThey rest on sand.", "Numbers grew by twelve percent.", "Thanks to all.")


def _rows(texts: tuple[str, ...], context: str | None) -> list[dict[str, Any]]:
    return [row | {"context": context} for row in chunk_rows(list(texts))]


def _file(
    drive: Drive,
    owner: uuid.UUID,
    name: str,
    texts: tuple[str, ...] = TEXTS,
    context: str | None = TITLE,
    **more: object,
) -> tuple[str, list[str]]:
    """A file with these chunks; returns its id and what was embedded."""
    ticket = drive.upload(owner, name, **more)
    embedded: list[str] = []
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "chunk":
                drive.work("finish_chunk", job, _rows(texts, context))
            else:
                if job["stage"] == "embed_text":
                    found = drive.work("job_texts", job, 1000)["texts"]
                    embedded += [text["content"] for text in found]
                drive.run_stage(job, list(texts))
    return str(ticket["file_id"]), embedded


def test_a_passage_is_found_by_the_title_it_stands_under(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    _file(drive, owner, "a.txt")
    _file(drive, owner, "b.txt", ("Otters\n\nThey swim.", "Numbers grew by two percent."), "Otters")
    (hit, *_) = hits_of(drive, owner, "numbers of seals", embedding=None)
    assert (hit["name"], hit["page"]) == ("a.txt", 2)
    assert hit["snippet"] == TEXTS[1]  # the title is not part of it
    assert [hit["snippet"][start:end] for start, end in hit["highlights"]] == ["Numbers"]
    assert (hit["snippet_start"], hit["snippet_end"]) == (0, len(TEXTS[1]))


def test_a_phrase_and_an_excluded_word_are_about_what_is_shown(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    _file(drive, owner, "a.txt")
    phrase = hits_of(drive, owner, '"seals of the coast"', embedding=None)
    assert [hit["page"] for hit in phrase] == [1]
    excluded = hits_of(drive, owner, "numbers -seals", embedding=None)
    assert [hit["page"] for hit in excluded] == [2]


def test_the_vector_is_of_the_passage_with_its_title(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    _, embedded = _file(drive, owner, "a.txt")
    assert embedded == [with_context(text, TITLE) for text in TEXTS]
    assert embedded[0] == TEXTS[0]
    assert embedded[1] == f"{TITLE}\n\n{TEXTS[1]}"
    hits = hits_of(
        drive,
        owner,
        "anything",
        embedding=Jsonb(embed(embedded[1])),
        options={"weights": {"keyword": 0, "name": 0}},
    )
    assert hits[0]["page"] == 2
    assert hits[0]["parts"]["vector_score"] == pytest.approx(1, abs=1e-3)
    stored = db.all("select encode(text_hash, 'hex') from public.chunks order by idx")
    assert stored == [hashlib.sha256(text.encode()).hexdigest() for text in embedded]


def test_only_what_changed_is_embedded_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file_id, first = _file(drive, owner, "a.txt")
    assert len(first) == 3
    changed = (TEXTS[0], "Numbers fell.", TEXTS[2])
    _, again = _file(drive, owner, "a.txt", changed, on_conflict="version")
    assert again == [with_context("Numbers fell.", TITLE)]
    with db.as_user(owner):
        db.one("select public.rename_node(%s, 'Renamed.txt')", file_id)
    assert drive.claim() == []
    # a title is part of what all its passages mean
    _, retitled = _file(drive, owner, "c.txt", changed, "Otters")
    assert retitled == [with_context(text, "Otters") for text in changed]


def test_the_same_passage_under_two_titles_is_one_passage(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    shared = "Numbers grew by twelve percent in all the bays of the northern coast this year."
    for name, title in (("a.txt", "Harbour seals"), ("b.txt", "Minutes of the yearly meeting")):
        _file(drive, owner, name, (f"{title}\n\nOn {name}.", shared), title)
    hits = hits_of(drive, owner, "numbers northern coast", options={"dedup": True})
    (first, *rest) = [hit for hit in hits if hit["page"] == 2]
    assert first["parts"]["copy_of"] is None
    assert [hit["parts"]["copy_of"] for hit in rest] in ([], [first["chunk_id"]])
    assert first["copies"]["count"] == 1


@pytest.mark.parametrize(
    ("content", "context"),
    [
        ("text", None),
        ("text", "Title"),
        ("Title\n\ntext", "Title"),
        ("On Titles", "Title"),
        ("A \u203a B is a path", "A \u203a B"),
        ("字", "題"),
    ],
)
def test_workers_count_the_tokens_of_what_is_embedded(
    db: Database, content: str, context: str | None
) -> None:
    found = db.one("select private.embedded_text(%s, %s)", content, context)
    assert found == with_context(content, context)
