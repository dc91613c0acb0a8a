"""Make the shipped weights that find the lines of pages.

    python benchmarks/finder_weights.py --pages PAGES OUT

PAGES has a folder for each of the collections that weights/README.md names. Pages of the writers and documents that
shipped_weights.py keeps apart are not trained on. A step sees six crops of pages, each turned, bent, seen from the
side, with shadows, rulings, the back of the sheet showing through, and a table around it. OUT/htr_line_finder.pth and
.onnx are written at the end; run again, the script goes on where it was stopped.
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from shipped_weights import kept_apart, writer_of
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finder import LineFinder  # noqa: E402
from htr.pictures import line_maps  # noqa: E402
from htr.pictures.finding import PIXELS, ink_of, reduced  # noqa: E402
from htr.pictures.images import find_files, to_grey  # noqa: E402
from htr.system import onnx_file  # noqa: E402
from htr.texts.pages import Described, find_pages, name_of, picture_of, xml_files  # noqa: E402
from utils import save_checkpoint  # noqa: E402

SIDE = 448  # of a crop, in pixels
BATCH = 6
CYCLES = ((1600, 2e-3, 0.4), (1600, 1.2e-3, 0.2))  # steps, learning rate, and the share of them before it falls
KEPT = 1_600_000  # pixels of a page in memory
THICK, DISC = 3, 3  # of the maps: rows of a baseline, and radius of its ends
WEIGHTS = (6.0, 12.0, 12.0)  # of the places on baselines and ends in the loss of each map
SAVED = 50  # steps
CENTRES = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), 2)  # (SIDE, SIDE, 2), of a crop's pixels


@dataclass
class TrainingPage:
    """grey: uint8 (H, W). lines: baselines (K, 2) in its pixels. scale: its pixels to one of the file's."""

    grey: np.ndarray
    lines: list[np.ndarray]
    scale: float


def split_pages(folder: Path) -> Iterator[tuple[Described, bool]]:
    """The pages of the collections, and whether each is kept apart."""
    described = find_pages(xml_files(folder), [path for _, path in find_files([folder]).files]).described
    writers = [writer_of(f"{name_of(each, folder)}/line") for each in described]
    counts: Counter[str] = Counter()
    for writer, each in zip(writers, described, strict=True):
        counts[writer] += len(each.page.lines)
    apart = kept_apart(counts)
    for writer, each in zip(writers, described, strict=True):
        yield each, writer in apart


def read_pages(folder: Path) -> list[TrainingPage]:
    """The pages to train on."""
    pages = []
    for each, apart in split_pages(folder):
        if apart or not each.page.lines:
            continue
        whole = picture_of(each)
        grey = to_grey(whole.picture())
        small = reduced(grey, KEPT)
        scale = small.width / grey.width
        pages.append(TrainingPage(np.asarray(small), [band.baseline() * scale for band in whole.bands], scale))
    return pages


# ------------------------------------------------------------------------------------------------- crops


@dataclass
class View:
    """How a crop sees a page: `matrix` (3, 3) takes places of the crop to places of the page, after they were bent by
    waves of `height` (2,) pixels. turned: quarter turns."""

    matrix: np.ndarray
    height: np.ndarray
    waves: np.ndarray  # (3,) to a pixel
    phase: np.ndarray  # (2,)
    scale: float
    turned: int

    @classmethod
    def drawn(cls, page: TrainingPage, rng: np.random.Generator) -> "View":
        height, width = page.grey.shape
        usual = min((PIXELS / (height * width)) ** 0.5, 1 / page.scale)
        scale = usual * math.exp(rng.uniform(math.log(0.55), math.log(1.5)))
        turned = int(rng.integers(1, 4)) if rng.random() < 0.08 else 0
        angle = rng.normal(0, 2.5) if rng.random() < 0.8 else rng.uniform(-16, 16)
        half = SIDE / 2 / scale
        inside = half / 2  # a crop reaches over the page's edge by half of its side at most
        centre = [rng.uniform(min(inside, side / 2), max(side - inside, side / 2)) for side in (width, height)]
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        if rng.random() < 0.4:
            corners = corners + rng.uniform(-0.12, 0.12, (4, 2)) * half
        radians = math.radians(angle + 90 * turned)
        cos, sin = math.cos(radians), math.sin(radians)
        matrix = homography(corners @ np.array([[cos, sin], [-sin, cos]]) + centre)
        bent = rng.random() < 0.4
        waves = np.array([rng.uniform(0.5, 2.2), rng.uniform(0.5, 2.2), rng.uniform(-1, 1)]) * 2 * math.pi / SIDE
        waved = np.array([rng.uniform(0, 3), rng.uniform(1, 7)]) * bent
        return cls(matrix, waved, waves, rng.uniform(0, 2 * math.pi, 2), scale, turned)

    def bend(self, places: np.ndarray) -> np.ndarray:
        """By how much places (..., 2) of the crop are moved."""
        x, y = places[..., 0], places[..., 1]
        across = self.height[0] * np.sin(self.waves[0] * y + self.phase[0])
        down = self.height[1] * np.sin(self.waves[1] * x + self.waves[2] * y + self.phase[1])
        return np.stack([across, down], -1)

    def on_page(self) -> np.ndarray:
        """Where on the page each of the crop's pixels is, (SIDE, SIDE, 2)."""
        return applied(self.matrix, CENTRES + self.bend(CENTRES))

    def in_crop(self, places: np.ndarray) -> np.ndarray:
        """Where in the crop places (K, 2) of the page are."""
        flat = applied(np.linalg.inv(self.matrix), places)
        found = flat
        for _ in range(3):
            found = flat - self.bend(found)
        return found


def homography(corners: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix that takes the corners of a crop to these (4, 2)."""
    rows, values = [], []
    for (x, y), (u, v) in zip(((0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)), corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows, dtype=float), np.array(values)), 1).reshape(3, 3)


def applied(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places (..., 2) after a homography."""
    found = places @ matrix[:, :2].T + matrix[:, 2]
    return found[..., :2] / found[..., 2:]


def sampled(grey: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greys of a picture at places (..., 2), between its pixels; and which of these are in it."""
    height, width = grey.shape
    x, y = places[..., 0] - 0.5, places[..., 1] - 0.5
    inside = (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right, down = (x - left).astype(np.float32), (y - top).astype(np.float32)
    pixels, place = grey.ravel(), top * width + left
    upper = pixels[place] * (1 - right) + pixels[place + 1] * right
    lower = pixels[place + width] * (1 - right) + pixels[place + width + 1] * right
    return upper * (1 - down) + lower * down, inside


def noise(rng: np.random.Generator, cells: int, height: float) -> np.ndarray:
    """Smooth noise (SIDE, SIDE) of so many cells to a side."""
    small = Image.fromarray(rng.normal(0, height, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def crop(page: TrainingPage, back: TrainingPage, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The ink uint8 (SIDE, SIDE) of a crop, and the maps uint8 (MAPS, SIDE / SCALE, SIDE / SCALE) that it should give.

    back: the page that may show through.
    """
    view = View.drawn(page, rng)
    places = view.on_page()
    step = max(1, int(1 / view.scale / 1.6))
    grey = np.asarray(Image.fromarray(page.grey).reduce(step)) if step > 1 else page.grey
    pixels, inside = sampled(grey, places / step)
    if rng.random() < 0.25:
        behind = back.grey[:, ::-1]
        through, _ = sampled(behind, places % (behind.shape[1], behind.shape[0]))
        darkness = np.clip(1 - through / max(1, np.percentile(behind[::7, ::7], 75)), 0, 1)
        pixels = pixels * (1 - rng.uniform(0.1, 0.35) * darkness)
    if rng.random() < 0.2:
        distance, thick = rng.uniform(14, 60) / view.scale, rng.uniform(0.7, 2.2) / view.scale
        ruled = (places + rng.uniform(0, distance)) % distance < thick
        ruled = ruled[..., 1] | ruled[..., 0] if rng.random() < 0.4 else ruled[..., 1]
        pixels = np.where(ruled, pixels * (1 - rng.uniform(0.08, 0.45)), pixels)
    if not inside.all():
        paper = np.percentile(page.grey[::7, ::7], 75)
        table = rng.uniform(0, 255) if rng.random() < 0.7 else paper
        table = table + noise(rng, int(rng.integers(3, 40)), rng.uniform(0, 25))
        if rng.random() < 0.3:  # grain of wood
            table = table + 15 * np.sin(CENTRES @ (rng.uniform(0.02, 0.5), rng.uniform(0, 0.1)))
        pixels = np.where(inside, pixels, table)
    return ink_of(photographed(pixels, rng)), maps_of(page, view)


def photographed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greys (SIDE, SIDE) as a camera or a scanner has them, uint8."""
    if rng.random() < 0.5:  # a shadow
        direction, width = rng.uniform(0, 2 * math.pi), rng.uniform(4, 120)
        across = (CENTRES - SIDE / 2) @ (math.cos(direction), math.sin(direction)) - rng.uniform(-SIDE / 2, SIDE / 2)
        pixels = pixels * (1 - rng.uniform(0.1, 0.6) / (1 + np.exp(-across / width)))
    if rng.random() < 0.3:
        pixels = pixels * (1 + noise(rng, int(rng.integers(3, 12)), rng.uniform(0.02, 0.12)))
    if rng.random() < 0.5:
        pixels = 255 * np.clip(pixels / 255, 0, 1) ** rng.uniform(0.5, 1.8)
    if rng.random() < 0.3:
        darkest = rng.uniform(0, 140)
        pixels = darkest + pixels * (255 - darkest) / 255
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    grey = np.asarray(image)
    if rng.random() < 0.6:
        grey = np.clip(grey + rng.normal(0, rng.uniform(0, 9), grey.shape), 0, 255).astype(np.uint8)
    return grey


def maps_of(page: TrainingPage, view: View) -> np.ndarray:
    """The maps of a crop: none of its lines where the page is turned."""
    side = SIDE // line_maps.SCALE
    maps = [Image.new("L", (side, side)) for _ in range(line_maps.MAPS)]
    if not view.turned:
        draw = [ImageDraw.Draw(each) for each in maps]
        for line in page.lines:
            along = np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))]
            knots = np.linspace(0, along[-1], max(2, len(line), int(along[-1] / 20)))
            points = np.stack([np.interp(knots, along, line[:, axis]) for axis in (0, 1)], 1)
            points = view.in_crop(points) / line_maps.SCALE
            points = points[::-1] if points[0, 0] > points[-1, 0] else points
            if (points.max(0) < -20).any() or (points.min(0) > side + 20).any():
                continue
            draw[0].line([tuple(point) for point in points], fill=255, width=THICK)
            for ends, (x, y) in zip(draw[1:], (points[0], points[-1]), strict=True):
                ends.ellipse([x - DISC, y - DISC, x + DISC, y + DISC], fill=255)
    return np.stack([np.asarray(each) for each in maps])


# ---------------------------------------------------------------------------------------------- training


def loss_of(logits: Tensor, maps: Tensor) -> Tensor:
    """Cross-entropy in which what is rare counts more, and a Dice loss (Milletari et al. 2016, arXiv:1606.04797).

    logits, maps: (N, MAPS, H, W). Returns the mean.
    """
    weights = torch.where(maps > 0.5, torch.tensor(WEIGHTS)[:, None, None], torch.tensor(1.0))
    entropy = (F.binary_cross_entropy_with_logits(logits, maps, reduction="none") * weights).mean((0, 2, 3))
    found = logits.sigmoid()
    both, all_of_them = (found * maps).sum((0, 2, 3)), found.sum((0, 2, 3)) + maps.sum((0, 2, 3))
    dice = 1 - (2 * both + 1) / (all_of_them + 1)
    return (entropy * torch.tensor([1, 0.5, 0.5])).sum() + (dice * torch.tensor([0.5, 0.2, 0.2])).sum()


def train(pages: list[TrainingPage], path: Path) -> None:
    """Train, or go on with the state kept at `path`, until all steps are done."""
    torch.manual_seed(0)
    model = LineFinder().train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    average, done = {name: weight.clone() for name, weight in model.state_dict().items()}, 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, done = state["average"], state["done"]
    first = 0
    for steps, rate, constant in CYCLES:
        for step in range(max(0, done - first), steps):
            rng = np.random.default_rng(first + step)
            crops = [crop(*rng.choice(pages, 2), rng) for _ in range(BATCH)]
            ink, maps = (torch.from_numpy(np.stack(each)).float() / 255 for each in zip(*crops, strict=True))
            loss = loss_of(model(ink[:, None]), maps)
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 50, (steps - step) / steps / (1 - constant))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            decay = min(0.995, (step + 1) / (step + 10))
            for name, weight in model.state_dict().items():
                average[name] = weight.clone() if weight.dtype == torch.long else average[name].lerp(weight, 1 - decay)
            done = first + step + 1
            if done % SAVED == 0:
                print(f"step {done:,} of {sum(each[0] for each in CYCLES):,}, loss {loss:.3f}", flush=True)
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state | {"average": average, "done": done}, path.with_suffix(".new"))
                os.replace(path.with_suffix(".new"), path)
        first += steps
        if done == first:  # what a cycle ends with is its average
            model.load_state_dict(average)


def write_weights(state: Path, path: Path) -> None:
    """Write the average as the files that are shipped, in half precision."""
    weights = {
        name: weight.half() if weight.dim() > 1 else weight for name, weight in torch.load(state)["average"].items()
    }
    save_checkpoint({"format": line_maps.FORMAT, "version": 1, "model": weights}, path)
    model = LineFinder()
    model.load_state_dict(weights)
    facts = json.dumps({"format": line_maps.FORMAT, "graph": line_maps.GRAPH, "half": True}, separators=(",", ":"))
    data = onnx_file.encode(facts.encode(), line_maps.graph(), model.fuse().exported(), half=True)
    path.with_suffix(".onnx").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True, help="folder of the collections of pages")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    state = args.out / "htr_line_finder.last.pth"
    train(read_pages(args.pages), state)
    write_weights(state, args.out / "htr_line_finder.pth")


if __name__ == "__main__":
    main()
