"""Where training images come from: a cache that is made once, or workers that may die; the pixels are the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from conftest import picture, tiny, write_classes
from resnetkit.data.dataset import scan
from resnetkit.data.image import EXTENSIONS, Preprocess
from resnetkit.errors import DataError, ResourceError
from resnetkit.training import pixels as store
from resnetkit.training.pixels import cached, decoded_each_time, in_memory, key_of, make_room, refuse_unreadable

SQUARE = Preprocess(size=24, resize="squash")
ROWS = np.array([3, 0, 35])


def silent(now: int) -> None:
    """No progress."""


def files_of(photos: Path):
    return scan(photos, EXTENSIONS).files


def kept_in(folder: Path, files):
    return cached(files, SQUARE, folder / key_of(files, SQUARE), silent)


# --- the cache -------------------------------------------------------------------------------------------------------


def test_memory_cache_and_workers_give_the_same_pixels(photos: Path, tmp_path: Path) -> None:
    files = files_of(photos)
    done: list[int] = []
    memory = in_memory(files, SQUARE, done.append)
    assert done == list(range(1, 37)) and memory.store(ROWS).shape == (3, 24, 24, 3)
    made, again = (kept_in(tmp_path, files) for _ in range(2))
    anew = decoded_each_time(files, SQUARE, 2, silent)
    try:
        for other in (made, again, anew):
            assert np.array_equal(other.store(ROWS), memory.store(ROWS))
            assert np.array_equal(other.aspects, memory.aspects) and np.array_equal(other.hashes, memory.hashes)
            batches = list(other.each([ROWS, ROWS[:1], np.arange(36)]))
            assert [len(batch) for batch in batches] == [3, 1, 36]
            assert np.array_equal(other.take(ROWS).store(np.array([1])), memory.store(ROWS[1:2]))
    finally:
        anew.close()


def test_the_cache_is_used_and_not_made_again(photos: Path, tmp_path: Path, monkeypatch) -> None:
    files = files_of(photos)
    first = kept_in(tmp_path / "cache", files)
    moved = photos.rename(tmp_path / "moved")  # the same bytes elsewhere are the same cache
    monkeypatch.setattr(store, "_decode", None)
    again = kept_in(tmp_path / "cache", files_of(moved))
    assert np.array_equal(first.store(ROWS), again.store(ROWS))
    assert sorted(os.listdir(next((tmp_path / "cache").iterdir()))) == ["index.npz", "pixels.npy"]


@pytest.mark.parametrize("change", ["a byte", "another size", "another order"])
def test_other_content_or_preparation_is_another_cache(photos: Path, change: str) -> None:
    files = files_of(photos)
    before, prepared = key_of(files, SQUARE), SQUARE
    if change == "a byte":
        path = photos / "red" / "3.png"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif change == "another size":
        prepared = Preprocess(size=25, resize="squash")
    else:
        (photos / "red" / "3.png").rename(photos / "red" / "0.pngx.png")
    assert key_of(files_of(photos), prepared) != before
    assert len(before) == 32


@pytest.mark.parametrize("damage", ["pixels cut", "index cut", "pixels gone", "index gone", "of fewer images"])
def test_a_damaged_cache_is_made_again(photos: Path, tmp_path: Path, damage: str) -> None:
    files = files_of(photos)
    whole = kept_in(tmp_path, files).store(ROWS).copy()
    folder = tmp_path / key_of(files, SQUARE)
    path = folder / ("index.npz" if "index" in damage else "pixels.npy")
    if "cut" in damage:
        path.write_bytes(path.read_bytes()[:-100])
    elif "gone" in damage:
        path.unlink()
    else:
        np.save(path, np.zeros((5, 24, 24, 3), np.uint8))
    assert np.array_equal(kept_in(tmp_path, files).store(ROWS), whole)


def test_the_oldest_caches_make_room(tmp_path: Path) -> None:
    names = [letter * 32 for letter in "abc"]
    (tmp_path / "photos").mkdir()  # the folder may be one of the user's
    (tmp_path / "photos" / "pixels.npy").write_bytes(bytes(10_000))
    (tmp_path / ("d" * 32)).mkdir()
    os.utime(tmp_path / "photos", (1e9 - 99, 1e9 - 99))
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pixels.npy").write_bytes(bytes(1000))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    for left in (f".{names[0]}.tmp-1", ".mine.tmp-1"):  # what a kill has left long ago, and what is not ours
        (tmp_path / left).mkdir()
        os.utime(tmp_path / left, (1e9, 1e9))
    others = [".mine.tmp-1", "d" * 32, "photos"]
    make_room(tmp_path, 900, 3000)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, *names[:2]])
    make_room(tmp_path, 2500, 3000)
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    with pytest.raises(ResourceError, match=r"MB are free, .* MB are needed"):
        make_room(tmp_path, 10**18, 10**19)


def test_unreadable_images_are_remembered_by_the_cache(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "0.png").write_bytes(b"")
    for _ in range(2):
        found = kept_in(tmp_path / "cache", files_of(photos))
        assert [(row, error.what) for row, error in found.failed] == [(24, "is not an image: empty file")]
        assert np.isnan(found.aspects[24]) and np.isfinite(np.delete(found.aspects, 24)).all()


def test_what_can_be_read_since_is_decoded(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """As HEIC after its package was installed: the bytes are the same, the black square must not stay."""
    files = files_of(photos)
    with monkeypatch.context() as patch:
        patch.setattr(store.example, "of", lambda file, how: (_ for _ in ()).throw(DataError("is HEIC", path=file)))
        assert len(kept_in(tmp_path, files).failed) == 36
    found = kept_in(tmp_path, files)
    assert not found.failed and np.isfinite(found.aspects).all() and found.store(ROWS).any()


def test_two_makers_of_one_cache(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """The second one uses what the first one has published meanwhile."""
    files = files_of(photos)
    make = store._make

    def overtaken(files, preprocess, folder, progress):
        make(files, preprocess, folder, progress)
        make(files, preprocess, folder, progress)

    monkeypatch.setattr(store, "_make", overtaken)
    assert kept_in(tmp_path / "cache", files).store(ROWS).shape == (3, 24, 24, 3)
    assert len(os.listdir(tmp_path / "cache")) == 1


# --- bad files -------------------------------------------------------------------------------------------------------


def test_unreadable_images_are_all_named(photos: Path) -> None:
    """A13-A16 in training: named before the first step."""
    for name in ("red/0.png", "blue/3.png"):
        (photos / name).write_bytes(b"")
    failed = in_memory(files_of(photos), SQUARE, silent).failed
    with pytest.raises(DataError, match=r"2 of 36 images cannot be read: .*blue/3.png: .*empty.*red/0.png"):
        refuse_unreadable(failed, 36, 0.05)
    refuse_unreadable(failed, 36, 0.06)
    with pytest.raises(DataError, match=r"^[^;]*red/0.png: is not an image: empty file"):
        refuse_unreadable(failed[1:], 36, 0.0)


def test_more_bad_files_than_allowed_stop_before_the_first_step(photos: Path, run_cli) -> None:
    """A36: over the limit nothing is trained; under it they are left out, counted and listed."""
    for i in range(3):
        (photos / "red" / f"{i}.png").write_bytes(b"<html>")
    code, out, err = run_cli("train", photos, *tiny("data.max_bad=0.01"))
    assert (code, out) == (3, "") and "images cannot be read: " in err and "data.max_bad" in err
    assert not Path("runs").exists()
    code, _, err = run_cli("train", photos, *tiny("data.max_bad=0.5", "train.epochs=1"))
    assert code == 0 and err.count("left out: ") == 3
    rows = Path("runs/photos/unreadable.csv").read_text().splitlines()
    assert rows[0] == "path,split,reason" and len(rows) == 4 and "it looks like HTML" in rows[1]


def test_a_file_that_changes_is_noticed(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """A34: while the cache is made, and later where images are decoded anew."""
    files = files_of(photos)
    anew = decoded_each_time(files, SQUARE, 1, silent)
    try:
        assert len(anew.store(ROWS)) == 3
        picture((1, 2, 3), 7).save(photos / "blue" / "0.png")
        with pytest.raises(DataError, match=r"blue/0.png: has changed since the training began"):
            anew.store(ROWS)
    finally:
        anew.close()

    def change(now: int) -> None:
        picture((1, 2, 3), now).save(photos / "red" / "0.png")

    with pytest.raises(DataError, match=r"red/0.png: has changed since the training began"):
        cached(files, SQUARE, tmp_path / "cache" / "x", change)
    assert not (tmp_path / "cache" / "x").exists()


# --- by the command ---------------------------------------------------------------------------------------------------


def test_cache_workers_and_their_number_change_no_weight(photos: Path, run_cli) -> None:
    """C24: decoded once or anew, by one worker or two, stopped in an epoch or not: the same network."""
    flags = (photos, *tiny("train.epochs=1"))
    weights = []
    for name, more in (
        ("cache", ()),
        ("none", ("cache.folder=none",)),
        ("one", ("cache.gb=0", "train.workers=1")),
        ("four", ("cache.gb=0", "train.workers=4")),
    ):
        code, _, err = run_cli("train", *flags, "--out", name, *(f for m in more for f in ("--set", m)))
        assert code == 0, err
        weights.append((Path(name) / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


def test_a_cache_that_cannot_be_written_is_memory(tmp_path: Path, run_cli, monkeypatch) -> None:
    write_classes(tmp_path / "data", 6)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "file"))
    code, _, err = run_cli("train", "data", *tiny("train.epochs=1"))
    assert code == 0 and "decoded images stay in memory: " in err
