"""Reads images with a trained network, and writes what it read: what predict.py runs."""

import contextlib
import dataclasses
import itertools
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config import Config
from dataset import geometry, label_rules
from htr.decoding.beam import beam_search
from htr.decoding.confidence import FLOOR, Calibration, Ngrams
from htr.decoding.ctc import Reading, candidate_log_probs, greedy_decode
from htr.decoding.language import Language, common_words, read_corpus, text_files
from htr.decoding.lexicon import Choice, Lexicon, Prior
from htr.decoding.patterns import Pattern, of_characters
from htr.decoding.words import found_confidences, own_confidences
from htr.pictures.cutting import PageLine
from htr.pictures.documents import PDF
from htr.pictures.finding import FEWEST, FoundLines, find_lines
from htr.pictures.images import Decoded, Found, Held, ImageError, find_files, is_of_page, read_images, shape_of
from htr.pictures.views import best_view
from htr.results.known import Known, known_labels
from htr.results.page_truth import PageTruth
from htr.results.report import LeastSure, LeastSurePages, write_report
from htr.results.scores import LABEL_COLUMNS, Truth
from htr.results.tables import Journal, Row, only_reading, write_predictions
from htr.results.transcripts import LINES, PAGE_COLUMNS, ReadPage, mark_folders, pages_to_read, write_page
from htr.system import parallel
from htr.system.progress import Progress, counted
from htr.system.scripts import HTRError, Interrupted, WrongUse, printable
from htr.texts.direction import RIGHT_TO_LEFT
from htr.texts.labels import Alphabet, Columns, LabelRules
from htr.texts.pages import Pages, pages_beside, xml_files
from utils import (
    Finder,
    Network,
    is_onnx,
    load_finder,
    load_network,
    memory_advice,
)

if TYPE_CHECKING:
    import torch

COLUMNS = ("FILENAME", "PREDICTION", "CONFIDENCE", "ERROR", "CHARACTER_CONFIDENCES", "WORD_CONFIDENCES")
CHOICE_COLUMNS = ("GREEDY", "RUNNER_UP", "RUNNER_UP_CONFIDENCE")
WINDOW = 256  # images that are sorted by width together
WEIGHED = 32  # images whose candidates are scored at once
SHOWN = 12  # readings in the summary
TRIED = 3  # lines of a page by which its right way up is known
SURE = 0.7  # mean confidence of their characters from which on it is not asked
LOOKED_AT = 3  # pictures that may be pages
SURER = 0.1  # by how much it is larger the other way up, where that is right

File = tuple[str, Any]  # the name in tables, and the path, as of `find_files`
MaybeImage = np.ndarray | ImageError  # grey uint8 (H, W), or why it could not be read


def pixels_of(images: Iterable[Decoded | ImageError]) -> list[MaybeImage]:
    """What `read_images` yields, without the number of pages."""
    return [image if isinstance(image, ImageError) else image.pixels for image in images]


# ----------------------------------------------------------------------------------------------- network


@dataclass
class Evidence:
    """What is known of one image: the greedy reading and, once it was weighed, all candidates.

    log_probs: (T, C) float32. likelihoods: log P(candidate | image), within its pattern. features: of a prior,
    (len(candidates) + 1, htr.decoding.lexicon.FEATURES).
    """

    text: str
    reading: Reading
    log_probs: np.ndarray
    candidates: list[str] = field(default_factory=list)
    likelihoods: list[float] = field(default_factory=list)
    features: np.ndarray | None = None


@dataclass
class Reader:
    """A trained network with all that its file says about images, characters and confidence.

    prior and prior_calibration are set if it reads with a lexicon or by spelling. pattern: what texts may consist of;
    patterns: the same, by the names of files that have one of their own.
    """

    network: Network
    alphabet: Alphabet
    config: Config
    calibration: Calibration | None = None
    prior: Prior | None = None
    prior_calibration: Calibration | None = None
    pattern: Pattern | None = None
    patterns: dict[str, Pattern] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        device: "str | torch.device | None" = "auto",
        lexicon: str | Path | None = None,
        spelling: bool = False,
        corpus: str | Path | None = None,
        language: str = "",
    ) -> "Reader":
        """corpus: text whose language counts beside that of the labels, see `htr.decoding.language.read_corpus`;
        language: the code of one whose common words do, see `common_words` there.

        Raises HTRError where the checkpoint or ONNX file cannot be used (see `load_network`), the lexicon or the corpus
        cannot be read, or the file was never fitted for one, or for spelling.
        """
        network, facts, config, alphabet = load_network(model_path, device)
        # A lexicon weighs spelling, too.
        way = "lexicon" if lexicon is not None else "spelling" if spelling or corpus or language else ""
        if way and way not in facts:
            raise HTRError(
                f"{model_path} was never fitted for reading {'by' if way == 'spelling' else 'with a'} {way}: fit it on"
                " labelled images with predict.py PATH --labels CSV --lexicon CSV --calibrate"
            )
        try:
            reader = cls(network, alphabet, config)
            if way or "calibration" in facts:
                reader.calibration = Calibration.restore(facts["calibration"])
            if way:
                fitted, trigrams = facts[way], reader.calibration.trigrams
                rules = label_rules(config)
                names = None if lexicon is None else Lexicon.load(lexicon, rules)
                ngrams = Ngrams.restore(fitted["ngrams"]) if names is None or "ngrams" in fitted else trigrams
                if corpus is not None:
                    texts = read_corpus(corpus, rules)
                    ngrams = ngrams.with_texts({alphabet.pictured(text): count for text, count in texts.items()})
                if language:
                    words = common_words(language, rules)
                    ngrams = ngrams.with_words({alphabet.pictured(word): count for word, count in words.items()})
                reader.prior = Prior(Language(ngrams, alphabet.characters), names, fitted["weights"])
                reader.prior_calibration = Calibration(trigrams, fitted["calibration"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise HTRError(f"{model_path} has a calibration that makes no sense: {error}") from error
        return reader

    def read(self, images: Sequence[np.ndarray]) -> list[Evidence]:
        """Read grey uint8 lines (H, W_i) greedily as one batch, one of `network.batches`."""
        log_probs, lengths = self.network(images)
        readings = enumerate(greedy_decode(log_probs, lengths))
        return [Evidence(self.alphabet.decode(r.labels), r, log_probs[: lengths[n], n]) for n, r in readings]

    def weigh(self, evidence: Sequence[Evidence], patterns: Sequence[Pattern | None] = ()) -> list[Evidence]:
        """What was read of images, with the texts that may be meant: those that a beam search finds by the prior's
        language and within each image's pattern, and the names of a lexicon that are close to what was read."""
        patterns = patterns or [None] * len(evidence)
        order = sorted(range(len(evidence)), key=lambda n: len(evidence[n].log_probs))
        parts = []
        for pattern in set(patterns):
            group = [n for n in order if patterns[n] is pattern]
            parts += [group[start : start + WEIGHED] for start in range(0, len(group), WEIGHED)]
        lexicon = self.prior.lexicon if self.prior else None
        known = lexicon.near([each.text for each in evidence]) if lexicon else [[]] * len(evidence)
        language = self.prior.language if self.prior else None

        def weighed(part: list[int]) -> list[Evidence]:
            several, pattern = [evidence[n] for n in part], patterns[part[0]]
            found = beam_search([each.log_probs for each in several], language, pattern)
            candidates = []
            for n, each, texts in zip(part, several, found, strict=True):
                others = [self.alphabet.encode(word) for word in known[n] if self.alphabet.knows(word)]
                labels = [each.reading.labels, *(text.labels for text in texts), *others]
                by_text: dict[str, list[int]] = {}
                for ids in labels:
                    if pattern is None or pattern.allows(ids):
                        by_text.setdefault(self.alphabet.decode(ids), ids)
                candidates.append(by_text)
            likelihoods = candidate_log_probs(*_stacked(several), [list(each.values()) for each in candidates])
            results = []
            for each, texts, values in zip(several, candidates, likelihoods, strict=True):
                total = pattern.ahead(each.log_probs)[0][0, pattern.start] if pattern and texts else 0.0
                possible = {text: value - total for text, value in zip(texts, values, strict=True) if value > -np.inf}
                features = None
                if self.prior:
                    spelling = language.text_log_probs([texts[text] for text in possible])
                    features = self.prior.features([*possible], [*possible.values()], spelling, each.text)
                results.append(
                    dataclasses.replace(
                        each, candidates=[*possible], likelihoods=[*possible.values()], features=features
                    )
                )
            return results

        with self.network.threads() as pool:
            found = itertools.chain(*pool.map(weighed, parts))
        of_place = dict(zip(itertools.chain(*parts), found, strict=True))
        return [of_place[n] for n in range(len(evidence))]

    def as_read(self, truth: str) -> str:
        """A text as it comes from a right reading: of several that look the same, one."""
        return self.alphabet.decode(self.alphabet.encode(truth)) if self.alphabet.knows(truth) else truth

    def choose(self, evidence: Evidence) -> Choice:
        """The text to take, and its calibrated probability."""
        if self.prior is None and evidence.likelihoods:
            return Choice.among(evidence.candidates, np.minimum(np.exp(evidence.likelihoods), 1).tolist())
        if self.prior is None:
            return Choice(evidence.text, self.greedy_confidence(evidence), "", 0.0)
        choice = self.prior.choose(evidence.candidates, evidence.features)
        probability = self.prior_calibration(choice.text, choice.probability)
        others = (1 - probability) / max(1 - choice.probability, FLOOR)  # the others share what is left
        return Choice(choice.text, probability, choice.runner_up, min(choice.runner_up_probability * others, 1.0))

    def greedy_confidence(self, evidence: Evidence) -> float:
        """The probability of the greedy reading, calibrated where the file says how."""
        own = evidence.reading.confidence
        return self.calibration(evidence.text, own) if self.calibration else own

    def characters(self, evidence: Evidence) -> list[float]:
        """The confidence of each character of the greedy reading, in the order of its text."""
        _, order = self.alphabet.decode_in_order(evidence.reading.labels)
        return [evidence.reading.label_confidences[place] for place in order]

    def words(self, evidence: Evidence, choice: Choice) -> list[float]:
        """The probability of each word of a text that `choose` took."""
        if len(choice.text.split()) < 2:
            return [choice.probability] * len(choice.text.split())
        own = own_confidences(evidence.text, self.characters(evidence), self.greedy_confidence(evidence))
        if not evidence.candidates:
            return own
        probabilities = self.prior.probabilities(evidence.features) if self.prior else np.exp(evidence.likelihoods)
        return found_confidences(choice.text, evidence.text, own, evidence.candidates, probabilities)

    def rows(self, files: Sequence[File], batch_size: int, workers: int) -> Iterator[Row]:
        """Read (name, path) pairs; yields a row of `columns` for each, in the order given.

        Holds the images of a few thousand files at most, however many there are. With several processes each reads
        every so many windows of files, and only the first one yields rows, those of all.
        """
        windows = windows_of(files)
        rank, world = parallel.rank(), parallel.world()
        paths = [path for window in windows[rank::world] for _, path in window]
        images = read_images(paths, geometry(self.config), workers)
        for first in range(0, len(windows), world):
            rows = []
            if first + rank < len(windows):
                window = windows[first + rank]
                rows = self.window_rows(window, [next(images) for _ in window], batch_size)
            for part in parallel.gather(rows) or []:
                yield from part

    def window_rows(self, files: Sequence[File], images: Sequence[Decoded | ImageError], batch_size: int) -> list[Row]:
        """A row of `columns`, and the number of its PAGES, for each image, read in batches of similar width."""
        rows = []
        patterns = [self.patterns.get(name, self.pattern) for name, _ in files]
        found = self.read_all(self.as_suits_pages(pixels_of(images), pages_of(files)), batch_size, patterns)
        for (name, _), image, evidence in zip(files, images, found, strict=True):
            if evidence is None:
                values = (name, "", "", str(image), "", "", "", "", "")
            else:
                choice = self.choose(evidence)
                values = (name, choice.text, round(choice.probability, 6), "")
                values += (_joined(self.characters(evidence)), _joined(self.words(evidence, choice)))
                values += (evidence.text, choice.runner_up, round(choice.runner_up_probability, 6))
            pages = 1 if isinstance(image, ImageError) else image.pages
            rows.append(dict(zip(self.columns, values, strict=False)) | {"PAGES": pages})
        return rows

    @property
    def columns(self) -> tuple[str, ...]:
        several = self.prior or self.pattern or self.patterns
        return COLUMNS + CHOICE_COLUMNS if several else COLUMNS

    def as_suits_pages(self, images: Sequence[MaybeImage], pages: Sequence[Hashable | None]) -> list[MaybeImage]:
        """Images in the view in which their page is read best, see `best_view`; those of no page (None) as they are."""
        places = defaultdict(list)
        for n, (image, page) in enumerate(zip(images, pages, strict=True)):
            if page is not None and not isinstance(image, ImageError):
                places[page].append(n)
        seen = list(images)
        for members in places.values():
            view = best_view([images[n] for n in members], self.texts_and_probabilities)
            for n in members:
                seen[n] = view.of(images[n])
        return seen

    def texts_and_probabilities(self, images: Sequence[np.ndarray]) -> list[tuple[str, float]]:
        """What is read greedily of images, and P(text | image)."""
        evidence = self.read_batches(images, self.network.in_batch)
        return [(each.text, each.reading.confidence) for each in evidence]

    def read_batches(self, images: Sequence[np.ndarray], batch_size: int) -> list[Evidence]:
        """Read images greedily, in the network's batches."""
        batches = self.network.batches([image.shape[1] for image in images], batch_size)
        with self.network.threads() as pool:
            readings = list(pool.map(lambda batch: self.read([images[i] for i in batch]), batches))
        found = dict(zip(itertools.chain(*batches), itertools.chain(*readings), strict=True))
        return [found[i] for i in range(len(images))]

    def read_all(
        self, images: Sequence[MaybeImage], batch_size: int, patterns: Sequence[Pattern | None] = ()
    ) -> list[Evidence | None]:
        """Read images, each within its pattern, in the network's batches; None for those that could not be read."""
        places = [i for i, image in enumerate(images) if not isinstance(image, ImageError)]
        evidence = self.read_batches([images[place] for place in places], batch_size)
        of_image = [patterns[place] for place in places] if patterns else [None] * len(places)
        weighed = [n for n, pattern in enumerate(of_image) if pattern or self.prior]
        found = self.weigh([evidence[n] for n in weighed], [of_image[n] for n in weighed])
        for n, each in zip(weighed, found, strict=True):
            evidence[n] = each
        of_place = dict(zip(places, evidence, strict=True))
        return [of_place.get(place) for place in range(len(images))]


def pages_of(files: Sequence[File]) -> list[Hashable | None]:
    """What the lines of one page have in common: the page, or the folder in which they were kept; None for others."""
    pages, kept = [], {}
    for _, path in files:
        page = None
        if isinstance(path, PageLine):
            page = id(path.whole)
        elif isinstance(path, Path):
            if path.parent not in kept:  # its first picture tells
                kept[path.parent] = is_of_page(path)
            page = path.parent if kept[path.parent] else None
        pages.append(page)
    return pages


def page_by_page(files: Sequence[File]) -> Iterator[list[File]]:
    """Files one by one, but the lines of a page together."""
    pairs = enumerate(zip(files, pages_of(files), strict=True))
    for _, group in itertools.groupby(pairs, key=lambda pair: (pair[1][1] is None and pair[0], pair[1][1])):
        yield [file for _, (file, _) in group]


def windows_of(files: Sequence[File]) -> list[list[File]]:
    """Files that are read together: WINDOW of them, or more, where that would split the lines of a page."""
    windows: list[list[File]] = []
    for several in page_by_page(files):
        if not windows or len(windows[-1]) >= WINDOW:
            windows.append([])
        windows[-1].extend(several)
    return windows


def _joined(confidences: Sequence[float]) -> str:
    return " ".join(f"{confidence:.4f}" for confidence in confidences)


def _stacked(evidence: Sequence[Evidence]) -> tuple[np.ndarray, np.ndarray]:
    """The frames of images as one (T, N, C), and their lengths."""
    lengths = np.array([len(each.log_probs) for each in evidence])
    log_probs = np.zeros((lengths.max(), len(evidence), evidence[0].log_probs.shape[1]), np.float32)
    for n, each in enumerate(evidence):
        log_probs[: lengths[n], n] = each.log_probs
    return log_probs, lengths


# ----------------------------------------------------------------------------------------------- reading


@dataclass
class Job:
    """What to read, with what, and where to write it.

    paths: images, folders, or pictures in memory (see `htr.pictures.images.Held`). output_dir: None writes nothing.
    labels: a table of true texts. lexicon: a table of known names. spelling: whether to weigh readings by how the
    training labels are spelled, or go on as running text. corpus: a file or folder of text, whose language is weighed
    with that of the labels; language: the code of one whose common words are. characters, pattern: what texts may
    consist of, see `set_patterns`. pages: whether each picture is a page, whose lines are read. find_lines: whether
    lines are found also where a file describes them. html, spreadsheet: write report.html, predictions.xlsx. resume:
    keep what a stopped run had read. calibrate: whether `fitting.calibrate_on` is asked for; reading itself does not
    look at it. device: a name or a torch.device. batch_size: None leaves it to the network. workers: threads that
    decode images. picture_column, text_column: of tables of labels, where several could be meant. Raises WrongUse where
    these contradict each other, and TypeError where they are of the wrong type.
    """

    model_path: str | Path
    paths: Sequence[Any]
    output_dir: str | Path | None = "output"
    labels: str | Path | None = None
    lexicon: str | Path | None = None
    spelling: bool = False
    corpus: str | Path | None = None
    language: str = ""
    characters: str = ""
    pattern: str | Path = ""
    pages: bool = False
    find_lines: bool = False
    html: bool = False
    spreadsheet: bool = False
    resume: bool = False
    calibrate: bool = False
    device: "str | torch.device | None" = "auto"
    batch_size: int | None = None
    workers: int = Config.WORKERS
    picture_column: str = ""
    text_column: str = ""

    def __post_init__(self):
        if self.find_lines and not self.pages:
            raise WrongUse("find_lines is for pages")
        if self.characters and self.pattern:
            raise WrongUse("a pattern says what characters there may be: give one of the two")
        if self.lexicon and (self.corpus or self.language):
            raise WrongUse("the names of a lexicon say how texts are spelled, not a corpus or language: leave one out")
        if self.output_dir is None and (self.html or self.spreadsheet or self.resume):
            raise WrongUse("html, spreadsheet and resume need a folder to write to")
        for name, least in (("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if name == "batch_size" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number, not {value!r:.80}")
            if value < least:
                raise WrongUse(f"{name} must be at least {least}, not {value}")
        if self.calibrate and is_onnx(self.model_path):
            raise WrongUse("an ONNX file cannot be calibrated: calibrate its checkpoint, and export that again")
        if self.calibrate and not self.labels:
            raise WrongUse("calibrate needs labels, the true texts of images that the network was not trained on")

    @property
    def has_patterns(self) -> bool:
        """Whether `pattern` is a table, with one for each picture."""
        return bool(self.pattern) and Path(self.pattern).is_file()


@dataclass
class Outcome:
    """What came of a job: figures for its summary, and a few of its rows."""

    job: Job
    found: Found
    pages: list[ReadPage] | None  # where the job is one of pages
    columns: tuple[str, ...]
    truth: Truth | None
    least_sure: LeastSure | None
    known: Known | None  # what is labelled already, where a page is written
    done: int = 0  # images with a row, of those in `found`
    new: int = 0  # of which were read by this run, not taken over from a stopped one
    seconds: float = 0.0
    pages_left: int = 0  # after the first, which are not read
    of_many_pages: str = ""  # the first file that has some
    shown: list[Row] = field(default_factory=list)  # the first readings
    failed: list[str] = field(default_factory=list)  # a line for each image that could not be read
    perhaps_pages: list[tuple[str, Path]] = field(default_factory=list)  # (name, path), by shape and confidence

    def add(self, row: Row, path: Path) -> None:
        self.done += 1
        if row.get("PAGES", 1) > 1:
            self.pages_left += row["PAGES"] - 1
            self.of_many_pages = self.of_many_pages or printable(row["FILENAME"], 200)
        if self.least_sure is not None:
            self.least_sure.add(row, path)
        if row["ERROR"]:
            self.failed.append(f"{printable(row['FILENAME'], 200)} {row['ERROR']}")
        elif self.pages is None and len(self.perhaps_pages) < LOOKED_AT and row["CONFIDENCE"] < 0.5:
            with contextlib.suppress(ImageError):
                width, height = shape_of(path).size
                if width < 3 * height and min(width, height) > 300:
                    self.perhaps_pages.append((printable(row["FILENAME"], 200), path))
        if not row["ERROR"] and len(self.shown) < SHOWN:
            self.shown.append(row)

    def page_among_lines(self) -> str:
        """The name of a picture that was read as a line and is a page, as far as some were looked at; or ""."""
        if not self.perhaps_pages:
            return ""
        finder = load_finder(self.job.model_path, self.job.device)
        pages = (name for name, path in self.perhaps_pages if len(find_lines(path, 0, finder).lines) >= FEWEST)
        return next(pages, "")

    def examples(self) -> list[str]:
        """The first readings, a line each."""
        lines = []
        for row in self.shown:
            right = {"yes": "  right", "no": f"  not {printable(row.get('TRUTH', ''))}"}.get(row.get("RIGHT"), "")
            name, text = printable(row["FILENAME"]), printable(row["PREDICTION"])
            lines.append(f"{name}  {text}  (confidence {row['CONFIDENCE']:.2f}){right}")
        return lines + ["..."] * (self.done > len(self.shown) + len(self.failed))

    def summary(self) -> list[str]:
        """What was read, how fast, what was passed over, and the scores."""
        model_path, total = Path(self.job.model_path), len(self.found.files)
        if model_path.is_relative_to(Path.cwd()):
            model_path = model_path.relative_to(Path.cwd())
        read, speed = total - len(self.failed), self.new / self.seconds
        what = "images" if self.pages is None else "lines"
        of_pages = "" if self.pages is None else f" of {sum(not page.error for page in self.pages):,} pages"
        read_with = printable(str(model_path))
        lines = [f"read {read:,} of {total:,} {what}{of_pages} with {read_with}, {speed:.0f} {what}/s"]
        blank = Counter(page.found is None for page in self.pages or () if not page.error and not page.lines)
        if blank[True]:
            lines.append(f"pages whose file has no lines: {blank[True]:,}; --find-lines looks for some")
        if blank[False]:
            lines.append(f"pages on which no lines were found: {blank[False]:,}")
        turned = Counter(page.found.turned for page in self.pages or () if page.found and page.found.turned)
        lines += [f"pages turned by {degrees} degrees, read upright: {count:,}" for degrees, count in turned.items()]
        found = sum(page.found is not None for page in self.pages or ())
        if found and not self.job.find_lines:
            lines.append(f"pages whose lines were found, as no ALTO or PAGE file has them: {found:,}")
        if scaled := sum(not page.error and page.page.is_scaled_to(page.whole.size) for page in self.pages or ()):
            lines.append(f"pages whose picture has another size than their file says, scaled: {scaled:,}")
        if self.new < total:
            lines.append(f"of these, read by the run before: {total - self.new:,}")
        if self.found.others:
            lines.append(f"files passed over, as no images: {self.found.others:,}")
        if self.found.again:
            lines.append(f"images reached a second time, read once: {self.found.again:,}")
        if self.pages_left:
            some = f"{self.pages_left:,} ({self.of_many_pages} has some)"
            lines.append(f"pages after the first of a file, not read: {some}; --pages reads all")
        if name := self.page_among_lines():
            lines.append(f"{name} looks like a page of several lines: --pages reads such pictures")
        if self.found.linked_folders:
            lines.append(f"linked folders not searched: {self.found.linked_folders:,}; to read them, too, name them")
        if self.truth:
            lines += [printable(note) for note in self.truth.notes] + self.truth.lines()
        return lines


def read(job: Job, keep: Callable[[Row], Any] = lambda row: None) -> Outcome:
    """Read all images of a job and write the tables and the page that it asks for; calls `keep` with each row.

    Of several processes, only the first one has rows and writes. Raises HTRError where a file or the device cannot be
    used, and Interrupted on Ctrl-C, SIGTERM or SIGHUP: what was read by then is kept for another job with `resume`.
    """
    reader = Reader.load(job.model_path, job.device, job.lexicon, job.spelling, job.corpus, job.language)
    found, pages = found_of(job, reader)
    set_patterns(reader, job, found)
    if reader.prior and reader.prior.lexicon:
        print(reader.prior.lexicon.summary(reader.alphabet.knows))
    truth = truth_of(job, found, pages, reader.config) if job.labels else None
    columns = reader.columns + (LABEL_COLUMNS if truth else ()) + (PAGE_COLUMNS if pages is not None else ())
    known = known_of(job, found, truth, reader.config) if job.html else None
    least_sure = None if not job.html else LeastSure() if pages is None else LeastSurePages(pages)
    outcome = Outcome(job, found, pages, columns, truth, least_sure, known)
    with contextlib.ExitStack() as stack:
        if parallel.rank() == 0 and job.output_dir:
            stack.enter_context(only_reading(job.output_dir))
            if pages is not None:
                mark_folders(Path(job.output_dir))
        stack.enter_context(memory_advice(job.batch_size or reader.network.in_batch))
        started = time.perf_counter()
        rows = stack.enter_context(contextlib.closing(written_rows(reader, outcome)))
        rows = counted(rows, Progress("reading", len(found.files)))
        try:
            for (_, path), row in zip(found.files, rows, strict=parallel.rank() == 0):
                outcome.add(row, path)
                keep(row)
        except KeyboardInterrupt as stop:
            signum = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
            what = "images" if pages is None else "lines"
            message = f"stopped after {outcome.done:,} of {len(found.files):,} {what}"
            resumable = ": the same command with --resume reads the rest" if job.output_dir else ""
            raise Interrupted(signum, message + resumable) from None
        outcome.seconds = time.perf_counter() - started
        if job.html and parallel.rank() == 0:
            write_html(outcome)
    return outcome


def found_of(job: Job, reader: Reader | None = None) -> tuple[Found, list[ReadPage] | None]:
    """The images that a job reads and, where they are pages, these: then the images are their lines.

    reader: of the job, which sees what page is upside down; loaded where lines have to be found and none is given.
    """
    found = find_files(job.paths, PDF if job.pages else "")
    if not job.pages:
        return found, None
    pictures = [path for _, path in found.files if not isinstance(path, Held)]
    output_dir = Path(job.output_dir) if job.output_dir else None
    described = Pages() if job.find_lines else pages_beside(pictures, found.folders)
    pages = pages_to_read(found.files, described, output_dir)
    add_found_lines(pages, job, reader)
    files = [file for page in pages for file in page.files()]
    folders = [output_dir / LINES] if output_dir else []
    return found._replace(files=files, folders=folders, others=0), pages


def add_found_lines(pages: Sequence[ReadPage], job: Job, reader: Reader | None) -> None:
    """Find the lines of the pages that no file describes. Of several processes each finds those of some."""
    unknown = [page for page in pages if page.page is None and not page.error]
    if not unknown:
        return
    finder, reader = load_finder(job.model_path, job.device), reader or Reader.load(job.model_path, job.device)
    rank, world = parallel.rank(), parallel.world()
    share = unknown[rank::world]

    def found_on(page: ReadPage) -> FoundLines | str:
        try:
            return found_lines(page, finder, reader)
        except ImageError as error:
            return str(error)

    with finder.threads() as pool:
        found = list(counted(pool.map(found_on, share), Progress("finding lines", len(share))))
    parts = parallel.from_first(parallel.gather(found))
    output_dir = Path(job.output_dir) if job.output_dir else None
    for n, page in enumerate(unknown):
        lines = parts[n % world][n // world]
        if isinstance(lines, str):
            page.error = lines
        else:
            page.set_found(lines, output_dir)


def found_lines(page: ReadPage, finder: Finder, reader: Reader) -> FoundLines:
    """The lines of a page, the other way up where that way the longest are read with more confidence."""

    def confidence(found: FoundLines) -> float:
        """The mean of the characters' confidences, 0 where none are read."""
        tried = dataclasses.replace(page)
        tried.set_found(found, None)
        longest = sorted(tried.lines, key=lambda line: line.band.right - line.band.left)[-TRIED:]
        images = pixels_of(tried.whole.read(longest, geometry(reader.config)))
        readings = [reader.read([image])[0].reading for image in images if not isinstance(image, ImageError)]
        return float(np.mean([each for reading in readings for each in reading.label_confidences] or [0.0]))

    found = find_lines(page.picture, page.number, finder)
    if len(found.lines) < TRIED or (as_it_is := confidence(found)) >= SURE:
        return found
    over = find_lines(page.picture, page.number, finder, (found.turned + 180) % 360)
    return over if len(over.lines) >= TRIED and confidence(over) > as_it_is + SURER else found


def truth_of(job: Job, found: Found, pages: list[ReadPage] | None, config: Config) -> Truth:
    """The labels of a job's images: a table's or, of the lines of pages, also those of ALTO or PAGE files."""
    if pages is not None and xml_files(Path(job.labels)):
        return PageTruth(Path(job.labels), label_rules(config), pages)
    columns = Columns(job.picture_column, job.text_column)
    return Truth(job.labels, label_rules(config), found.files, found.folders, columns)


def set_patterns(reader: Reader, job: Job, found: Found) -> None:
    """Restrict what a job's texts may consist of: to `characters`, as in 0-9/., or to a regular expression, or by a
    table to one for each picture, in its column PATTERN. Says what of a table does not fit."""
    characters = reader.alphabet.characters
    if job.characters:
        reader.pattern = Pattern(of_characters(job.characters), characters)
    if not job.pattern:
        return
    if RIGHT_TO_LEFT.search(characters):
        raise HTRError(f"{job.model_path} reads from right to left, where a pattern has no order: use --characters")
    if not job.has_patterns:
        reader.pattern = Pattern(str(job.pattern), characters)
        return
    columns = Columns(job.picture_column, "PATTERN")
    table = Truth(job.pattern, LabelRules(uppercase=False), found.files, found.folders, columns)
    made = {expression: Pattern(expression, characters) for expression in set(table.labels.values())}
    reader.patterns = {name: made[expression] for name, expression in table.labels.items()}
    notes = [f"{job.pattern}: {note}" for note in table.notes]
    if free := len(found.files) - len(reader.patterns):
        notes.append(f"{job.pattern} has no pattern for {free:,} images, which are read without one")
    for note in notes:
        print(printable(note))


def written_rows(reader: Reader, outcome: Outcome) -> Iterator[Row]:
    """The rows of a job, compared with its labels, while they are written to its tables and its journal."""
    job, files = outcome.job, outcome.found.files
    rank = parallel.rank()
    journal = None
    if job.output_dir:
        journal = Journal(job.output_dir, key_of(job))
    before = journal.rows([path for _, path in files]) if job.resume and rank == 0 else {}
    for several in page_by_page(files) if before else ():
        if any(path not in before for _, path in several):  # all are read again, in the view that suits all
            for _, path in several:
                before.pop(path, None)
    todo = parallel.from_first([n for n, (_, path) in enumerate(files) if path not in before])
    outcome.new = len(todo)
    fresh = reader.rows([files[n] for n in todo], job.batch_size or reader.network.in_batch, job.workers)
    if rank or journal is None:  # the first process writes for all
        compared = outcome.truth.compare(fresh) if outcome.truth else fresh
        yield from with_pages(compared, outcome)
        return
    if not job.resume and journal.path.exists():
        print(f"{journal.path} of a stopped run is replaced; --resume would have continued it")
    kept = {path: row | {"FILENAME": name} for name, path in files if (row := before.get(path))}  # as it is called now
    merged = ((path, kept.get(path) or next(fresh), path not in kept) for _, path in files)
    with journal.written(merged) as rows:
        compared = outcome.truth.compare(rows) if outcome.truth else rows
        placed = with_pages(compared, outcome)
        yield from write_predictions(placed, job.output_dir, outcome.columns, job.spreadsheet)


def key_of(job: Job) -> str:
    """What the rows of a job depend on besides their pictures."""
    files = [job.model_path, job.lexicon, *(text_files(job.corpus) if job.corpus else [])]
    settings = "spelling" * job.spelling + f" language {job.language}" * bool(job.language)
    if job.has_patterns:
        files.append(job.pattern)
    elif job.characters or job.pattern:
        settings += f"characters {job.characters} pattern {job.pattern}"
    return Journal.key_of(*files, settings=settings)


def with_pages(rows: Iterator[Row], outcome: Outcome) -> Iterator[Row]:
    """Pass rows through; those of lines with PAGE_COLUMNS, and each page is written when its last line is read."""
    if outcome.pages is None:
        yield from rows
        return
    for page in outcome.pages:
        own = []
        for row in page.rows(rows):
            own.append(row)
            yield row
        if outcome.job.output_dir and parallel.rank() == 0 and not page.error:
            write_page(page, own, Path(outcome.job.output_dir))


def write_html(outcome: Outcome) -> None:
    """Write report.html to the job's folder."""
    comparison = outcome.truth.comparison if outcome.truth else None
    path, total = Path(outcome.job.output_dir, "report.html"), len(outcome.least_sure)
    with Progress("report", total) as progress:
        write_report(path, outcome.least_sure, outcome.summary(), comparison, progress.update, outcome.known)


def known_of(job: Job, found: Found, truth: Truth | None, config: Config) -> Known:
    """What is labelled already of a job's images; says what is odd about it."""
    columns = Columns(job.picture_column, job.text_column)
    labels = None if isinstance(truth, PageTruth) else job.labels  # a file of pages is no table to be saved anew
    known = known_labels(found.files, found.folders, label_rules(config), labels, columns)
    for note in known.notes if not job.labels else ():
        print(printable(note))
    return known
