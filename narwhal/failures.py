"""Translate what the official clients raise into failures a person can act on."""

from __future__ import annotations

import json
from typing import Any

import httpx
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import SupabaseException
from supabase_auth.errors import (
    AuthError,
    AuthRetryableError,
    AuthSessionMissingError,
    AuthUnknownError,
)
from supabase_functions.errors import FunctionsError
from tusclient.exceptions import TusCommunicationError

from narwhal.errors import NarwhalError

LOG_IN_AGAIN = "Log in again: narwhal login EMAIL"
IS_IT_RUNNING = "Check SUPABASE_URL and that the project answers; locally: narwhal status"


def as_narwhal_error(error: BaseException) -> NarwhalError | None:
    """Return the failure behind an exception, None when it is not an expected one."""
    if isinstance(error, NarwhalError):
        return error
    if isinstance(error, APIError):
        return from_four_keys(
            {
                "code": error.code,
                "message": error.message,
                "details": error.details,
                "hint": error.hint,
            }
        )
    if isinstance(error, StorageApiError):
        return _from_storage(error)
    if isinstance(error, AuthError):
        return _from_auth(error)
    if isinstance(error, FunctionsError):
        return _from_function(error)
    if isinstance(error, TusCommunicationError):
        return _from_tus(error)
    if isinstance(error, (httpx.TransportError, httpx.InvalidURL)):
        return _unreachable(error)
    if isinstance(error, SupabaseException):  # its text may be the key
        return NarwhalError("SUPABASE_URL or the key is not valid", IS_IT_RUNNING)
    if isinstance(error, OSError) and error.filename is not None:
        return NarwhalError(f"{error.strerror}: {error.filename}", "Check the path and its rights.")
    return _from_psycopg(error)


def from_four_keys(body: dict[str, Any], status: int | None = None) -> NarwhalError:
    """Turn {code, message, details, hint}, the error shape of PostgREST, into a failure."""
    code = str(body.get("code") or "")
    details = _details(body.get("details"))
    if status is None:
        status = int(code[2:]) if code.startswith("PT") and code[2:].isdigit() else 400
    stable = str(details.get("error") or code or "FAILED")
    hint = body.get("hint")
    if not hint:
        unauthenticated = status == 401 or code.startswith("PGRST30")
        hint = LOG_IN_AGAIN if unauthenticated else _missing_schema_hint(code)
    return NarwhalError(
        str(body.get("message") or "the request was refused"),
        str(hint),
        error=stable,
        status=status,
        details=details,
    )


def _missing_schema_hint(code: str) -> str:
    if code in ("PGRST202", "PGRST205", "42883", "42P01"):
        return "The database lacks part of Narwhal; apply its migrations: narwhal db migrate"
    return "Check the arguments; narwhal COMMAND --help shows an example."


def _details(raw: Any) -> dict[str, Any]:
    """Read PostgREST's details: our JSON text, a JSON object already, or any other text."""
    if isinstance(raw, dict):
        return raw
    if isinstance(raw, str):
        try:
            value = json.loads(raw)
        except ValueError:
            return {"text": raw}
        if isinstance(value, dict):
            return value
    return {}


def refusal_code(message: str) -> str | None:
    """Return CODE of a guard's 'narwhal/CODE: …', None for any other message."""
    _, found, rest = message.partition("narwhal/")
    return rest.partition(":")[0].split()[0] if found and rest.strip() else None


def _from_storage(error: StorageApiError) -> NarwhalError:
    status = int(error.status) if str(error.status).isdigit() else 500
    return NarwhalError(
        error.message,
        "Start the upload again to get a new ticket." if status == 403 else IS_IT_RUNNING,
        error=refusal_code(error.message) or str(error.code),
        status=status,
    )


def _from_auth(error: AuthError) -> NarwhalError:
    if isinstance(error, AuthRetryableError):
        return NarwhalError(
            "the Auth service does not answer", IS_IT_RUNNING, error="SERVICE_UNAVAILABLE"
        )
    if isinstance(error, AuthUnknownError):
        return NarwhalError("what answers at SUPABASE_URL is no Auth service", IS_IT_RUNNING)
    code = error.code or error.name
    hints = {
        "invalid_credentials": "Check the e-mail address and the password.",
        "email_exists": "Log in instead, or choose another address.",
        "user_already_exists": "Log in instead, or choose another address.",
        "weak_password": "Choose a longer password.",
        "not_admin": "Check SUPABASE_SERVICE_ROLE_KEY; narwhal status shows the local one.",
        "no_authorization": "Check SUPABASE_SERVICE_ROLE_KEY; narwhal status shows the local one.",
        "bad_jwt": "Check that the key belongs to this SUPABASE_URL.",
    }
    lost = isinstance(error, AuthSessionMissingError) or str(code).startswith(
        ("refresh_token", "session", "user_not_found")
    )
    hint = LOG_IN_AGAIN if lost else hints.get(str(code), "Correct it and run the command again.")
    status = getattr(error, "status", 400)
    return NarwhalError(error.message, hint, error=str(code), status=int(status or 400))


def _from_function(error: FunctionsError) -> NarwhalError:
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, httpx.Response):
        try:
            body = response.json()
        except ValueError:
            body = None
        if isinstance(body, dict) and body.get("message"):
            return from_four_keys(body, response.status_code)
    return NarwhalError(
        f"the AI service answered with status {error.status}", IS_IT_RUNNING, status=error.status
    )


def _from_tus(error: TusCommunicationError) -> NarwhalError:
    if error.status_code is None:
        return NarwhalError("the upload lost its connection", "Run it again with --resume.")
    content = error.response_content or b""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    return NarwhalError(
        text.strip() or f"the upload was refused with status {error.status_code}",
        "Run it again with --resume; without it a new ticket is asked for.",
        error=refusal_code(text) or "UPLOAD_REFUSED",
        status=int(error.status_code),
    )


def _unreachable(error: Exception) -> NarwhalError:
    request = getattr(error, "_request", None)  # .request raises when httpx set none
    where = f"{request.url.scheme}://{request.url.netloc.decode()}" if request else "the project"
    return NarwhalError(f"cannot reach {where}", IS_IT_RUNNING, error="SERVICE_UNAVAILABLE")


def _from_psycopg(error: BaseException) -> NarwhalError | None:
    import psycopg

    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None:
        return NarwhalError(
            "cannot reach the database", "Check DATABASE_URL; locally: narwhal status"
        )
    return from_four_keys(
        {
            "code": error.sqlstate,
            "message": error.diag.message_primary,
            "details": error.diag.message_detail,
            "hint": error.diag.message_hint,
        }
    )
