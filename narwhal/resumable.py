"""Resumable uploads: tuspy sends the parts, this module decides what to do when one fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supabase import Client
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.uploader.uploader import Uploader

from narwhal.session import access_token, refresh
from narwhal.settings import Settings
from narwhal.uploads import Ledger

CHUNK_SIZE = 6 * 1024 * 1024  # Storage accepts no other part size
ATTEMPTS = 5
PAUSE_S = 0.5
GONE = (404, 410)


def send_resumable(
    client: Client,
    settings: Settings,
    ledger: Ledger,
    path: Path,
    key: str,
    ticket: dict[str, Any],
    progress: Callable[[int], None],
) -> None:
    """Send a file by TUS under its ticket, from wherever an earlier attempt stopped.

    The upload URL is stored before the first byte, so that a killed process can go on. An upload
    URL that Storage no longer knows is replaced by a new one under the same ticket.
    """
    size = ticket["size"]
    tus = TusClient(
        f"{settings.require('supabase_url')}/storage/v1/upload/resumable",
        headers={"apikey": settings.require("anon_key")},
    )

    def authorize(token: str) -> None:
        tus.set_headers({"Authorization": f"Bearer {token}"})

    uploader: Uploader | None = None
    failures = 0
    while True:
        try:
            authorize(access_token(client))
            if uploader is None:
                uploader = _open(tus, path, ticket)
            if not uploader.url:
                uploader.set_url(uploader.create_url())
                ticket["upload_url"] = uploader.url
                ledger.put(key, ticket)
            progress(uploader.offset)
            if uploader.offset >= size:
                return
            uploader.upload_chunk()  # type: ignore[no-untyped-call]
            failures = 0
        except TusCommunicationError as error:
            failures += 1
            status = error.status_code
            if status == 409 and uploader is not None and not uploader.url:
                return  # the object exists: the answer to the last part had been lost
            if failures >= ATTEMPTS or not _worth_retrying(status, failures):
                raise
            if status in (401, 403):  # perhaps only the token; a refused right fails again
                refresh(client)
            elif status in GONE:
                ticket.pop("upload_url", None)
            else:
                time.sleep(PAUSE_S * 2 ** (failures - 1))
            uploader = None  # asks for the offset, or for a new URL


def _open(tus: TusClient, path: Path, ticket: dict[str, Any]) -> Uploader:
    """Return an uploader at the server's offset; one without a URL when Storage forgot it."""
    options: dict[str, Any] = {
        "file_path": str(path),
        "chunk_size": ticket.get("chunk_size") or CHUNK_SIZE,
        "metadata": {
            "bucketName": ticket["bucket"],
            "objectName": ticket["key"],
            "contentType": ticket["mime"],
        },
    }
    url = ticket.get("upload_url")
    if url:
        try:
            return tus.uploader(url=url, **options)
        except TusCommunicationError as error:
            if error.status_code not in GONE:
                raise
            ticket.pop("upload_url", None)
    return tus.uploader(**options)


def _worth_retrying(status: int | None, failures: int) -> bool:
    """Lost connections, locks, offset conflicts and server errors pass; refusals do not."""
    if status in (401, 403):
        return failures == 1
    return status is None or status in (409, 423, 429, *GONE) or status >= 500
