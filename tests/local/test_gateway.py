"""What the gateway does before a service sees a request: keys, roles, CORS, sizes, prefixes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from narwhal.local.config import GatewayConfig
from narwhal.local.edge import authorize
from narwhal.local.state import StackState

NEEDED_HEADERS = """
authorization apikey x-client-info content-type x-supabase-api-version x-upsert x-signature prefer
range accept-profile content-profile cache-control if-none-match tus-resumable upload-length
upload-offset upload-metadata x-share-grant idempotency-key
"""


@pytest.fixture
def http(stack: StackState) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url, timeout=30) as client:
        yield client


def token(stack: StackState, secret: str | None = None, **claims: Any) -> dict[str, str]:
    claims = {"exp": int(time.time()) + 60} | claims
    signed = jwt.encode(claims, secret or stack.jwt_secret, algorithm="HS256")
    return {"apikey": stack.anon_key, "Authorization": f"Bearer {signed}"}


def role_of(http: httpx.Client, headers: dict[str, str]) -> str:
    """Tell the role that PostgREST gives a caller, by what it may read."""
    response = http.get("/rest/v1/user_profiles?select=id&limit=1", headers=headers)
    if response.status_code != 200:
        return f"refused: {response.status_code}"
    as_service = http.get("/rest/v1/owners?select=id&limit=1", headers=headers)
    return "service_role" if as_service.status_code == 200 else "anon"


def test_keys_give_their_role_and_nothing_gives_anon(http: httpx.Client, stack: StackState) -> None:
    assert role_of(http, {}) == "anon"
    assert role_of(http, {"apikey": stack.anon_key}) == "anon"
    assert role_of(http, {"apikey": stack.publishable_key}) == "anon"
    assert role_of(http, {"apikey": stack.service_role_key}) == "service_role"
    assert role_of(http, {"apikey": stack.secret_key}) == "service_role"
    # as the SDKs send the new keys
    assert (
        role_of(
            http,
            {"apikey": stack.secret_key, "Authorization": f"Bearer {stack.secret_key}"},
        )
        == "service_role"
    )


def test_a_users_token_wins_over_the_key(http: httpx.Client, stack: StackState) -> None:
    headers = {
        "apikey": stack.secret_key,
        "Authorization": f"Bearer {stack.anon_key}",
    }

    assert role_of(http, headers) == "anon"


@pytest.mark.parametrize("path", ["/rest/v1/nodes", "/storage/v1/bucket"])
def test_bad_tokens_are_refused(http: httpx.Client, stack: StackState, path: str) -> None:
    wrong = token(stack, secret="another-secret-another-secret-another", role="service_role")
    expired = token(stack, role="service_role", exp=int(time.time()) - 60)
    unsigned = jwt.encode({"role": "service_role"}, None, algorithm="none")

    for headers in (wrong, expired, {"Authorization": f"Bearer {unsigned}"}):
        assert http.get(path, headers=headers).status_code in (400, 401)
    # control: the same request with a good token
    assert http.get(path, headers=token(stack, role="service_role")).status_code == 200


@pytest.mark.parametrize("role", ["postgres", "supabase_admin", "authenticator", "narwhal_worker"])
@pytest.mark.parametrize("path", ["/rest/v1/nodes", "/storage/v1/bucket"])
def test_a_role_outside_the_allow_list_is_refused(
    http: httpx.Client, stack: StackState, role: str, path: str
) -> None:
    response = http.get(path, headers=token(stack, role=role))

    assert response.status_code in (400, 401, 403)
    assert response.headers["access-control-allow-origin"] == "*"


def test_preflights_are_answered_everywhere(http: httpx.Client) -> None:
    for path in ("/rest/v1/nodes", "/auth/v1/token", "/storage/v1/upload/resumable", "/nowhere"):
        response = http.options(
            path,
            headers={
                "Origin": "https://app.example",
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": "authorization,x-share-grant,upload-offset",
            },
        )
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == "*"
        allowed = response.headers["access-control-allow-headers"].split(",")
        for name in [
            "authorization",
            "apikey",
            "x-client-info",
            "content-type",
            "x-supabase-api-version",
            "x-upsert",
            "x-signature",
            "prefer",
            "range",
            "accept-profile",
            "content-profile",
            "cache-control",
            "if-none-match",
            "tus-resumable",
            "upload-length",
            "upload-offset",
            "upload-metadata",
            "x-share-grant",
            "idempotency-key",
        ]:
            assert name in allowed
        assert "PATCH" in response.headers["access-control-allow-methods"]


def test_options_of_tus_reaches_storage(http: httpx.Client) -> None:
    response = http.options("/storage/v1/upload/resumable")

    assert response.status_code == 204
    assert "creation" in response.headers["tus-extension"]


def test_answers_and_errors_carry_cors_once(http: httpx.Client, stack: StackState) -> None:
    origin = {"Origin": "https://app.example"}
    for path in ("/rest/v1/nodes", "/rest/v1/nothing_here", "/storage/v1/bucket", "/nowhere"):
        response = http.get(path, headers=origin | {"apikey": stack.anon_key})
        assert response.headers.get_list("access-control-allow-origin") == ["*"]
        exposed = response.headers["access-control-expose-headers"]
        for name in ("content-range", "location", "upload-offset", "x-total-count", "etag"):
            assert name in exposed.split(",")


def test_postgrest_keeps_its_dialect(http: httpx.Client, stack: StackState) -> None:
    headers = {"apikey": stack.service_role_key, "Prefer": "count=exact", "Range": "0-0"}

    counted = http.get("/rest/v1/owners?select=id", headers=headers)
    assert counted.headers["content-range"].endswith("/0") or counted.status_code == 206
    single = http.get(
        "/rest/v1/nodes?id=eq.00000000-0000-0000-0000-000000000000",
        headers={"apikey": stack.anon_key, "Accept": "application/vnd.pgrst.object+json"},
    )
    assert (single.status_code, single.json()["code"]) == (406, "PGRST116")
    foreign = http.get(
        "/rest/v1/settings", headers={"apikey": stack.service_role_key, "Accept-Profile": "private"}
    )
    assert (foreign.status_code, foreign.json()["code"]) == (406, "PGRST106")
    assert http.head("/rest/v1/nodes", headers={"apikey": stack.anon_key}).content == b""


def test_encoded_paths_and_queries_arrive_unchanged(http: httpx.Client, stack: StackState) -> None:
    response = http.get(
        "/rest/v1/nodes?select=id&name=eq.a%26b%2Bc%20%E9%AF%A8&or=(kind.eq.file,kind.eq.folder)",
        headers={"apikey": stack.anon_key},
    )

    assert (response.status_code, response.json()) == (200, [])


def test_a_body_beyond_the_limit_is_refused(http: httpx.Client, stack: StackState) -> None:
    headers = {"apikey": stack.service_role_key, "content-type": "application/json"}
    url = "/rest/v1/rpc/nothing"

    declared = http.post(url, headers=headers, content=b" " * (21 * 1024 * 1024))
    assert (declared.status_code, declared.json()["code"]) == (413, "PT413")

    def undeclared() -> Iterator[bytes]:
        for _ in range(21):
            yield b" " * 1024 * 1024

    streamed = http.post(url, headers=headers, content=undeclared())
    assert (streamed.status_code, streamed.json()["code"]) == (413, "PT413")
    small = http.post(url, headers=headers, content=b"{}")
    assert small.status_code == 404


def test_every_request_has_an_id_that_answers_return(http: httpx.Client, stack: StackState) -> None:
    paths = ["/rest/v1/nodes", "/auth/v1/health", "/storage/v1/bucket", "/functions/v1/ai/health"]
    for path in paths:
        made = {http.get(path).headers["x-request-id"] for _ in range(2)}
        assert all(re.fullmatch(r"[0-9a-f-]{36}", each) for each in made), path
        assert len(made) == 2
        response = http.get(path, headers={"x-request-id": "mine-1"})
        assert response.headers.get_list("x-request-id") == ["mine-1"], path
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        # not a place for anything else
        response = http.get(path, headers={"x-request-id": "a b<script>"})
        assert "script" not in response.headers["x-request-id"]
    large = http.post(
        "/rest/v1/rpc/create_folder", headers={"x-request-id": "mine-2"}, content=b" " * 21 * 2**20
    )
    assert (large.status_code, large.headers["x-request-id"]) == (413, "mine-2")


def test_what_is_not_there_says_so(http: httpx.Client) -> None:
    assert http.get("/realtime/v1/websocket").status_code == 501
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert http.get("/realtime/v1/websocket", headers=upgrade).status_code == 501
    assert http.get("/functions/v1/other").status_code == 404
    assert http.get("/").status_code == 404
    assert http.get("/rest/v1x").status_code == 404


def test_every_service_is_mounted(http: httpx.Client, stack: StackState) -> None:
    assert http.get("/auth/v1/health").json()["name"] == "GoTrue"
    assert http.get("/storage/v1/status").status_code == 200
    assert http.get("/functions/v1/ai/health").status_code == 200
    openapi = http.get("/rest/v1/", headers={"apikey": stack.service_role_key}).json()
    assert "/nodes" in openapi["paths"]


def test_s3_signatures_are_left_alone() -> None:
    """The key rule itself, without a server."""
    config = GatewayConfig(
        api_url="", site_url="", jwt_secret="", anon_key="anon.jwt", service_role_key="service.jwt",
        rest_url="", storage_dir=None, auth_database_url="", storage_database_url="",  # type: ignore[arg-type]
        publishable_key="sb_publishable_1", secret_key="sb_secret_1",
    )  # fmt: skip

    def result(**headers: str) -> str | None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        found = dict(authorize(raw, config)).get(b"authorization")
        return found.decode() if found is not None else None

    assert result(authorization="Bearer user.jwt", apikey="sb_secret_1") == "Bearer user.jwt"
    assert result(authorization="Bearer sb_secret_1", apikey="sb_secret_1") == "Bearer service.jwt"
    assert result(apikey="sb_publishable_1") == "Bearer anon.jwt"
    assert result(apikey="old.style.jwt") == "Bearer old.style.jwt"
    assert result(authorization="Bearer sb_secret_2", apikey="sb_secret_2") == "Bearer sb_secret_2"
    assert result() is None
