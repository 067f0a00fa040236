"""Make the pictures of `howto/report.md`: its study with more chips and images, its report, Chromium.

    python docs/screenshots.py

needs Playwright (``pip install playwright``) and Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parent
sys.path[:0] = [str(_DOCS.parent), str(_DOCS.parent / "kernels"), str(_DOCS / "_ext")]

from examples import write_files  # noqa: E402

_SHOTS: dict[str, tuple[dict[str, Any], str]] = {
    "report-desk.png": ({"viewport": {"width": 1000, "height": 1040}}, "header"),
    "report-phone.png": ({"viewport": {"width": 360, "height": 760}, "device_scale_factor": 1.5}, "header"),
    "report-dark.png": ({"viewport": {"width": 1000, "height": 930}, "color_scheme": "dark"}, "#closeups"),
}
"""How each picture is taken, and from which part on."""


def main() -> None:
    """Run the study, make the report, take the pictures."""
    from playwright.sync_api import sync_playwright

    import xbarsim as xs
    from xbarsim.report import read, write_report

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(_DOCS / "howto" / "report.md", folder)
        study = xs.Study.load(folder / "study.toml").model_copy(update={"chips": 50, "limit": None})
        study.run(folder / "study.h5", workers=2)
        write_report(read(folder / "study.h5"), folder / "report.html")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for target, (options, part) in _SHOTS.items():
                page = browser.new_page(**options)
                page.goto((folder / "report.html").as_uri())
                page.locator(part).evaluate("part => scrollTo(0, part.getBoundingClientRect().top + scrollY - 20)")
                page.wait_for_timeout(300)
                page.screenshot(path=_DOCS / "images" / target)
                print(target, (_DOCS / "images" / target).stat().st_size)
            browser.close()


if __name__ == "__main__":
    main()
