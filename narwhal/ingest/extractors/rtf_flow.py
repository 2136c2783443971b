"""The paragraphs and tables of RTF as they come together from pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from narwhal.ingest.text import join_surrogates

Emit = Callable[[str, int | None, int], None]  # a block's text, its heading level, its gap


@dataclass
class Flow:
    """Text with paragraphs of its own: the body, a note, a text box, a header."""

    emit: Emit
    pieces: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # notes and boxes, read after their paragraph
    level: int | None = None
    is_list: bool = False
    in_table: bool = False
    _cells: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Give the paragraph that begins no properties."""
        self.level = None
        self.is_list = self.in_table = False

    def end_paragraph(self) -> None:
        """Pass on what is complete; inside a cell, only begin a new line."""
        if self.in_table:
            self.pieces.append("\n")
            return
        self._emit_row()
        self.emit(self._take(), self.level, 1 if self.is_list else 2)
        self._emit_after()

    def end_cell(self) -> None:
        """End a cell of a row."""
        self._cells.append(self._take())

    def end_row(self) -> None:
        """Pass on a row of a table."""
        self.end_cell()
        self._emit_row()
        self._emit_after()

    def finish(self) -> None:
        """Pass on what is left."""
        self.in_table = False
        self.end_paragraph()

    def _emit_row(self) -> None:
        cells = [cell for cell in self._cells if cell]
        self._cells.clear()
        if len(cells) == 1:  # a frame around text more often than a table
            self.emit(cells[0], self.level, 2)
        else:
            self.emit("\t".join(cells), None, 1)

    def _emit_after(self) -> None:
        for text in self.after:
            self.emit(text, None, 1)
        self.after.clear()

    def _take(self) -> str:
        text = "".join(self.pieces).strip()
        self.pieces.clear()
        return join_surrogates(text)
