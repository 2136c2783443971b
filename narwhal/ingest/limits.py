"""What reading one file may cost, and the sandbox that holds it to that."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds for reading one file; beyond any of them reading ends with a ReadError.

    seconds:        wall clock, and CPU, of the reading process (`limit_time`)
    memory_bytes:   what that process may occupy, its libraries included (`limit_memory`)
    inflated_bytes: what one compressed part of a file may unfold to (`limit_memory`)
    characters:     text of the whole document (`limit_output`)
    pages:          pages, slides or sheets (`limit_output`)
    """

    seconds: float = 28.0
    memory_bytes: int = 512 * MIB
    inflated_bytes: int = 1024 * MIB
    characters: int = 20_000_000
    pages: int = 20_000
