"""What a hit shows: words marked in a snippet, its place on the page, and the text around it."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows
from tests.db.looks import hits_of

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "lima"]


def _file(
    drive: Drive,
    owner: uuid.UUID,
    name: str,
    pages: list[dict[str, Any]],
    chunks: list[dict[str, Any]],
) -> str:
    """A file with these pages and chunks; returns its id."""
    ticket = drive.upload(owner, name)
    drive.run_stage(drive.claim()[0], [])
    (job,) = drive.claim()
    drive.work("finish_extract", job, "en", True, pages)
    (job,) = drive.claim()
    drive.work("finish_chunk", job, chunks)
    drive.ingest()
    return str(ticket["file_id"])


def _pages(*texts: str, layout: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [
        {"page": no, "text": text, "source": "text", "layout": layout or {}}
        for no, text in enumerate(texts, 1)
    ]


def _cut(
    text: str, page: int, bounds: list[tuple[int, int]], heading: str | None = None, first: int = 0
) -> list[dict[str, Any]]:
    """Chunks of a page from these bounds."""
    [row] = chunk_rows([""])
    return [
        row
        | {
            "idx": first + no,
            "page": page,
            "content": text[start:end],
            "char_start": start,
            "char_end": end,
            "heading": heading,
        }
        for no, (start, end) in enumerate(bounds)
    ]


def _marked(hit: dict[str, Any]) -> list[str]:
    return [hit["snippet"][start:end] for start, end in hit["highlights"]]


# Highlights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("The penguins were swimming.", "penguin swims", ["penguins", "swimming"]),
        ("One <b>budget</b> & two\nbudgets", "budget", ["budget", "budgets"]),
        ("第三季度的预算是四百万元。预算", "预算是", ["预算是", "预算"]),
        ("launched a launcher", "launch*", ["launched", "launcher"]),
        ("a budget plan, no plan", '"budget plan" -draft', ["budget", "plan", "plan"]),
        ("état 😀 budget", "budget", ["budget"]),
        ("nothing to see", "budget", []),
    ],
)
def test_highlights_are_the_words_that_were_asked_for(
    db: Database, drive: Drive, text: str, query: str, marked: list[str]
) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", text)
    (hit,) = hits_of(drive, owner, query)
    assert hit["snippet"] == text
    assert _marked(hit) == marked
    assert (hit["snippet_start"], hit["snippet_end"]) == (0, len(text))


@pytest.mark.parametrize("seed", range(20))
def test_a_snippet_is_a_stretch_of_its_chunk(db: Database, drive: Drive, seed: int) -> None:
    chance = random.Random(seed)
    owner = db.create_user()
    spaces = [" ", "  ", "\n", ", ", "\u3000", " - "]
    text = "".join(
        chance.choice(WORDS) + chance.choice(spaces) for _ in range(chance.randrange(20, 200))
    ) + chance.choice(["", "x" * 400])
    place = chance.randrange(len(text))
    text = f"{text[:place]} walrus {text[place:]}"
    drive.file(owner, "a.txt", text)
    (hit,) = hits_of(drive, owner, "walrus")
    assert hit["snippet"] == text[hit["snippet_start"] : hit["snippet_end"]]
    assert 0 < len(hit["snippet"]) <= 320
    assert _marked(hit) == ["walrus"]


def test_a_snippet_tells_which_lines_of_the_page_it_has(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    lines = [f"{word} " * 20 for word in WORDS]
    starts = [sum(map(len, lines[:no])) for no in range(len(lines))]
    layout = {
        "lines": [
            [start, start + len(line), 0.1, no / 20, 0.9, no / 20 + 0.04]
            for no, (start, line) in enumerate(zip(starts, lines, strict=True))
        ]
    }
    text = "".join(lines)
    offset = starts[2]
    chunks = _cut(text, 1, [(offset, len(text))])
    _file(
        drive,
        owner,
        "a.pdf",
        _pages(text, layout=layout),
        [chunks[0] | {"bboxes": [[0.1, 0.1, 0.9, 0.6]]}],
    )
    (hit,) = hits_of(drive, owner, "lima")
    start, end = (hit["char_start"] + hit[key] for key in ("snippet_start", "snippet_end"))
    assert text[start:end] == hit["snippet"]
    expected = [line[2:] for line in layout["lines"] if line[0] < end and line[1] > start]
    assert hit["snippet_bboxes"] == expected
    assert 0 < len(expected) < len(lines)


# Context -----------------------------------------------------------------------------------------


@pytest.fixture
def book(db: Database, drive: Drive) -> uuid.UUID:
    """Somebody with a file of two pages in overlapping chunks, and another file beside it."""
    owner = db.create_user()
    first, second = "one two three four five six seven.", "eight nine ten eleven."
    chunks = [
        *_cut(first, 1, [(0, 13), (8, 23)], "Start"),
        *_cut(first, 1, [(19, 34)], "End", 2),
        *_cut(second, 2, [(0, 14), (11, 22)], "End", 3),
    ]
    _file(drive, owner, "book.pdf", _pages(first, second), chunks)
    drive.file(owner, "other.txt", "zero", "twelve")
    return owner


@pytest.mark.parametrize(
    ("query", "kind", "before", "after"),
    [
        ("four", "neighbours", "one two ", " six seven."),
        ("one", "neighbours", "", " four five"),
        ("seven", "neighbours", "three four ", "eight nine ten"),
        ("eleven", "neighbours", "eight nine ", ""),
        ("four", "section", "one two ", ""),
        ("seven", "section", "", "eight nine ten eleven."),
        ("eleven", "section", "five six seven.\neight nine ", ""),
        ("twelve", "section", "", ""),
    ],
)
def test_context_is_the_text_around_a_passage(
    drive: Drive, book: uuid.UUID, query: str, kind: str, before: str, after: str
) -> None:
    hit = hits_of(drive, book, query, embedding=None, options={"context": kind})[0]
    assert (hit["context"]["before"], hit["context"]["after"]) == (before, after)
    assert hit["context"]["kind"] == kind
    assert "context" not in hits_of(drive, book, query)[0]


def test_context_is_bounded(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    text = "alpha " * 3000 + "walrus " + "bravo " * 3000
    middle = text.index("walrus")
    bounds = [*((at, at + 600) for at in range(0, middle, 600)), (middle, middle + 6)]
    bounds += [(at, min(at + 600, len(text))) for at in range(middle + 7, len(text), 600)]
    _file(drive, owner, "long.txt", _pages(text), _cut(text, 1, bounds, "Same"))
    hit = hits_of(drive, owner, "walrus", embedding=None, options={"context": "section"})[0]
    assert hit["context"]["before"] == text[middle - 2000 : middle]
    assert hit["context"]["after"] == text[middle + 6 : middle + 2006]


# Explanation -------------------------------------------------------------------------------------


def test_an_explanation_tells_why_the_caller_can_read_a_hit(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.file(owner, "a.txt", "the walrus swims", folder_id=folder)
    (hit,) = hits_of(drive, owner, "walrus", explain=True)
    assert [way["via"] for way in hit["access"]] == ["owner"]
    assert "access" not in hits_of(drive, owner, "walrus")[0]
    drive.share(folder, peer)
    (hit,) = hits_of(drive, peer, "walrus", explain=True)
    (way,) = hit["access"]
    assert (way["via"], way["node"]["id"]) == ("share", folder)
    link = drive.rpc(owner, "create_share_link", node=folder, level="view")
    grant = drive.rpc(None, "open_share_link", token=link["token"])["grant"]
    with drive.holding(grant):
        (hit,) = hits_of(drive, None, "walrus", explain=True)
    assert [(way["via"], way["node"]["id"]) for way in hit["access"]] == [("link", folder)]


def test_an_explanation_counts_what_each_leg_found(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "walrus.txt", "the walrus swims", "a seal")
    explain = drive.search(owner, "walrus", explain=True)["explain"]
    assert {leg: part["found"] for leg, part in explain["legs"].items()} == {
        "keyword": 1,
        "dense": 2,
        "name": 1,
    }
    assert (explain["passages"], explain["copies"]) == (2, 0)
    assert explain["options"]["rrf_k"] == 10
