"""Pages of image files and, where PDFium is installed (pip install pypdfium2), of PDF files."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from htr.pictures.images import MAX_PIXELS, ImageError, Shape, open_image, shape_of
from htr.system.scripts import printable

PDF = ".pdf"
DOTS_PER_INCH = 300  # of a page that is no scan
MOST_DOTS = 600  # of one that is
POINTS = 72  # of a PDF, to an inch
ONE_AT_A_TIME = threading.Lock()  # as PDFium wants it


def page_shape(path: str | os.PathLike, number: int = 0) -> Shape:
    """The shape of a page of a file. Raises ImageError where it cannot be read."""
    if Path(path).suffix.lower() != PDF:
        return shape_of(path, number)

    def measure(document: Any, page: Any) -> Shape:
        dots = _dots_per_inch(page)
        size = tuple(max(1, round(side * dots / POINTS)) for side in page.get_size())
        return Shape(size, size, len(document), dots)

    return _of_pdf(path, number, measure)


def open_page(path: str | os.PathLike, size: tuple[int, int] | None, number: int) -> Image.Image:
    """Decode a page of a file; with `size`, one of a JPEG may be smaller, see `htr.pictures.images.open_image`."""
    if Path(path).suffix.lower() != PDF:
        return open_image(path, size, number)[0]
    shape = page_shape(path, number)

    def draw(document: Any, page: Any) -> Image.Image:
        drawn = page.render(scale=shape.dots_per_inch / POINTS).to_pil().convert("RGB")
        return drawn if drawn.size == shape.size else drawn.resize(shape.size)  # it rounds up

    return _of_pdf(path, number, draw)


def _dots_per_inch(page: Any) -> float:
    """The resolution of the largest picture on a page or, where it is drawn, one that suits."""
    import pypdfium2.raw as pdfium

    width, height = page.get_size()
    dots = 0.0
    for part in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = part.get_bounds()
        if (right - left) * (top - bottom) > 0.5 * width * height:  # a scan
            dots = max(dots, POINTS * part.get_px_size()[0] / (right - left))
    dots = min(dots or DOTS_PER_INCH, MOST_DOTS)
    return min(dots, POINTS * (MAX_PIXELS / (width * height)) ** 0.5)


def _of_pdf(path: str | os.PathLike, number: int, act: Callable[[Any, Any], Any]) -> Any:
    try:
        import pypdfium2
    except ImportError as error:
        raise ImageError("is in PDF: install pypdfium2 to read it, or convert its pages to PNG or JPEG") from error
    try:
        with ONE_AT_A_TIME:
            document = pypdfium2.PdfDocument(path)
            try:
                if number >= len(document):
                    raise ImageError(f"has {len(document)} pages, and no page {number + 1}")
                return act(document, document[number])
            finally:
                document.close()
    except ImageError:
        raise
    except Exception as error:  # of damaged files, and of those that need a password
        raise ImageError(f"cannot be read: {printable(str(error), 200)}") from error
