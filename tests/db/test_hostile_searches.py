"""Whatever is asked, a search answers, or refuses with an error of the catalogue, in time."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.database import Database
from tests.db.conftest import DIMENSION, Drive, embed, holding_link
from tests.db.pictures import DIMENSION as PATCH
from tests.db.pictures import make_space

CASES, ALL_CASES = 300, 5_000
OURS = {"INVALID_ARGUMENT", "NOT_FOUND", "RATE_LIMITED", "FORBIDDEN", "NOT_AUTHENTICATED"}
NOT_TEXT = {
    "22P05": "\\u0000",  # jsonb holds no NUL
    "22P02": "",  # no JSON, or no uuid
    "22021": "",  # no UTF-8
}
IDS = [str(uuid.uuid4()) for _ in range(10_000)]

# What is asked ------------------------------------------------------------------------------------

PIECES = [
    *("'", '"', "''", '""', ";", "--", "/*", "*/", "$$", "\\", "\\\\", "%", "_", "*", "?", "+"),
    *("'; drop table public.nodes; --", "or 1=1", "union select", "pg_sleep(10)", "{}", "[]", "()"),
    *(
        "&",
        "|",
        "!",
        "<->",
        ":*",
        "(a & b",
        "a:*",
        "foo & !bar | (baz <-> :*)",
        "-",
        "--a",
        '-"',
        '-"a b"',
    ),
    *("a*", "*a", "**", "[[:alpha:]", "(?<!x)", "(?i)", "\\m", "\\y", "(.*)*", "{1,9}", "^$", "[^"),
    *("\u0001", "\u0007", "\u001b[31m", "\u007f", "\u0085", "\u2028", "\ufeff", "\u200b", "\u00ad"),
    *("\u202e", "\u202d", "\u2066", "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627"),
    *(
        "\U0001f389",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea",
        "\u2764\ufe0f",
    ),
    *(
        "\u0301",
        "\u0301" * 50,
        "e\u0301",
        "\u0e01\u0e33",
        "\u0fb1",
        "\ufdd0",
        "\ufffe",
        "\U0010ffff",
    ),
    *("\u732b", "\u0e01", "\u304b\u3099", "\ud55c\uae00", "\u0915\u094d\u0937", "\u1000\u102c"),
    *("ISO-27001", "1.2.3.4", "a_b-c/d", "INV_2024/17", "C++", "a@b.c", "http://x.y/z?q=1#f"),
    *("walrus", "the", "a", "0", "9" * 40, "x" * 300),
]
words = st.lists(st.sampled_from(PIECES), min_size=1, max_size=60)
questions = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=1000),
    st.builds(lambda parts, gap: gap.join(parts)[:1000], words, st.sampled_from(["", " ", "\n"])),
    st.builds(lambda piece: (piece * 1000)[:1000], st.sampled_from(PIECES)),
    st.builds(lambda piece, n: f"{piece} " * n, st.sampled_from(PIECES), st.integers(1, 40)),
)
numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, -(2**31) - 1, 2**63, 10**40, -(10**40), 0.5, 1e-300, 1e300]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
FIELDS = [
    *("folder_id", "file_ids", "types", "tags", "date_from", "date_to", "owner_ids", "languages"),
    *("source", "metadata", "page_from", "page_to", "kinds"),
]
OPTIONS = [
    *("fusion", "weights", "rrf_k", "threshold", "group_by", "per_file", "context", "dedup"),
    *("cache", "record", "technique", "heat", "as_of"),
]
CHOICES = [
    *IDS[:2],
    "convex",
    "file",
    "section",
    "2026-01-01",
    "infinity",
    "4714-01-01 BC",
    "pdf",
    "de",
    "image",
]
plain = st.one_of(
    st.none(), st.booleans(), numbers, st.sampled_from(CHOICES), st.sampled_from(PIECES)
)
json_values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from([*FIELDS, "keyword", "vector", "name", ""]), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


def objects(keys: list[str]) -> st.SearchStrategy[Any]:
    """Draw what an argument with these keys may be given."""
    return st.one_of(
        st.none(),
        st.dictionaries(st.sampled_from(keys), json_values, max_size=3),
        st.dictionaries(st.sampled_from(keys), json_values, max_size=3),
        json_values,
    )


def vectors(dimension: int) -> st.SearchStrategy[Any]:
    """Draw vectors, right ones among them."""
    return st.one_of(
        st.none(),
        st.lists(numbers, min_size=dimension, max_size=dimension),
        st.builds(lambda x: [x] * dimension, plain),
        st.builds(
            lambda n: [0.5] * n, st.sampled_from([0, 1, dimension - 1, dimension + 1, 20_000])
        ),
        st.sampled_from(["NaN", "[NaN]", str([0.1] * dimension), {"a": 1}, [[]], 3]),
        json_values,
    )


few = st.one_of(st.sampled_from([1, 3, 8, 100, 0, -1, 101, 2**31 - 1, -(2**31)]), st.none())
CALLS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "hybrid_search": {
        "query": st.one_of(questions, questions, questions, st.none()),
        "embedding": st.one_of(st.just(embed("walrus")), vectors(DIMENSION)),
        "space": st.sampled_from(["active", "active", "active", "x", "'", "", None]),
        "filters": objects(FIELDS),
        "top_k": few,
        "candidates": few,
        "options": objects(OPTIONS),
        "explain": st.booleans(),
    },
    "search_pages": {
        "vectors": st.one_of(
            st.lists(vectors(PATCH), max_size=3),
            st.just([[1.0] * PATCH] * 64),
            st.just([[1.0] * PATCH] * 65),
            vectors(PATCH),
        ),
        "pooled": json_values,
        "top_k": few,
        "candidates": few,
        "filters": objects(FIELDS),
        "options": objects(OPTIONS),
    },
    "search_images": {
        "embedding": st.one_of(
            st.just([1.0] * PATCH), vectors(PATCH), st.lists(vectors(PATCH), max_size=9)
        ),
        "top_k": few,
        "filters": objects(FIELDS),
        "options": objects(OPTIONS),
    },
    "search_files": {
        "query": st.one_of(questions, st.none()),
        "filters": objects(FIELDS),
        "page_size": few,
        "cursor": st.one_of(
            st.none(), st.sampled_from(PIECES), st.text("abcABC0123=+/", max_size=80)
        ),
    },
}
JSON = {"embedding", "filters", "options", "vectors", "pooled"}


class Asked:
    """Somebody who asks, with as much time as clients have."""

    def __init__(self, db: Database, user: uuid.UUID | None) -> None:
        self.db, self.user = db, user
        self.counts = Counter[str]()

    def ask(self, function: str, arguments: dict[str, Any]) -> str:
        """Search; return ok, or the error of the catalogue. Anything else fails."""
        named = ", ".join(f"{key} => %s{'::jsonb' if key in JSON else ''}" for key in arguments)
        values = [
            json.dumps(value) if key in JSON and value is not None else value
            for key, value in arguments.items()
        ]
        seconds = 8 if self.user else 3
        try:
            with self.db.as_user(self.user):
                self.db.connection.execute(f"set local statement_timeout = '{seconds}s'")  # type: ignore[call-overload]
                answer = self.db.one(f"select public.{function}({named})", *values)  # type: ignore[arg-type]
                assert isinstance(answer, dict)
            told = "ok"
        except psycopg.Error as error:
            told = json.loads(error.diag.message_detail or "{}").get("error", "")
            assert str(error.sqlstate).startswith("PT"), f"{error.sqlstate} {error}: {arguments}"
            assert told in OURS, told
            assert told != "INVALID_ARGUMENT" or "field" in str(error.diag.message_detail)
        finally:
            self.db.all("set local statement_timeout = 0")
        self.counts[f"{function} {told}"] += 1
        return told


@pytest.fixture
def owner(db: Database, drive: Drive) -> uuid.UUID:
    """Somebody whose files say what they will be asked."""
    made = db.create_user()
    for kind in ("page", "image"):
        make_space(db, kind)
    folder = drive.rpc(made, "create_folder", name="f")["id"]
    for number in range(8):
        texts = [f"walrus {number} {' '.join(PIECES[i : i + 12])}" for i in range(number, 90, 8)]
        drive.file(made, f"walrus {number}.txt", *texts, folder_id=folder)
    drive.file(made, "long.txt", *["a" * 1000, "a " * 500, "\u0301" * 1000, "\u732b" * 1000])
    return made


@pytest.fixture(params=["authenticated", "anon"])
def asked(
    db: Database, drive: Drive, owner: uuid.UUID, request: pytest.FixtureRequest
) -> Iterator[Asked]:
    if request.param == "authenticated":
        yield Asked(db, owner)
        return
    folder = db.one("select id::text from public.nodes where kind = 'folder'")
    with holding_link(db, folder, owner):
        yield Asked(db, None)


# What happens -------------------------------------------------------------------------------------


def _fuzz(asked: Asked, cases: int) -> None:
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def answers(data: st.DataObject) -> None:
        function = data.draw(st.sampled_from(sorted(CALLS)))
        # some of the arguments only, since one that is wrong hides all others
        names = data.draw(st.sets(st.sampled_from(sorted(CALLS[function])), max_size=3))
        arguments = {"hybrid_search": {"query": "walrus", "embedding": embed("walrus")},
                     "search_pages": {"vectors": [[1.0] * PATCH]},
                     "search_images": {"embedding": [1.0] * PATCH},
                     "search_files": {"query": "walrus"}}[function]  # fmt: skip
        arguments |= {name: data.draw(CALLS[function][name]) for name in sorted(names)}
        asked.ask(function, arguments)

    answers()
    for function in CALLS:
        assert asked.counts[f"{function} ok"] > cases / 60, asked.counts


def test_whatever_is_asked_is_answered_or_refused(asked: Asked) -> None:
    _fuzz(asked, CASES)


@pytest.mark.long
def test_whatever_is_asked_is_answered_or_refused_thousands_of_times(asked: Asked) -> None:
    _fuzz(asked, ALL_CASES)


LONG = {
    "one letter": "a" * 1000,
    "one sign": "\u732b" * 1000,
    "one syllable": "\u0e01" * 1000,
    "one mark": "e" + "\u0301" * 999,
    "different words": " ".join(f"w{number}" for number in range(1000))[:1000],
    "short words": " ".join("abcdefghijklmnopqrstuvwxyz"[i % 26] for i in range(500)),
    "beginnings": " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26)}*" for i in range(30)),
    "phrases": " ".join(f'"walrus {i}"' for i in range(30)),
    "exclusions": "walrus " + " ".join(f"-w{i}" for i in range(30)),
    "hyphens": "a-" * 500,
    "emoji": "\U0001f469\u200d" * 500,
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd " * 160,
}


@pytest.mark.parametrize("query", LONG)
def test_long_questions_are_answered(asked: Asked, query: str) -> None:
    for embedding in (None, embed("walrus")):
        call = {"query": LONG[query], "embedding": embedding, "options": {"group_by": "file"}}
        assert asked.ask("hybrid_search", call) == "ok"
    assert asked.ask("search_files", {"query": LONG[query]}) == "ok"


@pytest.mark.long
def test_conditions_that_nothing_meets_take_no_longer_than_clients_wait(
    db: Database, drive: Drive
) -> None:
    """Each text is looked at; a question once cost a regular expression a word and text."""
    owner = db.create_user()
    filler = " ".join(f"zebra{number} filler text about things" for number in range(30))
    for file in range(10):
        texts = [f"walrus {file} {number} zebra {filler}"[:1000] for number in range(200)]
        drive.file(owner, f"{file}.txt", *texts)
    asked = Asked(db, owner)
    for query in (
        "walrus " + " ".join(f"-w{number}" for number in range(7)) + " -zebra",
        "walrus " + " ".join(f"-zebr{chr(97 + number) * 20}" for number in range(29)),
        '"zebra walrus"',
        " ".join(f'"zebra {number} walrus"' for number in range(10)),
        "zebrx* walrusx*",
    ):
        assert asked.ask("hybrid_search", {"query": query, "embedding": embed("walrus")}) == "ok"


MANY: dict[str, Any] = {
    "file_ids": IDS,
    "owner_ids": IDS,
    "types": [f"t{number}" for number in range(10_000)],
    "tags": [f"t{number}" for number in range(10_000)],
    "languages": [f"l{number}" for number in range(10_000)],
    "kinds": ["text"] * 10_000,
    "metadata": {f"k{number}": number for number in range(10_000)},
    "source": "x" * 100_000,
}


@pytest.mark.parametrize("field", MANY)
def test_ten_thousand_values_of_a_filter_are_answered_or_refused(asked: Asked, field: str) -> None:
    filters = {field: MANY[field]}
    for function, arguments in {
        "hybrid_search": {"query": "walrus", "embedding": embed("walrus")},
        "search_pages": {"vectors": [[1.0] * PATCH]},
        "search_images": {"embedding": [1.0] * PATCH},
        "search_files": {"query": "walrus"},
    }.items():
        told = asked.ask(function, arguments | {"filters": filters})
        if asked.user:
            assert told in ("ok", "INVALID_ARGUMENT"), field


def test_ten_thousand_unknown_filters_are_refused(asked: Asked) -> None:
    many = {f"k{number}": number for number in range(10_000)}
    assert asked.ask("hybrid_search", {"query": "walrus", "filters": many}) == "INVALID_ARGUMENT"
    assert asked.ask("hybrid_search", {"query": "walrus", "options": many}) == "INVALID_ARGUMENT"


def test_deep_values_are_answered_or_refused(asked: Asked) -> None:
    deep: Any = 1
    for _ in range(300):  # json.dumps itself goes not much deeper
        deep = {"a": [deep]} if _ % 2 else [deep]
    for field in FIELDS:
        asked.ask("hybrid_search", {"query": "walrus", "filters": {field: deep}})
    for option in OPTIONS:
        asked.ask("hybrid_search", {"query": "walrus", "options": {option: deep}})
    asked.ask("hybrid_search", {"query": "walrus", "embedding": deep})
    asked.ask("search_pages", {"vectors": deep})
    asked.ask("search_images", {"embedding": deep})
    assert asked.ask("hybrid_search", {"query": "walrus"}) == "ok"


@pytest.mark.parametrize(
    "value", ["[NaN]", "[Infinity]", "[1e999999]", "{", '"\\u0000"', "[" * 50_000]
)
def test_what_is_no_json_is_refused_before_it_reaches_us(
    db: Database, owner: uuid.UUID, value: str
) -> None:
    with pytest.raises(psycopg.Error) as error, db.as_user(owner):
        db.all("select public.hybrid_search('walrus', %s::jsonb)", value)
    assert error.value.sqlstate in ("22P02", "22P05", "22003", "54001")


def test_text_that_is_no_text_is_refused_before_it_reaches_us(
    db: Database, owner: uuid.UUID
) -> None:
    with db.as_user(owner):
        with pytest.raises(psycopg.DataError):  # NUL: no text of Postgres holds it
            db.all("select public.hybrid_search(%s)", "wal\x00rus")
        for bad in ("\\xff", "\\xeda080", "\\xc080"):  # no UTF-8, half of a pair, NUL in two bytes
            with pytest.raises(psycopg.Error) as error, db.connection.transaction():
                db.all("select public.hybrid_search(convert_from(%s::bytea, 'UTF8'))", bad)
            assert error.value.sqlstate == "22021"
