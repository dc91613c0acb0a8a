"""The dataset: which labelled lines there are, a random sample of them, and batches. Works on text, not on label ids.

A line is grey uint8 (H, W) of fixed height and its own width, white paper = 255. A batch is float ink (N, 1, H, W):
0 is paper and 1 is ink, so zero padding is background. Imports PyTorch where lines are drawn and batches made, so that
the rest works without.
"""

import contextlib
import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from config import Config
from htr.pictures.cutting import PageLine, PagePicture
from htr.pictures.images import PREPROCESSING, Geometry, ImageError, Part, read_images
from htr.pictures.views import View
from htr.system.files import file_name, links_out, list_files, only_writer
from htr.system.names import Matches, Pictures
from htr.system.progress import Progress, counted
from htr.system.scripts import HTRError, printable
from htr.texts.labels import Columns, LabelRules
from htr.texts.pages import PageRules, picture_of
from htr.texts.sources import Source, find_source, first_existing, kaggle_folders, kaggle_tables

if TYPE_CHECKING:
    from torch import Tensor

    from htr.pictures.packed import PackedImages

IN_MEMORY = 20_000  # images of a larger set are kept in a file, which is mapped
LINE_COST = 100  # such images to a line of a page, which takes longer to make
CACHE_DIR = "htr_cache"  # the folder of that file, in the current folder
WIDTH_STEP = 16  # pixels; widths of batches are multiples of it
WIDE = 512  # pixels, from which on there are fewer images in a batch and fewer widths
SAMPLED_BYTES = 200  # files whose bytes tell data apart, beside the sizes of all
MOST_VALIDATED = 1000  # lines of a source without a split
FEWEST_RARE = 1000  # lines, from which on characters can be rare
MOST_LOST = 0.05  # share of missing or unreadable images above which training stops

Fits = Callable[[str, int], bool]  # whether a text can be aligned with an image of that width


def geometry(config: Config) -> Geometry:
    """How the network wants its lines."""
    view = View(config.VIEW_WIDTH, config.VIEW_SLANT)
    return Geometry(config.IMG_HEIGHT, config.MAX_SCALE, config.MAX_WIDTH, config.LEVELS, view)


def columns_named(config: Config) -> Columns:
    """The columns of label tables that the user names."""
    return Columns(config.PICTURE_COLUMN, config.TEXT_COLUMN)


def label_rules(config: Config) -> LabelRules:
    """How labels are cleaned."""
    return LabelRules(config.UPPERCASE, config.IGNORED_LABELS)


# ------------------------------------------------------------------------------------------------- files


def find_labels(data_dir: str | os.PathLike, split: str) -> Path:
    """The Kaggle dataset's label CSV of `split` (train, validation, test). Raises HTRError with all paths tried."""
    return first_existing(kaggle_tables(data_dir, split), f"label file of the {split} set")


def find_images(data_dir: str | os.PathLike, split: str) -> Path:
    """The Kaggle dataset's image folder of `split`, nested or flat. Raises HTRError with all paths tried."""
    return first_existing(kaggle_folders(data_dir, split), f"image folder of the {split} set")


# ------------------------------------------------------------------------------------------------- lines


@dataclass
class Lines:
    """Images of lines with their texts.

    images: grey uint8 (H, W_i); texts: cleaned labels; filenames: as in the CSV;
    counts: what became of each row of the table, by reason; its values sum to the number of rows. key: changes with the
    texts and pictures, on whatever machine they are. labels: how often each text occurs in all rows of the split.
    source: where they come from. rare: the characters for which lines were left out.
    """

    filenames: list[str]
    images: "PackedImages"
    texts: list[str]
    counts: Counter
    key: str = ""
    labels: Counter = field(default_factory=Counter)
    source: Source | None = None
    rare: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def origin(self, validation: "Lines", seed: int) -> str:
        """How the data was understood, of a training and a validation set."""
        if self.source.whole:
            tenth = "a tenth, in whole documents," if self.source.lines else "a tenth"
            return f"{self.source}, of which {tenth} validates, drawn with seed {seed}"
        return f"{self.source}; validation: {validation.source}"

    def summary(self) -> str:
        parts = [f"{count:,} {reason}" for reason, count in self.counts.items() if count]
        return f"{sum(self.counts.values()):,} {self.source.unit} = " + " + ".join(parts)


class Candidate(NamedTuple):
    """A picture that has a text. name: of its file below the source's folder, or of its line. path: where it is."""

    name: str
    text: str
    path: "str | PageLine"


@dataclass
class Sample:
    """The outcome of drawing lines: positions among the candidates of those used and of those found unusable."""

    used: list[int] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)  # with the reason
    too_long: list[int] = field(default_factory=list)
    pages: int = 0  # after the first, in the files used

    @property
    def read(self) -> int:
        return len(self.used) + len(self.unreadable) + len(self.too_long)


def load_lines(
    config: Config, split: str, num_samples: int, fits: Fits, in_memory: int = IN_MEMORY, known: str = ""
) -> Lines:
    """Read `num_samples` random usable lines of a split (0 = all), the same ones for the same seed.

    Rows that are not usable are left out and counted by reason, among them links out of the dataset and files named
    before. More than `in_memory` images, or a hundredth of it in lines of pages, are kept in a file under CACHE_DIR.
    known: the characters that are not rare, however often they occur. Raises HTRError where nothing is usable, or where
    more than 5 % of the images are missing or unreadable.
    """
    import torch

    from htr.pictures.packed import PackedImages

    rules = PageRules(config.PRINTED, config.MARKED, config.FOLLOW_LINKS)
    source = find_source(config.DATA_DIR, split, columns_named(config), rules)
    candidates, counts, labels, rare = labelled_images(config, source, split, known)
    # In a random order, read one by one until enough are usable: a random sample of the usable rows without reading
    # the images of the others.
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(config.SEED)).tolist()
    wanted = min(num_samples or len(order), len(order))
    candidates = page_by_page([candidates[i] for i in order], wanted)

    sample = Sample()
    images = usable_images(config, candidates, wanted, fits, sample)
    images = counted(images, Progress(f"reading {split} images", wanted))
    if wanted * (LINE_COST if source.lines else 1) <= in_memory:
        packed = PackedImages.of(images)
    else:
        packed, sample = keep_in_file(split, fingerprint(config, candidates, wanted), images, sample)
    used = [candidates[i] for i in sample.used]
    names, texts = [each.name for each in used], [each.text for each in used]
    lines = Lines(names, packed, texts, counts, key_of(used), labels, source, rare)
    if sample.pages:
        print(f"{split}: {sample.pages:,} pages after the first of a file, not read")
    counts["used"] = len(lines)
    counts["not drawn"] = len(candidates) - sample.read
    counts["image unreadable"] = len(sample.unreadable)
    counts["label too long for its image"] = len(sample.too_long)
    if len(sample.unreadable) > MOST_LOST * max(1, sample.read):
        first, reason = sample.unreadable[0]
        raise HTRError(
            f"{len(sample.unreadable):,} of {sample.read:,} images in {source.folder} are unreadable, among them"
            f" {printable(candidates[first].name, 200)} ({reason}): copy or unpack the dataset again"
        )
    if not lines:
        raise HTRError(f"{source.name} has no usable {source.unit[:-1]}: {lines.summary()}")
    return lines


def labelled_images(
    config: Config, source: Source, split: str, known: str = ""
) -> tuple[list[Candidate], Counter, Counter, str]:
    """The rows of a split whose image is there.

    Also returns what became of the other rows, how often each text occurs in the split, and the characters for which
    rows were left out. Raises HTRError where more than 5 % of the images are missing.
    """
    rules, ignored_reason = label_rules(config), "/".join(config.IGNORED_LABELS)
    counts = Counter({"used": 0, "not drawn": 0, "blank": 0, ignored_reason: 0})  # in the order of the summary
    rows = []
    for filename, label in source.rows:
        text = rules.clean(label)
        if rules.hold_text(text):
            rows.append((filename, text))
        else:
            counts[ignored_reason if text else "blank"] += 1
    labels, rare = Counter(text for _, text in rows), ""
    find = page_lines if source.lines else matching_files
    candidates = find(config, source, rows, counts)
    counts.update(source.left_out)
    if source.whole:
        candidates, others, counts_as = split_of(candidates, split, config.SEED, source)
        counts[counts_as] = len(others)
        labels -= Counter(each.text for each in others)
    if source.lines:
        rare = rare_characters((text for _, text in rows), config.RARE_CHARACTERS, known)
    if rare and split == "train":
        plain = [each for each in candidates if not set(each.text) & set(rare)]
        counts["with a rare character"] = len(candidates) - len(plain)
        candidates = plain
    return candidates, counts, labels, rare


def matching_files(config: Config, source: Source, rows: Sequence[tuple[str, str]], counts: Counter) -> list[Candidate]:
    """The files that rows (name, text) mean; counts those that mean none."""
    folder, listing = source.folder, list_files(source.folder, config.FOLLOW_LINKS)
    names = [file_name(path) for path in listing.files]
    outside = set() if config.FOLLOW_LINKS else set(map(file_name, links_out(listing, folder, config.DATA_DIR)))
    files = [(name, folder / path) for name, path in zip(names, listing.files, strict=True)]
    matches = Pictures(files, ([source.base], [folder], [config.DATA_DIR])).match(name for name, _ in rows)
    candidates, named = [], set()
    for place, (_, text) in zip(matches.places, rows, strict=True):
        if place is None:
            continue
        if place in named:
            counts["named before"] += 1
        elif names[place] in outside:
            counts["link out of the dataset"] += 1
        else:
            candidates.append(Candidate(listing.files[place], text, f"{folder}/{listing.files[place]}"))
        named.add(place)
    counts["image missing"] = len(matches.unknown)
    counts["link out of the dataset"] += 0  # named even where there is none
    if matches.ambiguous:
        counts["name that fits several images"] = len(matches.ambiguous)
    if listing.linked_folders:
        print(f"linked folders in {folder} not searched: {len(listing.linked_folders):,}; --follow-links searches them")
    check_missing(source, matches, len(candidates), counts["link out of the dataset"], names)
    return candidates


def page_lines(config: Config, source: Source, rows: Sequence[tuple[str, str]], counts: Counter) -> list[Candidate]:
    """The lines of pages that rows (name, text) mean; counts those whose page cannot be read.

    Raises HTRError where these are more than 5 %.
    """
    pictures: dict[int, PagePicture | HTRError] = {}
    candidates, scaled, lost = [], 0, sum(count for *_, count in source.pages.lost)
    for name, text in rows:
        page, line = source.lines.of[name]
        if page not in pictures:
            described = source.pages.described[page]
            try:
                pictures[page] = picture_of(described)
                scaled += described.page.is_scaled_to(pictures[page].size)
            except HTRError as error:
                pictures[page] = error
        if isinstance(pictures[page], HTRError):
            counts["of a page that cannot be read"] += 1
        else:
            candidates.append(Candidate(name, text, PageLine(name, pictures[page], line)))
    reasons = [reason for reason in pictures.values() if isinstance(reason, HTRError)]
    lost += counts["of a page that cannot be read"]
    if lost > MOST_LOST * (lost + len(candidates)):
        reason = [*reasons, *(reason for _, reason, _ in source.pages.lost)][0]
        raise HTRError(f"{lost:,} of the {lost + len(candidates):,} lines in {source.name} are of no use: {reason}")
    source.notes += [f"pages that cannot be read: {len(reasons):,}, such as {reasons[0]}"] if reasons else []
    if scaled:
        source.notes.append(f"pages whose picture has another size than their file says, scaled: {scaled:,}")
    return candidates


def rare_characters(texts: Iterable[str], most: int, known: str) -> str:
    """The characters that occur `most` times or less in many texts, but for those that are known; "" in few texts."""
    texts = list(texts)
    counts = Counter(itertools.chain.from_iterable(texts)) if len(texts) >= FEWEST_RARE else Counter()
    return "".join(sorted(each for each, count in counts.items() if count <= most and each not in known))


def page_by_page(candidates: list[Candidate], wanted: int) -> list[Candidate]:
    """Candidates in the order in which they are read: of those wanted first, all lines of a page after each other."""
    if not any(isinstance(each.path, Part) for each in candidates[:1]):
        return candidates
    ordered, step = [], max(1, wanted)
    while len(ordered) < len(candidates):
        several = candidates[len(ordered) : len(ordered) + step]
        first = {}
        for n, each in enumerate(several):
            first.setdefault(id(each.path.whole), n)
        ordered += sorted(several, key=lambda each: first[id(each.path.whole)])
        step = max(1, wanted // 20)  # in the place of those that turn out to be of no use
    return ordered


def check_missing(source: Source, matches: Matches, found: int, links: int, names: Sequence[str]) -> None:
    """Say which rows name no image. Raises HTRError where these are more than 5 %."""
    lost = len(matches.unknown) + len(matches.ambiguous) + links
    if lost > MOST_LOST * max(1, lost + found):
        reasons = matches.lines(names, "rows")
        if links:
            reasons.append(f"files that are links out of it: {links:,}, which --follow-links reads nevertheless")
        raise HTRError(
            f"{lost:,} of the {lost + found:,} images that {source.name} names are not in {source.folder}:"
            f" {printable('; '.join(reasons))}: complete the folder, or name another with --data-dir"
        )
    for line in matches.lines(names, "rows"):
        print(f"{Path(source.name).name}: {printable(line)}")


def split_of(
    candidates: Sequence[Candidate], split: str, seed: int, source: Source
) -> tuple[list[Candidate], list[Candidate], str]:
    """One set of lines that have no split, the others, and what these count as.

    A tenth validates: of pictures, 1 at least and 1,000 at most; of pages, whole documents, as far as their names tell.
    Which ones depends on the seed and their names alone, so that a line keeps its set when others are added, as far as
    possible. Raises HTRError where there are fewer than 2 lines.
    """
    if len(candidates) < 2:
        raise HTRError(
            f"there are {len(candidates)} labelled {'lines' if source.lines else 'images'}, of which none can be kept"
            " for validation: label at least 2"
        )

    def drawn(names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode(errors="replace")).digest())

    documents = source.lines.documents if source.lines else {}
    sizes = Counter(documents.get(each.name, each.name) for each in candidates)
    if len(sizes) > 1 and documents:
        enough = round(len(candidates) / 10)
    else:  # pictures, or the lines of a single document
        documents, sizes = {}, Counter(each.name for each in candidates)
        enough = min(MOST_VALIDATED, max(1, round(len(candidates) / 10)))
    kept, count = set(), 0
    for name in drawn(sizes)[:-1]:
        if count >= enough:
            break
        kept.add(name)
        count += sizes[name]
    validation = [each for each in candidates if documents.get(each.name, each.name) in kept]
    train = [each for each in candidates if documents.get(each.name, each.name) not in kept]
    return (train, validation, "kept for validation") if split == "train" else (validation, train, "for training")


def usable_images(
    config: Config, candidates: Sequence[Candidate], wanted: int, fits: Fits, sample: Sample
) -> Iterator[np.ndarray]:
    """Decode candidates in their order until `wanted` are usable; yields these, and records all in `sample`."""
    images = read_images([each.path for each in candidates], geometry(config), config.WORKERS)
    for i, image in enumerate(images):
        if isinstance(image, ImageError):
            sample.unreadable.append((i, str(image)))
        elif not fits(candidates[i].text, image.pixels.shape[1]):
            sample.too_long.append(i)
        else:
            sample.used.append(i)
            sample.pages += image.pages - 1
            yield image.pixels
        if len(sample.used) == wanted:
            break


def keep_in_file(split: str, key: str, images: Iterable[np.ndarray], sample: Sample) -> "tuple[PackedImages, Sample]":
    """Decode images into a file under CACHE_DIR, or map the file that an earlier run left, with the sample it drew.

    Raises HTRError where the file cannot be written.
    """
    from htr.pictures.packed import PackedImages

    cache = Path(CACHE_DIR, f"{split}.pictures")
    kept = PackedImages.mapped(cache, key)
    if kept is None:
        with only_writer(cache, wait=True):  # another run may be writing the same
            kept = PackedImages.mapped(cache, key)
            if kept is None:
                PackedImages.write(cache, key, images, vars(sample))
                kept = PackedImages.mapped(cache, key)
        if kept is None:
            raise HTRError(f"{cache} changed while it was being written: run again")
    packed, facts = kept
    print(f"{split}: {len(packed):,} pictures in {cache}, {packed.data.numel() / 1e9:.1f} GB")
    return packed, Sample(**facts)


def state_of(path: str | PageLine) -> tuple:
    """What changes when an image does: the size and time of its file, and where in it a line lies."""
    try:
        status = os.stat(path.files[0] if isinstance(path, PageLine) else path)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, path.place_key() if isinstance(path, PageLine) else ""


def fingerprint(config: Config, candidates: Sequence[Candidate], wanted: int) -> str:
    """Changes whenever the images that `load_lines` takes would: with a file, a text or a setting."""
    settings = (PREPROCESSING, wanted, config.FRAME_WIDTH, *geometry(config))
    digest = hashlib.blake2b(repr(settings).encode())
    for each in candidates:
        digest.update(repr((each.name, each.text, *state_of(each.path))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def key_of(lines: Sequence[Candidate]) -> str:
    """Changes with the texts, and with the sizes of the pictures' files and the bytes of some of them."""
    digest, step = hashlib.blake2b(digest_size=16), max(1, len(lines) // SAMPLED_BYTES)
    for n, each in enumerate(lines):
        path = each.path.files[0] if isinstance(each.path, PageLine) else each.path
        with contextlib.suppress(OSError):
            digest.update(repr((each.text, os.stat(path).st_size)).encode("utf-8", "surrogateescape"))
            if isinstance(each.path, PageLine):
                digest.update(each.path.place_key().encode())
            if n % step == 0:
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------- batches


def batches_by_width(widths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Random batches of similar width: every index once, in an order that depends on (seed, epoch) alone.

    The shuffled indices are sorted by width within pools of 20 batches, so that there is little padding, and the
    batches are shuffled again.
    """
    import torch

    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(widths), generator=generator).tolist()
    pool = 20 * batch_size
    batches = []
    for start in range(0, len(order), pool):
        by_width = sorted(order[start : start + pool], key=lambda i: widths[i])
        batches += batches_in_order(by_width, widths, batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def batches_in_order(order: Sequence[int], widths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in their order, in batches of at most so many.

    Those wider than WIDE are halved until they hold no more than a whole one of that width, which bounds memory.
    """
    whole = (list(order[start : start + batch_size]) for start in range(0, len(order), batch_size))
    return [part for batch in whole for part in halved(batch, widths, WIDE * batch_size)]


def halved(batch: list[int], widths: Sequence[int], most: int) -> list[list[int]]:
    """A batch in parts of no more than `most` pixels of width, all images of a part padded alike."""
    if len(batch) == 1 or len(batch) * padded_width(widths[i] for i in batch) <= most:
        return [batch]
    half = (len(batch) + 1) // 2
    return halved(batch[:half], widths, most) + halved(batch[half:], widths, most)


def to_ink(image: "Tensor") -> "Tensor":
    """Grey uint8 (..., H, W) to float ink in [0, 1], paper = 0."""
    return image.float().mul_(-1 / 255).add_(1)


def padded_width(widths: Iterable[int]) -> int:
    """The width of a batch, one of few: what is set up for a shape is used again, and takes memory once.

    Multiples of 16 up to WIDE, of 64 up to 1,024, of 128 up to 2,048, and so on.
    """
    width = max(widths)
    step = WIDTH_STEP if width <= WIDE else 2 ** math.ceil(math.log2(width)) // 16
    return math.ceil(width / step) * step


def collate(images: Sequence[np.ndarray]) -> "tuple[Tensor, Tensor]":
    """Pad grey uint8 lines (H, W_i) to one width. Returns float ink (N, 1, H, W) and widths (N,) int64."""
    import torch

    widths = [image.shape[1] for image in images]
    batch = np.full((len(images), 1, images[0].shape[0], padded_width(widths)), 255, dtype=np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[0, :, : image.shape[1]] = image
    return to_ink(torch.from_numpy(batch)), torch.tensor(widths)
