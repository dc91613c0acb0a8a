"""Draw the README's picture of the report, docs/report.png: the shipped weights on drawn names, in a headless browser.

python docs/draw_report.py        # needs Chromium and the development requirements
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from synthetic import draw_dataset  # noqa: E402


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        draw_dataset(folder)
        flags = ["--data-dir", ".", "--labels", "CSV/written_name_test.csv", "--html"]
        subprocess.run([sys.executable, ROOT / "predict.py", *flags], cwd=folder, check=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 760})
        tab.goto(Path(folder, "output", "report.html").as_uri())
        tab.locator("summary").click()
        tab.screenshot(path=ROOT / "docs" / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
