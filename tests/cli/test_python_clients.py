"""supabase-py and tuspy, unmodified, as an application would use them (journeys J1 to J3, J10)."""

from __future__ import annotations

import hashlib
import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_auth.errors import AuthApiError
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed

from narwhal.local.state import StackState
from tests.cli.running import PASSWORD

MIB = 2**20
TEXT = b"The keeper of the lighthouse pays invoice ZX-4471.\n"


def new_client(stack: StackState) -> Client:
    # the refresh timer is a thread that would outlive the test
    return create_client(stack.api_url, stack.anon_key, SyncClientOptions(auto_refresh_token=False))


def sign_up(stack: StackState) -> Client:
    client = new_client(stack)
    email = f"{uuid.uuid4().hex}@example.com"
    options: Any = {"data": {"full_name": "Test Owner"}}
    client.auth.sign_up({"email": email, "password": PASSWORD, "options": options})
    return client


@pytest.fixture
def owner(stack: StackState) -> Client:
    return sign_up(stack)


@pytest.fixture
def stranger(stack: StackState) -> Client:
    return sign_up(stack)


def session(client: Client) -> Any:
    found = client.auth.get_session()
    assert found is not None
    return found


def begin_upload(client: Client, name: str, size: int, **more: Any) -> Any:
    arguments = {"name": name, "folder_id": None, "size": size, "mime": "text/plain"}
    return client.rpc(
        "begin_upload", {**arguments, "sha256": None, "on_conflict": "fail", **more}
    ).execute().data  # fmt: skip


def uploader(stack: StackState, client: Client, path: Path, ticket: Any, url: str | None) -> Any:
    token = session(client).access_token
    tus = TusClient(
        f"{stack.api_url}/storage/v1/upload/resumable",
        headers={"Authorization": f"Bearer {token}", "apikey": stack.anon_key},
    )
    metadata = {
        "bucketName": ticket["bucket"],
        "objectName": ticket["key"],
        "contentType": ticket["mime"],
    }
    return tus.uploader(str(path), chunk_size=ticket["chunk_size"], metadata=metadata, url=url)


def test_sign_up_sign_in_profile_and_refresh(stack: StackState, owner: Client) -> None:
    mine = session(owner)
    columns = "id,role,full_name,storage_used"
    [profile] = owner.table("user_profiles").select(columns).execute().data
    assert profile == {
        "id": mine.user.id, "role": "user", "full_name": "Test Owner", "storage_used": 0,
    }  # fmt: skip
    assert mine.expires_in == 900

    again = new_client(stack)
    again.auth.sign_in_with_password({"email": mine.user.email, "password": PASSWORD})
    before = session(again).refresh_token
    again.auth.refresh_session()
    assert session(again).refresh_token != before
    with pytest.raises(AuthApiError, match="Invalid login credentials"):
        again.auth.sign_in_with_password({"email": mine.user.email, "password": "wrong"})


def test_the_service_key_manages_accounts(stack: StackState) -> None:
    admin = create_client(stack.api_url, stack.service_role_key)
    email = f"{uuid.uuid4().hex}@example.com"
    created = admin.auth.admin.create_user(
        {"email": email, "password": PASSWORD, "email_confirm": True}
    ).user
    assert created.id in [user.id for user in admin.auth.admin.list_users(per_page=1000)]
    admin.auth.admin.delete_user(created.id)
    assert created.id not in [user.id for user in admin.auth.admin.list_users(per_page=1000)]


def test_a_small_file_by_ticket_and_storage(owner: Client, stranger: Client) -> None:
    ticket = begin_upload(owner, "Résumé 简历.txt", len(TEXT))
    bucket = owner.storage.from_(ticket["bucket"])
    bucket.upload(ticket["key"], TEXT, {"content-type": "text/plain"})
    with pytest.raises(StorageApiError) as twice:
        bucket.upload(ticket["key"], TEXT, {"content-type": "text/plain"})
    assert str(twice.value.status) == "409"

    folder, _, name = ticket["key"].rpartition("/")
    assert [item["name"] for item in bucket.list(folder)] == [name]
    assert bucket.download(ticket["key"]) == TEXT
    signed = bucket.create_signed_url(ticket["key"], 60)["signedURL"]
    assert httpx.get(signed).content == TEXT
    details: Any = owner.rpc("file_details", {"file_id": ticket["file_id"]}).execute().data
    assert (details["name"], details["quota"]["used"]) == ("Résumé 简历.txt", len(TEXT))

    theirs = stranger.storage.from_(ticket["bucket"])
    assert theirs.list(folder) == []
    with pytest.raises(StorageApiError):
        theirs.download(ticket["key"])
    with pytest.raises(APIError) as hidden:
        stranger.rpc("file_details", {"file_id": ticket["file_id"]}).execute()
    assert hidden.value.code == "PT404"
    for table in ("nodes", "file_versions", "uploads", "ingest_jobs"):
        assert stranger.table(table).select("id").execute().data == []
        assert owner.table(table).select("id").execute().data, table  # control


def test_errors_carry_the_contract(owner: Client) -> None:
    begin_upload(owner, "report.txt", 10)
    with pytest.raises(APIError) as conflict:
        begin_upload(owner, "REPORT.txt", 10)
    assert conflict.value.code == "PT409"
    details = json.loads(conflict.value.details or "")
    assert (details["error"], details["suggested"]) == ("CONFLICT_NAME", "REPORT (2).txt")
    with pytest.raises(APIError) as large:
        begin_upload(owner, "large.txt", 10**15)
    assert large.value.code == "PT413"


def test_a_large_file_is_resumed_by_a_second_tus_client(
    stack: StackState, owner: Client, stranger: Client, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(random.Random(7).randbytes(14 * MIB))
    ticket = begin_upload(owner, path.name, 14 * MIB, mime="application/octet-stream")
    assert (ticket["mode"], ticket["chunk_size"]) == ("tus", 6 * MIB)
    first = uploader(stack, owner, path, ticket, None)
    first.upload_chunk()

    with pytest.raises(TusUploadFailed) as refused:
        uploader(stack, stranger, path, ticket, first.url).upload_chunk()
    assert refused.value.status_code == 403

    owner.auth.refresh_session()
    second = uploader(stack, owner, path, ticket, first.url)
    assert second.offset == 6 * MIB
    second.upload()
    [row] = owner.table("uploads").select("state,bytes_received").execute().data
    assert row == {"state": "completed", "bytes_received": 14 * MIB}
    stored = owner.storage.from_(ticket["bucket"]).download(ticket["key"])
    assert hashlib.sha256(stored).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_what_was_uploaded_is_found_by_its_owner(owner: Client, stranger: Client) -> None:
    ticket = begin_upload(owner, "keeper.txt", len(TEXT))
    owner.storage.from_(ticket["bucket"]).upload(ticket["key"], TEXT)
    deadline = time.monotonic() + 90
    status = ""
    while status != "ready" and time.monotonic() < deadline:
        time.sleep(0.2)
        details: Any = owner.rpc("file_details", {"file_id": ticket["file_id"]}).execute().data
        status = details["status"]
    assert status == "ready"

    def search(client: Client, **body: Any) -> Any:
        options = {"body": {"query": "lighthouse keeper", **body}, "responseType": "json"}
        return client.functions.invoke("ai/search", options)

    for mode in ("hybrid", "keyword", "semantic"):
        assert search(owner, mode=mode)["hits"][0]["file_id"] == ticket["file_id"], mode
        assert search(stranger, mode=mode)["hits"] == [], mode
    vector: Any = owner.functions.invoke(
        "ai/embed", {"body": {"text": "who tends the light?"}, "responseType": "json"}
    )
    found: Any = owner.rpc(
        "hybrid_search",
        {"query": "who tends the light?", "embedding": vector["embedding"], "top_k": 1},
    ).execute().data  # fmt: skip
    assert found["hits"][0]["file_id"] == ticket["file_id"]
    assert stranger.table("chunks").select("id").execute().data == []
    assert owner.table("chunks").select("id").execute().data  # control
