"""From the dataset's files to batches: labels, pictures, augmentation. Speaks text, knows no network.

A picture becomes a grey uint8 tensor (H, W) of fixed height and its own width, white paper = 255. A batch is
float ink (N, 1, H, W): 0 is paper, 1 is ink, so zero padding is background.
"""

import contextlib
import gzip
import hashlib
import itertools
import math
import os
import stat
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from config import Config, HTRError, printable
from files import only_writer
from pictures import Pictures

if TYPE_CHECKING:  # imported where a CSV is read: reading pictures starts without it
    import pandas as pd

WHERE_TO_GET_IT = "the dataset is 'Handwriting Recognition' on Kaggle (landlord/handwriting-recognition)"
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # whatever a file is called, no other decoder runs
MAX_BYTES = 500_000_000  # a file of more is refused before it is opened,
MAX_PIXELS = 50_000_000  # a picture of more before it is decoded
IN_MEMORY = 20_000  # pictures of a larger set are kept in a file, which is mapped
CACHE_DIR = "htr_cache"  # that file's folder, in the current one
PREPROCESSING = 1  # to be raised whenever `load_image` or what fits changes
WIDTH_STEP = 16  # pixels; widths of batches are multiples of it
MOST_LOST = 0.05  # share of missing or unreadable images from which on training stops

# A picture is read or refused; what Pillow finds odd about it is of no use to anyone who reads a hundred thousand.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


# ---------------------------------------------------------------------------------------------- pictures


class ImageError(Exception):
    """A file that cannot be read as a picture; the text says why."""


def to_grey(image: Image.Image) -> Image.Image:
    """Turn a picture of any Pillow mode into mode L as a viewer shows it, on white paper.

    Applies the EXIF orientation, composites transparency on white and scales 16-bit and float values, so that the
    same text in any lossless encoding gives the same pixels. Of several frames the first is taken.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, in a 16- or a 32-bit mode
        return image.convert("I").point(lambda v: v * (1 / 257) + 0.5).convert("L")
    if image.mode == "F":
        least, most = image.getextrema()
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ImageError("holds values that are not finite")
        scale = 255 if most <= 1 else 1 if most <= 255 else 1 / 257
        return image.point(lambda v: v * scale + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L")


def cut_margins(grey: Image.Image) -> Image.Image:
    """Cut away the blank margins of a mode-L picture, all but two pixels; light writing on dark is inverted.

    The paper's grey is the picture's median; ink is what is darker than halfway from there to the darkest pixel.
    A blank picture stays as it is.
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
    """Open an image file; whatever goes wrong inside is an ImageError.

    Nothing is decoded yet. Raises ImageError where the file is none or is no picture, or where it is too large.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder" + ("" if os.access(path, os.R_OK | os.X_OK) else " that cannot be searched"))
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes it
            raise ImageError("is no regular file")
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
        raise ImageError("cannot be read: it is no picture of a kind that is known") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"cannot be read: {printable(reason, 200)}") from error


def load_image(path: str | os.PathLike, config: Config) -> Tensor:
    """Read an image file as the network's input; training and prediction both come through here.

    Margins are cut; the rest is scaled to `config.IMG_HEIGHT`, aspect ratio kept, but enlarged by `config.MAX_SCALE` at
    most: a small scan then lies in the middle of white paper, and its letters have the size of those in a large one.
    Returns grey uint8 of shape (IMG_HEIGHT, W), W at most `config.MAX_WIDTH` (a wider picture is squeezed). Raises
    ImageError where the file is no picture, is damaged, or is too large.
    """
    with open_image(path) as image:
        grey = cut_margins(to_grey(image))
    scale = min(config.IMG_HEIGHT / grey.height, config.MAX_SCALE)
    width = min(max(1, round(grey.width * scale)), config.MAX_WIDTH)
    height = max(1, round(grey.height * scale))
    paper = Image.new("L", (width, config.IMG_HEIGHT), 255)
    paper.paste(grey.resize((width, height), Image.Resampling.BILINEAR), (0, (config.IMG_HEIGHT - height) // 2))
    return torch.frombuffer(bytearray(paper.tobytes()), dtype=torch.uint8).view(config.IMG_HEIGHT, width)


def read_images(
    paths: Sequence[str | os.PathLike], config: Config, workers: int, window: int = 512
) -> Iterator[Tensor | ImageError]:
    """Read image files on `workers` threads, in order, at most two windows ahead, so memory stays flat.

    Yields what `load_image` returns, or the ImageError that it raised.
    """

    def read(path):
        try:
            return load_image(path, config)
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


# ------------------------------------------------------------------------------------------------ labels


class Alphabet:
    """The characters a network knows; a character's id is its place, from 0.

    `characters` is a string of distinct characters.
    """

    def __init__(self, characters: str):
        if len(set(characters)) != len(characters):
            raise ValueError("an alphabet names each character once")
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Alphabet":
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.characters)

    def knows(self, text: str) -> bool:
        return all(character in self._ids for character in text)

    def encode(self, text: str) -> list[int]:
        """Text to ids; raises KeyError for a character that the alphabet does not have."""
        return [self._ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[i] for i in ids)


def clean_label(label: str, uppercase: bool) -> str:
    """A label as it is compared: NFC, white space single and none around it, capitals if asked for."""
    label = " ".join(unicodedata.normalize("NFC", label).split())
    return unicodedata.normalize("NFC", label.upper()) if uppercase else label


def read_table(path: str | os.PathLike) -> "pd.DataFrame":
    """Read a CSV in UTF-8, with commas, semicolons or tabs as its first line has them, all cells text as they stand.

    Raises HTRError, naming the line where it can, where it cannot be read.
    """
    import pandas as pd

    path = Path(path)
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    options["compression"] = "gzip" if path.suffix == ".gz" else None
    try:
        with _open_bytes(path) as file:
            head = file.readline(1_000_000).decode("latin-1")
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # where it drops cells
            table = pd.read_csv(path, sep=max(",;\t", key=head.count), **options)
    except UnicodeDecodeError as error:
        raise HTRError(
            f"{path}, line {_first_line_not_in_utf8(path)}: this is not UTF-8; save the file as a CSV in UTF-8"
        ) from error
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        if "EOF inside string starting at row" in reason:
            reason = f"in line {int(reason.split()[-1]) + 1} a quote is opened and never closed"
        if "loss of data" in reason:
            reason = "its rows have more cells than its first line"
        raise HTRError(f"{path} cannot be read as a CSV in UTF-8: {reason}") from error
    table.columns = table.columns.str.strip()
    return table.fillna("")  # a short row lacks cells whatever the options


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _first_line_not_in_utf8(path: Path) -> int:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("every line is UTF-8")


def read_labels(path: str | os.PathLike) -> "pd.DataFrame":
    """Read a label CSV into a table with the columns FILENAME and IDENTITY, all text as it stands.

    Raises HTRError where the file cannot be read, lacks a column, or has a cell that swallowed other rows.
    """
    table = read_table(path)
    for column in ("FILENAME", "IDENTITY"):
        if column not in table:
            raise HTRError(f"{path} has no column {column}; it has {printable(', '.join(table.columns), 200)}")
        swallowed = table[column].str.contains("\n[^\n]*[,;\t]", regex=True)
        if swallowed.any():
            cell = table[column][swallowed.idxmax()].split("\n")[0]
            raise HTRError(
                f"{path}, line {swallowed.idxmax() + 2}: a quote is opened before {printable(cell, 80)!r} and closed"
                " only in a later row; remove it, or double it"
            )
    return table[["FILENAME", "IDENTITY"]]


# ----------------------------------------------------------------------------------------------- dataset


def _first_existing(candidates: Sequence[Path], what: str) -> Path:
    for path in candidates:
        if path.exists():
            return path
    tried = ", ".join(str(path) for path in candidates)
    raise HTRError(
        f"no {what} found; tried {tried}; {WHERE_TO_GET_IT}: name its folder with --data-dir, or use --demo to draw"
        " a small dataset without a download"
    )


def find_labels(data_dir: str | os.PathLike, split: str) -> Path:
    """The label CSV of `split` (train, validation, test) in either layout. Raises HTRError with all paths tried."""
    names = (f"written_name_{split}.csv", f"written_name_{split}_v2.csv")
    folders = (Path(data_dir, "CSV"), Path(data_dir))
    return _first_existing([folder / name for folder in folders for name in names], f"label file of the {split} set")


def find_images(data_dir: str | os.PathLike, split: str) -> Path:
    """The image folder of `split`, nested or flat. Raises HTRError with all paths tried."""
    folders = [Path(data_dir, f"{split}_v2", split), Path(data_dir, f"{split}_v2")]
    return _first_existing(folders, f"image folder of the {split} set")


class Listing(NamedTuple):
    """What lies below a folder; sorted paths relative to it, with forward slashes."""

    files: list[str]
    links: set[str]  # those of the files that are links
    linked_folders: list[str]  # not searched: they may lead anywhere, or round and round
    odd_folders: list[str]  # those that cannot be searched, and empty ones that are named like an image


def list_files(folder: str | os.PathLike) -> Listing:
    """All files below `folder`. Raises HTRError where it cannot be searched itself."""
    found = Listing([], set(), [], [])
    waiting = [""]  # folders, with a slash at the end
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                empty = True
                for entry in entries:
                    name, empty = below + entry.name, False
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        found.linked_folders.append(name)
                    else:
                        found.files.append(name)
                        if entry.is_symlink():
                            found.links.add(name)
        except OSError as error:
            if not below:
                raise HTRError(f"{folder} cannot be searched: {error.strerror}") from error
            found.odd_folders.append(below[:-1])
        else:
            if empty and Path(below).suffix.lower() in IMAGE_SUFFIXES:
                found.odd_folders.append(below[:-1])
    for names in (found.files, found.linked_folders, found.odd_folders):
        names.sort()
    return found


def file_name(path: str | os.PathLike) -> str:
    """A path as text that can be written; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass
class Lines:
    """Pictures of lines with their texts, in memory.

    images: grey uint8 (H, W_i); texts: cleaned labels; filenames: as in the CSV;
    counts: what became of each row of the CSV, by reason; its values sum to the number of rows.
    """

    filenames: list[str]
    images: Pictures
    texts: list[str]
    counts: Counter

    def __len__(self) -> int:
        return len(self.images)

    def summary(self) -> str:
        parts = [f"{count:,} {reason}" for reason, count in self.counts.items() if count]
        return f"{sum(self.counts.values()):,} rows = " + " + ".join(parts)


def fingerprint(folder: Path, candidates: Sequence[tuple[str, str]], wanted: int, config: Config) -> str:
    """Changes whenever the pictures that `load_lines` takes would: with a file, a text or a setting."""
    settings = (PREPROCESSING, wanted, config.IMG_HEIGHT, config.MAX_SCALE, config.MAX_WIDTH)
    digest = hashlib.blake2b(repr(settings).encode())
    for filename, text in candidates:
        try:
            status = os.stat(f"{folder}/{filename}")
            state = (filename, text, status.st_size, status.st_mtime_ns)
        except OSError:
            state = (filename, text)
        digest.update(repr(state).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def load_lines(
    config: Config, split: str, num_samples: int, fits: Callable[[str, int], bool], in_memory: int = IN_MEMORY
) -> Lines:
    """Read `num_samples` random usable lines of a split (0 = all), the same ones for the same seed.

    `fits(text, width)` says whether a text can be aligned with a picture of that width. Rows that are not usable are
    left out and counted by reason, among them links out of the dataset and files that were named before. More than
    `in_memory` pictures are kept in a file under CACHE_DIR. Raises HTRError where nothing is usable, or where more than
    5 % of the images are missing or unreadable.
    """
    csv, folder = find_labels(config.DATA_DIR, split), find_images(config.DATA_DIR, split)
    table = read_labels(csv)
    ignored = {clean_label(label, config.UPPERCASE) for label in config.IGNORED_LABELS}
    listing = list_files(folder)
    present = {file_name(path): path for path in listing.files}
    roots = [os.path.realpath(root) for root in (folder, config.DATA_DIR)]
    targets = ((path, Path(os.path.realpath(folder / path))) for path in listing.links)  # also of a link to itself
    outside = {file_name(path) for path, target in targets if not any(map(target.is_relative_to, roots))}

    ignored_reason = "/".join(config.IGNORED_LABELS)
    counts = Counter({"used": 0, "not drawn": 0, "blank": 0, ignored_reason: 0})  # in the order they are told
    candidates, missing, named = [], [], set()
    for filename, label in zip(table["FILENAME"], table["IDENTITY"], strict=True):
        text = clean_label(label, config.UPPERCASE)
        if not text:
            counts["blank"] += 1
        elif text in ignored:
            counts[ignored_reason] += 1
        elif filename in named:
            counts["named before"] += 1
        elif filename not in present or filename in outside:
            missing.append(filename)
        else:
            candidates.append((present[filename], text))
        named.add(filename)
    links = f" ({len(outside):,} files there are links out of it)" if outside else ""
    if len(missing) > MOST_LOST * max(1, len(missing) + len(candidates)):
        raise HTRError(
            f"{len(missing):,} of the {len(missing) + len(candidates):,} images that {csv} names are not in {folder},"
            f" {printable(missing[0], 200)} among them{links}: complete the folder, or name another with --data-dir"
        )

    # Rows in a random order, taken one by one until enough are usable: a random sample of the usable rows
    # without reading the others' pictures.
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(config.SEED)).tolist()
    candidates = [candidates[i] for i in order]
    wanted = min(num_samples or len(order), len(order))
    used, unreadable, too_long = [], [], []  # places among the candidates

    def usable_images():
        images = read_images([folder / filename for filename, _ in candidates], config, config.WORKERS)
        bar = tqdm(images, f"reading {split} images", wanted, unit="img", leave=False, disable=None)
        for i, image in enumerate(bar):
            if isinstance(image, ImageError):
                unreadable.append((i, str(image)))
            elif not fits(candidates[i][1], image.shape[1]):
                too_long.append(i)
            else:
                used.append(i)
                yield image
            if len(used) == wanted:
                break

    if wanted <= in_memory:
        images = Pictures.of(usable_images())
    else:
        cache, key = Path(CACHE_DIR, f"{split}.pictures"), fingerprint(folder, candidates, wanted, config)
        kept = Pictures.mapped(cache, key)
        if kept is None:
            with only_writer(cache, wait=True):  # another run may be writing the same
                kept = Pictures.mapped(cache, key)
                if kept is None:
                    facts = {"used": used, "unreadable": unreadable, "too_long": too_long}
                    Pictures.write(cache, key, usable_images(), facts)
                    kept = Pictures.mapped(cache, key)
            if kept is None:
                raise HTRError(f"{cache} changed while it was written: run again")
        images, facts = kept
        used, unreadable, too_long = facts["used"], facts["unreadable"], facts["too_long"]
        print(f"{split}: {len(images):,} pictures in {cache}, {images.data.numel() / 1e9:.1f} GB")
    lines = Lines([candidates[i][0] for i in used], images, [candidates[i][1] for i in used], counts)
    read = len(lines) + len(unreadable) + len(too_long)
    counts["used"] = len(lines)
    counts["not drawn"] = len(candidates) - read
    counts["image missing"] = sum(filename not in outside for filename in missing)
    counts["link out of the dataset"] = len(missing) - counts["image missing"]
    counts["image unreadable"] = len(unreadable)
    counts["label too long for its image"] = len(too_long)
    if len(unreadable) > MOST_LOST * max(1, read):
        first, reason = unreadable[0]
        raise HTRError(
            f"{len(unreadable):,} of {read:,} images in {folder} are unreadable,"
            f" {printable(candidates[first][0], 200)} ({reason}) among them: copy or unpack the dataset again"
        )
    if not lines:
        raise HTRError(f"{csv} has no usable row: {lines.summary()}")
    return lines


# ----------------------------------------------------------------------------------------------- batches


def batches_by_width(widths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Random batches of similar width: all indices once, in an order that depends on (seed, epoch) alone.

    The shuffled indices are sorted by width within pools of 20 batches, so little is padded, and the batches are
    shuffled again.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(widths), generator=generator).tolist()
    pool = 20 * batch_size
    batches = []
    for start in range(0, len(order), pool):
        by_width = sorted(order[start : start + pool], key=lambda i: widths[i])
        batches += [by_width[i : i + batch_size] for i in range(0, len(by_width), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def to_ink(image: Tensor) -> Tensor:
    """Grey uint8 (..., H, W) to float ink in [0, 1], paper = 0."""
    return image.float().mul_(-1 / 255).add_(1)


def padded_width(widths: Iterable[int]) -> int:
    """The width of a batch: few different ones, so that what is set up for a shape is used again."""
    return math.ceil(max(widths) / WIDTH_STEP) * WIDTH_STEP


def collate(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put grey uint8 lines (H, W_i) on paper of one width. Returns float ink (N, 1, H, W) and widths (N,) int64."""
    widths = [image.shape[1] for image in images]
    batch = torch.full((len(images), 1, images[0].shape[0], padded_width(widths)), 255, dtype=torch.uint8)
    for row, image in zip(batch, images, strict=True):
        row[0, :, : image.shape[1]] = image
    return to_ink(batch), torch.tensor(widths)
