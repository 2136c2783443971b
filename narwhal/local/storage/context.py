"""What every route shares: configuration, stores, and the frame around a handler."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from narwhal.local.config import GatewayConfig
from narwhal.local.storage import errors
from narwhal.local.storage.callers import Caller, read_caller, service_caller
from narwhal.local.storage.database import Pool, Session
from narwhal.local.storage.files import FileStore
from narwhal.local.storage.names import is_empty_folder
from narwhal.local.storage.rows import Row
from narwhal.local.storage.signing import Signer
from narwhal.local.storage.tus_store import TusStore

MAX_JSON_BYTES = 4 * 1024 * 1024
CLIENT_CLOSED = 499


@dataclass(frozen=True)
class Context:
    """The parts of one Storage API."""

    config: GatewayConfig
    pool: Pool
    files: FileStore
    uploads: TusStore
    signer: Signer

    def size_limit(self, bucket: Row, key: str = "") -> int:
        """Return how many bytes an object may have."""
        if is_empty_folder(key):
            return 0
        limit = bucket["file_size_limit"]
        maximum = self.config.max_file_size
        return maximum if limit is None else min(limit, maximum)


@dataclass(frozen=True)
class Call:
    """One request to the API, with the session of its caller."""

    context: Context
    request: Request
    session: Session

    @property
    def files(self) -> FileStore:
        """The bytes of objects."""
        return self.context.files

    @property
    def uploads(self) -> TusStore:
        """The unfinished resumable uploads."""
        return self.context.uploads

    @property
    def signer(self) -> Signer:
        """Makes and checks signed URLs."""
        return self.context.signer

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return self.request.headers

    @property
    def bucket(self) -> str:
        """The bucket in the path."""
        bucket: str = self.request.path_params["bucket"]
        return bucket

    @property
    def key(self) -> str:
        """The object's key in the path."""
        key: str = self.request.path_params["key"]
        return key


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Frame:
    """How a route treats its caller and its errors.

    `token` is "required", "optional" (a bad one counts as anon) or "none" (a signed URL: the
    handler's own check decides, and statements run as service_role). `plain` answers errors as TUS
    does.
    """

    context: Context
    operation: str
    token: str = "required"  # noqa: S105
    plain: bool = False

    def wrap(self, handler: Handler) -> Endpoint:
        """Return `handler` as a Starlette endpoint."""

        async def endpoint(request: Request) -> Response:
            try:
                return await handler(Call(self.context, request, self._session(request)))
            except errors.StorageError as error:
                return error.as_text() if self.plain else error.as_json()
            except ClientDisconnect:
                return Response(status_code=CLIENT_CLOSED)

        return endpoint

    def _session(self, request: Request) -> Session:
        config = self.context.config
        service = service_caller(config.service_role_key)
        root = request.scope.get("root_path", "")
        return Session(
            pool=self.context.pool,
            caller=service if self.token == "none" else self._caller(request),  # noqa: S105
            service=service,
            headers=request.headers,
            method=request.method,
            path=request.scope["path"].removeprefix(root),
            operation=self.operation,
        )

    def _caller(self, request: Request) -> Caller:
        authorization = request.headers.get("authorization", "")
        try:
            return read_caller(authorization, self.context.config.jwt_secret)
        except errors.StorageError:
            if self.token == "optional":  # noqa: S105
                return Caller()
            raise


async def read_json(request: Request) -> dict[str, Any]:
    """Return the request's JSON object, {} when it has no body."""
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_JSON_BYTES:
            raise errors.too_large("Request body is too large")
        parts.append(chunk)
    text = b"".join(parts)
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.invalid_request("Body is not valid JSON") from error
    if not isinstance(value, dict):
        raise errors.invalid_request("body must be object")
    return value


def take(
    body: dict[str, Any],
    name: str,
    kind: type | tuple[type, ...],
    default: Any = None,
    *,
    required: bool = False,
) -> Any:
    """Return `body[name]`, `default` when absent or null; raise when it is of another kind."""
    value = body.get(name)
    if value is None:
        if required:
            raise errors.invalid_request(f"body must have required property '{name}'")
        return default
    value = _coerce(value, kind)
    wants_bool = kind is bool or (isinstance(kind, tuple) and bool in kind)
    if not isinstance(value, kind) or (isinstance(value, bool) and not wants_bool):
        raise errors.invalid_request(f"body/{name} is of the wrong type")
    return value


def _coerce(value: Any, kind: type | tuple[type, ...]) -> Any:
    """Read "60" as a number where one is wanted, as the real server does; clients rely on it."""
    if kind is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def take_text(body: dict[str, Any], name: str) -> str:
    """Return a string that must be there."""
    value: str = take(body, name, str, required=True)
    return value


def take_int(
    body: dict[str, Any], name: str, default: int | None, minimum: int, *, required: bool = False
) -> int | None:
    """Return a whole number of at least `minimum`."""
    value: int | None = take(body, name, int, default, required=required)
    if value is not None and not minimum <= value < 2**53:
        raise errors.invalid_request(f"body/{name} must be >= {minimum}")
    return value
