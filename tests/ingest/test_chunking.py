# ruff: noqa: RUF001
from __future__ import annotations

import random
import unicodedata
from itertools import pairwise

import pytest

from narwhal.errors import NarwhalError
from narwhal.ingest.chunking import chunk, with_context
from narwhal.ingest.document import Chunk, Document, Heading, Line, Page

WORDS = [
    "seal",
    "harbour",
    "tide",
    "survey",
    "Größe",
    "观察",
    "émoji👩‍👩‍👧",
    "x" * 30,
    "4711",
    "naïve",
]
BREAKS = [" ", " ", " ", " ", ". ", "\n", "\n\n", "\t", "。", "  \n \n"]


def per_word(text: str) -> int:
    """Count tokens as a model without long words would: two a word, and two special ones."""
    return 2 * len(text.split()) + 2


def per_character(text: str) -> int:
    return len(text) + 2


def prose(length: int, seed: int = 1) -> str:
    rng = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < length:
        parts += [rng.choice(WORDS), rng.choice(BREAKS)]
        size += len(parts[-1]) + len(parts[-2])
    return "".join(parts)


def one_page(text: str, **page: object) -> Document:
    return Document((Page(1, text, **page),), paged=False)  # type: ignore[arg-type]


def cut(text: str, size: int = 1000, overlap: int = 200, **more: object) -> list[Chunk]:
    options: dict[str, object] = {"count_tokens": per_word, "max_tokens": 10_000, **more}
    return chunk(one_page(text), size=size, overlap=overlap, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("size", "overlap", "count", "max_tokens"),
    [
        (1000, 200, per_word, 256),
        (300, 299, per_word, 60),
        (200, 0, per_character, 64),
        (50, 10, per_character, 1000),
        (1, 0, per_word, 8),
    ],
)
def test_chunks_are_spans_within_bounds_that_leave_nothing_out(
    seed: int, size: int, overlap: int, count: object, max_tokens: int
) -> None:
    text = prose(3000, seed)
    chunks = cut(text, size, overlap, count_tokens=count, max_tokens=max_tokens)

    covered = set()
    for number, piece in enumerate(chunks):
        assert piece.idx == number
        assert piece.content == text[piece.char_start : piece.char_end]
        assert piece.content == piece.content.strip() != ""
        assert len(piece.content) <= size
        assert count(piece.content) <= max_tokens  # type: ignore[operator]
        covered.update(range(piece.char_start, piece.char_end))
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    ends = [piece.char_end for piece in chunks]
    assert ends == sorted(set(ends))  # each brings something new


@pytest.mark.parametrize("seed", range(10))
def test_a_phrase_cut_at_a_border_stands_whole_in_a_neighbour(seed: int) -> None:
    text = prose(20_000, seed)
    chunks = cut(text)
    for start in range(0, len(text) - 200, 7):
        phrase = text[start : start + 150].strip()
        assert any(phrase in piece.content for piece in chunks), start


def test_chunks_end_at_the_strongest_separator_of_their_last_half() -> None:
    text = "a" * 30 + "\n\n" + "b" * 30 + " " + "c" * 25 + ". " + "d" * 40
    assert [c.content for c in cut(text, 100, 0)] == [text[:89], "d" * 40]
    assert cut(text, 60, 0)[0].content == "a" * 30
    assert cut("one two three four five six", 12, 0)[0].content == "one two"


def test_the_work_grows_with_the_text_only() -> None:
    seen = 0

    def counting(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return len(text) // 4 + 2

    for text in (prose(200_000), "x" * 200_000, "\n" * 200_000, "字" * 200_000, " a" * 100_000):
        seen = 0
        cut(text, count_tokens=counting, max_tokens=256)
        assert seen <= 4 * len(text)


def test_an_overlap_close_to_the_size_does_not_multiply_the_text() -> None:
    chunks = cut("word " * 2_000, 1000, 999)
    assert sum(len(piece.content) for piece in chunks) < 3 * 10_000


def test_token_dense_text_is_cut_shorter_with_some_overlap() -> None:
    text = "".join(chr(0x4E00 + i % 5000) for i in range(2_000))
    chunks = cut(text, count_tokens=per_character, max_tokens=256)
    assert all(len(piece.content) <= 254 for piece in chunks)
    for before, after in pairwise(chunks):
        assert 40 <= before.char_end - after.char_start <= 90


@pytest.mark.parametrize(
    "grapheme",
    ["e\u0301", "👩‍👩‍👧", "👍🏽", "🇩🇪", "\u1112\u1161\u11ab", "नि", "❤\ufe0f"],
    ids=["accent", "family", "skin", "flag", "jamo", "vowel sign", "variation"],
)
def test_characters_that_people_see_as_one_are_never_torn(grapheme: str) -> None:
    for padding in range(8):
        text = "x" * padding + grapheme * 100
        for piece in cut(text, 40, 10):
            body = piece.content.lstrip("x")
            assert body == grapheme * (len(body) // len(grapheme))


def test_a_grapheme_without_end_is_bounded_all_the_same() -> None:
    text = "a" + "\u0301" * 5000
    assert unicodedata.normalize("NFC", text) != text
    chunks = cut(text, 100, 20)
    assert all(len(piece.content) <= 100 for piece in chunks)
    assert chunks[-1].char_end == len(text)


def test_headings_give_a_path_and_a_place_to_cut() -> None:
    parts = ["Intro", "x " * 150, "Seals", "y " * 150, "Grey seals", "z " * 150, "Birds", "w " * 40]
    levels = {"Intro": 1, "Seals": 1, "Grey seals": 2, "Birds": 1}
    text, headings = "", []
    for part in parts:
        if part in levels:
            headings.append(Heading(len(text), levels[part], part))
        text += part + "\n\n"
    document = one_page(text, headings=tuple(headings))
    chunks = chunk(document, size=400, overlap=50, count_tokens=per_word, max_tokens=10_000)

    by_new_text = {piece.content.split()[-1]: piece.heading for piece in chunks}
    assert by_new_text == {
        "x": "Intro",
        "y": "Seals",
        "z": "Seals › Grey seals",
        "w": "Birds",
    }


def test_paths_go_on_over_pages_until_a_heading_or_an_empty_one_ends_them() -> None:
    pages = (
        Page(1, "Methods of work", headings=(Heading(0, 1, "Methods"),)),
        Page(2, "still the same"),
        Page(3, "another slide", headings=(Heading(0, 1, ""),)),
    )
    chunks = chunk(Document(pages, paged=True), count_tokens=per_word, max_tokens=256)
    assert [(c.page, c.heading) for c in chunks] == [(1, "Methods"), (2, "Methods"), (3, None)]


def test_every_chunk_is_embedded_with_the_title_unless_its_text_has_it() -> None:
    text = "Seals of the coast\n\n" + "They rest on sand. " * 60 + "Seals of the coast, again."
    chunks = cut(text, 400, 50)
    assert len(chunks) >= 4
    for piece in chunks:
        assert piece.context == "Seals of the coast"
        embedded = with_context(piece.content, piece.context)
        assert embedded.count("Seals of the coast") == 1
        assert embedded.endswith(piece.content)
    assert with_context(chunks[0].content, chunks[0].context) == chunks[0].content
    assert with_context("x", "Seals") == "Seals\n\nx"
    assert with_context("x", None) == "x"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Seals\n\n" + "y " * 300, "Seals"),
        ("Seals\n" + "y " * 300, "Seals"),  # above a line that is a paragraph
        ("Seals\n" + "yyy yyy\n" * 100, None),  # a list
        ("s " * 101 + "\n\n" + "y " * 300, None),  # a paragraph
        ("2026-11-21 19:00\n\n" + "y " * 300, None),
        ("y " * 300, None),
    ],
    ids=["apart", "above a paragraph", "list", "paragraph", "no words", "one line"],
)
def test_a_title_is_a_short_first_line_that_stands_apart(text: str, title: str | None) -> None:
    chunks = cut(text, 200, 20)
    assert len(chunks) > 1
    assert {piece.context for piece in chunks} == {title}


def test_a_context_is_the_title_and_the_path_of_headings() -> None:
    text = "Report\n\n" + "a " * 150 + "\n\nSeals\n\n" + "b " * 300
    headings = (Heading(text.index("Seals"), 1, "Seals"),)
    chunks = chunk(
        one_page(text, headings=headings),
        size=200,
        overlap=20,
        count_tokens=per_word,
        max_tokens=9999,
    )
    assert {piece.context for piece in chunks if "b b" not in piece.content} == {"Report"}
    assert {piece.context for piece in chunks if "b b" in piece.content} == {"Report › Seals"}


def test_a_marked_heading_is_a_title_without_its_marks() -> None:
    text = "# Seals\n\n" + "y " * 300
    chunks = chunk(
        one_page(text, headings=(Heading(0, 1, "Seals"),)),
        size=200,
        overlap=20,
        count_tokens=per_word,
        max_tokens=9999,
    )
    assert {piece.context for piece in chunks} == {"Seals"}


@pytest.mark.parametrize("count", [per_word, per_character], ids=["words", "characters"])
def test_a_context_takes_at_most_a_quarter_of_what_the_model_reads(count: object) -> None:
    text = "seals on sand " * 14 + "\n\n" + prose(5000)
    chunks = cut(text, count_tokens=count, max_tokens=64)
    told = [piece for piece in chunks if piece.context]
    assert len(told) > 10
    for piece in told:
        assert count(piece.context or "") <= 16  # type: ignore[operator]
        assert count(with_context(piece.content, piece.context)) <= 64  # type: ignore[operator]


def test_boxes_of_one_column_merge_and_columns_stay_apart() -> None:
    lines = [
        Line(0, 10, (0.1, 0.10, 0.4, 0.12)),
        Line(11, 20, (0.1, 0.13, 0.45, 0.15)),
        Line(21, 30, (0.6, 0.10, 0.9, 0.12)),
        Line(31, 40, (0.6, 0.80, 0.9, 0.82)),
    ]
    text = " ".join(["aaaaaaaaaa", "bbbbbbbbb", "ccccccccc", "ddddddddd"])
    chunks = chunk(
        one_page(text, lines=tuple(lines)), size=31, overlap=0, count_tokens=per_word, max_tokens=99
    )
    assert [c.bboxes for c in chunks] == [
        ((0.1, 0.10, 0.45, 0.15), (0.6, 0.10, 0.9, 0.12)),
        ((0.6, 0.80, 0.9, 0.82),),
    ]


def test_pages_are_numbered_only_where_they_are_real() -> None:
    pages = (Page(1, "one"), Page(2, " \n "), Page(3, "three"))
    numbers = [
        [c.page for c in chunk(Document(pages, p), count_tokens=per_word, max_tokens=99)]
        for p in (True, False)
    ]
    assert numbers == [[1, 3], [None, None]]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "chunk_size"),
        ({"size": 100, "overlap": 100}, "chunk_overlap"),
        ({"overlap": -1}, "chunk_overlap"),
        ({"max_tokens": 3}, "max_tokens"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, int], field: str) -> None:
    with pytest.raises(NarwhalError) as error:
        cut("text", **options)  # type: ignore[arg-type]
    assert (error.value.error, error.value.status) == ("INVALID_ARGUMENT", 422)
    assert error.value.details["field"] == field
