"""The errors of the Storage API, as the official clients read them.

A JSON body `{statusCode, error, message, code}`; the HTTP status is 400 for nearly every client
error and the number that counts is `statusCode`. TUS answers with the real status and plain text.
"""

from __future__ import annotations

import psycopg
from starlette.responses import JSONResponse, PlainTextResponse

# SQLSTATE classes that say nothing about the request: connection, resources, locks, shutdown
_PASSING = {"08", "25", "40", "53", "55", "57", "58", "XX"}


class StorageError(Exception):
    """One failure. `status` is the number in the body, `error` the word that old clients expect.

    `sqlstate` is set when the database said it; `uncertain` when it may have committed all the
    same (the connection broke, or its answer never came).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        error: str | None = None,
        http_status: int | None = None,
        sqlstate: str | None = None,
        uncertain: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.error = error or code
        self.http_status = http_status or (500 if status == 500 else 400)
        self.sqlstate = sqlstate
        self.uncertain = uncertain

    @property
    def refused(self) -> bool:
        """Whether the database refused the rows themselves, so that trying again is pointless."""
        return self.sqlstate is not None and self.sqlstate[:2] not in _PASSING

    def as_json(self) -> JSONResponse:
        """Return the answer of every route but TUS."""
        body = {
            "statusCode": str(self.status),
            "error": self.error,
            "message": self.message,
            "code": self.code,
        }
        return JSONResponse(body, self.http_status)

    def as_text(self) -> PlainTextResponse:
        """Return the answer of the TUS routes."""
        headers = {"Tus-Resumable": "1.0.0"}
        if self.status == 412:
            headers["Tus-Version"] = "1.0.0"
        return PlainTextResponse(self.message, self.status, headers)


def access_denied(message: str = "Access denied", http_status: int = 400) -> StorageError:
    """403: a bad token, a policy, or a trigger that refuses."""
    return StorageError(403, "AccessDenied", message, error="Unauthorized", http_status=http_status)


def no_such_bucket() -> StorageError:
    """404: absent, or private and asked for without a valid token."""
    return StorageError(404, "NoSuchBucket", "Bucket not found", error="Bucket not found")


def no_such_key() -> StorageError:
    """404: absent or not visible."""
    return StorageError(404, "NoSuchKey", "Object not found", error="not_found")


def already_exists(code: str) -> StorageError:
    """409; `code` is KeyAlreadyExists, BucketAlreadyExists or ResourceAlreadyExists."""
    return StorageError(409, code, "The resource already exists", error="Duplicate")


def invalid_key(key: str) -> StorageError:
    """400: a key with characters that S3 does not take."""
    return StorageError(400, "InvalidKey", f"Invalid key: {key}")


def invalid_bucket_name() -> StorageError:
    """400: a bucket name with characters that S3 does not take."""
    return StorageError(400, "InvalidBucketName", "Bucket name invalid", error="Invalid Input")


def invalid_mime_type(mime_type: str) -> StorageError:
    """415: not among the bucket's types."""
    return StorageError(
        415, "InvalidMimeType", f"mime type {mime_type} is not supported", error="invalid_mime_type"
    )


def too_large(message: str = "The object exceeded the maximum allowed size") -> StorageError:
    """413: beyond the bucket's limit or the server's."""
    return StorageError(413, "EntityTooLarge", message, error="Payload too large")


def invalid_request(message: str) -> StorageError:
    """400: a body or header that cannot be understood."""
    return StorageError(400, "InvalidRequest", message)


def invalid_signature(message: str = "Invalid signature") -> StorageError:
    """400: a signed URL for something else."""
    return StorageError(400, "InvalidSignature", message)


def invalid_jwt(message: str) -> StorageError:
    """400: a signed URL that expired or was not made here."""
    return StorageError(400, "InvalidJWT", message)


def invalid_range() -> StorageError:
    """416, really: no such bytes."""
    return StorageError(
        416, "InvalidRange", "invalid range provided", error="invalid_range", http_status=416
    )


def locked(message: str = "The resource is locked") -> StorageError:
    """423: somebody else is writing it."""
    return StorageError(423, "ResourceLocked", message)


def disk_full() -> StorageError:
    """507, really: the bytes have no place."""
    return StorageError(
        507, "InternalError", "No space is left on the server's disk", http_status=507
    )


def database_timeout() -> StorageError:
    """544, really: no connection was to be had, or a statement took too long."""
    return StorageError(
        544, "DatabaseTimeout", "The connection to the database timed out", http_status=544
    )


def from_database(error: psycopg.Error) -> StorageError:
    """Return what a client may learn of a database error.

    Only 42501 keeps its text (a trigger's refusal), and only when it is not a policy's.
    """
    state = error.sqlstate
    message = error.diag.message_primary or str(error)
    if isinstance(error, psycopg.DataError) and state is None:
        return invalid_request("A value cannot be stored as text")  # a NUL, refused by the client
    if state is None:
        return StorageError(500, "DatabaseError", "The database is not reachable", uncertain=True)
    made = _by_sqlstate(state, message, error.diag.message_detail or "")
    made.sqlstate = state
    made.uncertain = state.startswith(("08", "57P"))
    return made


def _by_sqlstate(state: str, message: str, detail: str) -> StorageError:
    if state == "42501":
        if "row-level security" in message:
            message = "new row violates row-level security policy"
        return access_denied(message)
    if state == "23505":
        return already_exists("ResourceAlreadyExists")
    if state == "23503" and "is still referenced" in detail:
        return StorageError(
            409,
            "ResourceReferenced",
            "The resource could not be updated or removed due to a foreign key constraint",
        )
    if state == "23503":
        return StorageError(404, "InvalidRequest", "The related resource does not exist")
    if state == "55P03":
        return locked()
    if state == "57014":
        return database_timeout()
    if state == "25006":
        return StorageError(503, "DatabaseReadOnly", "The database is currently in read-only mode.")
    if state == "22P02":
        return StorageError(400, "InvalidParameter", message)
    return StorageError(500, "DatabaseError", f"database error, code: {state}")
