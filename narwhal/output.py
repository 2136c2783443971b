"""What commands print: data on stdout, everything said to a person on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from rich.cells import cell_len

from narwhal.errors import NarwhalError


def show(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool = False
) -> None:
    """Print rows to stdout: a table of `columns` for people, or every key as JSON."""
    if as_json:
        show_json(rows)
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    header = [column.replace("_", " ").upper() for column in columns]
    widths = [max(cell_len(line[i]) for line in [header, *cells]) for i in range(len(columns))]
    for line in [header, *cells]:
        padded = [
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ]
        print("  ".join(padded).rstrip())


def show_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_as_json))


def say(text: str) -> None:
    """Print a line for a person to stderr."""
    print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Make text of a file safe to print: one line, no control or direction-changing characters.

    File names and snippets are other people's text; a terminal would obey escape sequences.
    """
    return "".join(
        c if c.isprintable() else ("�" if ord(c) < 32 and not c.isspace() else " ") for c in text
    )


def human_size(size: int | None) -> str:
    """Write a number of bytes the way people read it."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def report(error: NarwhalError) -> None:
    """Print a failure as two lines on stderr: what happened, what to do."""
    code = "" if error.error == "FAILED" else f" [{error.error}]"
    say(f"error{code}: {printable(error.message)}")
    say(f"hint: {printable(error.hint or 'Run the command with --help.')}")


class Progress:
    """One line of progress on stderr; rewritten in place on a terminal, silent steps elsewhere."""

    def __init__(self, label: str, total: int) -> None:
        self.label = printable(label)
        self.total = total
        self._tty = sys.stderr.isatty()
        self._last = -1

    def update(self, done: int) -> None:
        """Show that `done` of the total bytes are there."""
        percent = 100 if self.total == 0 else done * 100 // self.total
        if percent == self._last:
            return
        self._last = percent
        line = f"{self.label}: {percent:3d} %  {human_size(done)} of {human_size(self.total)}"
        if self._tty:
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            say(line)

    def close(self) -> None:
        """End the line."""
        if self._tty and self._last >= 0:
            print(file=sys.stderr)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return printable(str(value))


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)
