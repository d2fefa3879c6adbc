"""check.html: one self-contained page on a data set, with thumbnails of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from resnetkit._version import __version__
from resnetkit.data.dataset import CODES
from resnetkit.errors import printable
from resnetkit.files import write
from resnetkit.tasks.task import MODALITIES
from resnetkit.trust.check import Finding, Findings
from resnetkit.trust.page import template, url_of

PICTURES = 24  # of a finding
LINES = 100
CLASSES = 200
HEADINGS = {"refuse": "Training would refuse this data", "look": "Somebody should look at this", "note": "Good to know"}


@dataclass(frozen=True)
class Card:
    """One image, or a pair of them side by side, with what is said of it."""

    pictures: tuple[tuple[str, str], ...]
    caption: str


def write_page(path: Path, found: Findings) -> None:
    """Write the page; at most `PICTURES` thumbnails of each finding, the rest by name and in check.json."""
    seen = found.seen
    sections = [
        (heading, [_section(found, finding) for finding in found.found if finding.severity == severity])
        for severity, heading in HEADINGS.items()
    ]
    splits = [name for name in CODES[1:] if seen.split.num_samples(name)]
    counts = zip(*(seen.split.counts(name).tolist() for name in splits), strict=True)
    page = template("check.html.jinja").render(
        sentence=sentence(found),
        sections=[(heading, entries) for heading, entries in sections if entries],
        splits=splits,
        given=seen.dataset.has_splits,
        classes=list(islice(zip(map(printable, seen.split.classes), counts, strict=True), CLASSES)),
        num_classes=len(seen.split.classes),
        noun=seen.dataset.noun,
        version=__version__,
    )
    write(path, page)


def sentence(found: Findings) -> str:
    """The result in a sentence."""
    facts = found.seen.facts
    looked = f"{len(facts):,} {found.seen.dataset.noun} in {len(found.seen.dataset.classes):,} classes were looked at"
    said = {
        0: "nothing is wrong with them.",
        3: "training would refuse them as they are.",
        4: "training would take them, but somebody should look at some first.",
    }
    return f"{looked}: {said[found.exit_code]}"


def _section(found: Findings, finding: Finding) -> tuple[str, list[Card], list[str], int]:
    """Text, cards, further lines, and how many more there are."""
    cards = list(_cards(found, finding)) if finding.kind != "unreadable" else []
    items = islice(found.items(finding), len(cards), len(cards) + LINES)
    lines = [text for text in map(_line, items) if text]
    total = max(len(finding.rows), len(finding.more))
    return finding.text, cards, lines, max(0, total - len(cards) - len(lines))


def _cards(found: Findings, finding: Finding) -> Iterator[Card]:
    files, draw = found.seen.dataset.files, MODALITIES[found.seen.dataset.noun].thumbnail
    pairs = finding.rows[:, None] if finding.rows.ndim == 1 else finding.rows
    for rows, item in zip(pairs[: PICTURES // max(1, pairs.shape[1])].tolist(), found.items(finding), strict=False):
        names = item.get("paths") or [item["path"]]
        pictures = tuple((url_of(files[row], draw), name) for row, name in zip(rows, names, strict=True))
        yield Card(pictures, _said(item))


def _said(item: Mapping[str, Any]) -> str:
    """What is known of an item beside its path, in words."""
    if "reason" in item:
        return str(item["reason"])
    if "suggested" in item:
        given, suggested = printable(item["label"]), printable(item["suggested"])
        return f"labelled {given}, looks like {suggested} (margin {item['margin']})"
    if "texts" in item:
        return " / ".join(dict.fromkeys(map(printable, item["texts"])))
    values = (item[key] for key in ("labels", "splits") if len(set(item.get(key, ()))) > 1)
    return "; ".join(" / ".join(map(printable, each)) for each in values)


def _line(item: Mapping[str, Any]) -> str:
    if "class" in item:
        number = next((item[noun] for noun in MODALITIES if noun in item), None)
        return f"{printable(item['class'])}: {item.get('split', number)}"
    names = " = ".join(item.get("paths") or [item.get("path", "")])
    return f"{names}: {_said(item)}" if _said(item) else names
