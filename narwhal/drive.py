"""The drive as a client sees it: folders, tickets and uploads through the official SDK only."""

from __future__ import annotations

import hashlib
import mimetypes
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import Client

from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.places import SHARED, Places, as_id, is_shared_root, not_there, split_path
from narwhal.resumable import send_resumable
from narwhal.session import access_token
from narwhal.settings import Settings
from narwhal.uploads import Ledger

Json = dict[str, Any]
SETTLED = frozenset({"ready", "failed", "skipped", "rejected"})
PAGE_SIZE = 1000
HASH_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Sent:
    """What became of one local file."""

    path: str
    file_id: str
    version_id: str | None
    name: str
    size: int
    mode: Literal["standard", "tus", "deduplicated", "skipped"]
    resumed: bool
    status: str | None = None


class Drive:
    """One user's drive. `client` carries the user's session; nothing here has other rights."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.ledger = Ledger(settings.home / "uploads.json")
        self._places = Places(self.children, self.shared, self.details)

    # -- calling -----------------------------------------------------------------------------

    def rpc(self, function: str, arguments: Json) -> Any:
        """Call an RPC; what it answers, as it is."""
        access_token(self.client)  # renewed when it is about to expire: a tree takes its time
        return self.client.rpc(function, arguments).execute().data

    def call(self, function: str, arguments: Json) -> Json:
        """Call an RPC that returns one object."""
        data = self.rpc(function, arguments)
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        if not isinstance(data, dict):
            raise NarwhalError(f"{function} answered in an unknown shape", "Update narwhal.")
        return data

    def pages(self, function: str, arguments: Json) -> Iterator[Json]:
        """Yield every item of an RPC that lists, page by page."""
        cursor = None
        while True:
            page = self.call(function, arguments | {"page_size": PAGE_SIZE, "cursor": cursor})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    # -- reading -----------------------------------------------------------------------------

    def children(self, folder_id: str | None, **more: Any) -> Iterator[Json]:
        """Yield everything in a folder by name; None is the top level."""
        return self.pages("list_folder", {"folder": folder_id, "sort": "name"} | more)

    def shared(self) -> Iterator[Json]:
        """Yield what others have shared with the user."""
        return self.pages("shared_with_me", {})

    def details(self, file_id: str) -> Json:
        """Return file_details of one node."""
        return self.call("file_details", {"file_id": file_id})

    def find(self, place: str) -> Json | None:
        """Return the node at a path like 'Projects/2026', or of an id; None for the top level."""
        return self._places.find(place)

    def child(self, folder_id: str | None, name: str) -> Json | None:
        """Return what has this name in a folder, None when nothing has."""
        return self._places.child(folder_id, name)

    def node(self, place: str) -> Json:
        """Return the node at a place; the top level itself is not one."""
        node = self.find(place)
        if node is None:
            raise NarwhalError(
                "the top level of the drive is no file or folder of its own",
                "Name what is in it: narwhal ls",
                error="INVALID_ARGUMENT",
                status=422,
            )
        return node

    def ids(self, places: Iterable[str]) -> list[str]:
        """Return the ids of the nodes at some places."""
        return [str(self.node(place)["id"]) for place in places]

    def listing(self, place: str, sort: str = "name") -> Iterator[Json]:
        """Yield what is in the folder at a place, or the file that is there."""
        if is_shared_root(place) and self.child(None, SHARED) is None:
            return self.shared()
        node = self.find(place)
        if node is not None and node["kind"] == "file":
            return iter([node])
        return self.children(str(node["id"]) if node else None, sort=sort)

    def shares(self, node_id: str) -> list[Json]:
        """Return who a node is shared with, also through the folders above it."""
        return list(self.rpc("list_shares", {"node": node_id})["items"])

    def links(self, node_id: str) -> list[Json]:
        """Return the links to a node, ended ones included."""
        return list(self.rpc("list_share_links", {"node": node_id})["items"])

    # -- folders -----------------------------------------------------------------------------

    def folder_id(self, place: str, *, create: bool = False) -> str | None:
        """Return the id of the folder at a place, None for the top level."""
        if as_id(place):
            node, missing = self.find(place), list[str]()
        else:
            node, missing = self._places.walk(split_path(place))
        if node is not None and node["kind"] != "folder":
            raise not_there(f"this is a file, not a folder: {node['name']!r}")
        parent = str(node["id"]) if node else None
        for name in missing:
            if not create:
                raise not_there(f"there is no folder {name!r}")
            parent = self._create_folder(parent, name)
        return parent

    def make_folder(self, place: str, *, parents: bool = False) -> Json:
        """Create the folder at a path; with `parents`, those above it too, where missing."""
        if parents:
            return self.details(self.folder_id(place, create=True) or "")
        *above, name = split_path(place) or [""]
        parent = self.folder_id("/".join(above))
        return self.call("create_folder", {"parent": parent, "name": name})

    def _create_folder(self, parent: str | None, name: str) -> str:
        try:
            made = self.call("create_folder", {"parent": parent, "name": name})
        except APIError as error:
            failure = as_narwhal_error(error)
            existing = failure.details.get("existing_id") if failure else None
            if failure is None or failure.error != "CONFLICT_NAME" or existing is None:
                raise
            made = self.details(str(existing))  # another process created it in between
        if made["kind"] != "folder":
            raise not_there(f"this is a file, not a folder: {name!r}")
        return str(made["id"])

    # -- uploading -------------------------------------------------------------------------

    def upload(
        self,
        path: Path,
        folder_id: str | None,
        *,
        on_conflict: str = "fail",
        resume: bool = False,
        progress: Callable[[int], None] | None = None,
        file_id: str | None = None,
    ) -> Sent:
        """Upload one file: ask for a ticket, then send the bytes as the ticket says.

        With `file_id` it becomes the next version of that file, wherever that is by now. With
        `resume`, an upload of the same content to the same place that was interrupted goes on
        where it stopped. `progress` is told the bytes that arrived so far.
        """
        progress = progress or _silent
        size = path.stat().st_size
        sha256 = sha256_of(path)
        key = self._fingerprint(path.name, file_id or folder_id, sha256, size)
        saved = self.ledger.get(key) if resume else None
        if saved is not None:
            try:
                return self._send(path, key, saved, resumed=True, progress=progress)
            except Exception as error:
                if not _ticket_is_dead(error):
                    raise
                self.ledger.forget(key)  # swept, aborted or expired: a new ticket is needed
        place = {"file_id": file_id} if file_id else {"folder_id": folder_id}
        ticket = self._begin(path, place, size, sha256, on_conflict, key)
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
        place: Json,
        size: int,
        sha256: str,
        on_conflict: str,
        key: str,
    ) -> Json:
        arguments = {
            **place,
            "name": path.name,
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
        if not ticket.get("deduplicated") and not ticket.get("skipped"):
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
        mode: Literal["standard", "tus", "deduplicated", "skipped"]
        if ticket.get("skipped"):
            mode = "skipped"
        elif ticket.get("deduplicated"):
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

    def account(self) -> str:
        """Whose drive this is, and where."""
        session = self.client.auth.get_session()
        return "\0".join(
            [self.settings.require("supabase_url"), session.user.id if session else ""]
        )

    def _fingerprint(self, name: str, place: str | None, sha256: str, size: int) -> str:
        parts = [self.account(), place or "", name, sha256, str(size)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _silent(done: int) -> None:
    pass


def sha256_of(path: Path) -> str:
    """Hash a local file, piece by piece; hex."""
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
