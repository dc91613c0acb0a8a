"""Images of handwriting: found in folders, and decoded from files into grey lines of one height."""

import contextlib
import itertools
import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from htr.files import file_name, list_files
from htr.scripts import HTRError, printable

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no other decoder runs, whatever a file is called
MAX_BYTES = 500_000_000  # a larger file is refused before it is opened,
MAX_PIXELS = 50_000_000  # a larger image before it is decoded
PREPROCESSING = 1  # to be raised whenever `load_image` gives other pixels

# An image is read or refused; what Pillow finds odd about it helps nobody who reads a hundred thousand.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class ImageError(Exception):
    """A file that cannot be read as an image; the text says why."""


class Geometry(NamedTuple):
    """How large `load_image` makes a line.

    height: in pixels. max_scale: a small image is enlarged by this factor at most. max_width: in pixels, after scaling.
    """

    height: int
    max_scale: float
    max_width: int


def to_grey(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to mode L as a viewer shows it, on white paper.

    Applies the EXIF orientation, composites transparency on white and scales 16-bit and float values, so that the
    same text in any lossless encoding gives the same pixels. Of several frames the first is taken.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, in a 16- or a 32-bit mode
        return image.convert("I").point(lambda v: v * (1 / 257) + 0.5).convert("L")
    if image.mode == "F":
        least, most = image.getextrema()
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ImageError("has pixels that are not finite")
        scale = 255 if most <= 1 else 1 if most <= 255 else 1 / 257
        return image.point(lambda v: v * scale + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L")


def cut_margins(grey: Image.Image) -> Image.Image:
    """Crop the blank margins of a mode-L image to two pixels; light writing on dark is inverted.

    Paper is the median grey; ink is whatever is darker than halfway from there to the darkest pixel. A blank image
    stays as it is.
    """
    at_most = itertools.accumulate(grey.histogram())  # pixels of each grey or darker
    paper = next(value for value, count in enumerate(at_most) if 2 * count >= grey.width * grey.height)
    if paper < 128:
        grey, paper = ImageOps.invert(grey), 255 - paper
    darkest = grey.getextrema()[0]
    if paper - darkest < 32:
        return grey
    threshold = (paper + darkest) // 2
    box = grey.point([255 if value < threshold else 0 for value in range(256)]).getbbox()
    left, top, right, bottom = box
    return grey.crop((max(0, left - 2), max(0, top - 2), min(grey.width, right + 2), min(grey.height, bottom + 2)))


@contextlib.contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image file without decoding it yet.

    Raises ImageError where the file is missing, is no image or is too large, and for whatever else goes wrong while it
    is open.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder" + ("" if os.access(path, os.R_OK | os.X_OK) else " that cannot be searched"))
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise ImageError("is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            yield image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("not found") from error
    except UnidentifiedImageError as error:
        raise ImageError("cannot be read: not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot be read: {printable(reason, 200)}") from error


def load_image(path: str | os.PathLike, geometry: Geometry) -> np.ndarray:
    """Read an image file as the network's input, the same way in training and in prediction.

    Margins are cropped and the rest is scaled to `geometry.height`, keeping the aspect ratio, but enlarged by
    `geometry.max_scale` at most: a small scan then lies in the middle of white paper, with letters as large as those of
    a tall one. Returns grey uint8 (height, W), white paper = 255; an image wider than `geometry.max_width` is squeezed
    to it. Raises ImageError where the file is no image, is damaged or is too large.
    """
    with open_image(path) as image:
        grey = cut_margins(to_grey(image))
    scale = min(geometry.height / grey.height, geometry.max_scale)
    width = min(max(1, round(grey.width * scale)), geometry.max_width)
    height = max(1, round(grey.height * scale))
    paper = Image.new("L", (width, geometry.height), 255)
    paper.paste(grey.resize((width, height), Image.Resampling.BILINEAR), (0, (geometry.height - height) // 2))
    return np.array(paper)


def read_images(
    paths: Sequence[str | os.PathLike], geometry: Geometry, workers: int, window: int = 512
) -> Iterator[np.ndarray | ImageError]:
    """Read image files on `workers` threads (0 = on the calling one), in order and at most two windows ahead.

    Yields what `load_image` returns, or the ImageError that it raised.
    """

    def read(path):
        try:
            return load_image(path, geometry)
        except ImageError as error:
            return error

    if workers == 0:
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending = []
        try:
            for start in range(0, len(paths), window):
                pending.append([pool.submit(read, path) for path in paths[start : start + window]])
                if len(pending) == 2:
                    yield from (future.result() for future in pending.pop(0))
            for futures in pending:
                yield from (future.result() for future in futures)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Found(NamedTuple):
    """The images to read."""

    files: list[tuple[str, Path]]  # (name, path), sorted by name
    others: int  # files skipped because their names are not those of images
    linked_folders: int  # folders skipped because they are symbolic links


def find_files(paths: Iterable[str | Path]) -> Found:
    """Find the images that `paths` name or hold.

    An image's name is its path relative to the folder given, or its path as given. Folders that cannot be searched, and
    empty ones named like an image, are listed too, so that they get a row. Raises HTRError where a path does not exist
    or nothing is found.
    """
    found, others, linked = [], 0, 0
    for path in map(Path, paths):
        if path.is_dir():
            listing = list_files(path)
            images = [name for name in listing.files if has_suffix(name)]
            others += len(listing.files) - len(images)
            linked += len(listing.linked_folders)
            folders = [*filter(has_suffix, listing.empty_folders), *listing.closed_folders]
            found += [(file_name(name), path / name) for name in images + folders]
        elif path.exists():
            found.append((file_name(path.as_posix()), path))
        else:
            raise HTRError(f"there is no image or folder {path}")
    if not found:
        raise HTRError(
            f"no images in {', '.join(map(str, paths))}; looked for {' '.join(sorted(SUFFIXES))} in it and below"
        )
    return Found(sorted(found), others, linked)


def has_suffix(name: str) -> bool:
    """Whether a file of that name should be an image."""
    return Path(name).suffix.lower() in SUFFIXES
