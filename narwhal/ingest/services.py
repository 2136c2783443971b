"""What stages need from outside: Storage, the scanner, encoders. Their failures are counted apart.

Postgres keeps the count and gives out no jobs that need a service which failed too often.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from storage3.exceptions import StorageApiError

from narwhal.errors import NarwhalError

_BUSY = (408, 425, 429)


class ServiceError(Exception):
    """An outside service did not answer, or said that it cannot: the file is not at fault."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(message)
        self.service = service
        self.message = message


@contextmanager
def using(service: str) -> Iterator[None]:
    """Turn what a block raises because a service is not there into a ServiceError."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status < 500 and status not in _BUSY:
            raise  # it is there, and does not like what it was asked
        raise ServiceError(service, f"It answered {status}.") from error
    except StorageApiError as error:
        if not str(error.status).startswith("5"):
            raise
        raise ServiceError(service, f"It answered {error.status}.") from error
    except (httpx.TransportError, ConnectionError, TimeoutError) as error:
        raise ServiceError(service, f"{type(error).__name__}: {error}") from error
    except NarwhalError as error:
        if error.error != "SERVICE_UNAVAILABLE":
            raise
        raise ServiceError(service, error.message) from error
