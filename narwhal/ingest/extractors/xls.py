"""Excel's older files: a page a sheet, a line a row, cells parted by tabs, as `xlsx` reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import olefile
import xlrd

from narwhal.ingest.document import Page, ReadError
from narwhal.ingest.extractors import Source
from narwhal.ingest.extractors.blocks import Blocks
from narwhal.ingest.extractors.xlsx_numbers import NumberFormat, parse_format, show_number
from narwhal.ingest.limits import Limits

PAGED = True


def read(source: Source, limits: Limits) -> Iterator[Page]:
    """Yield the sheets in the workbook's order, hidden ones included."""
    with _open(_workbook(source.file)) as book:
        formats = _Formats(book)
        for index in range(book.nsheets):
            sheet = book.sheet_by_index(index)
            blocks = Blocks(limits)
            blocks.add(sheet.name, level=1)
            for row in range(sheet.nrows):
                shown = (_show(cell, formats) for cell in sheet.row(row))
                blocks.add("\t".join(text for text in shown if text), gap=1)
            for _, note in sorted(sheet.cell_note_map.items()):
                blocks.add(note.text, gap=1)
            book.unload_sheet(index)
            yield blocks.page(index + 1)


def _workbook(file: BinaryIO) -> bytes:
    """The workbook's own stream, which the oldest files are already.

    Taken out of its archive here: the other library follows chains of sectors without end.
    """
    if not olefile.isOleFile(file):
        file.seek(0)
        return file.read()
    file.seek(0)
    with olefile.OleFileIO(file) as archive:
        name = "Workbook" if archive.exists("Workbook") else "Book"
        return bytes(archive.openstream(name).read())


def _open(data: bytes) -> Any:
    # The library writes what it notices to stdout, where the sandbox gives its answer.
    try:
        return xlrd.open_workbook(
            file_contents=data,
            logfile=io.StringIO(),
            formatting_info=True,
            on_demand=True,
            ragged_rows=True,
        )
    except xlrd.XLRDError as error:
        if "encrypted" in str(error):
            raise ReadError("encrypted", "The document is locked with a password.") from error
        raise


class _Formats:
    """The number formats of cells, each read once."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._known: dict[int, NumberFormat] = {}

    def of(self, style: int | None) -> NumberFormat:
        """The format of a cell's style; plain numbers for an unknown one."""
        if style is None or not 0 <= style < len(self._book.xf_list):
            return NumberFormat()
        if style not in self._known:
            form = self._book.format_map.get(self._book.xf_list[style].format_key)
            code = form.format_str if form else "General"
            self._known[style] = parse_format(code, from_1904=self._book.datemode == 1)
        return self._known[style]


def _show(cell: Any, formats: _Formats) -> str:
    if cell.ctype == xlrd.XL_CELL_TEXT:
        return str(cell.value).strip()
    if cell.ctype in (xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_DATE):
        return show_number(repr(cell.value), formats.of(cell.xf_index))
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return "TRUE" if cell.value else "FALSE"
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, ""))
    return ""
