"""What a file may be called, and what happens when the name is taken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.looks import (
    versions_of,
)

ACCEPTED = {
    "plain": "plain.pdf",
    "Arabic": "تقرير.pdf",
    "Devanagari": "रिपोर्ट.pdf",
    "a drive letter": "C:",
    "a name reserved by Windows": "nul.txt",
    "a dotfile": ".htaccess",
    "a trailing dot and space": "trailing. ",
    "SQL": "a'; DROP TABLE files;--.pdf",
    "a shell's": "$(id).pdf",
    "backticks": "`id`.pdf",
    "percent signs": "%2e%2e%2fetc%2fpasswd",
    "a URL's": "a?b#c&d=e.pdf",
    "wildcards": "a:b*c|d.pdf",
    "only an extension": ".pdf",
    "a logger's": "${jndi:ldap:}.pdf",
    "a formula": "=cmd|calc.csv",
    "255 bytes": "字" * 83 + "ab.pdf",
    "an emoji": "👩‍👩‍👧.txt",
}
REFUSED = {
    "nothing": "",
    "a space": " ",
    "spaces that look like none": "\u00a0\u3000\u200b",
    "dot": ".",
    "dotdot": "..",
    "traversal": "../../etc/passwd",
    "Windows' traversal": "..\\..\\windows\\win.ini",
    "a slash": "a/b.pdf",
    "two slashes": "a//b.pdf",
    "CRLF": "a\r\nSet-Cookie: x=1.pdf",
    "ANSI": "a\u001b[31m.pdf",
    "a C1 control": "a\u0085b.pdf",
    "a right-to-left override": "invoice\u202efdp.exe",
    "an isolate": "invoice\u2067fdp.exe",
    "a line separator": "a\u2028b.pdf",
    "304 bytes": "字" * 100 + ".pdf",
    "5000 bytes": "x" * 4996 + ".pdf",
}


@pytest.mark.parametrize("why", ACCEPTED)
def test_a_name_is_kept_as_given(db: Database, drive: Drive, why: str) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, ACCEPTED[why])
    assert ticket["name"] == ACCEPTED[why]
    assert drive.rpc(owner, "file_details", file_id=ticket["file_id"])["name"] == ACCEPTED[why]
    assert ticket["key"].isascii()


@pytest.mark.parametrize("why", REFUSED)
def test_a_name_that_misleads_is_refused(db: Database, drive: Drive, why: str) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="name"):
        drive.ticket(owner, REFUSED[why])
    with refused("INVALID_ARGUMENT", field="name"):
        drive.rpc(owner, "create_folder", name=REFUSED[why])
    assert drive.ticket(owner, "fine.pdf")["file_id"]


@pytest.mark.parametrize(
    "name",
    [
        "setup.exe",
        "SETUP.EXE",
        "setup.exe.",
        "setup.exe. . ",
        "setup.exe\u00a0",
        "setup.exe\u200b",
        "setup.\uff45\uff58\uff45",
        "report.pdf.scr",
        "a.tar.exe",
        "a b.com",
        ".exe",
        "mal.ps1",
        "archive.jar",
    ],
)
def test_an_executable_is_refused_however_it_is_written(
    db: Database, drive: Drive, name: str
) -> None:
    owner = db.create_user()
    with refused("TYPE_NOT_ALLOWED"):
        drive.ticket(owner, name)
    assert drive.ticket(owner, name + ".txt")["file_id"]  # control: as text it is only a name
    assert drive.ticket(owner, "exe")["file_id"]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("size", {"size": None}),
        ("size", {"size": -1}),
        ("sha256", {"sha256": "abc"}),
        ("sha256", {"sha256": "A" * 64}),
        ("on_conflict", {"on_conflict": "overwrite"}),
        ("on_conflict", {"on_conflict": None}),
    ],
)
def test_an_argument_that_cannot_be_meant_is_named(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "begin_upload", **{"name": "a.txt", "size": 1} | arguments)
    assert drive.rpc(owner, "begin_upload", name="a.txt", size=1)["upload_id"]


# Names that exist --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "suggested"),
    [
        ("a.pdf", "a.pdf", "a (2).pdf"),
        ("Résumé 简历.pdf", "Résumé 简历.pdf", "Résumé 简历 (2).pdf"),
        ("r\u00e9sum\u00e9.pdf", "re\u0301sume\u0301.pdf", "re\u0301sume\u0301 (2).pdf"),
        ("File.PDF", "file.pdf", "file (2).pdf"),
        ("ÄÖ.txt", "äö.txt", "äö (2).txt"),
        ("a (2).pdf", "a (2).pdf", "a (3).pdf"),
        ("backup.tar.gz", "backup.tar.gz", "backup (2).tar.gz"),
        ("noextension", "noextension", "noextension (2)"),
        (".pdf", ".pdf", ".pdf (2)"),
        ("字" * 83 + "ab.pdf", "字" * 83 + "ab.pdf", "字" * 82 + " (2).pdf"),
    ],
)
def test_a_taken_name_gets_a_suggestion_that_rename_gives(
    db: Database, drive: Drive, first: str, second: str, suggested: str
) -> None:
    owner = db.create_user()
    taken = drive.upload(owner, first)
    if first == "a (2).pdf":
        drive.upload(owner, "a.pdf")  # so that the plain name is not free
    with refused("CONFLICT_NAME", existing_id=taken["file_id"], suggested=suggested):
        drive.ticket(owner, second)
    assert drive.ticket(owner, second, on_conflict="rename")["name"] == suggested
    again = drive.ticket(owner, second, on_conflict="keep_both")["name"]  # an alias
    assert again not in (first, second, suggested)
    assert "(2) (" not in again  # suffixes never stack


def test_a_folder_and_a_file_share_one_namespace(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Plans")
    for on_conflict in ("fail", "version"):
        with refused("CONFLICT_NAME", existing_id=folder["id"], suggested="plans (2)"):
            drive.ticket(owner, "plans", on_conflict=on_conflict)
    drive.ticket(owner, "plans", on_conflict="rename")
    with refused("CONFLICT_NAME", suggested="PLANS (3)"):
        drive.rpc(owner, "create_folder", name="PLANS")
    # elsewhere the name is free: in the folder, and in another drive
    assert drive.ticket(owner, "plans", folder_id=folder["id"])["name"] == "plans"
    assert drive.ticket(db.create_user(), "plans")["name"] == "plans"


def test_a_ligature_is_not_its_letters(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner, "file.pdf")
    assert drive.ticket(owner, "\ufb01le.pdf")["name"] == "\ufb01le.pdf"


def test_a_name_in_the_trash_is_free(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.pdf")
    drive.rpc(owner, "trash_nodes", ids=[first["file_id"]])
    assert drive.upload(owner, "a.pdf")["file_id"] != first["file_id"]


def test_version_adds_to_the_file_that_has_the_name(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.pdf", "one")
    second = drive.upload(owner, "A.pdf", on_conflict="version")
    assert second["file_id"] == first["file_id"]
    assert versions_of(drive, owner, first) == [2, 1]
    by_id = drive.upload(owner, "whatever.pdf", file_id=first["file_id"])
    assert versions_of(drive, owner, by_id) == [3, 2, 1]
    assert drive.rpc(owner, "file_details", file_id=first["file_id"])["name"] == "a.pdf"
    new = drive.upload(owner, "b.pdf", on_conflict="version")  # nothing there: a new file
    assert versions_of(drive, owner, new) == [1]


def test_a_stale_base_version_is_refused_with_the_head(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.pdf", "one")
    base = {"file_id": first["file_id"], "base_version": first["version_id"]}
    second = drive.upload(owner, "a.pdf", **base)  # control: the head is no stale base
    drive.ingest("two")
    with refused("CONFLICT_STATE", head=second["version_id"], base_version=first["version_id"]):
        drive.ticket(owner, "a.pdf", **base)
    with refused("CONFLICT_STATE", head=second["version_id"]):
        drive.ticket(owner, "a.pdf", on_conflict="version", base_version=first["version_id"])
    base["base_version"] = second["version_id"]
    assert drive.ticket(owner, "a.pdf", **base)["file_id"] == first["file_id"]


def test_only_a_file_has_versions_and_only_a_folder_contains(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    file = drive.upload(owner, "a.pdf")["file_id"]
    with refused("INVALID_ARGUMENT", field="file_id"):
        drive.ticket(owner, "a.pdf", file_id=folder)
    with refused("INVALID_ARGUMENT", field="folder_id"):
        drive.ticket(owner, "b.pdf", folder_id=file)
    assert drive.ticket(owner, "b.pdf", folder_id=folder)["upload_id"]
    assert drive.ticket(owner, "a.pdf", file_id=file)["upload_id"]


# Other names -------------------------------------------------------------------------------------


def rename(drive: Drive, user: Any, node: str, name: str) -> Any:
    """Rename a node and return it."""
    return drive.rpc(user, "rename_node", id=node, name=name)


def test_a_node_gets_another_name(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Projects")["id"]
    file = drive.upload(owner, "a.txt", folder_id=folder)["file_id"]
    db.all("update public.nodes set updated_at = '2001-01-01'")
    assert rename(drive, owner, folder, "projects")["name"] == "projects"  # case alone
    assert drive.rpc(owner, "file_details", file_id=file)["path"] == "/projects/a.txt"
    assert db.all("select id::text from public.nodes where updated_at > '2002-01-01'") == [folder]
    rename(drive, owner, folder, "re\u0301sume\u0301")
    renamed = rename(drive, owner, folder, "r\u00e9sum\u00e9")  # composition alone
    assert renamed["name"] == "r\u00e9sum\u00e9"
    db.all("update public.nodes set updated_at = '2001-01-01'")
    assert rename(drive, owner, folder, renamed["name"])["updated_at"].startswith("2001")
    with refused("NOT_FOUND", id=file):
        rename(drive, peer, file, "b.txt")
    drive.share(folder, peer)
    with refused("FORBIDDEN", required="edit"):
        rename(drive, peer, file, "b.txt")
    db.all("update public.shares set level = 'edit'")
    assert rename(drive, peer, file, "b.txt")["name"] == "b.txt"
    drive.rpc(owner, "trash_nodes", ids=[file])
    with refused("NOT_FOUND", id=file):
        rename(drive, owner, file, "c.txt")


@pytest.mark.parametrize(
    ("taken", "name", "suggested"),
    [
        ("b.txt", "b.txt", "b (2).txt"),
        ("b.txt", "B.TXT", "B (2).TXT"),
        ("r\u00e9sum\u00e9", "RE\u0301SUME\u0301", "RE\u0301SUME\u0301 (2)"),
    ],
)
def test_no_two_siblings_share_a_name(
    db: Database, drive: Drive, taken: str, name: str, suggested: str
) -> None:
    owner = db.create_user()
    there = drive.rpc(owner, "create_folder", name=taken)["id"]
    file = drive.upload(owner, "a.txt")["file_id"]
    with refused("CONFLICT_NAME", existing_id=there, suggested=suggested):
        rename(drive, owner, file, name)
    inside = drive.upload(owner, "a.txt", folder_id=there)["file_id"]
    assert rename(drive, owner, inside, name)["name"] == name  # elsewhere it is free
    assert rename(drive, owner, file, suggested)["name"] == suggested


@pytest.mark.parametrize("why", REFUSED)
def test_a_new_name_misleads_no_more_than_a_first_one(db: Database, drive: Drive, why: str) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="name"):
        rename(drive, owner, drive.upload(owner)["file_id"], REFUSED[why])


def test_renaming_makes_no_executable(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.upload(owner, "a.txt")["file_id"]
    for name in ("a.exe", "a.EXE. ", "a.\uff45\uff58\uff45"):
        with refused("TYPE_NOT_ALLOWED", extension="exe"):
            rename(drive, owner, file, name)
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    assert rename(drive, owner, folder, "a.exe")["name"] == "a.exe"  # a folder runs nowhere


# Names that an upload finds ----------------------------------------------------------------------


def test_an_upload_replaces_by_a_new_version(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.pdf", "one")
    second = drive.upload(owner, "A.pdf", on_conflict="replace")
    assert second["file_id"] == first["file_id"]
    assert versions_of(drive, owner, first) == [2, 1]
    new = drive.upload(owner, "b.pdf", on_conflict="replace")
    assert versions_of(drive, owner, new) == [1]
    folder = drive.rpc(owner, "create_folder", name="c.pdf")["id"]
    with refused("CONFLICT_NAME", existing_id=folder):
        drive.ticket(owner, "c.pdf", on_conflict="replace")
    with refused("CONFLICT_STATE"):
        drive.ticket(owner, "a.pdf", on_conflict="replace", base_version=new["version_id"])


def test_an_upload_that_is_skipped_reserves_nothing(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.pdf")
    before = db.one("select o::text from public.owners as o where id = %s", owner)
    assert drive.ticket(owner, "A.PDF", on_conflict="skip") == {
        "skipped": True,
        "file_id": first["file_id"],
        "name": "a.pdf",
    }
    assert db.one("select count(*) from public.uploads where state = 'open'") == 0
    assert db.one("select o::text from public.owners as o where id = %s", owner) == before
    assert drive.ticket(owner, "b.pdf", on_conflict="skip")["upload_id"]
