"""Hand pages to kraken and page-to-alto and take theirs: what each writes, the other reads. Once:

    python3.11 -m venv benchmark-runs/kraken && benchmark-runs/kraken/bin/pip install kraken==7.1.1
    python3.11 -m venv benchmark-runs/ocrd && benchmark-runs/ocrd/bin/pip install ocrd-page-to-alto lxml

then, on a folder of pages with ALTO or PAGE files:

    python benchmarks/interoperability.py PAGES --runs benchmark-runs

Prints a line for each step; ends with 1 where one does not hold. Takes ten minutes on two cores, most of them kraken's.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from htr.texts.page_xml import read_pages  # noqa: E402
from htr.texts.sources import whole_source  # noqa: E402

VALIDATE = """
import sys
from lxml import etree
from pathlib import Path
import ocrd_validators
schema = etree.XMLSchema(etree.parse(str(Path(ocrd_validators.__file__).with_name("page.xsd"))))
for path in sys.argv[1:]:
    tree = etree.parse(path)
    if not schema.validate(tree):
        sys.exit(f"{path}: {schema.error_log.last_error}")
"""
LINES = """
import json, sys
from kraken.lib.xml import XMLPage
page = XMLPage(sys.argv[1]).to_container()
print(json.dumps([[line.text or "", [list(map(float, point)) for point in line.baseline]] for line in page.lines]))
"""


class Steps:
    """What was tried, and whether all of it held."""

    def __init__(self):
        self.held = True

    def say(self, what: str, holds: bool, found: str = "") -> None:
        self.held &= holds
        print(f"{'ok ' if holds else 'NOT'}  {what}{f': {found}' if found else ''}", flush=True)


def run(*command, cwd: Path, check: bool = True) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def texts_of(path: Path) -> list[str]:
    (page,) = read_pages(path)
    return [line.text or "" for line in page.lines]


def copy_pages(source: Path, folder: Path, count: int) -> None:
    """The pictures and files of the first pages, side by side."""
    folder.mkdir(parents=True)
    described = whole_source(source).pages.described
    for each in described[:: max(1, len(described) // count)][:count]:
        shutil.copy(each.picture, folder / each.picture.name)
        shutil.copy(each.page.path, folder / f"{each.picture.stem}.xml")


def read(folder: str, output: str, work: Path) -> Path:
    run(sys.executable, ROOT / "predict.py", folder, "--pages", "--output-dir", output, cwd=work)
    return work / output


def compare(written: Sequence[Path], lines: dict[str, list], steps: Steps, who: str) -> None:
    """Our files as another program understands them: the same texts at the same places."""
    pairs = []
    for path in written:
        (page,) = read_pages(path)
        ours = sorted(((line.text or "").split(), line.baseline.tolist()) for line in page.lines)
        theirs = sorted((text.split(), baseline) for text, baseline in lines[path.name])
        pairs.append(ours == theirs)
    steps.say(f"{who} reads the same texts and baselines in what we write", all(pairs), f"{sum(pairs)} of {len(pairs)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, metavar="PAGES")
    parser.add_argument("--runs", type=Path, default=Path("benchmark-runs"), help="folder of the environments")
    parser.add_argument("--count", type=int, default=3, help="pages")
    args = parser.parse_args()
    runs, work = args.runs.resolve(), args.runs.resolve() / "interoperability"
    kraken, ketos = runs / "kraken" / "bin" / "kraken", runs / "kraken" / "bin" / "ketos"
    ocrd, steps = runs / "ocrd" / "bin", Steps()
    shutil.rmtree(work, ignore_errors=True)
    copy_pages(args.pages, work / "given", args.count)

    # what we write
    pages = read("given", "read", work) / "pages"
    written = sorted(pages.rglob("*.xml"))
    failed = run(ocrd / "python", "-c", VALIDATE, *written, cwd=work, check=False).strip()
    steps.say(f"{len(written)} files are valid by the schema of PAGE 2019-07-15", not failed, failed)
    for picture in (work / "given").iterdir():
        if picture.suffix != ".xml":
            shutil.copy(picture, pages / picture.name)
    lines = {
        path.name: json.loads(run(runs / "kraken" / "bin" / "python", "-c", LINES, path, cwd=work).splitlines()[-1])
        for path in written
    }
    compare(written, lines, steps, "kraken")
    count = sum(len(texts_of(path)) for path in written)
    run(ketos, "compile", "-f", "page", "-o", "pages.arrow", *written, cwd=pages)
    steps.say("ketos compile -f page", (pages / "pages.arrow").exists(), f"{count} lines")
    run(ketos, "-d", "cpu", "train", "-f", "page", "-N", 1, "-q", "fixed", "-B", 4, "-o", work / "model", *written,
        cwd=pages)  # fmt: skip
    model = max(work.glob("model*/**/*.safetensors"), default=None) or max(work.glob("model*"))
    tested = run(ketos, "-d", "cpu", "test", "-f", "page", "-m", model, *written, cwd=pages)
    steps.say("ketos train and ketos test -f page", "Character Accuracy" in tested or "CER" in tested)
    shutil.copytree(pages, work / "again")
    again = read("again", "read-again", work) / "pages"
    same = [texts_of(again / path.name) == texts_of(path) for path in written]
    steps.say("we read our own files and find the same lines and texts", all(same), f"{sum(same)} of {len(same)}")

    # what kraken writes
    for name, flag in (("alto", "-a"), ("page", "-x")):
        folder = work / f"kraken-{name}"
        folder.mkdir()
        pictures = [path for path in sorted((work / "given").iterdir()) if path.suffix != ".xml"]
        for picture in pictures:
            shutil.copy(picture, folder)
            run(
                kraken,
                flag,
                "-i",
                picture.name,
                f"{picture.stem}.xml",
                "segment",
                "-bl",
                "ocr",
                "-m",
                model,
                cwd=folder,
            )
        found = [read_pages(path)[0] for path in sorted(folder.glob("*.xml"))]
        count = sum(len(page.lines) for page in found)
        table = read(folder.name, f"read-{name}", work) / "predictions.csv"
        rows = table.read_text(encoding="utf-8").splitlines()[1:]
        steps.say(f"kraken {flag} segment -bl ocr, read by us", len(rows) == count > 0,
                  f"{found[0].format}, {count} lines")  # fmt: skip

    # what page-to-alto makes of ours
    for version in ("4.2", "3.1", "2.1"):
        folder = work / f"alto-{version}"
        folder.mkdir()
        same = []
        for path in written:
            flags = ("--no-check-words", "--no-check-border", "--alto-version", version)
            run(ocrd / "page-to-alto", *flags, "-O", folder / path.name, path, cwd=pages)
            same.append(texts_of(folder / path.name) == [" ".join(text.split()) for text in texts_of(path)])
        steps.say(f"page-to-alto {version} of our files, read by us", all(same), f"{sum(same)} of {len(same)}")
    sys.exit(0 if steps.held else 1)


if __name__ == "__main__":
    main()
