"""What people call by other names than ids: versions, shares, items of the trash; and sizes."""

from __future__ import annotations

from typing import Any

from postgrest.exceptions import APIError

from narwhal.drive import Drive
from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.places import as_id, not_there, same_name, split_path

Json = dict[str, Any]


def trashed(drive: Drive, item: str) -> Json | None:
    """Return the item of the trash with this id, path or name, None when there is none."""
    found = [row for row in drive.pages("list_trash", {}) if _is_called(row, item)]
    if len(found) > 1:
        ids = ", ".join(str(row["id"]) for row in found)
        raise NarwhalError(
            f"{len(found)} items of the trash are called {item!r}",
            f"Give the id instead: {ids}",
            error="AMBIGUOUS",
            status=409,
        )
    return found[0] if found else None


def in_trash(drive: Drive, item: str) -> Json:
    """Return the item of the trash with this id, path or name."""
    row = trashed(drive, item)
    if row is None:
        raise NarwhalError(
            f"there is no {item!r} in the trash",
            "List what is there: narwhal trash list",
            error="NOT_FOUND",
            status=404,
        )
    return row


def anywhere(drive: Drive, place: str) -> Json:
    """Return the node at a place, or the item of the trash that is called so."""
    try:
        return drive.node(place)
    except (NarwhalError, APIError) as error:
        failure = as_narwhal_error(error)
        if failure is None or failure.error != "NOT_FOUND":
            raise
        row = trashed(drive, place)
        if row is None:
            raise
        return row


def versions(drive: Drive, place: str) -> list[Json]:
    """Return the versions of the file at a place, the newest first; `is_head` marks the head."""
    details = drive.details(str(drive.node(place)["id"]))
    rows: list[Json] = details["versions"]
    return [{**row, "is_head": row["id"] == details["head_version_id"]} for row in rows]


def version(drive: Drive, place: str, wanted: str) -> Json:
    """Return the version of a file that has this number or id."""
    for row in versions(drive, place):
        if wanted in (str(row["no"]), row["id"]):
            return row
    raise not_there(f"{place!r} has no version {wanted!r}")


def share_with(drive: Drive, place: str, who: str) -> Json:
    """Return the share of the node at a place that has this grantee or id."""
    node = drive.node(place)
    for row in drive.shares(str(node["id"])):
        named = {text.lower() for text in row["grantee"].values() if text}
        if row["id"] == who or (row["node_id"] == node["id"] and who.lower() in named):
            return row
    raise not_there(f"{place!r} is not shared with {who!r} itself")


def below(drive: Drive, place: str, filters: Json, **more: Any) -> list[Json]:
    """Return what is in the folder at a place and in those below it, each item with its path."""
    folder_id = drive.folder_id(place)
    top = str(drive.details(folder_id)["path"]) if folder_id else ""
    everything = {"recursive": True} | more
    folders = {
        item["id"]: item
        for item in drive.children(folder_id, filters={"kinds": ["folder"]}, **everything)
    }

    mails: dict[str, str] = {}  # paths of files that others are inside of

    def place_of(parent_id: str | None) -> str:
        if parent_id is None or parent_id == folder_id:
            return top
        if parent_id in folders:
            return path_of(folders[parent_id])
        if parent_id not in mails:
            mails[parent_id] = str(drive.details(parent_id)["path"])
        return mails[parent_id]

    def path_of(item: Json) -> str:
        return f"{place_of(item['parent_id'])}/{item['name']}"

    rows = drive.children(folder_id, filters=filters, **everything)
    return [{**item, "path": path_of(item)} for item in rows]


def usage(drive: Drive, place: str) -> Json:
    """Return what the files at a place take, item by item; for the top level the quota as well."""
    node = drive.find(place)
    items = [_size_of(drive, item) for item in drive.listing(place)]
    return {
        "path": place or "/",
        "total_size": sum(item["total_size"] for item in items),
        "items": items,
        "usage": drive.call("storage_usage", {}) if node is None else None,
    }


def _size_of(drive: Drive, item: Json) -> Json:
    kept = {key: item[key] for key in ("id", "kind", "name")}
    if item["kind"] == "file":
        return {**kept, "total_size": item["size"]}
    if (size := item.get("total_size")) is None:  # too many files for a list to add up
        size = drive.details(str(item["id"]))["total_size"]
    return {**kept, "total_size": size}


def _is_called(row: Json, item: str) -> bool:
    if as_id(item):
        return bool(row["id"] == as_id(item))
    names = split_path(item)
    if len(names) > 1:
        return split_path(str(row.get("path") or "")) == names
    return len(names) == 1 and same_name(str(row["name"]), names[0])
