"""Draw the README's picture of the report, docs/report.png: the shipped weights on drawn names, in a headless browser.

python docs/draw_report.py        # needs Chromium and the development requirements
"""

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        flags = ["--demo", "--model-path", "weights/htr_crnn_names.pth", "--html"]
        subprocess.run([sys.executable, "predict.py", *flags], cwd=ROOT, check=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 860})
        tab.goto((ROOT / "demo" / "output" / "report.html").as_uri())
        tab.locator("summary").click()
        tab.locator("#only-wrong").check()
        tab.screenshot(path=ROOT / "docs" / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
