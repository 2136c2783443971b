"""What a keyword query may ask for: phrases, excluded words, beginnings of words, identifiers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database import Database


def parse(db: Database, query: str) -> tuple[Any, ...]:
    """Return words, phrases, excluded, prefixes."""
    rows = db.all("select * from private.parse_query(%s)", query)
    return tuple(rows[0])


@pytest.mark.parametrize(
    ("query", "words", "phrases", "excluded", "prefixes"),
    [
        ("plain words", "plain words", [], [], []),
        ('"exact phrase" word', "exact phrase word", ["exact phrase"], [], []),
        ("“Curly  Quotes.”", "Curly  Quotes.", ["curly  quotes"], [], []),
        ("word -Other", "word", [], ["other"], []),
        ('word -"two words"', "word", [], ["two words"], []),
        ("comput* word", "word", [], [], ["comput"]),
        ("ISO-27001 well-known", "ISO-27001 well-known", [], [], []),
        ('a 19" and a 21" screen', "a 19  and a 21  screen", [], [], []),
        ('an "open quote', "an  open quote", [], [], []),
        ("-only", "", [], ["only"], []),
        ("*", "*", [], [], []),
        ("- -- ---", "- -- ---", [], [], []),
        ('"" "." -"!"', "", [], [], []),
        ("' or 1=1; drop & | !", "' or 1=1; drop & | !", [], [], []),
        ("猫* -犬", "猫*", [], ["犬"], []),
    ],
)
def test_a_query_is_taken_apart(
    db: Database,
    query: str,
    words: str,
    phrases: list[str],
    excluded: list[str],
    prefixes: list[str],
) -> None:
    found = parse(db, query)
    assert found[0].split() == words.split()
    assert found[1:] == (phrases, excluded, prefixes)


def test_a_long_text_is_prose(db: Database) -> None:
    query = 'the "first" word -dash ' + "word " * 40
    assert parse(db, query) == (query, [], [], [])
    assert parse(db, 'the "first" word -dash')[1] == ["first"]


PASSING = [
    ("The exact\n phrase.", "en", '"Exact Phrase"', True),
    ("The exact, phrase.", "en", '"exact phrase"', False),
    ("exact phrases", "en", '"exact phrase"', False),
    ("phrase exact", "en", '"exact phrase"', False),
    ("party", "en", '"art"', False),
    ("see INV_2024/17 and more", "en", '"inv_2024/17"', True),
    ("we use C++ here", "en", '"c++"', True),
    ("(a) [b] {c} $5.00^2 \\d", "en", '"[b] {c} $5.00^2 \\d"', True),
    ("some apples", "en", "fruit -apple", False),
    ("some apples", None, "fruit -apple", True),
    ("pineapple", "en", "fruit -apple", True),
    ("the running man", "en", "man -runs", False),
    ("the runner", "en", "man -runs", True),
    ("never say never", "en", 'say -"never say"', False),
    ("我喜欢红色的猫", "zh", '"红色的猫"', True),
    ("我喜欢红色的猫", "zh", "喜欢 -红色", False),
    ("ein großes Häuschen", "de", "groß -Häuschen", False),
    ("ein großes Häuschen", "de", "groß -häus", True),
    ("universities", "en", "universit*", True),
    ("universal", "en", "universit*", False),
    ("universal", "en", "universit* universal", True),
    ("soft\u00adhyphen", "en", '"softhyphen"', True),
    ("\uff46ull \uff57idth", "en", '"full width"', True),
]


@pytest.mark.parametrize(("content", "language", "query", "passes"), PASSING)
def test_a_chunk_passes_what_a_query_demands(
    db: Database, content: str, language: str | None, query: str, passes: bool
) -> None:
    found = db.one(
        "select private.passes_query(%s, %s, private.parse_query(%s))", content, language, query
    )
    assert found is passes
