"""What a killed or restarted server leaves, and how the next one puts it right."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from narwhal.local.storage.errors import StorageError
from narwhal.local.storage.files import FileStore
from tests.local.storage.serving import ProcessServer, ThreadServer, bearer, files_of, token
from tests.local.storage.test_tus import Tus, part_of, send_part, wait_for

MakeBucket = Callable[..., str]


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_resumable_upload_survives_a_restart(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket, how: str
) -> None:
    bucket = make_bucket()
    data = os.urandom(4_000_000)
    service = bearer(token("service_role"))
    with ProcessServer(tmp_path, storage_url) as served:
        tus = Tus(served, service)
        url = tus.create(bucket, "big", len(data), contentType="text/plain").headers["location"]
        assert tus.patch(url, 0, data[:1_000_000]).status_code == 204
        open_request = send_part(url, service, 1_000_000, 3_000_000, data[1_000_000:3_200_000])
        wait_for(lambda: part_of(served, url).stat().st_size > 1_500_000)
        if how == "kill":
            served.kill()
        else:
            served.process.terminate()
            served.process.wait(20)
        open_request.close()
        served.start()
        tus = Tus(served, service)  # its own connections
        offset = int(tus.head(url).headers["upload-offset"])
        assert 1_500_000 < offset <= 3_200_000
        assert offset == 3_200_000 or how == "kill"  # an orderly end loses nothing
        assert tus.patch(url, offset, data[offset:]).headers["tus-complete"] == "1"
        answer = httpx.get(f"{served.url}/object/{bucket}/big", headers=service)
        assert answer.content == data
        assert answer.headers["content-type"] == "text/plain"


def test_an_upload_whose_completion_was_cut_off_is_completed_later(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket, superuser: Any
) -> None:
    """Killed after the last byte, or after the commit: either way one object, with the bytes."""
    bucket = make_bucket()
    service = bearer(token("service_role"))
    with ThreadServer(tmp_path, storage_url) as served:
        tus = Tus(served, service)
        url = tus.create(bucket, "a", 5).headers["location"]
        part_of(served, url).write_bytes(b"01234")  # as if killed before completing
        head = tus.head(url)
        assert head.headers["upload-offset"] == "5"
        assert httpx.get(f"{served.url}/object/{bucket}/a", headers=service).content == b"01234"

        description = part_of(served, url).with_suffix(".json")
        state = json.loads(description.read_text())
        description.write_text(json.dumps(state | {"finished": False}))
        part_of(served, url).write_bytes(b"01234")  # as if killed right after the commit
        before = superuser.execute(
            "select version, updated_at from storage.objects where bucket_id = %s", (bucket,)
        ).fetchone()
        assert tus.head(url).headers["upload-offset"] == "5"
        after = superuser.execute(
            "select version, updated_at from storage.objects where bucket_id = %s", (bucket,)
        ).fetchone()
        assert after == before
        assert httpx.get(f"{served.url}/object/{bucket}/a", headers=service).content == b"01234"
        assert len(files_of(served, bucket)) == 1


def test_a_start_removes_what_a_crash_left(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    service = bearer(token("service_role"))
    with ThreadServer(tmp_path, storage_url) as served:
        for key in ("kept", "gone"):
            httpx.post(
                f"{served.url}/object/{bucket}/{key}", content=key.encode(), headers=service
            ).raise_for_status()
    store = FileStore(tmp_path)
    # killed between the file and its row, for a key that exists and one that does not
    orphans = [store.path(bucket, key, str(uuid4())) for key in ("kept", "never")]
    for orphan in orphans:
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"orphan")
    for number, keys in enumerate((["kept"], ["never"])):
        (tmp_path / "unsettled" / f"note{number}").write_text(
            json.dumps({"bucket": bucket, "keys": keys})
        )
    (tmp_path / "unsettled" / "torn").write_text('{"bucket": ')
    (tmp_path / "tmp" / "half").write_bytes(b"half")
    with ThreadServer(tmp_path, storage_url) as served:
        wait_for(lambda: not any((tmp_path / "unsettled").iterdir()))
        assert list((tmp_path / "tmp").iterdir()) == []
        assert not any(orphan.exists() for orphan in orphans)
        for key in ("kept", "gone"):
            answer = httpx.get(f"{served.url}/object/{bucket}/{key}", headers=service)
            assert answer.content == key.encode()


def test_kills_at_random_moments_lose_and_leak_nothing(
    storage_url: str, tmp_path: Path, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket()
    service = bearer(token("service_role"))
    with ProcessServer(tmp_path, storage_url) as served:
        for round_number in range(3):
            acknowledged: dict[str, bytes] = {}

            def write(worker: int, acknowledged: dict[str, bytes] = acknowledged) -> None:
                with httpx.Client(headers=service, timeout=10) as client:
                    for number in range(10_000):
                        key, content = f"{worker}-{number % 3}", os.urandom(300_000)
                        try:
                            answer = client.put(
                                f"{served.url}/object/{bucket}/{key}", content=content
                            )
                        except httpx.HTTPError:
                            acknowledged.pop(key, None)  # either is right
                            return
                        if answer.status_code == 200:
                            acknowledged[key] = content

            writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
            for writer in writers:
                writer.start()
            wait_for(lambda acknowledged=acknowledged: len(acknowledged) >= 6, seconds=30)
            time.sleep(0.05 * round_number)
            served.kill()
            for writer in writers:
                writer.join()
            served.start()
            wait_for(lambda: not any((tmp_path / "unsettled").iterdir()))
            assert acknowledged
            for key, content in acknowledged.items():
                answer = httpx.get(f"{served.url}/object/{bucket}/{key}", headers=service)
                assert answer.content == content
        listed = httpx.post(
            f"{served.url}/object/list/{bucket}", headers=service, json={"prefix": ""}
        ).json()
        for entry in listed:
            content = httpx.get(
                f"{served.url}/object/{bucket}/{entry['name']}", headers=service
            ).content
            assert len(content) == 300_000
        assert len(files_of(served, bucket)) == len(listed)
        assert list((tmp_path / "tmp").iterdir()) == []


def test_an_uncertain_commit_is_settled_by_the_sweep(
    service: httpx.Client,
    make_bucket: MakeBucket,
    storage_url: str,
    superuser: Any,
    tmp_path: Path,
) -> None:
    """The connection broke at the commit: nobody knows, so nothing is removed until it is known."""
    bucket = make_bucket()
    headers = bearer(token("service_role"))
    with ThreadServer(tmp_path, storage_url, sweep_interval=0.3) as served:
        superuser.execute("insert into app.away default values")
        try:
            answer = httpx.put(f"{served.url}/object/{bucket}/away", content=b"1", headers=headers)
            assert answer.status_code == 500
            wait_for(lambda: files_of(served, bucket) == [])
        finally:
            superuser.execute("delete from app.away")
        httpx.put(
            f"{served.url}/object/{bucket}/away", content=b"2", headers=headers
        ).raise_for_status()
        assert len(files_of(served, bucket)) == 1


def test_a_full_disk_is_said_and_leaves_nothing(
    service: httpx.Client,
    make_bucket: MakeBucket,
    server: ThreadServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = make_bucket()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("narwhal.local.storage.files.os.fsync", full)
    answer = service.post(f"/object/{bucket}/a", content=b"1")
    assert (answer.status_code, answer.json()["message"]) == (
        507,
        "No space is left on the server's disk",
    )
    assert files_of(server, bucket) == []
    assert list((server.config.storage_dir / "tmp").iterdir()) == []
    assert service.get(f"/object/{bucket}/a").json()["code"] == "NoSuchKey"


def test_a_row_that_somebody_else_wrote_reads_as_missing(
    service: httpx.Client, make_bucket: MakeBucket, superuser: Any, tmp_path: Path
) -> None:
    bucket = make_bucket()
    for key, version in (("none", None), ("path", "../../../etc/passwd"), ("lost", str(uuid4()))):
        superuser.execute(
            "insert into storage.objects (bucket_id, name, version) values (%s, %s, %s)",
            (bucket, key, version),
        )
        assert service.get(f"/object/{bucket}/{key}").json()["code"] == "NoSuchKey"
        copy = {"bucketId": bucket, "sourceKey": key, "destinationKey": f"{key}-copy"}
        assert service.post("/object/copy", json=copy).json()["code"] == "NoSuchKey"
        service.delete(f"/object/{bucket}/{key}").raise_for_status()
    with pytest.raises(StorageError):
        FileStore(tmp_path).path(bucket, "path", "../../../etc/passwd")
