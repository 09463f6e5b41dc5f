"""What is written over a PDF page, and is no part of its content: values that were typed into forms, notes, stamps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pypdfium2
from pypdfium2 import raw

# What shows text or a picture of it wherever it lies.
_WRITTEN = frozenset({raw.FPDF_ANNOT_FREETEXT, raw.FPDF_ANNOT_STAMP})
_TYPED = frozenset({raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX})
_UNSEEN = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
# Bytes of an empty text: the end of UTF-16.
_EMPTY = 2


def is_written_over(page: pypdfium2.PdfPage) -> bool:
    """Whether the page shows text that its content does not hold."""
    for index in range(raw.FPDFPage_GetAnnotCount(page.raw)):
        with _annotation(page, index) as annotation:
            if annotation and not raw.FPDFAnnot_GetFlags(annotation) & _UNSEEN and _shows_text(page, annotation):
                return True
    return False


def _shows_text(page: pypdfium2.PdfPage, annotation: Any) -> bool:
    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind != raw.FPDF_ANNOT_WIDGET:
        return kind in _WRITTEN
    if page.formenv is None:
        # The value of a tick is a name.
        is_typed = raw.FPDFAnnot_GetValueType(annotation, b"V") == raw.FPDF_OBJECT_STRING
        return bool(is_typed and raw.FPDFAnnot_GetStringValue(annotation, b"V", None, 0) > _EMPTY)
    form = page.formenv.raw
    is_typed = raw.FPDFAnnot_GetFormFieldType(form, annotation) in _TYPED
    return bool(is_typed and raw.FPDFAnnot_GetFormFieldValue(form, annotation, None, 0) > _EMPTY)


@contextmanager
def _annotation(page: pypdfium2.PdfPage, index: int) -> Iterator[Any]:
    found = raw.FPDFPage_GetAnnot(page.raw, index)
    try:
        yield found
    finally:
        if found:
            raw.FPDFPage_CloseAnnot(found)
