"""Buckets and listings, by offset and by cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.local.storage.serving import ThreadServer, sdk, token

MakeBucket = Callable[..., str]
KEYS = ["a.txt", "B.txt", "docs/1.txt", "docs/2.txt", "docs/deep/3.txt", "docs-old/x", "z/"]


@pytest.fixture
def filled(service: httpx.Client, make_bucket: MakeBucket) -> str:
    """Return a bucket with KEYS."""
    bucket = make_bucket()
    for key in KEYS:
        service.post(f"/object/{bucket}/{key}", content=b"1").raise_for_status()
    return bucket


def names(service: httpx.Client, bucket: str, **body: Any) -> list[str]:
    answer = service.post(f"/object/list/{bucket}", json={"prefix": ""} | body)
    assert answer.status_code == 200, answer.text
    return [entry["name"] for entry in answer.json()]


def test_a_listing_shows_one_level_with_names_below_the_prefix(
    service: httpx.Client, filled: str
) -> None:
    assert names(service, filled) == ["a.txt", "B.txt", "docs-old", "docs", "z"]
    assert names(service, filled, prefix="docs") == ["1.txt", "2.txt", "deep"]
    assert names(service, filled, prefix="docs/deep/") == ["3.txt"]
    assert names(service, filled, prefix="nowhere") == []
    assert names(service, filled, search="do") == ["docs-old", "docs"]
    assert names(service, filled, prefix="docs", search="2") == ["2.txt"]
    order = {"sortBy": {"column": "name", "order": "desc"}}
    assert names(service, filled, **order) == ["z", "docs", "docs-old", "B.txt", "a.txt"]
    assert names(service, filled, limit=2, offset=1) == ["B.txt", "docs-old"]
    newest = {"sortBy": {"column": "created_at", "order": "desc"}}
    assert names(service, filled, **newest) == ["z", "docs", "docs-old", "B.txt", "a.txt"]


def test_a_folder_has_a_name_and_nulls(service: httpx.Client, filled: str) -> None:
    entries = service.post(f"/object/list/{filled}", json={"prefix": ""}).json()
    folder = next(entry for entry in entries if entry["name"] == "docs")
    assert set(folder.values()) == {"docs", None}
    file = next(entry for entry in entries if entry["name"] == "a.txt")
    assert file["metadata"]["size"] == 1
    assert file["id"]
    assert file["created_at"].endswith("Z")


def test_wildcards_in_a_prefix_are_letters(service: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket()
    for key in ("a_b/x", "aab/y"):
        service.post(f"/object/{bucket}/{key}", content=b"1")
    assert names(service, bucket, prefix="a_b") == ["x"]
    by_time = {"sortBy": {"column": "updated_at", "order": "asc"}}
    assert names(service, bucket, prefix="a_b", **by_time) == ["x"]


@pytest.mark.parametrize("with_delimiter", [True, False])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("column", ["name", "created_at", "updated_at"])
def test_pages_by_cursor_have_no_gaps_and_no_doubles(
    service: httpx.Client, filled: str, with_delimiter: bool, order: str, column: str
) -> None:
    def page(limit: int, cursor: str | None) -> dict[str, Any]:
        body = {
            "limit": limit,
            "with_delimiter": with_delimiter,
            "sortBy": {"column": column, "order": order},
        }
        body |= {"cursor": cursor} if cursor else {}
        answer = service.post(f"/object/list-v2/{filled}", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    whole = page(100, None)
    everything = {entry["name"] for entry in whole["folders"] + whole["objects"]}
    expected = {"a.txt", "B.txt", "docs/", "docs-old/", "z/"} if with_delimiter else set(KEYS)
    assert everything == expected
    assert not whole["hasNext"]
    for limit in (1, 2, 3):
        seen: list[str] = []
        cursor = None
        while True:
            part = page(limit, cursor)
            seen += [entry["name"] for entry in part["folders"] + part["objects"]]
            if not part["hasNext"]:
                break
            cursor = part["nextCursor"]
        assert len(seen) == len(set(seen))
        assert set(seen) == everything


def test_a_cursor_goes_on_below_a_prefix(service: httpx.Client, filled: str) -> None:
    body = {"prefix": "docs/", "with_delimiter": True, "limit": 2}
    first = service.post(f"/object/list-v2/{filled}", json=body).json()
    assert [entry["name"] for entry in first["objects"]] == ["docs/1.txt", "docs/2.txt"]
    assert first["objects"][0]["key"] == "1.txt"
    assert first["nextCursorKey"] == "docs/2.txt"
    rest = service.post(
        f"/object/list-v2/{filled}", json=body | {"cursor": first["nextCursor"]}
    ).json()
    assert [(entry["key"], entry["name"]) for entry in rest["folders"]] == [("deep", "docs/deep/")]
    broken = service.post(f"/object/list-v2/{filled}", json=body | {"cursor": "&&"})
    assert (broken.status_code, broken.json()["code"]) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prefix": 1.5},
        {"prefix": "", "limit": 0},
        {"prefix": "", "limit": "many"},
        {"prefix": "", "offset": -1},
        {"prefix": "", "sortBy": {"column": "owner"}},
        {"prefix": "", "sortBy": {"column": "name", "order": "sideways"}},
        {"prefix": "", "sortBy": "name"},
        {"prefix": "a\0"},
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(
    service: httpx.Client, filled: str, body: dict[str, Any]
) -> None:
    answer = service.post(f"/object/list/{filled}", json=body)
    if body == {"prefix": 1.5}:
        assert answer.json() == []  # read as text, as the real server does
    else:
        assert (answer.status_code, answer.json()["statusCode"]) == (400, "400")


def test_bodies_that_are_no_json_objects_are_refused(service: httpx.Client, filled: str) -> None:
    for content in (b"[1]", b"{", b"\xff", b"null", b"[" * 100_000):
        answer = service.post(f"/object/list/{filled}", content=content)
        assert (answer.status_code, answer.json()["code"]) == (400, "InvalidRequest")
    answer = service.post(f"/object/list/{filled}", content=b" " * 5_000_000)
    assert answer.json()["statusCode"] == "413"


def test_buckets_are_made_changed_listed_and_deleted(
    server: ThreadServer, service: httpx.Client, make_bucket: MakeBucket
) -> None:
    client = sdk(server, token("service_role"))
    name = make_bucket("listed")
    client.create_bucket(f"{name}-2", options={"public": True, "file_size_limit": 1000})
    made = client.get_bucket(f"{name}-2")
    assert (made.public, made.file_size_limit, made.owner) == (True, 1000, "")
    client.update_bucket(
        f"{name}-2", {"public": False, "allowed_mime_types": ["image/png"], "file_size_limit": 2000}
    )
    changed = client.get_bucket(f"{name}-2")
    assert (changed.public, changed.file_size_limit) == (False, 2000)
    assert changed.allowed_mime_types == ["image/png"]
    lifted = {"file_size_limit": None, "allowed_mime_types": None}
    service.put(f"/bucket/{name}-2", json=lifted).raise_for_status()
    changed = client.get_bucket(f"{name}-2")
    assert (changed.file_size_limit, changed.allowed_mime_types) == (None, None)
    found = service.get(
        "/bucket", params={"search": name.upper(), "sortColumn": "name", "sortOrder": "desc"}
    ).json()
    assert [bucket["id"] for bucket in found] == [f"{name}-2", name]
    assert found[0]["type"] == "STANDARD"
    assert len(service.get("/bucket", params={"search": name, "limit": 1}).json()) == 1
    assert client.delete_bucket(f"{name}-2") == {"message": "Successfully deleted"}
    again = service.post("/bucket", json={"name": name})
    assert (again.status_code, again.json()["error"]) == (400, "Duplicate")


@pytest.mark.parametrize("name", ["", " a", "a/b", "ü", "x" * 101, None, 5])
def test_a_bucket_name_must_be_legal(service: httpx.Client, name: Any) -> None:
    answer = service.post("/bucket", json={"name": name})
    if name == 5:
        service.delete("/bucket/5").raise_for_status()
    else:
        assert (answer.status_code, answer.json()["statusCode"]) == (400, "400")


def test_unknown_routes_say_so(http: httpx.Client) -> None:
    for method, path in (("GET", "/nothing"), ("PATCH", "/object/a/b"), ("GET", "/object")):
        answer = http.request(method, path)
        assert answer.json()["error"] == "Not Found"
        assert answer.status_code in (404, 405)
    assert http.get("/status").status_code == 200
