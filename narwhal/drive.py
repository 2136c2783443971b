"""The drive as a client sees it: folders, tickets and uploads through the official SDK only."""

from __future__ import annotations

import hashlib
import mimetypes
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import Client

from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.resumable import send_resumable
from narwhal.settings import Settings
from narwhal.uploads import Ledger

Json = dict[str, Any]
SETTLED = frozenset({"ready", "failed", "skipped", "rejected"})
PAGE_SIZE = 500
HASH_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Sent:
    """What became of one local file."""

    path: str
    file_id: str
    version_id: str | None
    name: str
    size: int
    mode: Literal["standard", "tus", "deduplicated"]
    resumed: bool
    status: str | None = None


class Drive:
    """One user's drive. `client` carries the user's session; nothing here has other rights."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.ledger = Ledger(settings.home / "uploads.json")
        self._folders: dict[tuple[str | None, str], str] = {}

    # -- reading ---------------------------------------------------------------------------

    def call(self, function: str, arguments: Json) -> Json:
        """Call an RPC that returns one object."""
        data: Any = self.client.rpc(function, arguments).execute().data
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        if not isinstance(data, dict):
            raise NarwhalError(f"{function} answered in an unknown shape", "Update narwhal.")
        return data

    def children(self, folder_id: str | None) -> Iterator[Json]:
        """Yield everything in a folder by name; None is the top level."""
        cursor = None
        while True:
            page = self.call(
                "list_folder",
                {"folder": folder_id, "sort": "name", "page_size": PAGE_SIZE, "cursor": cursor},
            )
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def details(self, file_id: str) -> Json:
        """Return file_details of one node."""
        return self.call("file_details", {"file_id": file_id})

    def find(self, path: str) -> Json | None:
        """Return the node at a path like 'Projects/2026'; None for the top level itself."""
        node: Json | None = None
        for name in split_path(path):
            parent = node["id"] if node else None
            node = self._child(parent, name)
            if node is None:
                raise NarwhalError(
                    f"there is no {path!r} in the drive",
                    "List what is there: narwhal ls",
                    error="NOT_FOUND",
                    status=404,
                )
        return node

    def folder_id(self, path: str, *, create: bool = False) -> str | None:
        """Return the id of the folder at a path, None for the top level."""
        parent: str | None = None
        for name in split_path(path):
            parent = self._subfolder(parent, name, create=create)
        return parent

    def _child(self, parent: str | None, name: str) -> Json | None:
        wanted = _same_name(name)
        for item in self.children(parent):
            if _same_name(str(item["name"])) == wanted:
                return item
        return None

    def _subfolder(self, parent: str | None, name: str, *, create: bool) -> str:
        known = self._folders.get((parent, _same_name(name)))
        if known is not None:
            return known
        item = self._child(parent, name)
        if item is None and create:
            item = self._create_folder(parent, name)
        if item is None or item["kind"] != "folder":
            what = "there is no folder" if item is None else "this is a file, not a folder:"
            raise NarwhalError(
                f"{what} {name!r}", "List what is there: narwhal ls", error="NOT_FOUND", status=404
            )
        self._folders[(parent, _same_name(name))] = str(item["id"])
        return str(item["id"])

    def _create_folder(self, parent: str | None, name: str) -> Json:
        try:
            return self.call("create_folder", {"parent": parent, "name": name})
        except APIError as error:
            failure = as_narwhal_error(error)
            existing = failure.details.get("existing_id") if failure else None
            if failure is None or failure.error != "CONFLICT_NAME" or existing is None:
                raise
            return self.details(str(existing))  # another process created it in between

    # -- uploading -------------------------------------------------------------------------

    def upload(
        self,
        path: Path,
        folder_id: str | None,
        *,
        on_conflict: str = "fail",
        resume: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Sent:
        """Upload one file: ask for a ticket, then send the bytes as the ticket says.

        With `resume`, an upload of the same content to the same place that was interrupted goes
        on where it stopped. `progress` is told the bytes that arrived so far.
        """
        progress = progress or _silent
        size = path.stat().st_size
        sha256 = _sha256(path)
        key = self._fingerprint(path.name, folder_id, sha256, size)
        saved = self.ledger.get(key) if resume else None
        if saved is not None:
            try:
                return self._send(path, key, saved, resumed=True, progress=progress)
            except Exception as error:
                if not _ticket_is_dead(error):
                    raise
                self.ledger.forget(key)  # swept, aborted or expired: a new ticket is needed
        ticket = self._begin(path, folder_id, size, sha256, on_conflict, key)
        return self._send(path, key, ticket, resumed=False, progress=progress)

    def wait(
        self,
        sent: Sent,
        *,
        timeout_s: float,
        progress: Callable[[str], None] | None = None,
    ) -> str:
        """Poll until the uploaded version is ready, failed, skipped or rejected; return which."""
        deadline = time.monotonic() + timeout_s
        pause, status = 0.2, ""
        while True:
            details = self.details(sent.file_id)
            current = _version_status(details, sent.version_id)
            if current != status:
                status = current
                if progress is not None:
                    progress(status)
            if status in SETTLED:
                return status
            if time.monotonic() > deadline:
                raise NarwhalError(
                    f"{sent.name} is still {status} after {timeout_s:.0f} s",
                    "Is a worker running? narwhal worker --drain",
                    error="TIMEOUT",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def _begin(
        self,
        path: Path,
        folder_id: str | None,
        size: int,
        sha256: str,
        on_conflict: str,
        key: str,
    ) -> Json:
        arguments = {
            "name": path.name,
            "folder_id": folder_id,
            "size": size,
            "mime": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "sha256": sha256,
            "on_conflict": on_conflict,
        }
        try:
            ticket = self.call("begin_upload", arguments)
        except APIError as error:
            failure = as_narwhal_error(error)
            if failure and failure.error == "CONFLICT_NAME" and self.ledger.get(key):
                failure.hint = "An upload of this file was interrupted; go on with --resume."
                raise failure from error
            raise
        ticket["name"] = ticket.get("name") or path.name
        ticket["mime"] = arguments["mime"]
        ticket["size"] = size
        if not ticket.get("deduplicated"):
            self.ledger.put(key, ticket)
        return ticket

    def _send(
        self,
        path: Path,
        key: str,
        ticket: Json,
        *,
        resumed: bool,
        progress: Callable[[int], None],
    ) -> Sent:
        mode: Literal["standard", "tus", "deduplicated"]
        if ticket.get("deduplicated"):
            mode = "deduplicated"
        elif ticket["mode"] == "tus":
            mode = "tus"
            send_resumable(self.client, self.settings, self.ledger, path, key, ticket, progress)
        else:
            mode = "standard"
            self._send_standard(path, ticket)
        progress(ticket["size"])
        self.ledger.forget(key)
        return Sent(
            path=str(path),
            file_id=ticket["file_id"],
            version_id=ticket.get("version_id"),
            name=ticket["name"],
            size=ticket["size"],
            mode=mode,
            resumed=resumed,
        )

    def _send_standard(self, path: Path, ticket: Json) -> None:
        try:
            self.client.storage.from_(ticket["bucket"]).upload(
                ticket["key"], path, {"content-type": ticket["mime"]}
            )
        except StorageApiError as error:
            # the answer to an earlier attempt was lost: the bytes of this ticket are there
            if str(error.status) != "409":
                raise

    def _fingerprint(self, name: str, folder_id: str | None, sha256: str, size: int) -> str:
        session = self.client.auth.get_session()
        user = session.user.id if session else ""
        place = [self.settings.require("supabase_url"), user, folder_id or "", name]
        return hashlib.sha256("\0".join([*place, sha256, str(size)]).encode()).hexdigest()


def _silent(done: int) -> None:
    pass


def split_path(path: str) -> list[str]:
    """Split 'a/b/c' into names; empty parts count for nothing."""
    return [part for part in path.split("/") if part]


def _same_name(name: str) -> str:
    """Fold a name for comparing; Postgres decides, this only saves it a refused call."""
    return unicodedata.normalize("NFC", name).lower()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _version_status(details: Json, version_id: str | None) -> str:
    """Return the status of the version just sent; the file's own may still be the old head's."""
    for version in details.get("versions") or []:
        if version_id is not None and version.get("id") == version_id:
            return str(version.get("status") or details["status"])
    return str(details["status"])


def _ticket_is_dead(error: Exception) -> bool:
    failure = as_narwhal_error(error)
    return failure is not None and failure.error == "NO_TICKET"
