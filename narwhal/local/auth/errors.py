"""The errors of the Auth API, as the official clients read them.

With the request header `X-Supabase-Api-Version: 2024-01-01` (or later) the body is
`{code, message}` and the header is echoed, which is how clients know that `code` is a word;
without it the body is `{code: <HTTP status>, error_code, msg}`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from datetime import date

import psycopg
from starlette.requests import Request
from starlette.responses import JSONResponse

VERSION_HEADER = "X-Supabase-Api-Version"
VERSION = date(2024, 1, 1)

logger = logging.getLogger("narwhal.auth")


class AuthError(Exception):
    """One failure: the HTTP status, the word that clients branch on, a sentence for people.

    `reasons` (length, characters, pwned) come with a weak password only.
    """

    def __init__(
        self, status: int, code: str, message: str, *, reasons: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.reasons = list(reasons)

    def as_response(self, request: Request) -> JSONResponse:
        """Return the answer in the form that this request's API version expects."""
        body: dict[str, object]
        headers = {"x-sb-error-code": self.code}
        if _is_versioned(request):
            headers[VERSION_HEADER] = VERSION.isoformat()
            body = {"code": self.code, "message": self.message}
        else:
            body = {"code": self.status, "error_code": self.code, "msg": self.message}
        if self.reasons:
            body["weak_password"] = {"reasons": self.reasons}
        return JSONResponse(body, self.status, headers)


class OAuthError(Exception):
    """A failure in OAuth's own words: 400 `{error, error_description}`."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description

    def as_response(self) -> JSONResponse:
        """Return the answer, the same for every API version."""
        return JSONResponse({"error": self.error, "error_description": self.description}, 400)


def _is_versioned(request: Request) -> bool:
    asked = request.headers.get(VERSION_HEADER, "")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", asked):
        return False
    try:
        return date.fromisoformat(asked) >= VERSION
    except ValueError:
        return False


def invalid(message: str) -> AuthError:
    """400: the request itself is wrong."""
    return AuthError(400, "validation_failed", message)


def bad_jwt(message: str) -> AuthError:
    """403: a bearer token that cannot be believed."""
    return AuthError(403, "bad_jwt", message)


def banned(status: int = 400, message: str = "User is banned") -> AuthError:
    """A user who may not come in for now."""
    return AuthError(status, "user_banned", message)


def email_exists() -> AuthError:
    """422: somebody else has this address."""
    return AuthError(
        422, "email_exists", "A user with this email address has already been registered"
    )


def user_already_exists() -> AuthError:
    """422: signing up again."""
    return AuthError(422, "user_already_exists", "User already registered")


def over_request_rate() -> AuthError:
    """429: too many guesses."""
    return AuthError(429, "over_request_rate_limit", "Request rate limit reached")


def unexpected(message: str) -> AuthError:
    """500: ours, or a trigger's that a migration put on auth.users."""
    return AuthError(500, "unexpected_failure", message)


def unavailable() -> AuthError:
    """503: the database is away; both SDKs try again."""
    return AuthError(503, "unexpected_failure", "Auth is not available, try again in a moment")


@contextlib.contextmanager
def storing(message: str, *, taken: AuthError | None = None) -> Iterator[None]:
    """Turn what the database refuses inside the block into a 500 with `message`.

    Wrap the whole transaction: a deferred trigger speaks up at commit. An address that somebody
    else took meanwhile becomes `taken`. Only a failure's nature is logged: the server's details
    may quote the row, hashes and tokens included.
    """
    try:
        yield
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        if error.diag.constraint_name == "users_email_partial_key":
            raise (taken or email_exists()) from error
        logger.error("%s: %s %s", message, error.sqlstate, error.diag.message_primary)
        raise unexpected(message) from error
