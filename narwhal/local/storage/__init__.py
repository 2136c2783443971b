"""The Storage API of the local gateway: buckets, objects, signed URLs, resumable uploads.

It speaks as Supabase Storage does, on the schema of `bootstrap/30_storage.sql`, and keeps bytes in
`config.storage_dir`. One process owns that folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from narwhal.local.config import GatewayConfig
from narwhal.local.storage.context import Context
from narwhal.local.storage.database import Pool
from narwhal.local.storage.files import FileStore
from narwhal.local.storage.routes import build_routes
from narwhal.local.storage.signing import Signer
from narwhal.local.storage.sweeper import Sweeper
from narwhal.local.storage.tus_store import TusStore

__all__ = ["create_storage"]

UPLOAD_URL_SECONDS = 3600.0  # the self-hosted server's default
SWEEP_SECONDS = 300.0


def create_storage(
    config: GatewayConfig,
    pool: Pool,
    *,
    upload_lifetime: float = UPLOAD_URL_SECONDS,
    sweep_interval: float = SWEEP_SECONDS,
) -> Starlette:
    """Return the API, to be mounted at /storage/v1.

    `pool` logs in as supabase_storage_admin. `upload_lifetime` (seconds) is how long a resumable
    upload's URL lives, `sweep_interval` (seconds) how often rubbish is removed: that happens
    within the app's lifespan, which whoever mounts it must enter.
    """
    context = Context(
        config=config,
        pool=pool,
        files=FileStore(config.storage_dir),
        uploads=TusStore(config.storage_dir, upload_lifetime),
        signer=Signer(config.jwt_secret),
    )
    sweeper = Sweeper(context, sweep_interval)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sweeper.running():
            yield

    app = Starlette(
        routes=build_routes(context),
        exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # "folder/" is a key of its own
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer unknown routes and methods as the real server's router does."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"Route {request.method}:{request.url.path} not found"
    return JSONResponse(
        {"statusCode": str(status), "error": "Not Found", "message": message, "code": "NotFound"},
        status,
    )


async def _unexpected(_request: Request, _error: Exception) -> Response:
    """Say nothing about a defect of ours; the server's log has it."""
    body = {
        "statusCode": "500",
        "error": "Internal",
        "message": "Internal Server Error",
        "code": "InternalError",
    }
    return JSONResponse(body, 500)
