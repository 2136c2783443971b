"""Finding files by the words of their names: typos, titles, and only what the caller can read."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.database import Database
from tests.db.conftest import Drive

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
