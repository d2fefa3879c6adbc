"""The page in a real browser: pictures are dropped, pasted, chosen and taken, and nothing comes from elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetkit.serving.guard import Access
from senses import tone, write_wav
from servers import Live, encoded, living

PAGE = Path(__file__).parents[2] / "src" / "resnetkit" / "serving" / "page"


def test_nothing_is_from_elsewhere() -> None:
    """I31: no address of another server, no script and no style in the markup."""
    for path in PAGE.iterdir():
        assert not re.search(r"https?://|//cdn|@import|eval\(|innerHTML", path.read_text()), path.name
    markup = (PAGE / "index.html").read_text()
    assert not re.search(r"\son\w+=|style=|<script(?! type=\"module\" src)|<style", markup)


def test_both_languages_have_all_words() -> None:
    text = (PAGE / "words.js").read_text()
    english, chinese = (set(re.findall(r"(\w+): [\"({]", part)) for part in text.split("  zh: {"))
    assert english - {"en"} == chinese
    used = set(re.findall(r'data-word="(\w+)"', (PAGE / "index.html").read_text()))
    assert used <= english


@pytest.fixture
def page(browser: Any, server: Live) -> Iterator[Any]:
    """The page, whose every mistake and every request to elsewhere is a failure."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-US")
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda told: wrong.append(told.text) if "Content Security" in told.text else None)
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((server.url, "blob:", "data:")) else wrong.append(asked.url),
    )
    opened.goto(server.url)
    opened.wait_for_selector("#facts dd", state="attached")
    yield opened
    assert wrong == []
    context.close()


def give(page: Any, *contents: bytes, name: str = "a.png") -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": each} for each in contents])


def test_upload_result_and_overlay(page: Any, photo: bytes) -> None:
    give(page, photo)
    page.wait_for_selector(".answer dt")
    first = page.text_content(".answer dt")
    assert first.startswith("red") and first.endswith("%")
    assert page.locator(".answer progress").count() == 3
    assert page.get_attribute(".answer img", "src").startswith("blob:")
    page.check("#overlay")
    page.wait_for_selector('.answer img[src^="data:image/png"]')
    assert "red" in page.get_attribute(".answer img", "alt")
    page.uncheck("#overlay")
    page.wait_for_selector('.answer img[src^="blob:"]')


def test_errors_are_told(page: Any, photo: bytes) -> None:
    give(page, photo[:100], b"", photo)
    page.wait_for_selector(".answer dt")
    page.locator(".answer .error").nth(1).wait_for()
    told = page.locator(".answer .error").all_text_contents()
    assert set(told) == {"This cannot be read", "The file is empty"}


def test_not_sure_and_novel_are_told(page: Any) -> None:
    """What the model knows nothing alike of says so."""
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    give(page, encoded(Image.fromarray(noise)))
    page.wait_for_selector(".answer dt")
    page.route(
        "**/predict*",
        lambda route: route.fulfill(
            json={"answers": [{"label": "red", "score": 0.5, "uncertain": 1, "set": "red|blue", "novel": 1}]}
        ),
    )
    give(page, encoded(Image.fromarray(noise)))
    page.locator(".answer").first.locator(".doubt").nth(1).wait_for()
    told = page.locator(".answer").first.locator(".doubt").all_text_contents()
    assert told == ["Not sure: one of red, blue", "Unlike anything that it was trained on"]


def test_names_are_text(page: Any, photo: bytes) -> None:
    """I10, I31."""
    give(page, photo, name="<img src=x onerror=document.title='pwned'>.png")
    page.wait_for_selector(".answer dt")
    assert "<img" in page.text_content(".answer .name") and page.title() == "photos"
    assert page.locator(".answer .name img").count() == 0


TRANSFER = """([content, kind]) => {
    const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "x.png", {type: "image/png"}));
    const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
    document.getElementById("place").dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page: Any, photo: bytes, kind: str) -> None:
    page.evaluate(TRANSFER, [base64.b64encode(photo).decode(), kind])
    page.wait_for_selector(".answer dt")
    assert page.text_content(".answer dt").startswith("red")


def test_chinese_and_keyboard(page: Any) -> None:
    page.focus("#language")
    page.keyboard.press("Enter")
    assert page.text_content("#photo") == "拍照" and page.get_attribute("html", "lang") == "zh"
    page.reload()
    page.wait_for_selector("#facts dd", state="attached")
    assert page.text_content("#photo") == "拍照"
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"language", "files", "photo", "overlay", "SUMMARY"} <= seen


def axe() -> str:
    """The text of axe-core, from where npm has put it."""
    npm = Path(__file__).parents[2] / ".venv" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
    if not npm.is_file():
        pytest.skip("needs npm install axe-core")
    return npm.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(browser: Any, server: Live, photo: bytes, scheme: str) -> None:
    """axe-core finds nothing against WCAG 2 A and AA, with answers and an error on the page."""
    script = axe()
    context = browser.new_context(color_scheme=scheme, locale="en-US", bypass_csp=True)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#facts dd", state="attached")
    give(page, photo, b"x")
    page.wait_for_selector(".answer dt")
    page.wait_for_selector(".answer .error")
    page.click("summary")
    page.evaluate(script)
    found = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    context.close()


def test_the_token_is_asked_for(browser: Any, trained: Path, photo: bytes) -> None:
    with living(("photos", trained), access=Access(token="a-long-token")) as live:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(live.url)
        page.wait_for_selector("#login:not([hidden])")
        page.fill("#token", "a-long-token")
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts dd", state="attached")
        give(page, photo)
        page.wait_for_selector(".answer dt")
        context.close()


def test_a_photo_by_the_camera(browser: Any, server: Live) -> None:
    """With chromium's made-up one."""
    context = browser.new_context(locale="en-US", permissions=["camera"])
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#facts dd", state="attached")
    page.click("#photo")
    while not page.evaluate("document.getElementById('view').videoWidth"):  # its policy forbids wait_for_function
        page.wait_for_timeout(50)
    page.click("#shoot")
    page.wait_for_selector(".answer dt")
    assert page.text_content(".answer .name") == "photo.jpg" and not page.is_visible("#camera")
    context.close()


@pytest.fixture
def listening(browser: Any, senses: Live) -> Iterator[Any]:
    """The page of a model of tones and one of sentences, with chromium's made-up microphone."""
    context = browser.new_context(locale="en-US", permissions=["microphone"])
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if "Content Security" in told.text else None)
    page.goto(senses.url)
    page.wait_for_selector("#facts dd", state="attached")
    yield page
    assert wrong == []
    context.close()


def test_a_sound_is_chosen_or_recorded(listening: Any, tmp_path: Path) -> None:
    page, file = listening, write_wav(tmp_path / "a.wav", tone("low", 3))
    assert page.text_content("#invitation") == "Drop sounds here, or" and not page.is_visible("#photo")
    page.set_input_files("#files", file)
    page.wait_for_selector(".answer dt")
    assert page.text_content(".answer dt").startswith("low")
    assert page.get_attribute(".answer audio", "aria-label") == "Sound a.wav"
    page.click("#record")
    while page.text_content("#record") != "Stop recording":
        page.wait_for_timeout(20)
    page.wait_for_timeout(800)
    page.click("#record")
    page.locator(".answer dt").nth(5).wait_for()  # three classes of each of two
    assert page.locator(".answer .name").first.text_content() == "recording.wav"
    assert page.text_content("#record") == "Record a sound"
    while not page.evaluate("document.querySelector('.answer audio').readyState"):  # its length is not known at once
        page.wait_for_timeout(20)
    assert page.evaluate("document.querySelector('.answer audio').duration") > 0.3


def test_a_text_is_written_or_dropped(listening: Any) -> None:
    page = listening
    page.select_option("#model", "words")
    page.fill("#text", "a dull and awful story")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".answer dt")
    assert page.text_content(".answer dt").startswith("bad") and page.input_value("#text") == ""
    assert page.text_content(".answer blockquote") == "a dull and awful story"
    page.set_input_files("#files", {"name": "b.txt", "mimeType": "text/plain", "buffer": b"<b>a moving film</b>"})
    page.locator(".answer dt").nth(3).wait_for()
    assert page.locator(".answer dt").first.text_content().startswith("good")
    assert page.locator(".answer blockquote").first.text_content() == "<b>a moving film</b>"


def test_behind_a_prefix(browser: Any, trained: Path, photo: bytes) -> None:
    """A proxy that leaves its prefix in front of all paths: addresses in the page are relative."""
    with living(("photos", trained), access=Access(prefix="/team/photos")) as live:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(live.url + "team/photos/")
        page.wait_for_selector("#facts dd", state="attached")
        give(page, photo)
        page.wait_for_selector(".answer dt")
        context.close()
