"""What callers may send, checked before anything is done with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from narwhal.errors import NarwhalError
from narwhal.service.answers import invalid

MAX_BODY = 1024 * 1024  # bytes
MAX_TEXTS = 64

Body = TypeVar("Body", bound=BaseModel)


class Mode(StrEnum):
    """How to search: both ways fused, one of them, or page images."""

    HYBRID = "hybrid"
    KEYWORD = "keyword"
    SEMANTIC = "semantic"
    PAGES = "pages"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SearchBody(_Strict):
    """Body of POST /search. Postgres checks the values; here only their types."""

    query: str
    mode: Mode = Field(default=Mode.HYBRID, strict=False)
    filters: dict[str, Any] | None = None
    top_k: int = 8
    candidates: int | None = None
    options: dict[str, Any] | None = None
    explain: bool = False


class EmbedBody(_Strict):
    """Body of POST /embed: one text or several, for a named space or the active one."""

    text: str | None = None
    texts: list[str] | None = Field(default=None, min_length=1, max_length=MAX_TEXTS)
    space: str = "active"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError
        return self


async def read_body(request: Request, model: type[Body]) -> Body:
    """Read and check a JSON body of at most MAX_BODY bytes; refuses with INVALID_ARGUMENT."""
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > MAX_BODY:
            raise NarwhalError(
                "the body is too large",
                "Send at most 1 MiB.",
                error="FILE_TOO_LARGE",
                status=413,
                details={"limit": MAX_BODY},
            )
    try:
        return model.model_validate_json(bytes(received))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        message = f"{field}: {first['msg']}"
        if first["type"] == "value_error":  # our own check over two fields
            field, message = "text", "send either text or texts"
        raise invalid(field, message) from None
