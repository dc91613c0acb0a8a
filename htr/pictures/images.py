"""Images of handwriting: found in folders, and decoded from files into grey lines of one height."""

import contextlib
import io
import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from htr.pictures.levels import contrast, has_light_ink, legibility, normalise_levels, sampled
from htr.pictures.views import View
from htr.system.files import file_name, list_files
from htr.system.names import NOT_READ, SUFFIXES, has_suffix, left_behind
from htr.system.scripts import HTRError, printable

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no other decoder runs, whatever the name
SIGNATURES = {  # of images that nothing here decodes: bytes from a position on
    (4, b"ftypavif"): "AVIF", (4, b"ftypavis"): "AVIF", (4, b"ftyphei"): "HEIC", (4, b"ftyphev"): "HEIC",
    (4, b"ftypmif1"): "HEIF", (4, b"ftypmsf1"): "HEIF", (0, b"\0\0\0\x0cjP  "): "JPEG 2000",
    (0, b"\xff\x4f\xff\x51"): "JPEG 2000", (0, b"\xff\x0a"): "JPEG XL", (4, b"JXL "): "JPEG XL", (0, b"%PDF"): "PDF",
}  # fmt: skip
MAX_BYTES = 500_000_000  # a larger file is refused before it is opened,
MAX_PIXELS = 50_000_000  # a larger image before it is decoded
MOST_REPAIRED = 50_000_000  # bytes of a file that is given a second try
LEVELLED = "Levels"  # a text in a PNG that was cut out of a page, as a band whose levels are right
PREPROCESSING = 4  # to be raised whenever `load_image` gives other pixels

# An image is read or refused; what Pillow finds odd about it helps nobody who reads a hundred thousand.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class ImageError(Exception):
    """A file that cannot be read as an image; the text says why."""


class Geometry(NamedTuple):
    """How `load_image` makes a line of an image.

    height: in pixels. max_scale: a small image is enlarged by this factor at most. max_width: in pixels, after scaling.
    levels: whether paper is made white and ink black; without it greys stay as they are. view: how the scaled line is
    shown.
    """

    height: int
    max_scale: float
    max_width: int
    levels: bool = True
    view: View = View()


class Part(os.PathLike):
    """A line that shares its file with others, under a name of its own.

    whole: has a method `read(parts, geometry)`, which reads several in one go and returns for each what `load_image`
    returns, or the ImageError. files: those that it comes from, its picture first.
    """

    def __init__(self, name: str, whole: Any, files: Sequence[Path]):
        self.name, self.whole, self.files = name, whole, files

    def __fspath__(self) -> str:
        return self.name


class Decoded(NamedTuple):
    """A line, and what its file holds beside it.

    pixels: grey uint8 (H, W). pages: of the file, of which the first is the line.
    """

    pixels: np.ndarray
    pages: int


# ------------------------------------------------------------------------------------------------- files


class Held(os.PathLike):
    """A picture in memory, under the name that a file would have.

    content: an open Pillow image, the bytes of an image file or an open one, or an array, grey (H, W) or with colours
    (H, W, 1 to 4). Raises TypeError where it is none of these.
    """

    def __init__(self, name: str, content: Any):
        if isinstance(content, io.IOBase):
            content = content.read()
        if isinstance(content, (bytearray, memoryview)):
            content = bytes(content)
        elif not isinstance(content, (Image.Image, bytes)):
            if not hasattr(content, "__array__"):
                raise TypeError(f"{content!r:.80} is no picture: give a path, a Pillow image, an array or bytes")
            content = np.asarray(content)
            colours = content.shape[2] if content.ndim == 3 else 1
            if content.dtype.kind not in "buif" or content.ndim not in (2, 3) or not 1 <= colours <= 4:
                raise TypeError(
                    f"an array of shape {content.shape} and type {content.dtype} is no picture: give grey (H, W) or"
                    " RGB (H, W, 3), of numbers"
                )
        self.name, self.content = name, content

    def __fspath__(self) -> str:
        return self.name


def open_image(
    path: str | os.PathLike, size: tuple[int, int] | None = None, number: int = 0
) -> tuple[Image.Image, int]:
    """Decode an image file, or a picture in memory. Returns its page of that number, and how many it has.

    With `size`, a JPEG may be decoded smaller, but not below that. Raises ImageError where the file is missing, is no
    image, is damaged or is too large, or has no such page.
    """
    return _opened(path, lambda file, length: _decode_or_repair(file, length, size, number))


class Shape(NamedTuple):
    """What the head of an image file says, or a picture in memory.

    size: (width, height) in pixels as viewers show it; stored: before it is turned by its EXIF tag. pages: how many it
    has. dots_per_inch: None where it does not say.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    pages: int
    dots_per_inch: float | None


def shape_of(path: str | os.PathLike, number: int = 0) -> Shape:
    """The shape of an image's page of that number. Raises ImageError as `open_image` does, but for damaged pixels."""

    def look(file: IO[bytes], length: int) -> tuple[Image.Image, int]:
        image = Image.open(file, formats=FORMATS)
        pages = _pages(image)
        _seek(image, number, pages)
        image.getexif()  # while the file is open
        return image, pages

    image, pages = _opened(path, look)
    _check_size(*image.size)
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    dots = image.info.get("dpi", (0, 0))[0]
    return Shape(image.size[::-1] if turned else image.size, image.size, pages, float(dots) or None)


def is_of_page(path: str | os.PathLike) -> bool:
    """Whether a file is a line that was cut out of a page and kept, see `htr.pictures.cutting.keep_line`."""
    try:
        return LEVELLED in _opened(path, lambda file, _: (Image.open(file, formats=["PNG"]), 1))[0].info
    except ImageError:
        return False


def _opened(
    path: str | os.PathLike, decode: Callable[[IO[bytes], int], tuple[Image.Image, int]]
) -> tuple[Image.Image, int]:
    """What `decode` returns of a file and its length; whatever it raises becomes an ImageError."""
    try:
        if isinstance(path, Held):
            return _open_held(path.content, decode)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder" + ("" if os.access(path, os.R_OK | os.X_OK) else " that cannot be searched"))
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise ImageError("is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        with open(path, "rb") as file:  # by its path, Pillow would map a TIFF, and misread one that is turned
            return decode(file, status.st_size)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("not found") from error
    except UnidentifiedImageError as error:
        raise ImageError(_unknown(path)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot be read: {printable(reason, 200)}") from error


def _open_held(content: Image.Image | bytes | np.ndarray, decode: Callable) -> tuple[Image.Image, int]:
    if isinstance(content, bytes):
        if len(content) > MAX_BYTES:
            raise ImageError(f"has {len(content):,} bytes, more than {MAX_BYTES:,}")
        return decode(io.BytesIO(content), len(content))
    if isinstance(content, np.ndarray):
        return _of_array(content), 1
    _check_size(content.width, content.height)
    content.load()
    return content, 1


def _of_array(pixels: np.ndarray) -> Image.Image:
    """Any numbers as an image: 8 bits as they are, others by their range."""
    height, width = pixels.shape[:2]
    if not pixels.size:
        raise ImageError(f"has {width} x {height} pixels")
    _check_size(width, height)
    if not np.isfinite(pixels).all():
        raise ImageError("has pixels that are not finite")
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    elif pixels.dtype != np.uint8 and pixels.ndim == 2:
        pixels = pixels.astype(np.float32)  # mode F, whose range is found later
    elif pixels.dtype != np.uint8:
        low, high = min(0.0, float(pixels.min())), float(pixels.max())
        whole = 1.0 if high - low <= 1 else 255.0 if high - low <= 255 else high - low
        pixels = np.rint((pixels - low) * (255 / whole)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _decode_or_repair(
    file: IO[bytes], length: int, size: tuple[int, int] | None, number: int
) -> tuple[Image.Image, int]:
    try:
        return _decode(file, size, number)
    except (OSError, ValueError) as error:
        repaired = None if number or length > MOST_REPAIRED else _decode_anyway(file, error)
        if repaired is None:
            raise
        return repaired


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _decode(file: IO[bytes], size: tuple[int, int] | None = None, number: int = 0) -> tuple[Image.Image, int]:
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    pages = _pages(image)
    _seek(image, number, pages)
    _check_size(image.width, image.height)
    if image.format == "TIFF" and image.tag_v2.get(284) == 2 and set(image.tag_v2.get(258, (8,))) - {1, 8}:
        return _planes(image, file), pages
    if size:
        image.draft(image.mode, size)
    image.load()
    return image, pages


def _seek(image: Image.Image, number: int, pages: int) -> None:
    if number >= pages:
        raise ImageError(f"has {pages} pages, and no page {number + 1}")
    if number:
        image.seek(number)


def _pages(image: Image.Image) -> int:
    """The number of pages or frames; 1 where what comes after the first one is damaged."""
    with contextlib.suppress(Exception):
        return getattr(image, "n_frames", 1)
    return 1


def _planes(image: Image.Image, file: IO[bytes]) -> Image.Image:
    """A TIFF whose channels of 16 bits are stored one after the other; Pillow would read them as if they had 8.

    Raises ImageError where they are compressed, or not what they usually are.
    """
    tags = image.tag_v2
    count, width, height = tags.get(277, 1), tags[256], tags[257]
    usual = set(tags[258]) == {16} and tags.get(259, 1) == 1 and set(tags.get(339, (1,))) == {1}
    if not usual or image.mode not in ("RGB", "RGBA") or sum(tags.get(279, ())) != 2 * count * height * width:
        raise ImageError("is a TIFF with separate colour planes of more than 8 bits: save it as a PNG")
    strips = []
    for offset, length in zip(tags[273], tags[279], strict=True):
        file.seek(offset)
        strips.append(file.read(length))
    kind = ">u2" if tags.prefix == b"MM" else "<u2"
    planes = np.frombuffer(b"".join(strips), dtype=kind).reshape(count, height, width)
    pixels = Image.fromarray(np.ascontiguousarray((planes / 257 + 0.5).astype(np.uint8).transpose(1, 2, 0)))
    pixels.getexif()[0x0112] = tags.get(0x0112, 1)  # its orientation
    return pixels


def _decode_anyway(file: IO[bytes], error: Exception) -> tuple[Image.Image, int] | None:
    """A second try for a file in which all pixels are there: one without its end, or with too much text beside them."""
    file.seek(0)
    data = file.read()
    if data.startswith(b"\x89PNG") and isinstance(error, ValueError):
        return _decode(io.BytesIO(_without_text(data)))
    if "truncated" not in str(error):
        return None
    # If all pixels are there, it makes no difference what follows.
    data = data.removesuffix(b"\xff")  # half of the mark that ends a JPEG
    tries = [data + filler + b"\xff\xd9" for filler in (b"", b"\x55" * 64, b"\xaa" * 64, b"\0" * 64)]
    with contextlib.suppress(Exception):
        (first, pages), *others = (_decode(io.BytesIO(each)) for each in tries)
        if all(ImageChops.difference(first, other).getbbox(alpha_only=False) is None for other, _ in others):
            return first, pages
    return None


def _without_text(png: bytes) -> bytes:
    """A PNG without its texts and colour profile (PNG specification, 5.3: length, type, data, checksum)."""
    kept, place = [png[:8]], 8
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(png[place:end])
        place = end
    return b"".join(kept)


def _unknown(path: str | os.PathLike) -> str:
    """Why a file that no decoder knows is not read."""
    if isinstance(path, Held):
        head = bytes(path.content[:16])
    else:
        with open(path, "rb") as file:
            head = file.read(16)
    by_suffix = NOT_READ.get(Path(path).suffix.lower())
    name = next((name for (at, mark), name in SIGNATURES.items() if head[at:].startswith(mark)), by_suffix)
    if name is None:
        return "cannot be read: not an image in a known format"
    return f"cannot be read: it is in {name}; convert it to PNG or JPEG"


# ------------------------------------------------------------------------------------------------ pixels


def to_grey(image: Image.Image, levels: bool = True) -> Image.Image:
    """Convert an image of any Pillow mode to mode L as a viewer shows it, on white paper.

    Applies the EXIF orientation and composites transparency, so that the same text in any lossless encoding gives the
    same pixels. With `levels`, values of more than 8 bits are scaled to their own range, and of a coloured image the
    channel is taken that shows most. Raises ImageError where values are not finite.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image, levels)
    if image.mode == "LAB":
        return image.getchannel("L")
    if image.has_transparency_data:
        image = _on_paper(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    grey = image.convert("L")
    red, green, blue = image.split()
    if not levels or all(ImageChops.difference(green, other).getextrema()[1] <= 8 for other in (red, blue)):
        return grey
    light_ink = has_light_ink(sampled(grey))

    def shown(channel: Image.Image) -> float:
        pixels = sampled(channel)
        return legibility(255 - pixels if light_ink else pixels) * (1.1 if channel is grey else 1)

    return max((grey, red, green, blue), key=shown)


def _shown(grey: Image.Image) -> float:
    """The range of greys of an image, from a part of its pixels."""
    return contrast(np.asarray(grey)[:: 1 + grey.height // 512, :: 1 + grey.width // 512])


def _scaled(image: Image.Image, levels: bool) -> Image.Image:
    """Mode I, I;16 or F to mode L."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ImageError("has pixels that are not finite")
    low, high = 0.0, 65535.0
    if levels:
        low, high = np.percentile(values, (0.1, 99.9))  # of 10, 12, 16 bits, or whatever numbers
        if high - low < 1e-12:
            low = high - 1
    elif image.mode == "F":
        high = 1.0 if values.max() <= 1 else 255.0 if values.max() <= 255 else high
    return Image.fromarray(np.clip((values - low) * (255 / (high - low)) + 0.5, 0, 255).astype(np.uint8))


def _on_paper(image: Image.Image) -> Image.Image:
    """RGBA on paper: white, or black where only that shows anything; alpha that never changes means nothing."""
    alpha = image.getchannel("A")
    least, most = alpha.getextrema()
    if least == most:
        return image.convert("RGB")
    if most < 255:  # some programs write 1 for opaque
        image.putalpha(alpha.point([min(255, value * 255 // most) for value in range(256)]))
    white, black = (
        Image.alpha_composite(Image.new("RGBA", image.size, paper), image).convert("RGB")
        for paper in ("white", "black")
    )
    return black if _shown(white.convert("L")) < 0.35 * _shown(black.convert("L")) else white


def cut_margins(grey: Image.Image, sides_only: bool = False) -> Image.Image:
    """Crop the blank margins of a mode-L image to two pixels; where the median is dark, it is inverted.

    Paper is the median grey; ink is whatever is darker than halfway from there to the darkest pixel. A blank image
    stays as it is. sides_only: whether what is blank above and below stays.
    """
    at_most = np.cumsum(grey.histogram())  # pixels of each grey or darker
    paper = int(np.searchsorted(2 * at_most, at_most[-1]))
    if paper < 128:
        grey, paper = ImageOps.invert(grey), 255 - paper
    darkest = grey.getextrema()[0]
    if paper - darkest < 32:
        return grey
    threshold = (paper + darkest) // 2
    box = grey.point([255 if value < threshold else 0 for value in range(256)]).getbbox()
    left, top, right, bottom = box
    if sides_only:
        top, bottom = 0, grey.height
    return grey.crop((max(0, left - 2), max(0, top - 2), min(grey.width, right + 2), min(grey.height, bottom + 2)))


def load_image(path: str | os.PathLike, geometry: Geometry) -> Decoded:
    """Read an image file as the network's input; see `to_line`.

    Raises ImageError where the file is no image, is damaged or is too large.
    """
    image, pages = open_image(path)
    return Decoded(to_line(image, geometry), pages)


def to_line(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Turn an image into the network's input, the same way in training and in prediction.

    Levels are normalised and margins cropped; the rest is scaled to `geometry.height`, keeping the aspect ratio, but
    enlarged by `geometry.max_scale` at most: a small scan then lies in the middle of white paper, with letters as large
    as those of a tall one. A band that was cut out of a page has that size already: its levels and its height stay, and
    it is enlarged to the whole height. Returns grey uint8 (height, W), white paper = 255; an image wider than
    `geometry.max_width` is squeezed to it. Raises ImageError where its values are not finite.
    """
    grey = to_grey(image, geometry.levels)
    if LEVELLED in image.info and geometry.levels:
        return scaled_line(grey, geometry, band=True)
    return scaled_line(normalise_levels(grey) if geometry.levels else grey, geometry)


def scaled_line(grey: Image.Image, geometry: Geometry, band: bool = False) -> np.ndarray:
    """The last steps of `to_line`: crop the margins of a mode-L image, scale it, and show it as it is to be seen."""
    grey = cut_margins(grey, sides_only=band)
    scale = geometry.height / grey.height
    if not band:
        scale = min(scale, geometry.max_scale)
    width = min(max(1, round(grey.width * scale)), geometry.max_width)
    height = max(1, round(grey.height * scale))
    paper = Image.new("L", (width, geometry.height), 255)
    paper.paste(grey.resize((width, height), Image.Resampling.BILINEAR), (0, (geometry.height - height) // 2))
    return geometry.view.of(np.array(paper))


def read_images(
    paths: Sequence[str | os.PathLike], geometry: Geometry, workers: int, window: int = 512
) -> Iterator[Decoded | ImageError]:
    """Read image files on `workers` threads (0 = on the calling one), in order and at most two windows ahead.

    Parts of one file that follow each other are read together. Yields what `load_image` returns, or the ImageError that
    it raised.
    """

    def read(several: list) -> list[Decoded | ImageError]:
        try:
            if isinstance(several[0], Part):
                return several[0].whole.read(several, geometry)
            return [load_image(path, geometry) for path in several]
        except ImageError as error:
            return [error] * len(several)

    files = groupby(paths, lambda path: id(path.whole if isinstance(path, Part) else path))
    tasks = (list(group) for _, group in files)
    if workers == 0:
        for task in tasks:
            yield from read(task)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending, waiting = deque(), 0
        try:
            for task in tasks:
                pending.append((pool.submit(read, task), len(task)))
                waiting += len(task)
                while waiting > 2 * window:
                    future, count = pending.popleft()
                    waiting -= count
                    yield from future.result()
            for future, _ in pending:
                yield from future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# ---------------------------------------------------------------------------------------------- in folders


class Found(NamedTuple):
    """The images to read."""

    files: list[tuple[str, Path | Held]]  # (name, path), sorted by name; no two are called alike
    folders: list[Path]  # those of the paths given that are folders
    others: int  # files skipped because their names are not those of images, or are those of a system's files
    linked_folders: int  # folders skipped because they are symbolic links
    again: int  # files reached a second time, which are read once


def find_files(paths: Iterable[Any], others_too: str = "") -> Found:
    """Find the images that `paths` name or hold: folders, files, or pictures in memory, see `Held`.

    An image's name is its path relative to the folder given, with that folder before it where there are several, or its
    path as given; pictures in memory are called by their place in `paths`, image_1 and so on. Folders that cannot be
    searched, and empty ones named like an image, are listed too, so that they get a row. Raises HTRError where a path
    does not exist or nothing is found, and TypeError where it is neither a path nor a picture. others_too: a suffix
    that images may have beside the usual ones.
    """

    def is_image(name: str) -> bool:
        return has_suffix(name) or bool(others_too and name.lower().endswith(others_too))

    given = list(paths)
    digits = len(str(len(given)))
    held = [Held(f"image_{n:0{digits}}", each) for n, each in enumerate(given, 1) if not _is_path(each)]
    if "" in filter(_is_path, given):
        raise HTRError("one of the paths is empty: name an image or a folder")
    paths = [Path(each) for each in given if _is_path(each)]
    folders = [path for path in paths if path.is_dir()]
    found, others, linked = [], 0, 0
    for path in paths:
        if len(paths) > 1 and left_behind(path.name):  # as in `predict.py scans/*`
            others += len(list_files(path).files) if path.is_dir() else 1
        elif path.is_dir():
            listing = list_files(path)
            images = [name for name in listing.files if is_image(name)]
            others += len(listing.files) - len(images) + listing.passed_over
            linked += len(listing.linked_folders)
            images += [*filter(has_suffix, listing.empty_folders), *listing.closed_folders]
            found += [(path, name) for name in images]
        elif path.exists():
            found.append((Path(), path.as_posix()))
        else:
            raise HTRError(f"there is no image or folder {path}")
    if not given:
        raise HTRError("no images: the list of paths is empty")
    if not found and not held:
        raise HTRError(
            f"no images in {', '.join(map(str, paths))}; looked for {' '.join(sorted(SUFFIXES))} in it and below"
        )
    once = {_place(folder / name): (folder, name) for folder, name in reversed(found)}.values()
    alike = len({name for _, name in once}) < len(once)
    with_folder = alike or len({os.path.realpath(folder) for folder in folders}) > 1
    files = [(file_name((folder / name).as_posix() if with_folder else name), folder / name) for folder, name in once]
    files += [(each.name, each) for each in held]
    return Found(sorted(files, key=lambda file: file[0]), folders, others, linked, len(found) - len(once))


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _place(path: Path) -> str:
    """Where a file is, however it was reached; a link to a file counts as a file of its own."""
    return os.path.join(os.path.realpath(path.parent), path.name)
