"""Expected failures: what a person is told when something cannot be done."""

from __future__ import annotations

from typing import Any


class NarwhalError(Exception):
    """A failure that a user or an operator can act on.

    The command line prints it as two lines (what happened, what to do) and exits with 1; the AI
    service answers with `error` and `details` under the four keys that PostgREST uses too.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        error: str = "FAILED",
        status: int = 500,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.error = error
        self.status = status
        self.details = details or {}
