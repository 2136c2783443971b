"""A file goes in and a question finds its page, all in SQL."""

from __future__ import annotations

from tests.database import Database
from tests.db.conftest import Drive


def test_a_file_is_found_by_its_owner_and_by_nobody_else(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    name = "Résumé 简历.pdf"
    ticket = drive.file(owner, name, "The launch budget is four million.", "Penguins swim.")

    found = drive.search(owner, "launch budget")
    hit = found["hits"][0]
    assert hit["page"] == 1
    assert hit["file_id"] == ticket["file_id"]
    assert hit["path"] == "/Résumé 简历.pdf"
    assert hit["is_head"] is True
    assert hit["parts"]["keyword_rank"] == 1
    assert hit["parts"]["vector_rank"] == 1
    assert found["degraded"] is False
    assert found["space"] == "minilm-l6-v2"
    assert found["pending_files"] == 0

    assert drive.search(stranger, "launch budget")["hits"] == []
