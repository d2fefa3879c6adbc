"""Every page opens from disk in a browser without an error or a request, light and dark, and can be read by all."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny, write_classes
from resnetkit import api

AXE = Path(sys.prefix) / "npm" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a training, a check of data with faults, and explanations."""
    root = tmp_path_factory.mktemp("pages")
    photos = write_classes(root / "photos", counts=24)
    settings = dict(text.split("=") for text in tiny()[1::2])
    shutil.copy(photos / "red" / "0.png", photos / "blue" / "copy.png")
    (photos / "red" / "cut.png").write_bytes(b"")
    api.check(photos, out=root / "check", quiet=True)
    (photos / "red" / "cut.png").unlink()
    chosen = {**settings, "data.val": 0.5, "image.size": 64, "train.epochs": 1}
    api.train(photos, out=root / "run", settings=chosen, quiet=True)
    api.explain(root / "run", [photos / "red", photos / "blue" / "1.png"], out=root / "explained", quiet=True)
    return root


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run/report.html", "check/check.html", "explained/index.html"])
def test_in_a_browser(browser: Any, pages: Path, name: str, scheme: str) -> None:
    tab = browser.new_page(color_scheme=scheme)
    address = (pages / name).as_uri()
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else trouble.append(asked.url))
    tab.goto(address)
    assert tab.locator("h1").count() == 1 and tab.locator("img").count() >= 2
    broken = tab.evaluate("[...document.images].filter(i => !i.naturalWidth && i.offsetParent).map(i => i.alt)")
    assert broken == [] and trouble == []
    narrow = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.set_viewport_size({"width": 360, "height": 740})
    assert narrow and tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    if AXE.is_file():
        _audit(tab)
    tab.close()


def _audit(tab: Any) -> None:
    """What axe-core finds wrong: contrast, names, landmarks, order of headings, and so on."""
    # the page's own policy lets no script in: what follows is the browser's, not the page's
    tab.context.new_cdp_session(tab).send("Page.setBypassCSP", {"enabled": True})
    tab.reload()
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run()")
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 10


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm install --no-save --prefix .venv/npm axe-core")
def test_the_audit_finds_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<html><body style='color:#ccc'>grey on white<img src='data:,'></body></html>")
    tab = browser.new_page()
    tab.goto((tmp_path / "bad.html").as_uri())
    with pytest.raises(AssertionError, match="color-contrast"):
        _audit(tab)
    tab.close()
