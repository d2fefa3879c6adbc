"""What is read as a data set, in which order, how it is cut, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest

from resnetkit.data.dataset import CODES, assign_splits, held_out, refuse_untrainable, scan
from resnetkit.errors import DataError, ResourceError

ENDINGS = (".png", ".jpg")


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def read(root):
    return scan(root, ENDINGS)


def rows(dataset):
    labels = [dataset.classes[target] for target in dataset.targets]
    return list(zip(dataset.names, labels, (CODES[code] for code in dataset.splits), strict=True))


def many(root, counts):
    return read(make(root, *(f"{name}/{i}.png" for name, n in counts.items() for i in range(n))))


# --- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_in_natural_order(tmp_path):
    dataset = read(make(tmp_path, "10/b.png", "2/10.JPG", "2/9.png", "1/deep/er/x.png"))
    assert dataset.classes == ("1", "2", "10")
    assert list(dataset.names) == ["1/deep/er/x.png", "10/b.png", "2/10.JPG", "2/9.png"]
    assert dataset.targets.tolist() == [0, 2, 1, 1] and not dataset.has_splits and len(dataset) == 4
    assert all(path.is_file() for path in dataset.files)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "testing")])
def test_split_folders_and_their_other_names(tmp_path, train, val, test):
    root = make(tmp_path, *(f"{part}/{name}/{part}.png" for part in (train, val, test) for name in ("cat", "dog")))
    dataset = read(root)
    assert dataset.classes == ("cat", "dog") and dataset.has_splits
    for split, part in (("train", train), ("val", val), ("test", test)):
        chosen = dataset.select(split)
        assert list(chosen.names) == [f"{part}/cat/{part}.png", f"{part}/dog/{part}.png"]
        assert chosen.targets.tolist() == [0, 1] and dataset.counts(split).tolist() == [1, 1]


def test_classes_are_aligned_by_name_where_val_lacks_some(tmp_path):
    dataset = read(make(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/1.png", "val/b/1.png"))
    assert dataset.classes == ("a", "b", "c")
    assert dataset.select("val").targets.tolist() == [1, 2]


def test_folders_beside_the_splits_are_counted(tmp_path):
    dataset = read(make(tmp_path, "train/a/1.png", "val/a/1.png", "extra/a/1.png"))
    assert len(dataset) == 2 and dict(dataset.ignored) == {"folder extra beside the splits": 1}


@pytest.mark.parametrize("names", [("train", "plane"), ("test", "exam"), ("val", "test")])
def test_classes_that_are_called_like_splits(tmp_path, names):
    assert read(make(tmp_path, *(f"{name}/1.png" for name in names))).classes == tuple(sorted(names))


def test_what_is_passed_over_is_counted(tmp_path):
    root = make(tmp_path, "a/1.png", "b/1.png", ".git/x.png", "__MACOSX/a/1.png", "loose.png", "a/note.txt", "a/noend")
    make(root, "a/.DS_Store", "a/Thumbs.db", "a/._1.png", "b/desktop.ini")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "a" / "loop").symlink_to(root / "a", target_is_directory=True)
    (root / "a" / "dangling.png").symlink_to(root / "gone.png")
    os.mkfifo(root / "b" / "pipe.png")  # opening it would wait for ever
    dataset = read(root)
    assert list(dataset.names) == ["a/1.png", "b/1.png"]
    assert dict(dataset.ignored) == {
        "hidden or system files": 6,
        "links to folders": 2,
        "neither files nor folders": 2,
        ".txt files": 1,
        "endless files": 1,
        "files outside class folders": 1,
    }


def test_links_out_of_the_folder_are_counted_and_followed_on_demand(tmp_path):
    """A30."""
    root = make(tmp_path / "data", "a/1.png", "a/2.png", "b/1.png")
    make(tmp_path, "elsewhere/3.png")
    (root / "a" / "out.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (root / "b" / "in.png").symlink_to(root / "a" / "1.png")
    os.link(root / "a" / "2.png", root / "b" / "hard.png")
    (root / "b" / "self.png").symlink_to(root / "b" / "self.png")
    dataset = read(root)
    assert list(dataset.names) == ["a/1.png", "a/2.png", "b/1.png", "b/hard.png", "b/in.png"]
    assert dict(dataset.ignored) == {
        "links out of the folder (follow them: --set data.follow_links=true)": 1,
        "neither files nor folders": 1,
    }
    assert "a/out.png" in scan(root, ENDINGS, follow_links=True).names


def test_a_folder_of_links_only_says_so(tmp_path):
    make(tmp_path, "elsewhere/3.png")
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    with pytest.raises(DataError, match=r"ignored: 2 links out of the folder .*follow_links=true"):
        read(tmp_path / "data")


FILES = [
    "new\nline.png",
    "tab\t.png",
    "🐈.png",
    "\u202etlr.png",
    os.fsdecode(b"\xff\x80.png"),
    "-rf.png",
    "y" * 251 + ".png",
]


def test_hostile_file_names_come_back_byte_for_byte(tmp_path):
    """A31."""
    dataset = read(make(tmp_path, *(f"{label}/{name}" for label in "ab" for name in FILES)))
    assert sorted(dataset.names) == sorted(f"{label}/{name}" for label in "ab" for name in FILES)
    assert all(file.is_file() for file in dataset.files) and dict(dataset.ignored) == {}


def test_a_folder_deeper_than_a_path_may_be(tmp_path, monkeypatch):
    """A32: named by its beginning, not with 4,000 characters."""
    make(tmp_path, "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "a")
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    with pytest.raises((DataError, ResourceError)) as caught:
        read(tmp_path)
    assert caught.value.exit_code == 3 and "nested too deep" in str(caught.value) and len(str(caught.value)) < 400


MILLION = """
import resource, sys
from pathlib import Path
from collections import Counter
from resnetkit.data import dataset as data

class Generated:
    ignored = Counter()
    def children(self, folder):
        if not folder:
            return [f"class_{{i:04d}}" for i in range({folders})], []
        return [], [f"photo_{{i:07d}}.jpg" for i in range({files})]

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = data._from_tree(Path("."), Generated(), (".jpg",))
cut = data.assign_splits(found, val=0.1, test=0.1, seed=0)
assert len(cut) == 1_000_000 and cut.names[123] and sum(cut.counts("val")) == 100_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in another unit there")
@pytest.mark.parametrize(("folders", "files"), [(1000, 1000), (2, 500_000)])
def test_a_million_files_in_150_mb(folders, files):
    """A32: names as they come from a folder, up to the splits."""
    script = MILLION.format(folders=folders, files=files)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 150_000


NAMES = ["<script>alert(1)<", "-rf", "con", "trailing.", "=cmd()", "a,b\"c'd", "two\nlines", "🐈", "x" * 255, "%s {0}"]


def test_hostile_names_are_names(tmp_path):
    dataset = read(make(tmp_path, *(f"{name}/{name[:200]}.png" for name in NAMES)))
    assert set(dataset.classes) == set(NAMES)
    refuse_untrainable(dataset, tmp_path)


# --- refused folders -------------------------------------------------------------------------------------------------

REFUSED = {
    "missing root": ((), "gone", "there is no such file or folder"),
    "a file": (("photo.png",), "photo.png", "is a file"),
    "an empty folder": ((), "", "holds no class folders with images"),
    "images, but no class folders": (("1.png", "2.png"), "", "make one folder a class, of files ending in .png .jpg"),
    "other files only": (("a/1.txt", "b/2.doc"), "", "holds no class folders with images"),
    "an empty class": (("a/1.png", "b/1.txt"), "", "has no images of class 'b'"),
    "one class only": (("a/1.png", "a/2.png"), "", "has one class only, 'a'"),
    "a class in val, not in train": (
        ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"),
        "",
        "class 'c' is in val or test, but not in train",
    ),
    "a class in test, not in train": (
        ("train/a/1.png", "train/b/1.png", "test/c/1.png"),
        "",
        "class 'c' is in val or test, but not in train",
    ),
    "a class in train, not in val": (
        ("train/a/1.png", "train/b/1.png", "val/a/1.png"),
        "",
        "split 'val' has no images of class 'b'",
    ),
    "an empty class in train": (
        ("train/a/1.png", "train/b/1.png", "train/c/x.txt", "val/a/1.png", "val/b/1.png"),
        "",
        "split 'train' has no images of class 'c'",
    ),
    "names that differ in case": (("Cat/1.png", "cat/1.png"), "", "classes 'Cat' and 'cat' differ only in case"),
    "names that differ in Unicode's form": (("é/1.png", "e\u0301/1.png"), "", "how accents are stored"),
    "case, across splits": (("train/Cat/1.png", "train/a/1.png", "val/cat/1.png", "val/a/1.png"), "", "only in case"),
    "a name that is not UTF-8": (("a/1.png", os.fsdecode(b"\xff") + "/1.png"), "", r"class \udcff is not valid UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    paths, below, message = REFUSED[name]
    source = make(tmp_path / "data", *paths) / below if paths else tmp_path / "data" / below
    if name == "an empty folder":
        source.mkdir()
    with pytest.raises(DataError) as caught:
        refuse_untrainable(read(source), source)
    assert message in str(caught.value) and str(source) in str(caught.value) and caught.value.fix
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["missing root", "a file", "an empty folder", "an empty class", "one class only"])
def test_refused_by_the_command(name, tmp_path, run_cli):
    paths, below, message = REFUSED[name]
    (tmp_path / "data").mkdir()
    code, out, err = run_cli("train", make(tmp_path / "data", *paths) / below, "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (3, "") and err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["an empty class", "a class in train, not in val", "an empty class in train"])
def test_empty_classes_can_be_allowed(name, tmp_path):
    dataset = read(make(tmp_path, *REFUSED[name][0]))
    refuse_untrainable(dataset, tmp_path, allow_empty_class=True)
    assert len(dataset.classes) >= 2


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_csv(root, text, encoding="utf-8"):
    make(root, "a.png", "b.png", "sub/c d.png")
    (root / "labels.csv").write_bytes(text.encode(encoding))
    return root / "labels.csv"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path, newline, encoding):
    lines = ["path,label,note", "b.png,10,x", 'a.png,"2, or so",', '"sub/c d.png",1,"two\nlines"', ""]
    dataset = read(write_csv(tmp_path, newline.join(lines), encoding))
    assert dataset.classes == ("1", "2, or so", "10") and dataset.root == tmp_path
    assert rows(dataset) == [("a.png", "2, or so", ""), ("b.png", "10", ""), ("sub/c d.png", "1", "")]


def test_csv_with_splits(tmp_path):
    dataset = read(write_csv(tmp_path, "label,split,path\nx,train,a.png\ny, train ,b.png\nx,val,sub/c d.png\n"))
    assert rows(dataset) == [("a.png", "x", "train"), ("b.png", "y", "train"), ("sub/c d.png", "x", "val")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 has no column label or path"),
        ("path,class\na.png,x\n", "line 1 has no column label"),
        ("file;label\na.png;x\n", "line 1 has no column label or path"),
        ("path,label\n", "holds no class folders with images"),
        ("path,label\na.png,x\ngone.png,y\n", "line 3: there is no file gone.png"),
        ("path,label\nsub,x\n", "line 2: there is no file sub"),
        (f"path,label\n{'x' * 300},x\n", "line 2: there is no file xxx"),
        ("path,label\na.png\n", "line 2 has no path or no label"),
        ("path,label\n,x\n", "line 2 has no path or no label"),
        ("path,label,split\na.png,x,dev\n", "line 2 has the split 'dev'"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "line 3 has no split, but others do"),
        ("path,label\na.png,x\nb.png,y\n./a.png,y\n", "line 4 names ./a.png again, after line 2"),
        ("path,label\na.png,x\nb.png,X\n", "differ only in case"),
        ("path,label\na.png," + "x" * 200_000, "is not a CSV in UTF-8: field larger"),
    ],
)
def test_csv_refused(tmp_path, text, message):
    path = write_csv(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and caught.value.exit_code == 3


def test_csv_in_another_encoding(tmp_path):
    with pytest.raises(DataError, match="is not a CSV in UTF-8"):
        read(write_csv(tmp_path, "path,label\na.png,grün\n", "latin-1"))


def test_csv_that_names_a_fifo(tmp_path):
    path = write_csv(tmp_path, "path,label\npipe.png,x\n")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="there is no file pipe.png"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\na.png,x,val\nb.png,y,val\n", "has no train split"),
        ("path,label,split\na.png,x,train\nb.png,y,test\n", "class 'y' is in val or test, but not in train"),
        ("path,label\na.png,x\nb.png,x\n", "has one class only"),
    ],
)
def test_csv_that_cannot_be_trained_on(tmp_path, text, message):
    path = write_csv(tmp_path, text)
    with pytest.raises(DataError, match=message):
        refuse_untrainable(read(path), path)


# --- splits ----------------------------------------------------------------------------------------------------------


def test_held_out():
    for n in range(201):
        for share in (0, 0.01, 0.15, 0.2, 0.5, 0.9):
            held = held_out(n, share)
            assert (held == 0) == (share == 0 or n < 3)
            assert 2 * held < max(n, 1)  # val and test of the same share leave something to train on
            if n >= 20 and 0.1 <= share <= 0.4:
                assert abs(held - n * share) <= 0.5


COUNTS = {"a": 1, "b": 2, "c": 3, "d": 40, "e": 101}


def test_splits_are_stratified_disjoint_and_reproducible(tmp_path):
    dataset = many(tmp_path, COUNTS)
    cut = assign_splits(dataset, val=0.15, test=0.15, seed=3)
    assert rows(cut) == rows(assign_splits(dataset, val=0.15, test=0.15, seed=3))
    assert rows(cut) != rows(assign_splits(dataset, val=0.15, test=0.15, seed=4))
    assert list(cut.names) == list(dataset.names)  # one split each
    assert {split: cut.counts(split).tolist() for split in ("train", "val", "test")} == {
        "train": [1, 2, 1, 28, 71],
        "val": [0, 0, 1, 6, 15],
        "test": [0, 0, 1, 6, 15],
    }


def test_the_split_of_a_class_does_not_depend_on_the_others_that_come_later(tmp_path):
    small = assign_splits(many(tmp_path / "1", {"a": 9, "b": 9}), val=0.3, test=0.3, seed=0)
    large = assign_splits(many(tmp_path / "2", {"a": 9, "b": 9, "c": 50}), val=0.3, test=0.3, seed=0)
    assert rows(small) == rows(large)[:18]


@pytest.mark.parametrize(("val", "test"), [(0, 0), (0.2, 0), (0, 0.2), (0.5, 0.4)])
def test_shares_of_nothing(tmp_path, val, test):
    cut = assign_splits(many(tmp_path, {"a": 10, "b": 20}), val=val, test=test, seed=0)
    for split, share in (("val", val), ("test", test)):
        np.testing.assert_allclose(cut.counts(split), [min(10 * share, 4), min(20 * share, 9)])
    assert (cut.counts("train") > 0).all()


def test_a_given_split_stays(tmp_path):
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(10)]
    dataset = read(make(tmp_path, *names))
    cut = assign_splits(dataset, val=0.2, test=0.5, seed=0)
    assert rows(cut.select("test")) == rows(dataset.select("test"))
    assert [cut.counts(split).tolist() for split in ("train", "val")] == [[8, 8], [2, 2]]
    assert assign_splits(cut, val=0.5, test=0.5, seed=9) is cut
