"""What commands print, and how failures of the official clients read."""

from __future__ import annotations

import json

import httpx
import psycopg
import pytest
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import SupabaseException
from supabase_auth.errors import (
    AuthApiError,
    AuthRetryableError,
    AuthSessionMissingError,
    AuthUnknownError,
)
from supabase_functions.errors import FunctionsHttpError
from tusclient.exceptions import TusCommunicationError

from narwhal.errors import NarwhalError
from narwhal.failures import as_narwhal_error
from narwhal.output import human_size, printable, report, show

ROWS = [{"id": 1, "name": "简历", "more": None}, {"id": 20, "name": "plain", "more": True}]


def test_a_table_lines_up_with_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, ["name", "id", "more"])
    assert capsys.readouterr().out.splitlines() == [
        "NAME   ID  MORE",
        "简历   1",
        "plain  20  yes",
    ]


def test_json_has_every_key_and_nothing_else_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(ROWS, ["name"], as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;owned\x07\x1b[2Jb\u202ecod.exe\nnext"
    show([{"name": evil}], ["name"])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2  # the header and one row
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert printable("Résumé 简历 🐋.pdf") == "Résumé 简历 🐋.pdf"


def test_sizes_read_well() -> None:
    assert [human_size(n) for n in (None, 0, 1023, 1024, 6 * 2**20, 3 * 2**40)] == [
        "", "0 B", "1023 B", "1.0 KiB", "6.0 MiB", "3.0 TiB",
    ]  # fmt: skip


def test_a_failure_is_two_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report(NarwhalError("no\nspace", "make\nsome", error="QUOTA_EXCEEDED"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error [QUOTA_EXCEEDED]: no space", "hint: make some",
    ]  # fmt: skip


def failure(error: BaseException) -> NarwhalError:
    translated = as_narwhal_error(error)
    assert translated is not None
    assert translated.hint
    return translated


def test_a_database_error_keeps_its_code_numbers_and_hint() -> None:
    details = json.dumps({"error": "QUOTA_EXCEEDED", "used": 5})
    error = APIError(
        {"code": "PT413", "message": "Too much.", "details": details, "hint": "Delete something."}
    )
    translated = failure(error)
    assert (translated.error, translated.status) == ("QUOTA_EXCEEDED", 413)
    assert (translated.message, translated.hint) == ("Too much.", "Delete something.")
    assert translated.details["used"] == 5


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (APIError({"code": "PGRST202", "message": "no function"}), "PGRST202", "db migrate"),
        (APIError({"code": "PGRST301", "message": "JWT expired"}), "PGRST301", "login"),
        (
            StorageApiError("narwhal/NO_TICKET: no ticket", "Unauthorized", 403),
            "NO_TICKET",
            "again",
        ),
        (AuthApiError("bad", 400, "invalid_credentials"), "invalid_credentials", "password"),
        (AuthSessionMissingError(), "AuthSessionMissingError", "login"),
        (AuthApiError("gone", 400, "refresh_token_not_found"), "refresh_token_not_found", "login"),
        (AuthUnknownError("<html>", ValueError()), "FAILED", "SUPABASE_URL"),
        (SupabaseException("Invalid URL hunter2"), "FAILED", "SUPABASE_URL"),
        (AuthRetryableError("", 503), "SERVICE_UNAVAILABLE", "status"),
        (
            TusCommunicationError("", 403, b"narwhal/FILE_TOO_LARGE: more than the ticket"),
            "FILE_TOO_LARGE",
            "--resume",
        ),
        (TusCommunicationError("connection reset"), "FAILED", "--resume"),
        (psycopg.OperationalError("password=hunter2 refused"), "FAILED", "DATABASE_URL"),
    ],
)
def test_client_errors_become_a_sentence_and_a_hint(error: Exception, code: str, hint: str) -> None:
    translated = failure(error)
    assert translated.error == code
    assert hint in (translated.hint or "")
    assert "hunter2" not in translated.message


def test_an_error_of_the_ai_service_is_read_from_its_body() -> None:
    request = httpx.Request("POST", "http://127.0.0.1/functions/v1/ai/search")
    body = {"code": "PT429", "message": "Slow down.", "details": '{"error": "RATE_LIMITED"}'}
    response = httpx.Response(429, json=body, request=request)
    error = FunctionsHttpError("an error occurred", 429)
    error.__cause__ = httpx.HTTPStatusError("429", request=request, response=response)
    assert (failure(error).error, failure(error).message) == ("RATE_LIMITED", "Slow down.")


def test_an_unreachable_project_is_named_without_its_query() -> None:
    request = httpx.Request("GET", "https://down.example/rest/v1/x?apikey=secret")
    translated = failure(httpx.ConnectError("boom", request=request))
    assert "https://down.example" in translated.message
    assert "secret" not in translated.message


def test_a_defect_is_not_dressed_up_as_an_expected_failure() -> None:
    assert as_narwhal_error(KeyError("x")) is None
