"""The pictures of docs/serve.md: the page with answers of a model, on a desk and on a phone.

    python docs/make_screenshots.py --models runs/digits runs/photos --photos a.png b.png c.jpg

The second model looks at the last photo, on the phone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent


def pictures(browser: Any, url: str, photos: list[Path]) -> None:
    """One on a desk in English, one on a phone in Chinese, in the dark, with what the model looked at."""
    for name, scheme, locale, size, overlay in (
        ("serve.png", "light", "en-US", (1000, 940), False),
        ("serve-phone.png", "dark", "zh-CN", (390, 900), True),
    ):
        view = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=view, color_scheme=scheme, locale=locale)
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#facts dd", state="attached")
        if overlay:
            page.select_option("#model", index=1)
            page.check("#overlay")
        page.set_input_files("#files", [str(photo) for photo in photos[-1 if overlay else 0 :]])
        page.wait_for_selector('.answer img[src^="data:"]' if overlay else ".answer dt", timeout=240_000)
        page.wait_for_selector('.answer[aria-busy="true"]', state="detached")
        page.screenshot(path=HERE / name)
        context.close()


def main() -> None:
    """Serve a model, and look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs=2, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "resnetkit", "serve", *arguments.models, "--port", "0", "--json"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        told = (json.loads(line) for line in server.stderr)
        url = next(line["url"] for line in told if line["event"] == "listening")
        for _ in arguments.models:
            next(line for line in told if line["event"] == "ready")
        threading.Thread(target=server.stderr.read, daemon=True).start()
        with sync_playwright() as play:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            pictures(play.chromium.launch(executable_path=chromium, args=["--no-sandbox"]), url, arguments.photos)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
