"""The same picture twice is found by its bytes, and nearly the same by how its brightness changes."""

import numpy as np
import pytest
from PIL import Image

from conftest import picture, tiny, write_classes
from resnetkit.data.dataset import CODES, assign_splits, scan
from resnetkit.data.duplicates import (
    NEAR_BITS,
    across_splits,
    difference_hash,
    first_copies,
    listed,
    near_pairs,
    of_two_labels,
    refuse_leaks,
)
from resnetkit.errors import DataError

ENDINGS = (".png", ".jpg")


def write(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".png").write_bytes(content)
    return scan(root, ENDINGS)


def test_copies_are_found_by_their_bytes(tmp_path):
    same_end = b"x" * 5000
    dataset = write(
        tmp_path,
        a__1=b"one",
        a__2=b"two",
        a__3=b"one",
        b__1=b"one",
        b__2=b"A" + same_end,
        b__3=b"B" + same_end,  # of equal size, and equal but for its first byte
        b__4=b"A" + same_end,
        b__5=b"",
        b__6=b"",  # empty files are unreadable, not copies
    )
    first = first_copies(dataset, 2)
    assert first.tolist() == [0, 1, 0, 0, 4, 5, 4, 7, 8]
    assert of_two_labels(dataset, first) == [(0, 3)] and across_splits(dataset, first) == []
    assert listed(dataset, [(0, 3), (0, 2)], most=1) == "a/1.png = b/1.png; and 1 more"


def test_only_files_of_equal_size_are_opened(tmp_path):
    dataset = write(tmp_path, a__1=b"1", a__2=b"22", b__1=b"333")
    (tmp_path / "a" / "1.png").unlink()  # would be noticed if it were opened
    (tmp_path / "a" / "1.png").mkdir()
    assert first_copies(dataset, 1).tolist() == [0, 1, 2]


def test_splits_that_share_images_are_refused(tmp_path):
    dataset = write(tmp_path, train__a__1=b"1", train__b__1=b"2", val__a__9=b"1", val__b__9=b"4", test__a__5=b"2")
    first = first_copies(dataset, 2)
    with pytest.raises(DataError, match=r"in two splits 2 times: .*test/a/5.png = train/b/1.png.*allow_leak") as caught:
        refuse_leaks(dataset, first)
    assert caught.value.exit_code == 3 and caught.value.path == str(tmp_path)


def test_copies_stay_on_one_side_of_our_own_splits(tmp_path):
    """A10: whatever the seed."""
    files = {
        f"{name}__{i}{copy}": b"%d" % (i + 100 * (name == "b")) for name in "ab" for i in range(20) for copy in "xy"
    }
    dataset = write(tmp_path, **files)
    first = first_copies(dataset, 2)
    for seed in range(20):
        cut = assign_splits(dataset, val=0.2, test=0.2, seed=seed, first=first)
        assert (cut.splits == cut.splits[first]).all()
        assert [cut.counts(split).tolist() for split in ("val", "test")] == [[8, 8], [8, 8]]


def test_a_given_test_split_stays_where_copies_are_allowed(tmp_path):
    files = {f"train__{name}__{i}": b"%d%s" % (i, name.encode()) for name in "ab" for i in range(10)}
    dataset = write(tmp_path, **files, test__a__1=b"3a", test__b__1=b"3b")
    cut = assign_splits(dataset, val=0.2, test=0.2, seed=0, first=first_copies(dataset, 2))
    assert list(cut.select("test").names) == ["test/a/1.png", "test/b/1.png"]
    assert cut.counts("val").tolist() == [2, 2] and cut.counts("train").tolist() == [8, 8]


# --- near-duplicates -------------------------------------------------------------------------------------------------


def test_a_picture_that_was_saved_again_is_near(tmp_path):
    """A11: recompressed, resized, brightened."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        field = rng.normal(size=(9, 10, 3))
        image = Image.fromarray(np.uint8(128 + 40 * np.clip(field, -3, 3))).resize((320, 240), Image.Resampling.BICUBIC)
        image.save(tmp_path / "a.jpg", quality=40)
        changed = [Image.open(tmp_path / "a.jpg"), image.resize((97, 61)), image.point(lambda v: v * 0.9 + 20)]
        found += [(difference_hash(image) ^ difference_hash(other)).bit_count() for other in changed]
    assert np.mean(np.array(found) <= NEAR_BITS) >= 0.9 and max(found) <= 8


def test_other_pictures_are_not_near():
    hashes = np.array([difference_hash(picture((255, 0, 0), seed, 64)) for seed in range(200)], np.uint64)
    splits = np.array([CODES.index("train")] * 100 + [CODES.index("test")] * 100, np.int8)
    assert near_pairs(hashes, splits) == []
    hashes[150] = hashes[7] ^ np.uint64(5)
    assert near_pairs(hashes, splits) == [(7, 150, 2)]
    assert near_pairs(np.zeros(200, np.uint64), splits) == [], "plain pictures are all alike"
    assert difference_hash(Image.new("RGB", (50, 40), "white")) == 0
    assert difference_hash(picture((255, 0, 0), 0, 32)) and not difference_hash(picture((255, 0, 0), 0, 31))


def test_plain_pictures_are_left_out_and_pairs_are_bounded(monkeypatch):
    """Empty pages and icons are all alike: hundreds of millions of pairs would say nothing."""
    splits = np.array([1] * 300 + [3] * 300, np.int8)
    assert near_pairs(np.full(600, 7, np.uint64), splits) == []
    monkeypatch.setattr("resnetkit.data.duplicates.MOST_FOUND", 1000)
    assert len(near_pairs(np.full(600, 2**64 - 1, np.uint64), splits)) == 1000


def test_larger_data_is_compared_by_equal_hashes(monkeypatch):
    monkeypatch.setattr("resnetkit.data.duplicates.MAX_PAIRS", 10)
    splits = np.array([1, 1, 1, 1, 3, 3, 3], np.int8)
    hashes = np.array([8, 9, 7, 6, 9, 24, 6], np.uint64) + np.uint64(0xFF00)
    assert sorted(near_pairs(hashes, splits)) == [(0, 4, 1), (1, 4, 0), (2, 6, 1), (3, 6, 0)]


# --- by the command --------------------------------------------------------------------------------------------------


def test_train_refuses_a_leak_and_goes_on_when_told(tmp_path, run_cli):
    for split, seed in (("train", 0), ("val", 50)):
        write_classes(tmp_path / "data" / split, 8, seed)
    (tmp_path / "data/val/red/x.png").write_bytes((tmp_path / "data/train/red/0.png").read_bytes())
    code, out, err = run_cli("train", "data", *tiny("train.epochs=1"))
    assert (code, out) == (3, "") and "train/red/0.png = val/red/x.png" in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    code, _, err = run_cli("train", "data", *tiny("train.epochs=1", "data.allow_leak=true"))
    assert code == 0 and "1 near-duplicates across splits" in err and "exact copies" not in err
    assert "take care: 1 images are in two splits: train/red/0.png = val/red/x.png" in err
    rows = (tmp_path / "runs/data/near_duplicates.csv").read_text().splitlines()
    assert rows == ["train,other,split,bits", "train/red/0.png,val/red/x.png,val,0"]


def test_train_tells_of_one_image_under_two_labels(tmp_path, run_cli):
    """A12."""
    write_classes(tmp_path / "data", 8)
    (tmp_path / "data/red/x.png").write_bytes((tmp_path / "data/blue/0.png").read_bytes())
    code, _, err = run_cli("train", "data", *tiny("train.epochs=1"))
    assert code == 0 and "take care: 1 images have two labels: blue/0.png = red/x.png" in err
    assert "1 exact copies, kept on one side" in err
