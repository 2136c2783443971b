"""What a keyword query may ask for: phrases, excluded words, beginnings of words, identifiers."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows
from tests.db.looks import hits_of


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


# In the index ------------------------------------------------------------------------------------


def add_file(drive: Drive, owner: uuid.UUID, name: str, language: str | None, *texts: str) -> Any:
    """A file whose chunks are in a language."""
    ticket = drive.upload(owner, name)
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "chunk":
                rows = [row | {"language": language} for row in chunk_rows(list(texts))]
                drive.work("finish_chunk", job, rows)
            else:
                drive.run_stage(job, list(texts))
    return ticket


def found(drive: Drive, user: uuid.UUID, query: str) -> list[str]:
    """Names of the files that a search by keyword alone finds, best first."""
    options = {"weights": {"keyword": 1, "vector": 0, "name": 0}}
    hits = hits_of(drive, user, query, embedding=None, options=options, top_k=100)
    return [hit["name"] for hit in hits]


IDENTIFIERS = {
    "ISO-27001": ("certified to ISO-27001 last year", "ISO 9001, ISO 27001 and ISO 14001 ISO"),
    "INV_2024/17": ("see INV_2024/17 for this", "INV 2024 and INV 17 and INV 2024 17 17"),
    "john.doe@example.com": ("write to john.doe@example.com", "john john doe doe at example com"),
    "v2.10.3": ("since v2.10.3 it works", "v2 10 3 and v2 10 and 3 10"),
    "C++": ("written in C++ mostly", "c c c c vitamin c"),
    "10,000": ("costs 10,000 a year", "10 10 000 000"),
}


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_an_identifier_as_written_comes_before_its_parts(
    db: Database, drive: Drive, identifier: str
) -> None:
    owner = db.create_user()
    whole, parts = IDENTIFIERS[identifier]
    drive.file(owner, "parts.txt", parts, parts + " again")
    drive.file(owner, "whole.txt", whole + " in a sentence that is a good deal longer than that")
    drive.file(owner, "other.txt", "something else altogether")
    for query in (identifier, identifier.lower(), f"what about {identifier}?"):
        names = found(drive, owner, query)
        assert names[0] == "whole.txt", query
        assert "other.txt" not in names
    assert found(drive, owner, f'"{identifier}"') == ["whole.txt"]


def test_phrases_exclusions_and_beginnings_find_what_they_say(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "the red apple tree")
    drive.file(owner, "b.txt", "an apple that is red")
    drive.file(owner, "c.txt", "universities of applied science")
    drive.file(owner, "d.txt", "universal truths")
    assert set(found(drive, owner, "red apple")) == {"a.txt", "b.txt"}
    assert found(drive, owner, '"red apple"') == ["a.txt"]
    assert found(drive, owner, '"apple red"') == []
    assert found(drive, owner, '"red applause"') == []
    assert found(drive, owner, "apple -trees") == ["b.txt"]
    assert found(drive, owner, 'apple -"red apple"') == ["b.txt"]
    assert found(drive, owner, "universit*") == ["c.txt"]
    assert set(found(drive, owner, "univers*")) == {"c.txt", "d.txt"}
    assert set(found(drive, owner, "appl*")) == {"a.txt", "b.txt", "c.txt"}
    assert found(drive, owner, "-apple") == []
    # the best that meet a condition are found among many that do not
    drive.file(owner, "many.txt", *(f"pear {i} is best" for i in range(200)), "best of one pear")
    assert hits_of(drive, owner, '"one pear"', embedding=None, candidates=1)[0]["page"] == 201


def test_others_find_the_same_in_what_is_shared(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    drive.file(owner, "a.txt", "the red apple tree INV_2024/17", folder_id=folder)
    drive.file(owner, "b.txt", "an apple that is red", folder_id=folder)
    drive.file(owner, "c.txt", "the red apple applied, not shared, INV_2024/17")
    for query, names in (
        ("red apple", {"a.txt", "b.txt"}),
        ('"red apple"', {"a.txt"}),
        ("appl*", {"a.txt", "b.txt"}),
        ("appli*", set()),
        ("INV_2024/17", {"a.txt"}),
        ("apple -tree", {"b.txt"}),
    ):
        assert set(found(drive, peer, query)) == names, query


LANGUAGES = {
    "zh": ("红色的猫坐在垫子上。", ["红色的猫", "垫子", "猫"], "狗"),
    "ja": ("東京タワーは東京にあります。", ["東京タワー", "タワー", "東"], "大阪"),
    "ko": ("서울은 대한민국의 수도이다.", ["대한민국", "수도"], "부산"),
    "th": ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", ["เมืองหลวง", "ประเทศไทย", "ไทย", "ทย"], "ลาวๆ"),
    "my": ("ရန်ကုန်သည် မြန်မာနိုင်ငံ၏ မြို့ဖြစ်သည်", ["ရန်ကုန်", "မြန်မာ"], "လာအို"),
    "hi": ("विश्वविद्यालयों में पढ़ाई होती है", ["विश्वविद्यालय", "पढ़ाई"], "किसान"),
    "ar": ("الجامعات الكبيرة في المدينة", ["الجامعات", "المدينة"], "قطار"),
    "ru": ("большие университеты города", ["университет", "городов"], "поезд"),
    "de": ("die großen Häuser der Städte", ["Haus Häuser", "großes"], "Zug"),
    "el": ("τα μεγάλα πανεπιστήμια", ["πανεπιστήμια"], "τρένο"),
    None: ("plain words of unknown origin", ["unknown", "origin"], "unrelated"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_finds_its_text(db: Database, drive: Drive, language: str | None) -> None:
    owner = db.create_user()
    text, queries, absent = LANGUAGES[language]
    add_file(drive, owner, "text.txt", language, text)
    drive.file(owner, "english.txt", "an english text beside it")
    for query in queries:
        # two characters are a whole question here, but not for the check of its length
        asked = query if len(query) > 2 else f"{query} zzz"
        assert found(drive, owner, asked) == ["text.txt"], query
    assert found(drive, owner, f"{absent} zzz") == []


def test_common_words_of_a_question_do_not_rank_text_in_other_languages(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    add_file(drive, owner, "es.txt", "es", "el disco The Wall es de the band what")
    drive.file(owner, "en.txt", "walruses live in the north", "other things", "and more of it")
    assert found(drive, owner, "what is the home of the walrus")[0] == "en.txt"


def test_a_phrase_of_common_words_is_looked_for_in_what_else_is_found(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "hamlet asks: to be or not to be", "hamlet is not to be asked")
    phrase = '"to be or not to be"'
    assert found(drive, owner, phrase) == []
    (hit,) = hits_of(drive, owner, f"{phrase} hamlet", embedding=None)
    assert hit["page"] == 1
    (hit,) = hits_of(drive, owner, phrase)  # by meaning
    assert hit["page"] == 1


def _long_file(drive: Drive, owner: uuid.UUID, texts: list[str]) -> Any:
    """A file of many passages, found by word; they are not embedded."""
    ticket = drive.upload(owner, "long.txt")
    while True:
        (job,) = drive.claim()
        if job["stage"] == "chunk":
            drive.work("finish_chunk", job, chunk_rows(texts))
            return ticket
        drive.run_stage(job, ["x"])


def test_a_phrase_is_found_in_the_last_of_5000_passages_that_have_its_words(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    texts = [f"dork bark n{number}" for number in range(5000)]
    # the longest, so the last
    texts[1234] = "bark dork " + " ".join(f"w{number}" for number in range(50))
    _long_file(drive, owner, texts)
    with db.as_user(owner):
        claims = db.one("select current_setting('request.jwt.claims')")
    db.all("select set_config('request.jwt.claims', %s, true)", claims)

    def indexes(query: str, hits: int) -> list[int]:
        return db.all(
            "select c.idx from private.search_keyword(%s, private.search_scope('{}'), %s)"
            " with ordinality as k (id, score, place)"
            " inner join public.chunks as c on c.id = k.id order by k.place",
            query,
            hits,
        )

    assert indexes("bark dork", 5000)[-1] == 1234  # control
    assert indexes('"bark dork"', 50) == [1234]
    assert len(indexes('"dork bark"', 5000)) == 4999
    # a second phrase is read for in half as many; an excluded word in fewer
    assert indexes('"bark dork" "w1 w2"', 50) == [1234]
    assert indexes('"bark dork" -lump', 50) == []


def test_text_in_ascii_is_folded_as_any_other(db: Database) -> None:
    """It takes a shorter way: the same characters are dropped, the same made one."""
    assert (
        db.all(
            "select t from (select string_agg(chr(i), '') as t from generate_series(1, 127) as i"
            " union all select chr(i) || 'A' from generate_series(1, 127) as i) as t"
            " where private.fold(t) || 'é' is distinct from private.fold(t || 'É')"
        )
        == []
    )
    assert db.one("select private.fold(e'A\\x01\\t-B\\x7f')") == "a\t-b"


def test_a_common_word_alone_is_answered(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "the cat and the dog")
    assert found(drive, owner, "the and the") == []
    assert found(drive, owner, "the cat") == ["a.txt"]


def test_more_dashes_than_anybody_would_exclude_are_a_list(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "the walrus and the seal")
    few = " ".join(f"-word{number}" for number in range(7))
    assert found(drive, owner, f"walrus {few} -seal") == []
    assert found(drive, owner, f"walrus {few} -seal -lion") == ["a.txt"]


HOSTILE = [
    "a" * 1000,
    "a " * 500,
    "\u0001\u0002\u0007 bell",
    '"unbalanced phrase',
    '""" """ "',
    "-a -b -c",
    "***",
    "* * *",
    "a* b* c*",
    "'; drop table public.nodes; --",
    "foo & !bar | (baz <-> :*)",
    "\u202eright to left\u202c שלום مرحبا",
    "🎉🎉🎉 party 👩\u200d👩\u200d👧",
    "\\\\ \\m \\y (?i) [[:alpha:]",
    '"(?<!x)[a-z"',
    "%_%_%",
    "\ufffd\ufffe\uffff",
    "(" * 1000,
    '"' + "x " * 30 + '" -' + "y" * 900,
    "猫" * 1000,
    "ก" * 1000,
    "-" * 1000,
    "a-" * 500,
    "1.2.3." * 160,
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_queries_are_answered_quickly(db: Database, drive: Drive, query: str) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "party " + query[:900], "bell and foo bar")
    db.all("set local statement_timeout = '3s'")
    found(drive, owner, query)
    found(drive, owner, query[:500] + " bell")


def test_a_common_word_is_not_rare_where_the_language_is_unknown(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    for number in range(12):
        add_file(drive, owner, f"about {number}.txt", "en", "systems " * 3 + f"word{number}")
    add_file(drive, owner, "best.txt", "en", "radar systems")
    add_file(drive, owner, "unknown.txt", None, "systems of it all")
    add_file(drive, owner, "german.txt", "de", "systems und mehr davon")
    # stemmed, unstemmed, or stemmed otherwise: one word that nearly every file has
    assert found(drive, owner, "radar systems")[0] == "best.txt"
    assert found(drive, owner, "systems word3")[0] == "about 3.txt"
    assert len(found(drive, owner, "systems")) == 15
