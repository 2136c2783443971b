"""A file's versions: taken over from another one, restored, kept for as long as they should be."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import TEXTS, is_found, quota_of, read_until

# what ingestion leaves of a version, without the ids that differ
INGESTED = {
    "file": (
        "select n.size, n.mime, n.status, n.head_version_id = v.id from public.nodes as n"
        " join public.file_versions as v on v.file_id = n.id where v.id = %s"
    ),
    "version": (
        "select size, sha256, mime, format, status, error_code, error_message, language,"
        " is_paged, page_count from public.file_versions where id = %s"
    ),
    "pages": (
        "select page, text, width, height, source, layout from public.pages"
        " where version_id = %s order by page"
    ),
    "chunks": (
        "select idx, page, content, char_start, char_end, bboxes, heading, language,"
        " time_range_ms, boost, text_hash from public.chunks where version_id = %s order by idx"
    ),
    "terms": (
        "select c.idx, t.part, t.owner_id = n.owner_id, t.language, t.length, t.terms,"
        " t.frequencies from private.chunk_terms as t join public.chunks as c on c.id = t.chunk_id"
        " join public.nodes as n on n.id = t.file_id"
        " where c.version_id = %s order by c.idx, t.part"
    ),
    "vectors": (
        "select c.idx, e.space_id, e.owner_id = n.owner_id, e.embedding::text"
        " from private.chunk_vectors as e join public.chunks as c on c.id = e.chunk_id"
        " join public.nodes as n on n.id = e.file_id where c.version_id = %s order by c.idx"
    ),
    "pictures": (
        "select r.kind, r.page, r.width, r.height, b.bucket, b.key, b.owner_id = n.owner_id"
        " from public.renditions as r join private.blobs as b on b.id = r.blob_id"
        " join public.nodes as n on n.id = r.file_id where r.version_id = %s order by r.page"
    ),
    "jobs": (
        "select stage, space_id, state, progress, pages_done, pages_total, attempts, error_code"
        " from public.ingest_jobs where version_id = %s order by stage, space_id"
    ),
}


def ingested(db: Database, version: str) -> dict[str, Any]:
    """Return all that ingestion has made of a version, whichever it is."""
    return {what: db.all(query, version) for what, query in INGESTED.items()}  # type: ignore[arg-type]


def append(db: Database, file: str, source: str, user: uuid.UUID) -> str:
    """Append a version to a file, as the functions that copy and restore do."""
    return str(db.one("select private.append_version(%s, %s, %s)", file, source, user))


def place(db: Database, owner: uuid.UUID, name: str) -> str:
    """Make a file that has no version yet, as a copy does."""
    file = uuid.uuid4()
    db.all(
        "insert into public.nodes (id, kind, name, owner_id, path, created_by)"
        " values (%s, 'file', %s, %s, array[%s]::uuid[], %s)",
        file,
        name,
        owner,
        file,
        owner,
    )
    return str(file)


def balanced(db: Database) -> None:
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == []


# Taken over --------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [TEXTS, [], ["word " + " ".join(map(str, range(600)))]])
def test_a_version_taken_over_is_what_reading_would_have_made(
    db: Database, drive: Drive, texts: list[str]
) -> None:
    owner, other = db.create_user(), db.create_user()
    drive.file(other, "other.txt", "something else")
    source = drive.file(owner, "a.txt", *texts)["version_id"]
    drive.rendition(source)
    drive.rendition(source, 1)
    expected = ingested(db, source)
    assert len(expected["pictures"]) == 2
    for who in (owner, other):
        file = place(db, who, "copy.txt")
        version = append(db, file, source, who)
        assert ingested(db, version) == expected
        assert drive.claim() == []
        assert db.one(
            "select created_by = %s and no = 1 from public.file_versions where id = %s",
            who,
            version,
        )
        assert is_found(drive, who, texts[0].split()[0]) if texts else True
    balanced(db)


def test_reading_it_again_works_as_for_any_other(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    source = drive.file(owner, "a.txt", *TEXTS)["version_id"]
    file = place(db, owner, "copy.txt")
    expected = ingested(db, append(db, file, source, owner))
    for stage in ("detect", "chunk", "embed_text"):
        assert drive.rpc(owner, "retry_ingest", file_id=file, from_stage=stage) == 1
        drive.ingest(*TEXTS)
    again = db.one("select head_version_id from public.nodes where id = %s", file)
    again = ingested(db, again)
    assert again | {"version": 0} == expected | {"version": 0}  # its sha256 is made up by the test
    balanced(db)


def test_the_same_owner_pays_once_and_another_pays_too(db: Database, drive: Drive) -> None:
    owner, other = db.create_user(), db.create_user()
    source = drive.file(owner, "a.txt", *TEXTS, size=70)["version_id"]
    append(db, place(db, owner, "b.txt"), source, owner)
    assert quota_of(db, owner)[:2] == (70, 0)
    for name in ("c.txt", "d.txt"):  # the second time the bytes are theirs already
        append(db, place(db, other, name), source, other)
        assert quota_of(db, other)[:2] == (70, 0)
    assert db.one("select count(*) from private.blobs") == 2
    assert db.one("select count(distinct key) from private.blobs") == 1
    full = db.create_user()
    db.all("update public.owners set storage_limit = 69 where id = %s", full)
    file = place(db, full, "e.txt")
    with refused("QUOTA_EXCEEDED", used=0, requested=70, limit=69), db.as_role("postgres"):
        append(db, file, source, full)
    balanced(db)


def test_what_was_never_read_to_the_end_is_read_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_until(drive, owner, "chunk")
    file = place(db, owner, "copy.txt")
    append(db, file, ticket["version_id"], owner)
    assert db.one("select status from public.nodes where id = %s", file) == "queued"
    drive.run_stage(job, TEXTS)
    drive.ingest(*TEXTS)
    assert db.all("select distinct status from public.nodes") == ["ready"]
    balanced(db)


def test_what_nothing_reads_is_taken_over_unread(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    source = drive.upload(owner, "a.bin")["version_id"]
    drive.work("finish_detect", drive.claim()[0], "0" * 64, None, None, "Unknown type.")
    file = drive.file(owner, "b.txt", *TEXTS)["file_id"]
    version = append(db, file, source, owner)
    made, expected = ingested(db, version), ingested(db, source)
    assert made.pop("file") == [(10, "text/plain", "skipped", True)]  # of the version before
    assert expected.pop("file") == [(10, None, "skipped", True)]
    assert made == expected
    assert not is_found(drive, owner, "alpha")
    balanced(db)


def test_a_space_that_came_since_is_computed_and_no_other(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    source = drive.file(owner, "a.txt", *TEXTS)["version_id"]
    space = db.one(
        "select private.create_space('new', 'm', 'r', 384, 'text', 'building', 256)::integer"
    )
    file = drive.file(owner, "b.txt", "zulu")["file_id"]
    version = append(db, file, source, owner)
    # until it is complete the head stays
    assert is_found(drive, owner, "zulu")
    assert db.one("select status from public.nodes where id = %s", file) == "processing"
    (job,) = drive.claim(9)
    assert (job["stage"], job["space"]["id"]) == ("embed_text", space)
    drive.run_stage(job, [])
    assert not is_found(drive, owner, "zulu")
    assert db.one("select head_version_id from public.nodes where id = %s", file) == uuid.UUID(
        version
    )
    assert {v["no"] for v in drive.rpc(owner, "file_details", file_id=file)["versions"]} == {1, 2}
    for query in (UNBALANCED, UNEQUAL, UNNEEDED):
        assert db.all(query) == []


def test_bytes_that_are_gone_are_not_taken_over(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    source = drive.upload(owner, "a.txt")["version_id"]
    drive.work("fail_job", drive.claim()[0], "magic_mismatch", "It is a program.", True)
    with refused("CONFLICT_STATE"), db.as_role("postgres"):
        append(db, place(db, owner, "b.txt"), source, owner)
