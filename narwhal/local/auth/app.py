"""The routes of /auth/v1, and what an answer looks like when something fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import psycopg
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from narwhal.local.auth import account, admin, grants, info, links, otp, signup, verify
from narwhal.local.auth.context import Auth, Pool, create_context
from narwhal.local.auth.errors import AuthError, OAuthError, unavailable, unexpected
from narwhal.local.auth.options import AuthOptions
from narwhal.local.config import GatewayConfig

Handler: TypeAlias = Callable[[Auth, Request], Awaitable[Response]]

logger = logging.getLogger("narwhal.auth")


def create_auth(config: GatewayConfig, pool: Pool, options: AuthOptions | None = None) -> Starlette:
    """Return the Auth API, to be mounted under /auth/v1.

    `pool` connects as supabase_auth_admin; whoever mounts the application opens and closes it.
    """
    auth = create_context(config, pool, options or AuthOptions())

    def route(method: str, path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _answer(auth, request, handler)

        return Route(path, endpoint, methods=[method])

    routes = [
        route("GET", "/health", info.health),
        route("GET", "/settings", info.settings),
        route("GET", "/.well-known/jwks.json", info.jwks),
        route("POST", "/signup", signup.signup),
        route("POST", "/token", grants.token),
        route("POST", "/otp", otp.otp),
        route("POST", "/magiclink", otp.otp),
        route("POST", "/recover", otp.recover),
        route("POST", "/resend", otp.resend),
        route("GET", "/verify", verify.verify_link),
        route("POST", "/verify", verify.verify),
        route("GET", "/user", account.get_user),
        route("PUT", "/user", account.put_user),
        route("POST", "/logout", account.logout),
        route("GET", "/reauthenticate", account.reauthenticate),
        route("GET", "/admin/users", admin.get_users),
        route("POST", "/admin/users", admin.post_user),
        route("GET", "/admin/users/{user_id}", admin.get_one),
        route("PUT", "/admin/users/{user_id}", admin.put_one),
        route("DELETE", "/admin/users/{user_id}", admin.delete_one),
        route("GET", "/admin/users/{user_id}/factors", admin.get_factors),
        route("POST", "/admin/generate_link", links.generate_link),
        route("POST", "/invite", links.invite),
        route("GET", "/authorize", info.authorize),
        route("GET", "/callback", info.callback),
        route("POST", "/callback", info.callback),
        route("GET", "/user/identities/authorize", info.identities),
        route("DELETE", "/user/identities/{identity_id}", info.identities),
        route("POST", "/factors", info.factors),
        route("POST", "/sso", info.sso),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})


async def _answer(auth: Auth, request: Request, handler: Handler) -> Response:
    try:
        return await handler(auth, request)
    except AuthError as error:
        return error.as_response(request)
    except OAuthError as error:
        return error.as_response()
    except (psycopg.OperationalError, PoolTimeout) as error:
        logger.warning("%s: the database is away (%s)", request.url.path, type(error).__name__)
        return unavailable().as_response(request)
    except psycopg.Error as error:
        # the server's details may quote a row: only its nature is logged
        logger.error("%s: %s %s", request.url.path, error.sqlstate, error.diag.message_primary)
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("%s failed", request.url.path)
    return unexpected(
        "Unexpected failure, please check server logs for more information"
    ).as_response(request)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = "Method not allowed" if status == 405 else "There is no such route"
    return AuthError(status, "unknown", message).as_response(request)
