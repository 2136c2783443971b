"""Answers of the AI service: JSON, and errors with the four keys that PostgREST uses."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from narwhal.errors import NarwhalError


class Refusal(Exception):  # noqa: N818 - an answer, not a defect
    """A PostgREST error on its way to the caller, unchanged."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("message"))
        self.status = status
        self.body = {key: body.get(key) for key in ("code", "message", "details", "hint")}

    @property
    def details(self) -> dict[str, Any]:
        """The details as an object; empty when they are not ours."""
        try:
            value = json.loads(self.body["details"] or "{}")
        except (TypeError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def as_response(self) -> JSONResponse:
        """Answer with the status and body that PostgREST gave."""
        return _respond(self.status, self.body, self.details)


def refuse(error: NarwhalError) -> JSONResponse:
    """Answer with a failure of ours: code PTnnn, details as JSON text with `error` in it."""
    details = {"error": error.error, **error.details}
    body = {
        "code": f"PT{error.status}",
        "message": error.message,
        "details": json.dumps(details),
        "hint": error.hint,
    }
    return _respond(error.status, body, details)


def invalid(field: str, message: str, **details: Any) -> NarwhalError:
    """Return INVALID_ARGUMENT naming the field that is wrong."""
    return NarwhalError(
        message,
        "Correct the field named in details.",
        error="INVALID_ARGUMENT",
        status=422,
        details={"field": field, **details},
    )


def unavailable(message: str, degraded_to: str) -> NarwhalError:
    """Return SERVICE_UNAVAILABLE, naming what still works."""
    return NarwhalError(
        message,
        f"Use {degraded_to} search meanwhile, or try again later.",
        error="SERVICE_UNAVAILABLE",
        status=503,
        details={"degraded_to": degraded_to},
    )


def _respond(status: int, body: dict[str, Any], details: dict[str, Any]) -> JSONResponse:
    headers = {}
    if "retry_after" in details:
        headers["retry-after"] = str(details["retry_after"])
    return JSONResponse(body, status_code=status, headers=headers)
