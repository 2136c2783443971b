"""The text of a PDF page that lies outside its content: form values, notes and comments."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2.raw as raw  # type: ignore[import-untyped]

_MAX_ANNOTATIONS = 10_000
_MAX_BYTES = 1_000_000
_TYPED = {
    raw.FPDF_FORMFIELD_TEXTFIELD,
    raw.FPDF_FORMFIELD_COMBOBOX,
    raw.FPDF_FORMFIELD_LISTBOX,
}
_TICKED = {raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON}
_NOTES = {
    raw.FPDF_ANNOT_TEXT,
    raw.FPDF_ANNOT_FREETEXT,
    raw.FPDF_ANNOT_HIGHLIGHT,
    raw.FPDF_ANNOT_UNDERLINE,
    raw.FPDF_ANNOT_STRIKEOUT,
    raw.FPDF_ANNOT_SQUIGGLY,
    raw.FPDF_ANNOT_CARET,
    raw.FPDF_ANNOT_SQUARE,
    raw.FPDF_ANNOT_CIRCLE,
    raw.FPDF_ANNOT_STAMP,
}
_INVISIBLE = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW


def annotation_texts(
    page: Any, form: Any
) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Yield the text of each annotation with its box in PDF coordinates (left, top, right, bottom).

    `form` is the handle of the document's form environment, or None where it has no form.
    """
    for index in range(min(raw.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            text = _text(annotation, form)
            box = raw.FS_RECTF()
            if text and raw.FPDFAnnot_GetRect(annotation, box):
                yield text, (box.left, box.top, box.right, box.bottom)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _text(annotation: Any, form: Any) -> str:
    if raw.FPDFAnnot_GetFlags(annotation) & _INVISIBLE:
        return ""
    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind == raw.FPDF_ANNOT_WIDGET and form:
        return _field(annotation, form)
    if kind in _NOTES:
        return _string(
            lambda out, size: raw.FPDFAnnot_GetStringValue(annotation, b"Contents", out, size)
        )
    return ""


def _field(annotation: Any, form: Any) -> str:
    """A filled-in field as "label: value", a ticked box as its label."""
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _TYPED:
        # A password's field is drawn as stars: its value is not for reading.
        if raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
            return ""
        value = _string(
            lambda out, size: raw.FPDFAnnot_GetFormFieldValue(form, annotation, out, size)
        )
    elif kind in _TICKED and raw.FPDFAnnot_IsChecked(form, annotation):
        value = _string(
            lambda out, size: raw.FPDFAnnot_GetFormFieldExportValue(form, annotation, out, size)
        )
    else:
        return ""
    if not value.strip():
        return ""
    label = _string(
        lambda out, size: raw.FPDFAnnot_GetFormFieldAlternateName(form, annotation, out, size)
    ) or _string(lambda out, size: raw.FPDFAnnot_GetFormFieldName(form, annotation, out, size))
    return f"{label}: {value}" if label else value


_PASSWORD = 1 << 13


def _string(call: Callable[[Any, int], int]) -> str:
    """Fetch a UTF-16 string from one of PDFium's functions that first tell its size in bytes."""
    size = call(None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    out = (ctypes.c_ushort * ((size + 1) // 2))()
    call(out, size)
    return bytes(out)[: size - 2].decode("utf-16-le", errors="replace")
