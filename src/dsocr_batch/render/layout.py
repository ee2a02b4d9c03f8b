"""A document's own pages with labelled boxes over them; runs inside render processes.

The boxes are annotations: they stay sharp at any zoom, can be hidden in a viewer, and the pages
beneath are the original ones, not pictures of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import IO

import pymupdf

from dsocr_batch.records import ReasonCode, Region, scaled_box
from dsocr_batch.render.page import MUPDF_ERRORS, RenderError, detail, open_document

Colour = tuple[float, float, float]

_COLOURS: dict[str, Colour] = {
    "title": (0.80, 0.10, 0.10),
    "sub_title": (0.85, 0.40, 0.05),
    "text": (0.10, 0.35, 0.80),
    "table": (0.05, 0.50, 0.20),
    "table_caption": (0.20, 0.60, 0.35),
    "table_footnote": (0.35, 0.60, 0.20),
    "image": (0.55, 0.10, 0.65),
    "figure": (0.55, 0.10, 0.65),
    "image_caption": (0.75, 0.25, 0.60),
    "equation": (0.00, 0.50, 0.55),
    "header": (0.40, 0.40, 0.40),
    "footer": (0.40, 0.40, 0.40),
}
_OTHER_COLOUR: Colour = (0.25, 0.25, 0.25)

_LINE_PT, _FONT_PT = 0.8, 6.0
_A4_HEIGHT_PT = 842.0
"""The page for which those two are; others have them in proportion."""
_CHAR_WIDTH = 0.56
"""Of the font size: about the mean of Helvetica's letters, digits and the underscore."""
_FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def write_layout(
    path: str,
    pages: Sequence[tuple[int, Sequence[Region]]],
    file: IO[bytes],
    *,
    passwords: Sequence[str] = (),
) -> None:
    """Write a PDF of the document with the boxes of these pages (0-based) drawn over it.

    Image documents become PDFs with a page for each frame. The same input gives the same bytes.

    Args:
        path: of the document; may hold surrogate escapes.
        pages: the regions of each page, in reading order; each tag tells its number.
        file: open for writing and reading, empty.
        passwords: tried on an encrypted document, in this order.

    Raises:
        RenderError: the document cannot be opened, drawn on, or written as a PDF.
        OSError: ``file`` cannot be written.
    """
    sink = _Sink(file)
    document = open_document(path, passwords=passwords)
    try:
        pdf = document if document.is_pdf else pymupdf.Document("pdf", document.convert_to_pdf())
        font_xref = pdf.get_new_xref()
        pdf.update_object(font_xref, _FONT)
        for page_index, regions in pages:
            with suppress(*MUPDF_ERRORS):  # a page that does not load has no boxes, others have
                _draw(pdf.load_page(page_index), regions, font_xref)
        pdf.save(sink, no_new_id=True, reproducible=True)
    except (MemoryError, pymupdf.mupdf.FzErrorSystem) as error:
        raise RenderError(
            ReasonCode.RENDER_MEMORY, "The layout needs more memory than is allowed."
        ) from error
    except MUPDF_ERRORS as error:
        if sink.error is not None:
            raise sink.error from error
        raise RenderError(
            ReasonCode.RENDER_ERROR, f"MuPDF cannot write the layout ({detail(error)})."
        ) from error
    finally:
        document.close()


class _Sink:
    """A file for PyMuPDF to write into: it would open one with a name again by that name.

    What the disk says is kept, because MuPDF makes an error of its own of it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self) -> int:
        return self._file.truncate()


def _draw(page: pymupdf.Page, regions: Iterable[Region], font_xref: int) -> None:
    """Add a box with its tag for each region; a page's rotation turns neither.

    The objects are written here and not by PyMuPDF's ``add_…_annot``, which looks through all
    annotations of the page for each new one: 500 boxes took 5 s (NOTES.md, "Figures and layout").
    """
    pdf = page.parent
    scale = max(page.rect.width, page.rect.height) / _A4_HEIGHT_PT
    to_pdf = ~_display_matrix(page)
    turn = {0: "1 0 0 1", 90: "0 1 -1 0", 180: "-1 0 0 -1", 270: "0 -1 1 0"}[page.rotation]
    xrefs = []
    for number, region in enumerate(regions, 1):
        label = f"{number} {region.label}"
        box = pymupdf.Rect(scaled_box(region.box, page.rect.width, page.rect.height))
        colour = " ".join(f"{part:.2f}" for part in _COLOURS.get(region.label, _OTHER_COLOUR))
        bounds, drawing = _drawing(box, label, colour, scale)
        form = pdf.get_new_xref()
        pdf.update_object(
            form,
            f"<</Type/XObject/Subtype/Form/BBox[0 0 {bounds.width:.2f} {bounds.height:.2f}]"
            f"/Matrix[{turn} 0 0]"
            f"/Resources<</Font<</F {font_xref} 0 R>>>>>>",
        )
        pdf.update_stream(form, drawing.encode("ascii"))
        annotation = pdf.get_new_xref()
        place = " ".join(f"{value:.2f}" for value in bounds * to_pdf)
        text = pymupdf.get_pdf_str(label)
        pdf.update_object(
            annotation,
            f"<</Type/Annot/Subtype/Square/Rect[{place}]/C[{colour}]/F 4/T{text}/Contents{text}"
            f"/AP<</N {form} 0 R>>>>",  # F 4: it is printed too
        )
        xrefs.append(f"{annotation} 0 R")
    _add_annotations(page, xrefs)


def _display_matrix(page: pymupdf.Page) -> pymupdf.Matrix:
    """Return the way from the PDF's space to the page as displayed, in points, y downwards.

    PyMuPDF 1.28's own ``transformation_matrix`` forgets the crop box of a turned page.
    """
    matrix = pymupdf.mupdf.FzMatrix()
    pdf_page = pymupdf.mupdf.pdf_page_from_fz_page(page.this)
    pymupdf.mupdf.pdf_page_transform(pdf_page, pymupdf.mupdf.FzRect(), matrix)
    return pymupdf.Matrix(matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f)


def _drawing(box: pymupdf.Rect, label: str, colour: str, scale: float) -> tuple[pymupdf.Rect, str]:
    """Return what a box and its tag cover, as displayed, and how to draw them from its corner.

    The tag stands above the box, or inside it where the page ends.
    """
    line, font = _LINE_PT * scale, _FONT_PT * scale
    height, width = 1.3 * font, (len(label) + 1) * _CHAR_WIDTH * font
    top = box.y0 - height if box.y0 >= height else box.y0
    tag = pymupdf.Rect(box.x0, top, box.x0 + width, top + height)
    bounds = (box | tag) + (-line / 2, -line / 2, line / 2, line / 2)

    def placed(rect: pymupdf.Rect) -> str:
        x, y = rect.x0 - bounds.x0, bounds.y1 - rect.y1
        return f"{x:.2f} {y:.2f} {rect.width:.2f} {rect.height:.2f} re"

    baseline = bounds.y1 - tag.y1 + 0.35 * font
    return bounds, (
        f"{colour} RG {line:.2f} w {placed(box)} S {colour} rg {placed(tag)} f "
        f"BT 1 g /F {font:.2f} Tf {tag.x0 - bounds.x0 + 0.3 * font:.2f} {baseline:.2f} Td "
        f"{pymupdf.get_pdf_str(label)} Tj ET"
    )


def _add_annotations(page: pymupdf.Page, xrefs: Iterable[str]) -> None:
    kind, value = page.parent.xref_get_key(page.xref, "Annots")
    if kind == "xref":
        value = page.parent.xref_object(int(value.split()[0]), compressed=True)
    there = value.strip()[1:-1] if value.strip().startswith("[") else ""
    page.parent.xref_set_key(page.xref, "Annots", f"[{' '.join((there, *xrefs))}]")
