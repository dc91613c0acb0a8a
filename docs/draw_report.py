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

from htr.synthetic import draw_dataset  # noqa: E402


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        draw_dataset(folder)
        labels = Path(folder, "CSV", "written_name_test.csv")
        flags = ["--data-dir", folder, "--labels", labels, "--output-dir", folder, "--html"]
        subprocess.run([sys.executable, "predict.py", *flags], cwd=ROOT, check=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 760})
        tab.goto(Path(folder, "report.html").as_uri())
        tab.locator("summary").click()
        tab.locator("#only-wrong").check()
        tab.screenshot(path=ROOT / "docs" / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
