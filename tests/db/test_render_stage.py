"""The render stage: what it is given to draw, what it stores, and who is told where that is."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, refused
from tests.db.looks import is_found, quota_of, status_of
from tests.db.test_versions import append, ingested, place


def _page(number: int) -> Any:
    return {"page": number, "text": f"alpha {number}", "source": "text", "layout": {}}


def read_pdf(drive: Drive, owner: uuid.UUID, pages: int = 3, **more: object) -> tuple[Any, Any]:
    """Upload a PDF and read it up to its pictures; returns its ticket and that job."""
    ticket = drive.upload(owner, f"{uuid.uuid4()}.pdf", **more)
    while jobs := drive.claim():
        (job,) = jobs
        if job["stage"] == "detect":
            drive.work("finish_detect", job, "0" * 64, "application/pdf", "pdf", None)
        elif job["stage"] == "extract":
            drive.work("finish_extract", job, "en", True, [_page(n + 1) for n in range(pages)])
        elif job["stage"] == "chunk":
            drive.work("finish_chunk", job, chunk_rows(["alpha"]))
        elif job["stage"] == "render":
            return ticket, job
        else:
            drive.run_stage(job, ["alpha"])
    raise AssertionError("nothing was to be drawn")


def store(
    drive: Drive,
    job: Any,
    page: int | None,
    size: int = 100,
    width: int = 120,
    image: int | None = None,
    is_promised: bool = True,
) -> str:
    """Store a page, or the thumbnail, as a worker does; returns its key."""
    key = f"{job['file_id']}/{uuid.uuid4()}.webp"
    with drive.db.as_service():
        drive.db.all(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values ('derived', %s, '1', jsonb_build_object('size', %s::int))",
            key,
            size,
        )
    kind = "image" if image is not None else "page" if page else "thumbnail"
    if is_promised:
        drive.work("promise_rendition", job, key)
    drive.work("store_rendition", job, kind, page, key, size, width, 160, image)
    return key


def draw(drive: Drive, job: Any) -> list[str]:
    """Do all that the stage is told to do; returns the keys."""
    todo = drive.work("job_renditions", job)
    keys = [store(drive, job, None)] if todo["thumbnail"] else []
    keys += [store(drive, job, page) for page in todo["left"]]
    drive.work("finish_render", job)
    return keys


def test_a_file_is_ready_before_its_pictures_are_drawn(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner)
    assert status_of(drive, owner, ticket) == "ready"
    assert is_found(drive, owner, "alpha")
    assert drive.work("job_renditions", job) == {"left": [1, 2, 3], "thumbnail": True, "images": []}
    store(drive, job, None)
    store(drive, job, 1)
    row = "select pages_done, pages_total, round(progress::numeric, 2)::text from public.ingest_jobs where stage = 'render'"  # noqa: E501
    assert db.one(row) == (1, 3, "0.33")
    assert drive.work("job_renditions", job) == {"left": [2, 3], "thumbnail": False, "images": []}
    drive.work("fail_job", job, "limit_time", "It took too long.", True)
    assert status_of(drive, owner, ticket) == "ready"
    assert drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"]) == 1
    assert status_of(drive, owner, ticket) == "ready"


def test_formats_without_pages_are_not_drawn(db: Database, drive: Drive) -> None:
    drive.file(db.create_user(), "a.txt", "alpha")
    assert db.all("select 1 from public.ingest_jobs where stage = 'render'") == []


def test_a_film_is_drawn_as_far_as_it_has_frames(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update private.settings set value = '4' where key = 'render.frames'")
    ticket = drive.upload(owner, "film.mp4")
    (job,) = drive.claim()
    drive.work("finish_detect", job, "0" * 64, "video/mp4", "video", None)
    (job,) = drive.claim()
    drive.work("finish_extract", job, None, False, [])
    jobs = {job["stage"]: job for job in drive.claim(2)}
    assert set(jobs) == {"transcribe", "render"}
    job = jobs["render"]
    assert drive.work("job_renditions", job)["left"] == [1, 2, 3, 4]
    for page in (None, 1, 2):
        store(drive, job, page)
    drive.work("finish_render", job)
    items = drive.rpc(owner, "list_pictures", file_ids=[ticket["file_id"]], kind="page")["items"]
    assert [item["page"] for item in items] == [1, 2]
    assert db.one("select state from public.ingest_jobs where stage = 'render'") == "done"


def test_a_lost_worker_costs_no_page_that_was_stored(db: Database, drive: Drive) -> None:
    _, lost = read_pdf(drive, db.create_user())
    drive.work("job_renditions", lost)
    store(drive, lost, None)
    store(drive, lost, 1)
    db.all("update public.ingest_jobs set lease_expires_at = now() - interval '1 s'")
    (job,) = drive.claim()
    with refused("CONFLICT_STATE", lease="lost"):
        store(drive, lost, 2)
    assert drive.work("job_renditions", job) == {"left": [2, 3], "thumbnail": False, "images": []}
    draw(drive, job)
    assert db.all("select page from public.renditions order by page nulls first") == [
        None, 1, 2, 3,
    ]  # fmt: skip


def test_an_object_without_a_row_goes_again(db: Database, drive: Drive) -> None:
    _, job = read_pdf(drive, db.create_user())
    drive.work("promise_rendition", job, "lost")
    key = store(drive, job, 1)
    assert drive.clean_up() == 0
    due = "update private.object_deletions set run_after = now() where run_after > now() returning key"  # noqa: E501
    assert db.all(due) == ["lost"]
    with db.as_role("narwhal_worker"):
        assert [o["key"] for o in db.all("select private.claim_object_deletions(9)")] == ["lost"]
    # from now on it is too late
    with refused("CONFLICT_STATE", key="lost"):
        drive.work("store_rendition", job, "page", 2, "lost", 1, 1, 1)
    with refused("CONFLICT_STATE"):
        store(drive, job, 2, is_promised=False)
    assert db.all("select key from private.blobs where bucket = 'derived'") == [key]


def test_only_the_first_pages_are_drawn(db: Database, drive: Drive) -> None:
    db.all("update private.settings set value = '2' where key = 'render.pages'")
    _, job = read_pdf(drive, db.create_user(), pages=5)
    assert drive.work("job_renditions", job)["left"] == [1, 2]


def test_drawing_anew_replaces_what_was_drawn_and_its_bytes(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner, size=10)
    first = draw(drive, job)
    assert quota_of(db, owner)[0] == 10 + 400
    db.all("update public.renditions set created_at = created_at - interval '1 hour'")
    db.all("update private.settings set value = '2' where key = 'render.pages'")
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="render")
    (job,) = drive.claim()
    assert drive.work("job_renditions", job) == {"left": [1, 2], "thumbnail": True, "images": []}
    second = [store(drive, job, None, width=100), store(drive, job, 1, width=200)]
    # what is not drawn yet is as it was
    assert db.one("select count(*) from public.renditions") == 4
    second.append(store(drive, job, 2))
    drive.work("finish_render", job)
    assert set(db.all("select key from private.blobs where bucket = 'derived'")) == set(second)
    assert quota_of(db, owner)[0] == 10 + 300
    drive.clean_up()
    stored = db.all("select name from storage.objects where bucket_id = 'derived'")
    assert set(stored) == set(second)
    assert not set(stored) & set(first)


def test_a_version_that_is_no_longer_drawn_keeps_no_pictures(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner)
    draw(drive, job)
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="detect")
    drive.ingest("now it is text")
    assert db.one("select count(*) from public.renditions") == 0
    assert db.all("select stage from public.ingest_jobs where stage = 'render'") == []


def test_pictures_need_room(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    _, job = read_pdf(drive, owner, size=10)
    db.all("update public.owners set storage_limit = 100 where id = %s", owner)
    with refused("QUOTA_EXCEEDED", used=10, limit=100, requested=91):
        store(drive, job, 1, size=91)
    store(drive, job, 1, size=90)
    assert quota_of(db, owner)[0] == 100


@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_copy_takes_the_pictures_or_draws_its_own(
    db: Database, drive: Drive, is_drawn: bool
) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner)
    if is_drawn:
        draw(drive, job)
    for who in (owner, db.create_user()):
        version = append(db, place(db, who, "copy.pdf"), ticket["version_id"], who)
        assert db.one("select status from public.file_versions where id = %s", version) == "ready"
        if is_drawn:
            assert drive.claim() == []
            assert ingested(db, version) == ingested(db, ticket["version_id"])
        else:
            (job,) = drive.claim()
            assert (job["stage"], job["version_id"]) == ("render", version)
            draw(drive, job)
            assert len(ingested(db, version)["pictures"]) == 4


def test_who_reads_a_file_is_told_where_its_pictures_are(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    ticket, job = read_pdf(drive, owner)
    file = ticket["file_id"]
    keys = draw(drive, job)
    drive.share(file, peer)
    for user in (owner, peer):
        answer = drive.rpc(user, "list_pictures", file_ids=[file, str(uuid.uuid4()), file])
        assert answer == {
            "items": [
                {
                    "file_id": file, "version_id": ticket["version_id"], "kind": "thumbnail",
                    "page": None, "image": None, "bucket": "derived", "key": keys[0], "width": 120,
                    "height": 160,
                }
            ],
            "next_cursor": None,
        }  # fmt: skip
        pages = drive.rpc(user, "list_pictures", file_ids=[file], kind="page", pages=[3, 2])
        assert [(p["page"], p["key"]) for p in pages["items"]] == [(2, keys[2]), (3, keys[3])]
    assert drive.rpc(db.create_user(), "list_pictures", file_ids=[file])["items"] == []
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "list_pictures", file_ids=[file])
    with refused("INVALID_ARGUMENT", field="kind"):
        drive.rpc(owner, "list_pictures", file_ids=[file], kind="film")
    with refused("INVALID_ARGUMENT", field="file_ids"):
        drive.rpc(owner, "list_pictures", file_ids=[str(uuid.uuid4()) for _ in range(1001)])
    drive.rpc(owner, "trash_nodes", ids=[file])
    assert drive.rpc(owner, "list_pictures", file_ids=[file])["items"] == []


# Images ------------------------------------------------------------------------------------------

PLACE = {"latitude": 54.16, "longitude": 7.26, "altitude_m": None}


def an_image(idx: int, place: Any = None) -> dict[str, Any]:
    return {
        "idx": idx, "page": 1, "box": [0.1, 0.2, 0.5, 0.6], "context": "words around",
        "description": "a walrus", "mime": "image/png", "width": 64, "height": 48,
        "sha256": f"{idx:064x}", "facts": {"make": "Acme"}, "location": place,
    }  # fmt: skip


def test_images_are_for_readers_and_where_they_were_taken_for_the_owner(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    ticket, job = read_pdf(drive, owner)
    for idx, taken_at in enumerate((PLACE, None)):
        drive.work("store_image", job, an_image(idx, taken_at))
    key = store(drive, job, None, image=1)
    drive.share(ticket["file_id"], peer, "manage")
    for user in (owner, peer):
        with db.as_user(user):
            rows = db.all(
                "select idx, page, box, context, width, facts ->> 'make' from public.images"
                " order by idx"
            )
        box = [pytest.approx(value) for value in (0.1, 0.2, 0.5, 0.6)]
        assert rows == [(idx, 1, box, "words around", 64, "Acme") for idx in (0, 1)]
        listed = drive.rpc(user, "list_pictures", file_ids=[ticket["file_id"]], kind="image")
        assert [(p["image"], p["key"]) for p in listed["items"]] == [(1, key)]
    places = "select latitude, longitude, altitude_m from public.image_locations"
    with db.as_user(owner):
        assert db.all(places) == [(54.16, 7.26, None)]
    for other in (peer, db.create_user()):
        with db.as_user(other):
            assert db.all(places) == []


def test_an_image_that_is_told_again_is_the_same_one(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner)
    for _ in range(2):
        drive.work("store_image", job, an_image(0, PLACE))
        store(drive, job, None, image=0)
    assert drive.work("job_renditions", job)["images"] == [0]
    for table in ("images", "image_locations", "renditions"):
        assert db.one(f"select count(*) from public.{table}") == 1  # type: ignore[arg-type]
    draw(drive, job)
    db.all("update public.images set created_at = created_at - interval '1 hour'")
    db.all("update public.renditions set created_at = created_at - interval '1 hour'")
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="render")
    (job,) = drive.claim()
    assert drive.work("job_renditions", job)["images"] == []
    drive.work("store_image", job, an_image(7))
    store(drive, job, None, image=7)
    drive.work("finish_render", job)
    assert db.all("select idx from public.images") == [7]
    assert db.all("select image from public.renditions") == [7]
    assert db.one("select count(*) from public.image_locations") == 0


def test_a_copy_has_the_images_and_only_the_same_owner_the_place(
    db: Database, drive: Drive
) -> None:
    owner, other = db.create_user(), db.create_user()
    ticket, job = read_pdf(drive, owner)
    drive.work("store_image", job, an_image(0, PLACE))
    store(drive, job, None, image=0)
    draw(drive, job)
    for who, count in ((owner, 1), (other, 0)):
        version = append(db, place(db, who, "copy.pdf"), ticket["version_id"], who)
        assert ingested(db, version) == ingested(db, ticket["version_id"])
        found = db.one(
            "select count(*) from public.image_locations as l"
            " join public.images as i on i.id = l.image_id where i.version_id = %s",
            version,
        )
        assert found == count


def test_images_go_with_their_file(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket, job = read_pdf(drive, owner)
    drive.work("store_image", job, an_image(0, PLACE))
    store(drive, job, None, image=0)
    draw(drive, job)
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    with db.as_user(owner):
        assert db.all("select 1 from public.images") == []
    drive.clean_up()
    for table in ("images", "image_locations", "renditions"):
        assert db.one(f"select count(*) from public.{table}") == 0  # type: ignore[arg-type]
    assert db.one("select count(*) from storage.objects where bucket_id = 'derived'") == 0
