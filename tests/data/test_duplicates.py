"""The same picture twice is found by its bytes, and nearly the same by how it looks."""

import io

import numpy as np
import pytest
from PIL import Image

from conftest import picture, tiny, write_classes
from resnetkit.data.dataset import CODES, assign_splits, scan
from resnetkit.data.duplicates import (
    NEAR_BITS,
    Near,
    across_splits,
    confirmed,
    first_copies,
    listed,
    near,
    near_pairs,
    of_two_labels,
    perceptual_hash,
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


def scene(seed, size=(320, 240)):
    """A picture of large soft forms, with noise."""
    rng = np.random.default_rng(seed)
    forms = Image.fromarray(np.uint8(128 + 40 * np.clip(rng.normal(size=(9, 10, 3)), -3, 3)))
    smooth = np.asarray(forms.resize(size, Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.uint8(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255)))


def saved(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def bits(a, b):
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


@pytest.mark.parametrize("quality", [40, 65, 90])
def test_a_picture_that_was_saved_again_is_near(quality):
    """A11: recompressed, resized, brightened."""
    for seed in range(20):
        image = scene(seed)
        assert bits(image, saved(image, quality)) <= NEAR_BITS
        assert bits(image, saved(image.resize((160, 120)), quality)) <= NEAR_BITS
        assert bits(image, image.resize((640, 480), Image.Resampling.BICUBIC)) <= NEAR_BITS
        assert bits(image, image.point(lambda v: v * 0.9 + 20)) <= NEAR_BITS


def test_other_pictures_are_not_near():
    hashes = np.array([perceptual_hash(scene(seed, (64, 64))) for seed in range(200)], np.uint64)
    splits = np.array([CODES.index("train")] * 100 + [CODES.index("test")] * 100, np.int8)
    assert not len(near_pairs(hashes, splits).pairs)
    hashes[150] = hashes[7] ^ np.uint64(5)
    found = near_pairs(hashes, splits)
    assert (found.pairs.tolist(), found.bits.tolist(), found.complete) == ([[7, 150]], [2], True)
    assert not len(near_pairs(np.zeros(200, np.uint64), splits).pairs), "plain pictures are all alike"
    assert perceptual_hash(Image.new("RGB", (50, 40), "white")) == 0
    paper = np.random.default_rng(0).normal(250, 2, (200, 150))
    assert perceptual_hash(Image.fromarray(np.uint8(np.clip(paper, 0, 255)))) == 0, "and so is empty paper"
    assert perceptual_hash(picture((255, 0, 0), 0, 32)) and not perceptual_hash(picture((255, 0, 0), 0, 31))


def flipped(hashes, most, rng):
    """The hashes with up to `most` other bits each."""
    changes = [sum(1 << int(bit) for bit in rng.choice(64, int(n), replace=False)) for n in rng.integers(0, most, 400)]
    return np.concatenate([hashes, hashes[rng.integers(0, len(hashes), 400)] ^ np.array(changes, np.uint64)])


@pytest.mark.parametrize("many", [100, 100_000])
def test_banding_finds_what_comparing_all_with_all_does(monkeypatch, many):
    monkeypatch.setattr("resnetkit.data.duplicates.MANY", many)
    rng = np.random.default_rng(0)
    hashes = flipped(rng.integers(1, 2**63, 200, dtype=np.uint64), 14, rng)
    a, b = np.triu_indices(len(hashes), 1)
    near_ones = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
    found = near(hashes)
    assert found.complete and near_ones.sum() > 200
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(zip(a[near_ones], b[near_ones], strict=True))
    splits = rng.integers(0, 4, len(hashes)).astype(np.int8)
    across = near_ones & ((splits[a] == 1) != (splits[b] == 1)) & (splits[a] > 0) & (splits[b] > 0)
    pairs = near_pairs(hashes, splits).pairs
    assert sorted(map(tuple, pairs.tolist())) == sorted(zip(a[across], b[across], strict=True))


def test_hundreds_of_equal_hashes_are_bounded_and_said(monkeypatch):
    hashes = np.full(600, 2**63 + 5, np.uint64)
    found = near(hashes, most=1000)
    assert len(found.pairs) == 1000 and not found.complete
    monkeypatch.setattr("resnetkit.data.duplicates.MOST_IN_BUCKET", 100)
    assert not near(hashes, most=10**6).complete and near(hashes[:100], most=10**6).complete
    assert near(np.zeros(0, np.uint64)).complete and near(np.zeros(3, np.uint64)).pairs.shape == (0, 2)


def test_more_than_a_hundred_thousand_are_compared_by_more_of_their_bits():
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 2**63, 150_000, dtype=np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0xFF)
    found = near(hashes)
    assert found.complete and [0, 149_999] in found.pairs.tolist()


def test_candidates_are_looked_at_again(tmp_path):
    image = scene(1)
    (tmp_path / "a").mkdir()
    for number, each in enumerate((saved(image, 90), saved(image.resize((200, 150)), 60), scene(2))):
        each.save(tmp_path / "a" / f"{number}.png")
    files = scan(tmp_path, ENDINGS).files
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    found = confirmed(Near(pairs, np.array([1, 2, 3], np.uint8), True), files, 2)
    assert found.pairs.tolist() == [[0, 1]] and found.bits.tolist() == [1]
    (tmp_path / "a" / "1.png").write_bytes(b"gone")
    assert not len(confirmed(found, files, 2).pairs)


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


def test_another_colour_is_another_picture_and_a_grey_copy_is_a_copy(tmp_path):
    """Shapes that stand alike on grounds of one brightness differ in their colours alone."""
    image = scene(1)
    red, green, blue = image.split()
    (tmp_path / "a").mkdir()
    for number, each in enumerate(
        (image, saved(image, 50), Image.merge("RGB", (blue, red, green)), image.convert("L"))
    ):
        each.save(tmp_path / "a" / f"{number}.png")
    files = scan(tmp_path, ENDINGS).files
    pairs = np.array([[0, 1], [0, 2], [0, 3]])
    found = confirmed(Near(pairs, np.zeros(3, np.uint8), True), files, 2)
    assert [0, 1] in found.pairs.tolist() and [0, 3] in found.pairs.tolist() and [0, 2] not in found.pairs.tolist()
