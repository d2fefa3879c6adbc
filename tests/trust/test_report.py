"""The page is one file, asks for nothing, and says what it knows."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from resnetkit.checkpoint import Meta
from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.image import Preprocess
from resnetkit.data.names import Names
from resnetkit.errors import DataError
from resnetkit.tasks.evaluate import score
from resnetkit.tasks.task import TASKS
from resnetkit.trust.calibrate import calibrate
from resnetkit.trust.gallery import OF_A_KIND, OVERLAYS, WORST, kinds, shown, suspects, worst
from resnetkit.trust.report import Story, data_card, doubts, sentence, sets, stages, write_report

HISTORY = [
    {"epoch": n, "train_loss": 1.0 / n, "val_loss": 1.1 / n, "val_accuracy": 0.1 * n, "lr": 0.1} for n in range(1, 4)
]
HOSTILE = ("<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}", "a & b", "</table>")


def scored(classes=("cat", "dog"), paths=(), targets=(), answers=(), split="test"):
    return score(TASKS["classify"], split, classes, paths, np.array(targets, np.int64), answers)


def example(classes=("cat", "dog"), n=10, wrong=3):
    """The first `wrong` of n are wrong, the second of them most."""
    targets = np.arange(n) % len(classes)
    said = np.where(np.arange(n) < wrong, (targets + 1) % len(classes), targets)
    answers = list(np.eye(len(classes))[said] * np.where(np.arange(n) == 1, 9, 4)[:, None])
    return scored(classes, tuple(f"{classes[t]}/{i}.png"[-200:] for i, t in enumerate(targets)), targets, answers)


def mistakes(scores, root):
    return shown(scores, worst(scores), root.joinpath)


class Page(HTMLParser):
    """Tags, attributes, and the text outside of style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def dataset(root, scores):
    splits = np.full(len(scores.paths), CODES.index("test"), np.int8)
    return Dataset(root, scores.classes, Names(scores.paths), scores.targets, splits)


def page(tmp_path, scores, history=(), recipe="", **more):
    story = Story(scores, dataset(tmp_path, scores), history=history, recipe=recipe, **more)
    write_report(tmp_path / "report.html", story)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def pictures(tmp_path):
    for path in example().paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (300, 200), "red").save(tmp_path / path)
    return tmp_path


def test_self_contained(pictures):
    text, found = page(pictures, example(), HISTORY, "[train]\nepochs = 3\n")
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not references
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(found.tags)
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in found.attributes
    assert "<svg" in text and "epochs = 3" in text and found.tags.count("img") == 3 + 2 * 3 + 8
    assert len(text) < 300_000


@pytest.mark.parametrize(
    ("split", "name"), [("test", "test images"), ("val", "validation images"), ("all", "given images")]
)
def test_the_sentence_has_n_and_interval(tmp_path, split, name):
    scores = replace(example(), split=split)
    expected = f"Of 10 {name} the model names 7 correctly: 70.0 %, and with 95 % confidence between 39.7 and 89.2 %"
    assert sentence(scores).startswith(expected)
    assert expected in page(tmp_path, scores)[1].text


def test_every_number_has_n_and_interval(tmp_path):
    text, _ = page(tmp_path, example())
    cells = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>', text)
    assert [row[0] for row in cells] == ["accuracy", "macro_f1", "ece", "cat", "dog"]
    assert cells[0][1:] == ("70.0 %", "39.7 to 89.2 %", "10") and cells[3][3] == "5"


def test_worst_mistakes_come_first(pictures):
    found = mistakes(example(), pictures)
    assert [mistake.path for mistake in found] == ["dog/1.png", "cat/0.png", "cat/2.png"]
    assert (found[0].target, found[0].label) == ("dog", "cat") and found[0].score > 99
    assert all(mistake.picture.startswith("data:image/jpeg;base64,") for mistake in found)
    (pictures / "dog" / "1.png").unlink()
    assert mistakes(example(), pictures)[0].picture == ""
    assert len(mistakes(example(n=100, wrong=90), pictures)) == WORST


def test_hostile_names_are_text(tmp_path):
    scores = example(HOSTILE, n=20, wrong=20)
    failed = scored(HOSTILE, ("<b>/\n.png",), (0,), (DataError("<i>cannot</i> be read"),))
    for each in (scores, failed):
        text, found = page(tmp_path, each, HISTORY, f"[data]\nsource = '{HOSTILE[0]}'\n")
        assert not {"script", "b>", "i"} & set(found.tags) and not [n for n, _ in found.attributes if n == "onerror"]
        assert all(name in found.text for name in HOSTILE) and "<script" not in text
    assert "<b>/\\n.png: <i>cannot</i> be read" in found.text


def test_no_samples(tmp_path):
    text, found = page(tmp_path, scored())
    assert "Nothing was scored: there are no held-out images." in found.text
    assert "Confusion matrix" not in found.text and "Worst mistakes" not in found.text and "nan" not in text.lower()


def test_a_class_without_samples(tmp_path):
    text, found = page(tmp_path, scored(paths=("a",), targets=(0,), answers=(np.array([1.0, 0]),)))
    assert "no samples" in found.text and "nan" not in text.lower() and "100.0 %" in found.text


@pytest.mark.parametrize(("count", "has"), [(40, True), (41, False), (300, False)])
def test_many_classes(tmp_path, count, has):
    _, found = page(tmp_path, example(tuple(f"class {i}" for i in range(count)), n=2 * count))
    assert ("Confusion matrix" in found.text) == has
    assert f"class {count - 1}" in found.text and "top5_accuracy" in found.text


def test_failed_files_are_listed_and_in_no_score(tmp_path):
    answers = (np.array([1.0, 0]), DataError("is not an image: empty file"))
    _, found = page(tmp_path, scored(paths=("a.png", "b.png"), targets=(0, 1), answers=answers))
    assert "Files that could not be read" in found.text and "b.png: is not an image: empty file" in found.text
    assert "Of 1 test images" in found.text


@pytest.mark.parametrize(
    "history", [[], HISTORY[:1], HISTORY, [row | {"val_loss": None, "val_accuracy": None} for row in HISTORY]]
)
def test_learning_curves(tmp_path, history):
    text, _ = page(tmp_path, example(), history)
    assert text.count("<svg") == 1 + (len(history) > 1)  # and the reliability diagram


def test_nothing_else_is_written(tmp_path):
    import os

    page(tmp_path, example(), HISTORY)
    assert os.listdir(tmp_path) == ["report.html"]


def test_doubts() -> None:
    """C13."""
    logits = np.tile(np.array([[0.0, 2.0]], np.float32), (4, 1))
    one = score(TASKS["classify"], "test", ("a", "b"), ["1", "2", "3", "4"], np.array([0, 1, 0, 1]), list(logits))
    assert "one answer to every image: b" in doubts(one, [])[0]
    rising, falling = ([{"train_loss": value} for value in values] for values in ((1.0, 0.5, 3.0), (1.0, 0.5)))
    assert "has risen, from 1 in the first epoch to 3" in doubts(one, rising)[1]
    good = score(
        TASKS["classify"], "test", ("a", "b"), ["1", "2"], np.array([0, 1]), [np.array([1.0, 0]), np.array([0, 1.0])]
    )
    assert doubts(good, falling) == []


def test_several_labels(pictures, tmp_path) -> None:
    targets = np.array([[1, 0], [1, 1], [0, 0]], np.int8)
    answers = [np.array([2.0, -2.0]), np.array([3.0, -9.0]), np.array([-1.0, 0.5])]
    scores = score(TASKS["multilabel"], "test", ("cat", "dog"), ("cat/0.png", "dog/1.png", "x.png"), targets, answers)
    text, found = page(tmp_path, scores, [row | {"val_mAP": 0.5} for row in HISTORY])
    assert "Of 3 test images the model names 1 with all their labels right" in found.text
    assert "Average precision of each label" in found.text and "F1 of each label" in found.text
    assert "Confusion matrix" not in found.text and text.count("<svg") == 2
    said = [(one.target, one.label) for one in mistakes(scores, pictures)]
    assert said == [("cat|dog", "cat"), ("no label", "dog")]
    same = score(TASKS["multilabel"], "test", ("cat", "dog"), ("a", "b"), targets[:2], [np.array([-1.0, -1.0])] * 2)
    assert "one answer to every image: no label" in doubts(same, [])[0]


def test_what_each_stage_brought(tmp_path):
    """The score of the epoch with the lowest calibrated loss, which need not be the highest."""
    rows = [("head", 0, 0.5, 1.1, 31.2, 1), ("layer4", 1, 0.65, 1.2, 10.0, 0), ("layer4", 2, 0.6, 0.9, 20.0, 1)]
    rows += [("all", 3, 0.55, 1.0, 9.0, 0)]
    names = ("stage", "epoch", "val_accuracy", "val_calibrated_loss", "seconds", "best")
    history = [dict(zip(names, row, strict=True)) | {"train_loss": 1.0, "val_loss": None} for row in rows]
    found = [("head", 0, 31.2, "50.0 %", False), ("layer4", 2, 20.0, "60.0 %", True), ("all", 1, 9.0, "55.0 %", False)]
    assert stages(history, "val_accuracy") == found
    assert "What each stage brought" in page(tmp_path, example(), history)[1].text
    assert "What each stage brought" not in page(tmp_path, example(), HISTORY)[1].text
    unscored = [{**row, "val_accuracy": None, "val_calibrated_loss": None} for row in history]
    assert [row[3] for row in stages(unscored, "val_accuracy")] == ["-", "-", "-"]


def test_cells_open_their_mistakes(pictures):
    text, found = page(pictures, example(n=30, wrong=12))
    links = [value for name, value in found.attributes if name == "href"]
    sections = [value for name, value in found.attributes if name == "id"]
    assert links == ["#kind-0-1", "#kind-1-0"] and set(links) == {f"#{name}" for name in sections if "kind" in name}
    assert "6 of cat said to be dog, the worst of them" in found.text
    assert ("aria-label", "6 of cat said to be dog") in found.attributes
    assert len(kinds(example(n=30, wrong=12), pictures.joinpath)[0].pictures) == OF_A_KIND


def calibration(n=50):
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 2
    logits = 4 * np.eye(2)[targets] + rng.normal(size=(n, 2))
    return calibrate(TASKS["classify"].target, (logits, rng.normal(size=(n, 4))), targets)


def test_what_is_promised_is_looked_at(pictures):
    text, found = page(pictures, example(n=40, wrong=4), calibration=calibration())
    assert "May its scores be believed?" in found.text and "calibrated on 50 validation images" in found.text
    rows = sets(example(n=40, wrong=4), calibration())
    assert [row[0] for row in rows] == [0.9, 0.95] and all(0 < share <= 1 for *_, share in rows)
    assert [row[0] for row in sets(example(), calibration(10))] == [0.9], "19 are too few for 95 %"
    assert sets(replace(example(), split="val"), calibration()) == [], "they would keep any promise"
    assert sets(example(), None) == []


def test_the_model_and_the_data_are_told(pictures):
    meta = Meta("classify", "resnet18", {"in_channels": 3}, ("cat", "dog"), Preprocess().as_dict(), "IMAGENET1K_V1")
    text, found = page(pictures, example(), meta=meta, calibration=calibration())
    for words in ("resnet18", "IMAGENET1K_V1", "0.485, 0.456, 0.406", "embeddings of 25 validation images"):
        assert words in found.text
    assert data_card(dataset(pictures, example())) == (["test"], [("all", [10]), ("cat", [5]), ("dog", [5])])


def test_overlays_stand_beside_their_pictures(pictures):
    asked = []

    def overlays(files, said):
        asked.append(list(zip(files, said, strict=True)))
        return [Image.new("RGB", (30, 20), "blue") for _ in files[1:]] + [DataError("is gone")]

    _, found = page(pictures, example(), overlays=overlays)
    assert asked[0][0] == (pictures / "dog/1.png", 0) and sum(map(len, asked)) <= OVERLAYS
    alts = [value for name, value in found.attributes if name == "alt"]
    assert alts.count("evidence for cat") + alts.count("evidence for dog") == sum(map(len, asked)) - len(asked)
    assert "where the evidence for the answer lies" in found.text


def test_wrong_labels_are_suspected(pictures):
    scores = example(n=40, wrong=2)
    assert set(suspects(scores)) == {0, 1}
    assert "Probably given a wrong label" in page(pictures, scores)[1].text
    assert "Probably given a wrong label" not in page(pictures, example(wrong=0))[1].text


def test_the_page_stays_under_3_mb(tmp_path):
    scores = example(tuple(f"class {i}" for i in range(40)), n=4000, wrong=3000)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8))
    for path in scores.paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
    noise.save(tmp_path / "noise.png")
    story = Story(scores, dataset(tmp_path, scores), history=HISTORY, overlays=lambda files, said: [noise] * len(files))
    object.__setattr__(story.dataset, "file_named", lambda name: tmp_path / "noise.png")
    write_report(tmp_path / "report.html", story)
    assert 1e6 < (tmp_path / "report.html").stat().st_size < 3e6


@pytest.fixture(params=["light", "dark"])
def opened(browser, pictures, request):
    """The page in a browser, and what went wrong or left while it was there."""
    meta = Meta("classify", "resnet18", {"in_channels": 3}, ("cat", "dog"), Preprocess().as_dict(), "IMAGENET1K_V1")
    scores = example(n=30, wrong=12)
    page(pictures, scores, HISTORY, "[train]\nepochs = 3\n", meta=meta, calibration=calibration())
    tab = browser.new_page(color_scheme=request.param)
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    address = (pictures / "report.html").as_uri()
    tab.on("request", lambda asked: trouble.append(asked.url) if not asked.url.startswith((address, "data:")) else None)
    tab.goto(address)
    yield tab, trouble
    tab.close()


def test_in_a_browser(opened):
    tab, trouble = opened
    section = tab.locator("#kind-0-1")
    assert not section.is_visible()
    tab.get_by_label("6 of cat said to be dog").focus()
    tab.keyboard.press("Enter")
    assert section.is_visible() and not tab.locator("#kind-1-0").is_visible()
    tab.emulate_media(media="print")
    assert tab.locator("#kind-1-0").is_visible()
    assert trouble == []
