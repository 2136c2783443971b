"""Named queries of the command line, run over DATABASE_URL."""

from __future__ import annotations

from importlib import resources
from typing import Any


def execute(url: str, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Run queries/<name>.sql in a transaction of its own and return its rows, if it has any."""
    import psycopg
    from psycopg.rows import dict_row

    query = resources.files("narwhal.cli").joinpath("queries", f"{name}.sql").read_bytes()
    with psycopg.connect(url, row_factory=dict_row, connect_timeout=10) as connection:
        cursor = connection.execute(query, arguments)
        return cursor.fetchall() if cursor.description else []
