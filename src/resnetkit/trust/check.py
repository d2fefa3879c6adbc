"""May one train on this data? What is wrong with its files, its splits and its labels, worst first.

Everything here is a pure function of columns, some 30 bytes an image beside the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import CODES, Dataset, File
from resnetkit.data.duplicates import SMALLEST, Near
from resnetkit.data.fixes import EXCLUDE, RELABEL
from resnetkit.data.inspect import Fact, Facts, as_columns
from resnetkit.data.masks import Masked
from resnetkit.data.tokens import excerpt
from resnetkit.errors import DataError, printable
from resnetkit.runtime.pipeline import num_threads, read_ahead
from resnetkit.trust.labels import Suspicions
from resnetkit.trust.traits import ODD, TRAITS

Severity = Literal["refuse", "look", "note"]
Rows = NDArray[np.intp]
CHUNK = 8  # files a task
TINY = 10  # training images of a class
UNEVEN = 10  # times as many images of one class as of another
LONG = 1.5  # long side over short side, from which on a centre crop loses a third or more


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a word for it, as in check.json.
        severity: "refuse": training would refuse the data; "look": somebody should; "note": nothing is wrong.
        text: in a sentence.
        count: of what it is about.
        rows: the images [n], or pairs of them [n, 2]; none where only their number matters.
        more: what else there is to say of each, or of each thing that is no image.
    """

    kind: str
    severity: Severity
    text: str
    count: int
    rows: Rows = field(default_factory=lambda: np.zeros(0, np.intp))
    more: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Seen:
    """What the findings are made of.

    Attributes:
        dataset: as it was read; without splits where none are given.
        split: the same with the splits that a training would have.
        facts: of every file.
        first: for each image the first one with the same bytes [n].
        near: pairs that are nearly the same, copies by their bytes aside.
        refusals: a kind of finding to the error with which a training would refuse the data.
        suspicions: which labels are probably wrong, if that was asked.
    """

    dataset: Dataset
    split: Dataset
    facts: Facts
    first: Rows
    near: Near
    refusals: Mapping[str, DataError]
    suspicions: Suspicions | None = None


def inspected(files: Sequence[File], inspecting: Callable[[File], Fact], progress: Callable[[int], None]) -> Facts:
    """The facts of every file, which is read once, in threads."""

    def attempt(row: int) -> Fact | DataError:
        try:
            return inspecting(files[row])
        except DataError as error:
            return error

    def read(rows: range) -> list[Fact | DataError]:
        return [attempt(row) for row in rows]

    def found() -> Iterator[Fact | DataError]:
        chunks = (range(start, min(start + CHUNK, len(files))) for start in range(0, len(files), CHUNK))
        for rows, each in read_ahead(chunks, read, 4 * num_threads()):
            assert not isinstance(each, DataError)
            yield from each
            progress(rows.stop)

    return as_columns(len(files), found())


def findings(seen: Seen) -> tuple[Finding, ...]:
    """All there is to say, worst first."""
    parts = (_unreadable, _copies, _near, _groups, _odd, _labels, _classes, _notes)
    found = [finding for finding in chain.from_iterable(part(seen) for part in parts) if finding.count]
    return tuple(sorted(found, key=lambda finding: ("refuse", "look", "note").index(finding.severity)))


def _severity(seen: Seen, kind: str) -> Severity:
    return "refuse" if kind in seen.refusals else "look"


def _some(
    seen: Seen, kind: str, severity: Severity, what: str, rows: Rows, more: Sequence[Mapping[str, Any]] = ()
) -> Finding:
    """About samples [n], or about those that come second in pairs [n, 2]."""
    count = len(rows) if rows.ndim == 1 else len(np.unique(rows[:, 1]))
    return Finding(kind, severity, f"{count:,} {seen.dataset.noun} {what}", count, rows, more)


def _unreadable(seen: Seen) -> Iterator[Finding]:
    failed = seen.facts.failed
    rows = np.array([row for row, _ in failed], np.intp)
    yield _some(
        seen,
        "unreadable",
        _severity(seen, "unreadable"),
        "cannot be read",
        rows,
        [{"reason": error.what} for _, error in failed],
    )


def _copies(seen: Seen) -> Iterator[Finding]:
    """By their bytes: across splits, under two labels, and the others; broken files are alike for other reasons."""
    dataset, first = seen.dataset, seen.first
    rows = np.flatnonzero(first != np.arange(len(first)))
    pairs = np.stack([first[rows], rows], 1)
    whole = seen.facts.readable[rows]
    across, two = _differ(dataset.splits, pairs), _differ(dataset.strata, pairs) & whole
    what, severity = "are in two splits: a score would be that of remembering", _severity(seen, "copies_across")
    yield _some(seen, "copies_across", severity, what, pairs[across], _labelled(seen, pairs[across]))
    yield _some(seen, "copies_of_two_labels", "look", "have two labels", pairs[two], _labelled(seen, pairs[two]))
    rest = pairs[~across & ~two & whole]
    yield _some(seen, "copies", "look", "are exact copies of another one", rest, _labelled(seen, rest))


def _near(seen: Seen) -> Iterator[Finding]:
    dataset, pairs = seen.dataset, seen.near.pairs
    across, two = _differ(dataset.splits, pairs), _differ(dataset.strata, pairs)
    for kind, where, chosen in (
        ("near_across", "one in another split", across),
        ("near_of_two_labels", "one of another label", two),
        ("near_copies", "another one", ~across & ~two),
    ):
        what = f"are nearly the same as {where}"
        yield _some(seen, kind, "look", what, pairs[chosen], _labelled(seen, pairs[chosen]))
    if not seen.near.complete:
        what = f"very many {dataset.noun} are alike: not all of them were compared or listed"
        yield Finding("near_not_all", "note", what, len(pairs))


def _groups(seen: Seen) -> Iterator[Finding]:
    """What belongs together and is in two given splits."""
    groups, splits = seen.dataset.groups, seen.dataset.splits
    if groups is None or not seen.dataset.has_splits:
        return
    pairs = np.unique(np.stack([groups, splits.astype(np.int64)]), axis=1)[0]
    torn = np.flatnonzero(np.bincount(pairs) > 1)
    rows = np.flatnonzero(np.isin(groups, torn))
    what = f"are of {len(torn):,} groups that are in two splits: the scores flatter what is new to the model"
    yield _some(seen, "groups_across", "look", what, rows)


def _odd(seen: Seen) -> Iterator[Finding]:
    """What can be read, and is probably not what it was meant to be."""
    for trait, what in ODD.items():
        rows = np.flatnonzero(seen.facts.traits & trait)
        yield _some(seen, str(trait.name).lower(), "look", what, rows)


def _differ(values: NDArray[np.integer], pairs: Rows) -> NDArray[np.bool_]:
    """Whether the two of each pair differ [n], in one value or in any of several."""
    other = values[pairs[:, 0]] != values[pairs[:, 1]]
    return np.asarray(other.any(1) if other.ndim == 2 else other)


def _labelled(seen: Seen, pairs: Rows) -> list[dict[str, Any]]:
    """Both labels of each pair, and both splits where some are given."""
    dataset = seen.dataset
    rows, places = np.unique(pairs, return_inverse=True)
    strata = dataset.take(rows).strata
    words = [label_of(dataset, stratum) for stratum in strata]
    more: list[dict[str, Any]] = [{"labels": [words[i] for i in pair]} for pair in places.reshape(-1, 2).tolist()]
    for each, pair in zip(more, pairs, strict=True) if dataset.has_splits else ():
        each["splits"] = [CODES[code] for code in dataset.splits[pair]]
    return more


def label_of(dataset: Dataset, stratum: Any) -> str:
    """The label of an image, or its labels, in words, by its row of `strata`."""
    if not dataset.several:
        return dataset.classes[int(stratum)]
    return "|".join(dataset.classes[k] for k in np.flatnonzero(stratum))


def _labels(seen: Seen) -> Iterator[Finding]:
    found = seen.suspicions
    if found is None:
        return
    classes = seen.dataset.classes
    more = [
        {"label": classes[int(seen.dataset.targets[row])], "suggested": classes[k], "margin": round(float(margin), 4)}
        for row, k, margin in zip(found.rows, found.suggested, found.margins, strict=True)
    ]
    what = f"of {len(found.ranking):,} that were judged probably have a wrong label (by {found.by})"
    yield _some(seen, "labels", "look", what, found.rows, more)


def _classes(seen: Seen) -> Iterator[Finding]:
    """What training refuses of the classes, those that a split lacks, small ones and uneven ones."""
    for kind in ("classes", "few"):
        if kind in seen.refusals:
            yield Finding(kind, "refuse", f"the data {seen.refusals[kind].what}", 1)
    dataset, noun = seen.dataset, "labels" if seen.dataset.several else "classes"
    given = dataset.given_splits or ("",)
    lacking = [
        {"split": split or "all", "class": dataset.classes[int(k)]}
        for split in (given if not dataset.several else given[:1])  # held-out images need not have each label
        for k in np.flatnonzero(dataset.counts(split) == 0)
    ]
    text = f"{len(lacking):,} times a split has no {dataset.noun[:-1]} of one of the {noun}"
    yield Finding("missing_classes", "look", text, len(lacking), more=lacking)
    if isinstance(dataset, Boxed | Masked):
        yield from _annotations(dataset)
        return
    train = seen.split.counts("train")
    small = [{"class": dataset.classes[int(k)], dataset.noun: int(train[k])} for k in np.flatnonzero(train < TINY)]
    text = f"{len(small):,} {noun} have fewer than {TINY} {dataset.noun} to train on"
    yield Finding("small_classes", "look", text, len(small), more=small)
    there = np.flatnonzero(train)
    if len(there) and train.max() >= UNEVEN * train[there].min():
        most, least = int(train.argmax()), int(there[train[there].argmin()])
        counts = f"{train[most]:,} of {dataset.classes[most]!r}, {train[least]:,} of {dataset.classes[least]!r}"
        text = f"the {noun} have very uneven numbers of {dataset.noun} to train on, as {counts}: look at macro_f1"
        yield Finding("uneven_classes", "look", text, len(there))


def _annotations(dataset: Boxed | Masked) -> Iterator[Finding]:
    """What was left out or changed of boxes and masks."""
    for each in dataset.findings:
        more = [{"where": printable(where)} for where in each.examples]
        severity: Severity = "look" if "left out" in each.what else "note"
        yield Finding("annotations", severity, f"{each.count:,} {each.what}", each.count, more=more)


def _notes(seen: Seen) -> Iterator[Finding]:
    """What is good to know of the files."""
    facts = seen.facts
    for what, count in seen.dataset.ignored:
        yield Finding("ignored", "note", f"{count:,} {what} were passed over", count)
    for trait, what in TRAITS.items():
        count = facts.having(trait)
        yield Finding(str(trait.name).lower(), "note", f"{count:,} {seen.dataset.noun} {what}", count)
    if seen.dataset.noun != "images":
        return
    small = facts.readable & (np.minimum(facts.widths, facts.heights) < SMALLEST)
    count = int(small.sum())
    what = f"{count:,} images are under {SMALLEST} px, too small for near-duplicates to be told"
    yield Finding("small", "note", what, count)
    plain = np.flatnonzero(facts.readable & ~small & (facts.hashes == 0))
    yield _some(seen, "plain", "note", "are plain: there is nothing to be seen on them", plain)
    if not isinstance(seen.dataset, Boxed | Masked):  # which are shown whole
        yield from _shape(facts)


def _shape(facts: Facts) -> Iterator[Finding]:
    """Which way of resizing suits the proportions of the images."""
    widths, heights = facts.widths[facts.readable], facts.heights[facts.readable]
    if not len(widths):
        return
    aspects = widths / heights
    low, middle, high = np.quantile(aspects, (0.05, 0.5, 0.95))
    lost = float(np.mean(1 - np.minimum(aspects, 1 / aspects)))
    ratios = f"{low:.2f} to {high:.2f}" if high - low >= 0.01 else f"{middle:.2f}"
    shape = f"nine of ten images are {ratios} times as wide as high"
    mode, why = "crop", f"a centre square leaves out {100 * lost:.0f} % on average"
    if max(middle, 1 / middle) >= LONG and high < 1.1 * low:
        mode, why = "squash", f"{why}, and squashing changes all of them alike"
    elif np.mean(np.maximum(aspects, 1 / aspects) >= LONG) >= 0.1:
        mode = "letterbox"
    yield Finding("shape", "note", f"{shape}; {why}: image.resize={mode} is suggested", len(widths))


@dataclass(frozen=True)
class Findings:
    """What `resnetkit check` found.

    Attributes:
        seen: what it looked at.
        found: worst first.
    """

    seen: Seen
    found: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0: nothing to look at; 3: training would refuse the data; 4: there is something to look at."""
        worst = self.found[0].severity if self.found else "note"
        return {"refuse": 3, "look": 4, "note": 0}[worst]

    def of(self, kind: str) -> Finding | None:
        """The finding of a kind, if there is one."""
        return next((finding for finding in self.found if finding.kind == kind), None)

    def lines(self) -> Iterator[str]:
        """A line for each finding, with its first example."""
        for finding in self.found:
            example = next(self.items(finding), {}) if finding.severity != "note" else {}
            named = [
                *example.get("paths", ()),
                *(printable(example[key]) for key in ("path", "class") if key in example),
            ]
            yield f"{finding.severity:6}  {finding.text}" + (f", as {' and '.join(named)}" if named else "")

    def items(self, finding: Finding) -> Iterator[dict[str, Any]]:
        """Each thing that a finding is about, as in check.json."""
        names = self.seen.dataset.names
        rows = finding.rows.tolist()
        for number in range(max(len(rows), len(finding.more))):
            more = dict(finding.more[number]) if finding.more else {}
            if not rows:
                yield more
            elif finding.rows.ndim == 1:
                yield {"path": printable(names[rows[number]]), **self._texts([rows[number]]), **more}
            else:
                yield {"paths": [printable(names[row]) for row in rows[number]], **self._texts(rows[number]), **more}

    def _texts(self, rows: Sequence[int]) -> dict[str, list[str]]:
        """How the samples begin, where they are texts."""
        texts = self.seen.dataset.texts
        return {} if texts is None else {"texts": [excerpt(texts[row]) for row in rows]}

    def as_dict(self) -> dict[str, Any]:
        """As check.json: complete lists."""
        split, facts = self.seen.split, self.seen.facts
        counts = {name: split.counts(name).tolist() for name in CODES[1:] if split.num_samples(name)}
        return {
            "data": printable(split.root),
            split.noun: len(facts),
            "readable": int(facts.readable.sum()),
            "splits": "given" if self.seen.dataset.has_splits else "as training would cut them",
            "classes": {name: {part: each[k] for part, each in counts.items()} for k, name in enumerate(split.classes)},
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "count": finding.count,
                    "text": finding.text,
                    "items": list(self.items(finding)),
                }
                for finding in self.found
            ],
        }

    def fixes(self) -> list[dict[str, str]]:
        """Rows of a fix file: what to leave out, and which label to give instead; one for an image."""
        names = self.seen.dataset.names
        found: dict[int, dict[str, str]] = {}
        for row, label, reason in chain(_exclusions(self), _relabelled(self)):
            action = EXCLUDE if label is None else RELABEL
            values = {"path": printable(names[row]), "action": action, "label": label or "", "reason": reason}
            found.setdefault(row, values)
        return [found[row] for row in sorted(found)]


def _exclusions(found: Findings) -> Iterator[tuple[int, None, str]]:
    """Files that cannot be read; of a picture in several splits all but those in the last one; both of two labels."""
    splits, first, noun = found.seen.dataset.splits, found.seen.first, found.seen.dataset.noun[:-1]
    for row, error in found.seen.facts.failed:
        yield row, None, error.what
    for kind, same in (("copies_across", f"the same {noun}"), ("near_across", f"nearly the same {noun}")):
        finding, kept = found.of(kind), np.zeros(len(first), splits.dtype)
        if finding is not None:
            for pictures in first[finding.rows].T:  # the last split that each is in, by the first of its copies
                np.maximum.at(kept, pictures, splits[finding.rows].max(1))
            rows = np.flatnonzero(splits < kept[first]).tolist()
            yield from ((row, None, f"{same} is in {CODES[kept[first[row]]]}") for row in rows)
    finding = found.of("copies_of_two_labels")
    for row in np.unique(finding.rows).tolist() if finding else ():
        yield row, None, f"the same {noun} has two labels"


def _relabelled(found: Findings) -> Iterator[tuple[int, str, str]]:
    finding = found.of("labels")
    if finding is not None:
        for row, more in zip(finding.rows.tolist(), finding.more, strict=True):
            yield row, more["suggested"], f"looks like it, not like {more['label']} (margin {more['margin']})"
