"""A file's versions: taken over from another one, restored, kept for as long as they should be."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused, refused_by_storage
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
        " is_paged, page_count, reading, truncated_by from public.file_versions where id = %s"
    ),
    "pages": (
        "select page, text, width, height, source, layout from public.pages"
        " where version_id = %s order by page"
    ),
    "chunks": (
        "select idx, page, content, char_start, char_end, bboxes, heading, context,"
        " language, time_range_ms, boost, text_hash from public.chunks"
        " where version_id = %s order by idx"
    ),
    "terms": (
        "select t.lexeme, t.part, t.owner_id = n.owner_id, t.entries, f.chunk_count,"
        " f.total_length, f.languages, f.sketches"
        " from private.indexed_files as f left join private.chunk_terms as t using (file_id)"
        " join public.nodes as n on n.id = f.file_id"
        " where f.version_id = %s order by 1, 2"
    ),
    "vectors": (
        "select c.idx, e.space_id, e.owner_id = n.owner_id, e.embedding::text"
        " from private.chunk_vectors as e join public.chunks as c on c.id = e.chunk_id"
        " join public.nodes as n on n.id = e.file_id where c.version_id = %s order by c.idx"
    ),
    "pictures": (
        "select r.kind, r.page, r.image, r.width, r.height, b.bucket, b.key,"
        " b.owner_id = n.owner_id"
        " from public.renditions as r join private.blobs as b on b.id = r.blob_id"
        " join public.nodes as n on n.id = r.file_id where r.version_id = %s"
        " order by r.page, r.image"
    ),
    "images": (
        "select idx, page, box, context, description, mime, width, height, sha256, facts"
        " from public.images where version_id = %s order by idx"
    ),
    "transcript": (
        "select engine, revision, is_low_quality, t.language, duration_ms, reached_ms,"
        " start_ms, end_ms, text, s.language, confidence from public.transcripts as t"
        " left join public.transcript_segments as s using (version_id)"
        " where t.version_id = %s order by start_ms"
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
    db.one("select private.flip_space(1::smallint, %s::smallint)", space)
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


# Restored ----------------------------------------------------------------------------------------


def versions(drive: Drive, user: uuid.UUID, file: str) -> list[tuple[int, str]]:
    """Return number and status of all versions, as the history shows them, oldest first."""
    with drive.db.as_user(user):
        return drive.db.all(
            "select no, status from public.file_versions where file_id = %s order by no", file
        )


def test_an_earlier_version_is_the_newest_again(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS, size=30)
    file = first["file_id"]
    drive.share(file, peer, "edit")
    link = drive.rpc(owner, "create_share_link", node=file)
    second = drive.file(owner, "a.txt", "zulu yankee", size=5, file_id=file)
    quota = quota_of(db, owner)
    made = drive.rpc(peer, "restore_version", file_id=file, version_id=first["version_id"])
    assert (made["no"], made["status"], made["size"]) == (3, "ready", 30)
    assert (made["created_by"], made["file_id"]) == (str(peer), file)
    assert "blob_id" not in made
    assert drive.claim() == []  # nothing to read, nothing to embed
    assert quota_of(db, owner) == quota
    assert versions(drive, owner, file) == [(1, "ready"), (2, "ready"), (3, "ready")]
    details = drive.rpc(owner, "file_details", file_id=file)
    assert (details["head_version_id"], details["key"]) == (made["id"], first["key"])
    assert (details["size"], details["status"], details["problem"]) == (30, "ready", None)
    parts = ("version", "pages", "chunks", "jobs", "pictures")
    was, now = ingested(db, first["version_id"]), ingested(db, made["id"])
    assert {part: now[part] for part in parts} == {part: was[part] for part in parts}
    found = drive.search(peer, "alpha")["hits"]
    assert {(hit["version_id"], hit["is_head"]) for hit in found} == {(made["id"], True)}
    assert not is_found(drive, owner, "zulu")
    assert drive.rpc(None, "open_share_link", token=link["token"])["node"]
    # and back: what was replaced is still there
    drive.rpc(owner, "restore_version", file_id=file, version_id=second["version_id"])
    assert is_found(drive, owner, "zulu")
    assert not is_found(drive, owner, "alpha")
    balanced(db)


def test_what_cannot_be_restored(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    first = drive.file(owner, "a.txt", *TEXTS)
    file = first["file_id"]
    drive.share(file, peer, "comment")
    rejected = drive.upload(owner, file_id=file)
    drive.work("fail_job", drive.claim()[0], "magic_mismatch", "It is a program.", True)
    last = drive.file(owner, "a.txt", "zulu", file_id=file)

    def attempt(user: uuid.UUID | None, version: object, of: str = file) -> None:
        drive.rpc(user, "restore_version", file_id=of, version_id=version)

    with refused("CONFLICT_STATE", head=last["version_id"]):
        attempt(owner, last["version_id"])
    with refused("CONFLICT_STATE"):
        attempt(owner, rejected["version_id"])
    with refused("FORBIDDEN", level="comment", required="edit"):
        attempt(peer, first["version_id"])
    with refused("NOT_FOUND"):
        attempt(stranger, first["version_id"])
    with refused("NOT_AUTHENTICATED"):
        attempt(None, first["version_id"])
    other = drive.file(owner, "b.txt", "golf")
    for version in (other["version_id"], uuid.uuid4(), None):
        with refused("NOT_FOUND"):
            attempt(owner, version)
    with refused("NOT_FOUND"):
        attempt(owner, first["version_id"], of=other["file_id"])
    drive.rpc(owner, "trash_nodes", ids=[file])
    with refused("NOT_FOUND"):
        attempt(owner, first["version_id"])


def test_the_head_can_be_restored_over_what_failed_or_waits(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    file = first["file_id"]
    drive.upload(owner, file_id=file)
    drive.work("fail_job", drive.claim()[0], "corrupt", "It ends too early.", True)
    problem = drive.rpc(owner, "file_details", file_id=file)["problem"]
    assert problem["new_version_failed"] is True
    assert is_found(drive, owner, "alpha")
    drive.rpc(owner, "restore_version", file_id=file, version_id=first["version_id"])
    assert drive.rpc(owner, "file_details", file_id=file)["problem"] is None
    # one that is still being read does not take over from what was restored after it
    late = drive.upload(owner, file_id=file)
    drive.rpc(owner, "restore_version", file_id=file, version_id=first["version_id"])
    drive.ingest("zulu")
    assert is_found(drive, owner, "alpha")
    assert not is_found(drive, owner, "zulu")
    details = drive.rpc(owner, "file_details", file_id=file)
    assert (details["status"], details["head_version_id"] != late["version_id"]) == ("ready", True)
    balanced(db)


# Purged and expired ------------------------------------------------------------------------------


def test_a_version_is_purged_alone(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    first = drive.file(owner, "a.txt", "alpha same", size=30)
    file = first["file_id"]
    drive.rendition(first["version_id"])
    second = drive.file(owner, "a.txt", "zulu same", size=5, file_id=file)
    drive.share(file, peer, "edit")
    assert quota_of(db, owner)[0] == 38
    with refused("FORBIDDEN", level="edit", required="manage"):
        drive.rpc(peer, "purge_version", file_id=file, version_id=first["version_id"])
    with refused("CONFLICT_STATE", head=second["version_id"]):
        drive.rpc(owner, "purge_version", file_id=file, version_id=second["version_id"])
    gone = drive.rpc(owner, "purge_version", file_id=file, version_id=first["version_id"])
    assert (gone["no"], gone["id"]) == (1, first["version_id"])
    assert quota_of(db, owner)[0] == 5
    for function in ("purge_version", "restore_version"):
        with refused("NOT_FOUND"):
            drive.rpc(owner, function, file_id=file, version_id=first["version_id"])
    drive.clean_up()
    assert db.all("select name from storage.objects") == [second["key"]]
    assert is_found(drive, owner, "zulu")
    assert db.one("select count(*) from private.text_vectors") == 1
    balanced(db)


def test_bytes_that_another_version_has_stay(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS, size=30)
    file = first["file_id"]
    drive.file(owner, "a.txt", "zulu", size=5, file_id=file)
    drive.rpc(owner, "restore_version", file_id=file, version_id=first["version_id"])
    drive.rpc(owner, "purge_version", file_id=file, version_id=first["version_id"])
    assert quota_of(db, owner)[0] == 35
    drive.clean_up()
    assert db.one("select count(*) from storage.objects") == 2
    assert is_found(drive, owner, "alpha")
    balanced(db)


@pytest.mark.parametrize("stage", ["detect", "extract", "chunk", "embed_text"])
def test_a_version_that_is_being_read_is_purged(db: Database, drive: Drive, stage: str) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS, size=30)
    file = first["file_id"]
    second = drive.upload(owner, size=5, file_id=file)
    while (job := drive.claim()[0])["stage"] != stage:
        drive.run_stage(job, ["zulu"])
    assert drive.rpc(owner, "file_details", file_id=file)["size"] == 5
    drive.rpc(owner, "purge_version", file_id=file, version_id=second["version_id"])
    with refused("CONFLICT_STATE"):
        drive.run_stage(job, ["zulu"])
    assert drive.claim() == []
    details = drive.rpc(owner, "file_details", file_id=file)
    assert (details["status"], details["size"], details["problem"]) == ("ready", 30, None)
    assert drive.search(owner, "alpha")["pending_files"] == 0
    assert quota_of(db, owner)[:2] == (30, 0)
    # a file always has a version
    only = drive.upload(owner, "b.txt")
    with refused("CONFLICT_STATE"):
        drive.rpc(owner, "purge_version", file_id=only["file_id"], version_id=only["version_id"])
    drive.ingest("golf")
    drive.clean_up()
    balanced(db)


def test_versions_are_kept_by_number_and_by_age(db: Database, drive: Drive) -> None:
    owner, other = db.create_user(), db.create_user()
    setting = "update private.settings set value = %s where key = %s"
    files = [drive.file(who, "a.txt", "text 0")["file_id"] for who in (owner, other)]
    for number in range(1, 6):
        for who, file in zip((owner, other), files, strict=True):
            drive.file(who, "a.txt", f"text {number}", file_id=file)
    failed = drive.upload(owner, file_id=files[0])
    drive.work("fail_job", drive.claim()[0], "corrupt", "It ends too early.", True)

    def expire(at_most: int = 100) -> list[int]:
        counts = []
        with db.as_role("postgres"):
            while count := db.one("select private.expire_versions(%s)", at_most):
                counts.append(count)
        return counts

    def numbers(file: str) -> list[int]:
        return db.all("select no from public.file_versions where file_id = %s order by no", file)

    assert expire() == []  # a hundred, for ever
    db.all(setting, "4", "versions.keep_count")
    assert sorted(expire(2)) == [1, 2, 2]  # an owner at a time
    # the newest four, whether the last of them can be read or not
    assert numbers(files[0]) == [4, 5, 6, 7]
    assert numbers(files[1]) == [3, 4, 5, 6]
    assert quota_of(db, owner)[0] == 40
    # never the head, nor what is newer
    db.all(setting, "1", "versions.keep_days")
    db.all("update public.file_versions set created_at = now() - interval '2 days'")
    assert sum(expire()) == 5
    assert numbers(files[0]) == [6, 7]
    assert numbers(files[1]) == [6]
    details = drive.rpc(owner, "file_details", file_id=files[0])
    assert details["problem"]["new_version_failed"] is True
    assert details["versions"][0]["id"] == failed["version_id"]
    assert is_found(drive, owner, "text 5")
    db.all(setting, "null", "versions.keep_count")
    drive.clean_up()
    assert db.one("select count(*) from storage.objects") == 3
    assert expire() == []
    balanced(db)


# Based on ----------------------------------------------------------------------------------------


def test_a_base_is_checked_again_when_the_bytes_come(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    base = {"file_id": first["file_id"], "base_version": first["version_id"]}
    early, late = drive.ticket(owner, **base), drive.ticket(owner, **base)
    drive.store(owner, early["key"], 10)
    # before it is read too: it is what the file will be
    with refused_by_storage("CONFLICT_STATE"):
        drive.store(owner, late["key"], 10)
    with refused("CONFLICT_STATE", head=early["version_id"]):
        drive.ticket(owner, **base)
    base["base_version"] = early["version_id"]
    drive.ticket(owner, **base)
    # one that fails leaves the file as it was
    drive.work("fail_job", drive.claim()[0], "corrupt", "It ends too early.", True)
    with refused("CONFLICT_STATE", head=first["version_id"]):
        drive.ticket(owner, **base)
    drive.store(owner, late["key"], 10)
    drive.ingest("zulu")
    assert is_found(drive, owner, "zulu")
    balanced(db)


def test_the_first_version_is_a_base_before_it_is_read(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.txt")
    base = {"file_id": first["file_id"], "base_version": first["version_id"]}
    drive.ticket(owner, **base)
    drive.work("fail_job", drive.claim()[0], "corrupt", "It ends too early.", True)
    drive.upload(owner, **base)
    with refused("CONFLICT_STATE"):
        drive.ticket(owner, file_id=first["file_id"], base_version=uuid.uuid4())
