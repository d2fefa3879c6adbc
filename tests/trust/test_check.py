"""Findings as a pure function of columns: what is refused, what is to be looked at, what is only told."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.duplicates import Near
from resnetkit.data.inspect import Facts, Trait
from resnetkit.data.names import Names
from resnetkit.errors import DataError
from resnetkit.trust.check import Findings, Seen, findings
from resnetkit.trust.labels import Suspicions

NO_PAIRS = Near(np.zeros((0, 2), np.intp), np.zeros(0, np.uint8), True)


def facts(n, **changes):
    own = Facts(
        np.full(n, 64, np.int32), np.full(n, 64, np.int32), np.zeros(n, np.uint16), np.arange(1, n + 1, dtype="u8")
    )
    return replace(own, **changes)


def seen(n=60, splits=None, **changes):
    """n images of three classes, of which nothing is wrong."""
    targets = np.arange(n) % 3
    names = Names(f"{'abc'[t]}/{i}.png" for i, t in enumerate(targets))
    given = np.zeros(n, np.int8) if splits is None else np.array(splits, np.int8)
    dataset = Dataset(Path("photos"), ("a", "b", "c"), names, targets, given)
    split = replace(dataset, splits=np.where(given > 0, given, 1).astype(np.int8))
    return replace(Seen(dataset, split, facts(n), np.arange(n), NO_PAIRS, {}), **changes)


def near(*pairs):
    return Near(np.array(pairs, np.intp), np.full(len(pairs), 2, np.uint8), True)


def checked(what):
    return Findings(what, findings(what))


def kinds(found):
    return {finding.kind: (finding.severity, finding.count) for finding in found.found}


def test_nothing_wrong():
    found = checked(seen())
    assert found.exit_code == 0 and kinds(found) == {"shape": ("note", 60)} and found.fixes() == []
    assert found.of("unreadable") is None


def test_unreadable_files_are_refused_or_looked_at():
    widths = np.full(60, 64, np.int32)
    widths[7] = 0
    what = seen(facts=facts(60, widths=widths, failed=((7, DataError("is empty", path="b/7.png")),)))
    assert checked(what).exit_code == 4
    found = checked(replace(what, refusals={"unreadable": DataError("is empty")}))
    assert found.exit_code == 3 and found.found[0].severity == "refuse"
    assert list(found.items(found.found[0])) == [{"path": "b/7.png", "reason": "is empty"}]
    assert found.fixes() == [{"path": "b/7.png", "action": "exclude", "label": "", "reason": "is empty"}]


def test_copies_are_told_once_of_the_worst_they_are():
    splits = np.ones(60, np.int8)
    splits[30:] = CODES.index("test")
    first = np.arange(60)
    first[[33, 36]] = 3  # across: both of one label
    first[7] = 6  # two labels
    first[9] = 0  # the rest
    found = checked(seen(splits=splits, first=first))
    assert {kind: count for kind, (_, count) in kinds(found).items()} == {
        "copies_across": 2,
        "copies_of_two_labels": 1,
        "copies": 1,
        "shape": 60,
    }
    assert next(found.items(found.of("copies_across"))) == {
        "paths": ["a/3.png", "a/33.png"],
        "labels": ["a", "a"],
        "splits": ["train", "test"],
    }
    assert [(row["path"], row["reason"]) for row in found.fixes()] == [
        ("a/3.png", "the same image is in test"),
        ("a/6.png", "the same image has two labels"),
        ("b/7.png", "the same image has two labels"),
    ]
    assert checked(seen(splits=splits, first=first, refusals={"copies_across": DataError("x")})).exit_code == 3


def test_all_training_copies_of_a_leak_are_left_out():
    splits = np.array([1, 1, 1, 2, 3, 1] * 10)
    first = np.arange(60)
    first[[1, 3, 4]] = 0
    found = checked(seen(splits=splits, first=first))
    assert [row["path"] for row in found.fixes() if "same" in row["reason"]][:3] == ["a/0.png", "b/1.png", "a/3.png"]
    near_ones = checked(seen(splits=splits, near=near((5, 9), (5, 10))))
    assert [row["path"] for row in near_ones.fixes()] == ["c/5.png"], "the one in train; the others are not alike"


def test_near_ones_within_and_across_splits_and_of_two_labels():
    splits = np.array([1, 1, 3] * 20)
    found = checked(seen(splits=splits, near=near((0, 2), (0, 3), (0, 1), (6, 9))))
    assert kinds(found) | {} == {
        "near_across": ("look", 1),
        "near_of_two_labels": ("look", 2),
        "near_copies": ("look", 2),
        "missing_classes": ("look", 3),
        "small_classes": ("look", 1),
        "shape": ("note", 60),
    }
    cut = checked(seen(near=replace(near((0, 3)), complete=False)))
    assert cut.of("near_not_all").severity == "note" and "not all" in cut.of("near_not_all").text


def test_classes_that_are_missing_small_or_uneven():
    what = seen(n=400)
    targets = np.where(np.arange(400) < 4, 1, 0)
    dataset = replace(what.dataset, targets=targets)
    refused = {"classes": DataError("has no images of class 'c'")}
    found = checked(replace(what, dataset=dataset, split=replace(what.split, targets=targets), refusals=refused))
    assert found.exit_code == 3 and found.of("classes").text == "the data has no images of class 'c'"
    assert list(found.items(found.of("missing_classes"))) == [{"split": "all", "class": "c"}]
    assert list(found.items(found.of("small_classes"))) == [{"class": "b", "images": 4}, {"class": "c", "images": 0}]
    assert "396 of 'a', 4 of 'b'" in found.of("uneven_classes").text


def test_labels_that_are_probably_wrong():
    told = Suspicions(np.array([4]), np.array([2]), np.array([0.01234567]), np.arange(60), "resnetkit")
    found = checked(seen(suspicions=told))
    assert found.exit_code == 4 and "of 60 that were judged" in found.of("labels").text
    item = {"path": "b/4.png", "label": "b", "suggested": "c", "margin": 0.0123}
    assert list(found.items(found.of("labels"))) == [item]
    assert found.fixes()[0]["action"] == "relabel" and found.fixes()[0]["label"] == "c"


def test_several_labels():
    what = seen(splits=np.array([1, 3] * 30))
    targets = np.zeros((60, 3), np.int8)
    targets[:, 0], targets[1::2, 1] = 1, 1  # nobody in train has b, nobody at all has c
    dataset = replace(what.dataset, targets=targets)
    first = np.arange(60)
    first[2], first[5] = 0, 4
    found = checked(replace(what, dataset=dataset, split=replace(what.split, targets=targets), first=first))
    assert [item["class"] for item in found.items(found.of("missing_classes"))] == ["b", "c"]
    assert next(found.items(found.of("copies")))["labels"] == ["a", "a"]
    assert next(found.items(found.of("copies_of_two_labels")))["labels"] == ["a", "a|b"]


def test_what_is_special_is_only_told():
    traits = np.zeros(60, np.uint16)
    traits[:5] = Trait.ROTATED | Trait.GREY
    hashes = np.arange(60, dtype="u8")  # the first one is plain
    widths = np.full(60, 64, np.int32)
    widths[:4] = 20
    found = checked(seen(facts=facts(60, traits=traits, hashes=hashes, widths=widths)))
    assert found.exit_code == 0
    assert {kind: count for kind, (_, count) in kinds(found).items()} == {
        "rotated": 5,
        "grey": 5,
        "small": 4,
        "shape": 60,
    }
    plain = checked(seen(facts=facts(60, hashes=hashes)))
    assert plain.of("plain").rows.tolist() == [0]


@pytest.mark.parametrize(
    ("widths", "mode"), [([64] * 60, "crop"), ([160] * 60, "squash"), ([64] * 40 + [200] * 20, "letterbox")]
)
def test_the_way_of_resizing_follows_the_proportions(widths, mode):
    found = checked(seen(facts=facts(60, widths=np.array(widths, np.int32))))
    assert f"image.resize={mode} is suggested" in found.of("shape").text


def test_a_million_images_take_little_memory():
    n = 1_000_000
    targets = np.arange(n) % 1000
    names = Names(f"{i % 1000:03d}/{i}.jpg" for i in range(n))
    classes = tuple(f"{k:03d}" for k in range(1000))
    splits = (1 + (np.arange(n) % 10 == 0)).astype(np.int8)
    dataset = Dataset(Path("photos"), classes, names, targets, splits)
    first = np.arange(n)
    first[n // 2 + 1 : n // 2 + 1001] = first[1:1001]
    pairs = np.stack([np.arange(0, 200_000, 2), np.arange(500_001, 700_001, 2)], 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    what = Seen(dataset, dataset, facts(n), first, Near(pairs, np.zeros(len(pairs), np.uint8), False), {})
    found = checked(what)
    assert len(found.fixes()) > 100
    assert found.of("copies").count == 1000 and found.of("near_of_two_labels").count == 100_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300, "MB"
    json.dumps(found.as_dict(), allow_nan=False)
