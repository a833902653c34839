"""Where do the README's pictures come from? From a whole run of the demo, photographed with the system's Chromium.

python -m benchmarks.screenshots [--out docs/pictures]
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.demo.local_fleet import CHECKOUT, MODEL, LocalFleet
from benchmarks.demo.story import BAD_VERSION, BLURRED, GOOD_VERSION, Story
from benchmarks.demo.teller import Teller

WIDTH, HEIGHT = 1360, 860
SHARP = 1.5
"""Pixels a CSS pixel: sharp on a good screen, and still some hundred kilobytes."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "pictures")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("screenshots: no Chromium here; run `sh requirements/system.sh chromium`", file=sys.stderr)
        return 5
    with tempfile.TemporaryDirectory() as folder:
        fleet = LocalFleet(Path(folder))
        story = Story(fleet, Teller())
        try:
            story.run()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SHARP)
                photograph(page, fleet, options.out)
                browser.close()
        finally:
            story.close()
            fleet.close()
    return 0


def photograph(page: Page, fleet: LocalFleet, out: Path) -> None:
    page.goto(fleet.url)
    page.get_by_test_id("token").fill(fleet.admin_token)
    page.get_by_test_id("sign-in").click()
    page.get_by_test_id(f"device-{BLURRED}").wait_for()
    with fleet.client() as client:
        stopped = next(rollout["id"] for rollout in client.rollouts() if rollout["version"] == BAD_VERSION)
    pages = (("overview", "/", HEIGHT), ("rollout", f"/rollouts/{stopped}", HEIGHT), ("drift", f"/devices/{BLURRED}/drift", 400))
    for name, path, height in pages:
        page.goto(fleet.url + path)
        page.wait_for_timeout(1500)  # charts and the live connection settle
        page.screenshot(path=out / f"{name}.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    page.goto((fleet.out / MODEL / GOOD_VERSION / "report.html").as_uri())
    page.screenshot(path=out / "report.png")


if __name__ == "__main__":
    sys.exit(main())
