"""Finding files by the words of their names: typos, titles, and only what the caller can read."""

from __future__ import annotations

import json
import math
import random
import re
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, refused

NAMES = [
    "Quarterly budget 2024.pdf",
    "reportFinal.docx",
    "ISO-27001_audit.xlsx",
    "INV_2024-17.pdf",
    "第三季度的预算.docx",
    "Straße über.txt",
    "iPhone manual.pdf",
]


def names_found(db: Database, user: uuid.UUID, query: str, filters: str = "{}") -> list[str]:
    """The names of the files that a user finds, the best first."""
    with db.as_role("postgres"):  # the leg is for definers; the claims tell who asks
        claims = json.dumps({"sub": str(user), "role": "authenticated"})
        db.all("select set_config('request.jwt.claims', %s, true)", claims)
        return db.all(
            "select n.name"
            " from private.search_names(%s, private.search_scope(%s), 10) as s"
            " inner join public.nodes as n on n.id = s.file_id order by s.score desc, n.name",
            query,
            filters,
        )


@pytest.fixture
def owner(db: Database, drive: Drive) -> uuid.UUID:
    """Somebody with a file of each of the names."""
    user = db.create_user()
    for name in NAMES:
        drive.ticket(user, name)
    return user


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("quarterly budget", NAMES[0]),
        ("quartely budgt", NAMES[0]),
        ("QUARTERLY", NAMES[0]),
        ("budgte", NAMES[0]),
        ("quart", NAMES[0]),
        ("quartrelly", NAMES[0]),
        ("report final", NAMES[1]),
        ("reportfinal", NAMES[1]),
        ("iso27001", NAMES[2]),
        ("ISO-27001", NAMES[2]),
        ("INV_2024/17", NAMES[3]),
        ("预算", NAMES[4]),
        ("strasse", NAMES[5]),
        ("uber", NAMES[5]),
        ("iphone manaul", NAMES[6]),
    ],
)
def test_a_file_is_found_by_what_it_is_called(
    db: Database, owner: uuid.UUID, query: str, name: str
) -> None:
    assert names_found(db, owner, query)[0] == name


@pytest.mark.parametrize("query", ["2025", "27010", "bgt", "quqqqqrly", "und", "- - -", "%_%"])
def test_what_is_called_otherwise_is_not_found(db: Database, owner: uuid.UUID, query: str) -> None:
    assert names_found(db, owner, query) == []
    assert names_found(db, db.create_user(), "quarterly") == []  # a stranger


# An oracle ---------------------------------------------------------------------------------------


def distance(one: str, other: str) -> int:
    """Levenshtein's distance, but two neighbours swapped are one typo."""
    if len(one) == len(other):
        for i in range(len(one) - 1):
            if one[:i] + one[i + 1] + one[i] + one[i + 2 :] == other != one:
                return 1
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def likeness(asked: str, word: str) -> float:
    """How much a word is what was asked for."""
    if asked == word:
        return 1.0
    if word.startswith(asked) and len(asked) >= 3:
        return 0.9 * math.sqrt(len(asked) / len(word))
    if len(asked) < 4 or abs(len(asked) - len(word)) > 2 or re.search(r"\d", asked + word):
        return 0.0
    typos = distance(asked, word)
    allowed = 1 if len(asked) < 9 else 2
    return 0.9 * (1 - typos / max(len(asked), len(word))) if typos <= allowed else 0.0


def expected(query: str, names: dict[str, str]) -> dict[str, float]:
    """Score the files, by id, whose names of plain words have something of the query."""
    asked = query.split()
    found: dict[str, dict[int, float]] = {}
    for file, name in names.items():
        stem, extension = name.rsplit(".", 1)
        weights = {extension: 0.5} | dict.fromkeys(stem.split(), 1.0)
        for run, word in enumerate(asked):
            best = max(likeness(word, other) * weight for other, weight in weights.items())
            if best > 0:
                found.setdefault(file, {})[run] = best
    files = [sum(run in runs for runs in found.values()) for run in range(len(asked))]
    rarity = [1 / (1 + math.log(1 + count)) for count in files]
    return {
        file: sum(rarity[run] * best for run, best in runs.items())
        / sum(rarity)
        * (0.75 + 0.25 * min(1, len(runs) / len(set(names[file].rsplit(".", 1)[0].split()))))
        for file, runs in found.items()
    }


LETTERS = "aeioubdfgklmnprstvz"


def _mistyped(chance: random.Random, word: str) -> str:
    for _ in range(chance.choice([0, 1, 1, 2, 2, 3])):
        i = chance.randrange(len(word) or 1)
        word = chance.choice(
            [
                word[:i] + word[i + 1 :],
                word[:i] + chance.choice(LETTERS) + word[i:],
                word[:i] + chance.choice(LETTERS) + word[i + 1 :],
                word[:i] + word[i + 1 : i + 2] + word[i : i + 1] + word[i + 2 :],
            ]
        )
    return word or "a"


@pytest.mark.parametrize("seed", range(3))
def test_the_words_of_an_owner_that_are_like_one_are_all_found(db: Database, seed: int) -> None:
    chance = random.Random(seed)
    owner = db.create_user()
    words = {"".join(chance.choices(LETTERS, k=chance.randrange(1, 14))) for _ in range(200)}
    words |= {_mistyped(chance, word) for word in words for _ in range(6)} | {"2024", "20245"}
    db.all(
        "select private.add_name_keys(array_fill(%s::uuid, array[%s]), %s)",
        owner,
        len(words),
        list(words),
    )
    for asked in chance.sample(sorted(words), 60):
        for query in (asked, _mistyped(chance, asked), asked[:4]):
            found = dict(
                db.all("select word, likeness from private.similar_words(%s, %s)", owner, query)
            )
            wanted = {word: likeness(query, word) for word in words | {query}}
            wanted = {word: score for word, score in wanted.items() if score > 0}
            assert found == pytest.approx(wanted, abs=1e-5), query


# names that are kept otherwise than files are called now, and words without their keys
UNNAMED = """
with wanted as (
    select n.id as file_id, w.word collate "C" as word, n.owner_id, w.weight, w.length
    from public.nodes as n
    cross join lateral private.words_of_file(n.name, private.title_of(n.head_version_id)) as w
    where n.kind = 'file'
)
select 'word', coalesce(a.word, b.word)
from wanted as a
full join private.name_words as b on b.file_id = a.file_id and b.word = a.word
where (a.owner_id, a.weight, a.length) is distinct from (b.owner_id, b.weight, b.length)
union all
select 'key', w.word
from private.name_words as w
cross join lateral unnest(array['=' || w.word] || private.typo_keys(w.word)) as k (key)
where not exists (
    select from private.name_keys as x
    where x.owner_id = w.owner_id and x.word = w.word and x.key = k.key
)
"""
LEFT_OVER = """
select k.word from private.name_keys as k
where not exists (
    select from private.name_words as w where w.owner_id = k.owner_id and w.word = k.word
)
union all
select f.word from private.forgotten_words as f
"""


@pytest.mark.parametrize("seed", range(2))
def test_who_finds_what_is_what_an_oracle_says(db: Database, drive: Drive, seed: int) -> None:
    chance = random.Random(seed)
    people = [db.create_user() for _ in range(3)]
    stranger = db.create_user()
    words = ["".join(chance.choices(LETTERS, k=chance.randrange(3, 12))) for _ in range(25)]

    def name() -> str:
        return " ".join(chance.sample(words, chance.randrange(1, 4))) + chance.choice(
            [".pdf", ".txt"]
        )

    folders = []
    for person in people:
        for no in range(3):
            folder = drive.rpc(person, "create_folder", name=f"folder {no}")["id"]
            folders.append((person, folder))
            for other in people:
                if other != person and chance.random() < 0.4:
                    drive.share(folder, other, "manage")
    done = Counter[str]()
    for _ in range(60):
        person, folder = chance.choice(folders)
        files = db.all(
            "select id::text from public.nodes where owner_id = %s and kind = 'file'"
            " and trashed_at is null",
            person,
        )
        trash = db.all(
            "select id::text from public.nodes where owner_id = %s and trash_root_id = id"
            " and purged_at is null",
            person,
        )
        action = chance.choice(
            ["new"] * 4 + ["rename", "move", "give", "trash", "restore", "purge"]
        )
        if action == "new" or not files:
            drive.ticket(person, name(), folder_id=folder, on_conflict="rename")
        elif action == "rename":
            with suppress(psycopg.Error):
                drive.rpc(person, "rename_node", id=chance.choice(files), name=name())
        elif action == "move":
            drive.rpc(
                person,
                "move_nodes",
                ids=[chance.choice(files)],
                target=folder,
                on_conflict="rename",
            )
        elif action == "give":  # to whoever shares a folder with them; uploads must have ended
            db.all("update public.uploads set state = 'aborted'")
            _, target = chance.choice(folders)
            with suppress(psycopg.Error):
                drive.rpc(
                    person,
                    "move_nodes",
                    ids=[chance.choice(files)],
                    target=target,
                    on_conflict="rename",
                )
        elif action == "trash":
            drive.rpc(person, "trash_nodes", ids=[chance.choice(files)])
        elif trash:
            drive.rpc(person, f"{action}_nodes", ids=[chance.choice(trash)])
        done[action] += 1
        assert db.all(UNNAMED) == [], done
    assert len(done) >= 6, done

    hits = 0
    for person in [*people, stranger]:
        with db.as_user(person):
            names = dict(db.all("select id::text, name from public.nodes where kind = 'file'"))
        for _ in range(30):
            query = " ".join(dict.fromkeys(_mistyped(chance, w) for w in chance.sample(words, 2)))
            wanted = expected(query, names)
            items = drive.rpc(person, "search_files", query=query, page_size=1000)["items"]
            assert {i["id"]: i["score"] for i in items} == pytest.approx(wanted, abs=1e-4), query
            hits += len(items)
    assert hits > 50
    drive.clean_up()
    while db.one("select private.forget_names(7)"):
        pass
    assert db.all(UNNAMED) + db.all(LEFT_OVER) == []


def _buffers(db: Database, user: uuid.UUID, statement: str) -> int:
    with db.as_role("postgres"):
        claims = json.dumps({"sub": str(user), "role": "authenticated"})
        db.all("select set_config('request.jwt.claims', %s, true)", claims)
        for _ in range(2):  # the first call plans, and reads the catalogue
            (plan,) = db.one(f"explain (analyze, buffers, format json) {statement}")
    read: int = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return read


def test_no_search_reads_the_entries_of_others(db: Database, drive: Drive) -> None:
    """What it reads stays what it was, however many files of these names others have."""
    owner, other = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    for no in range(30):
        drive.ticket(owner, f"quarterly report {no}.txt", folder_id=folder)
    shared = drive.ticket(other, "quarterly budget.txt")["file_id"]
    drive.share(shared, owner)
    statements = [
        "select * from private.search_names('quartely reprt', private.search_scope('{}'), 50)",
        "select * from private.search_names('quart', private.search_scope('{}'), 50)",
    ] + [
        f"select private.search_scope('{json.dumps(filters)}')"
        for filters in (
            {"types": ["txt"]},
            {"date_from": "2020-01-01"},
            {"metadata": {"a": 1}},
            {"source": "crm"},
            {"kinds": ["image"]},
            {"folder_id": folder},
            {"tags": ["x"]},
            {"file_ids": [shared]},
            {"owner_ids": [str(other)]},
        )
    ]
    db.all("analyze public.nodes; analyze private.name_words; analyze private.name_keys")
    before = [_buffers(db, owner, statement) for statement in statements]
    db.all(
        "insert into public.nodes (id, kind, name, owner_id, path, metadata, source)"
        " select i.id, 'file', 'quarterly report ' || i.no || '.txt', %s, array[i.id],"
        " '{\"a\": 1}', 'crm'"
        " from (select gen_random_uuid() as id, no from generate_series(1, 4000) as no) as i",
        other,
    )
    db.all("analyze public.nodes; analyze private.name_words; analyze private.name_keys")
    for statement, count in zip(statements, before, strict=True):
        assert _buffers(db, owner, statement) <= 1.4 * count + 30, statement
    # control: whose they are reads them
    assert _buffers(db, other, statements[2]) > 1.4 * before[2] + 30


def test_titles_are_found_too_and_go_with_their_version(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.file(owner, "scan0001.pdf", "text")["file_id"]
    assert names_found(db, owner, "turbine") == []
    version = db.one("select head_version_id from public.nodes where id = %s", file)
    db.all("delete from public.pages where version_id = %s", version)
    layout = Jsonb({"lines": [], "headings": [[0, 1, "Turbine handbook"], [9, 2, "Safety"]]})
    db.all(
        "insert into public.pages (file_id, version_id, page, text, layout)"
        " values (%s, %s, 1, 'text', %s)",
        file,
        version,
        layout,
    )
    for query in ("turbine", "turbnie handbok"):
        assert names_found(db, owner, query) == ["scan0001.pdf"]
    assert names_found(db, owner, "safety") == []
    drive.file(owner, "x", "more", file_id=file)
    assert names_found(db, owner, "turbine") == []
    assert db.all(UNNAMED) == []


# search_files ------------------------------------------------------------------------------------


def test_pages_of_files_have_no_gaps_or_doubles(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for no in range(7):
        drive.ticket(owner, f"report {'x' * no} {no}.txt")
    for arguments in ({"query": "report"}, {"query": "reprot"}, {}, {"query": "  "}):
        whole = drive.rpc(owner, "search_files", **arguments)
        assert len(whole["items"]) == 7
        assert whole["next_cursor"] is None
        found, cursor = [], None
        while True:
            page = drive.rpc(owner, "search_files", page_size=3, cursor=cursor, **arguments)
            found += page["items"]
            if (cursor := page["next_cursor"]) is None:
                break
        assert found == whole["items"]
    item = whole["items"][0]
    assert item["path"] == f"/{item['name']}"
    assert item["score"] is None
    assert item["metadata"] == {}


def test_files_are_found_by_what_is_noted_about_them(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    ids = [drive.ticket(owner, f"{n}.txt", folder_id=folder)["file_id"] for n in ("a", "b")]
    drive.rpc(owner, "set_metadata", file_id=ids[0], metadata={"client": "Acme"}, source="crm")
    drive.share(folder, peer)
    for user in (owner, peer):
        for filters in ({"metadata": {"client": "Acme"}}, {"source": "crm"}):
            found = drive.rpc(user, "search_files", filters=filters)["items"]
            assert [item["id"] for item in found] == [ids[0]]
    (found,) = drive.rpc(peer, "search_files", query="a", filters={"source": "crm"})["items"]
    assert found["path"] == "/f/a.txt"
    assert drive.rpc(db.create_user(), "search_files")["items"] == []
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "search_files")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("query", {"query": "x" * 1001}),
        ("page_size", {"page_size": 0}),
        ("page_size", {"page_size": None}),
        ("cursor", {"cursor": "x"}),
        ("cursor", {"cursor": "WyJhIiwgImIiXQ=="}),
        ("filters.page_from", {"filters": {"page_from": 1}}),
        ("filters.colour", {"filters": {"colour": "red"}}),
    ],
)
def test_what_cannot_be_meant_is_refused(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(db.create_user(), "search_files", **arguments)


@pytest.mark.parametrize(
    "query",
    [
        "x" * 1000,
        "a " * 500,
        "'; drop table nodes; --",
        "\u202e%_\\",
        "😀 💾",
        "1" * 999,
        "é́" * 300,
    ],
)
def test_whatever_is_typed_is_data(db: Database, drive: Drive, query: str) -> None:
    owner = db.create_user()
    drive.ticket(owner, "a.txt")
    assert len(drive.rpc(owner, "search_files", query=query)["items"]) <= 1
    assert len(drive.rpc(owner, "search_files", query="a")["items"]) == 1


# Metadata ----------------------------------------------------------------------------------------


def test_metadata_needs_level_edit_and_is_taken_along(db: Database, drive: Drive) -> None:
    owner, editor, viewer = db.create_user(), db.create_user(), db.create_user()
    file = drive.file(owner, "a.txt", "text")["file_id"]
    drive.share(file, editor, "edit")
    drive.share(file, viewer, "comment")
    noted = drive.rpc(editor, "set_metadata", file_id=file, metadata={"a": {"b": [1]}}, source="s")
    assert (noted["metadata"], noted["source"]) == ({"a": {"b": [1]}}, "s")
    with refused("FORBIDDEN"):
        drive.rpc(viewer, "set_metadata", file_id=file, metadata={})
    with refused("NOT_FOUND"):
        drive.rpc(db.create_user(), "set_metadata", file_id=file, metadata={})
    assert drive.rpc(viewer, "file_details", file_id=file)["metadata"] == {"a": {"b": [1]}}
    copy = drive.rpc(owner, "copy_nodes", ids=[file], on_conflict="rename")["items"][0]["id"]
    kept = drive.rpc(owner, "set_metadata", file_id=copy, metadata={"a": {"b": [1]}, "c": None})
    assert kept["source"] == "s"
    assert drive.rpc(owner, "set_metadata", file_id=copy, metadata={}, source="")["source"] is None
    acts = db.all(
        "select actor_id, before, after, details -> 'keys' from public.audit_logs"
        " where action = 'set_metadata' order by id"
    )
    assert acts == [
        (editor, {"source": None}, {"source": "s"}, ["a"]),
        (owner, {}, {}, ["c"]),
        (owner, {"source": "s"}, {"source": None}, ["a", "c"]),
    ]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("metadata", {"metadata": Jsonb([])}),
        ("metadata", {"metadata": None}),
        ("metadata", {"metadata": {"a": "x" * 16384}}),
        (
            "metadata",
            {"metadata": {"1": {"2": {"3": {"4": {"5": {"6": {"7": {"8": {"9": 1}}}}}}}}}},
        ),
        ("source", {"metadata": {}, "source": "x" * 256}),
        ("source", {"metadata": {}, "source": "a\nb"}),
    ],
)
def test_metadata_that_is_too_much_is_refused(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    file = drive.ticket(owner)["file_id"]
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "set_metadata", file_id=file, **arguments)
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    with refused("INVALID_ARGUMENT", field="file_id"):
        drive.rpc(owner, "set_metadata", file_id=folder, metadata={})
    most = {"1": {"2": {"3": {"4": {"5": {"6": {"7": {"8": 1}}}}}}}}
    assert drive.rpc(owner, "set_metadata", file_id=file, metadata=most)["metadata"] == most
