import zipfile
from pathlib import Path

import pytest

from resnetkit.data.text import Chosen
from resnetkit.tasks.recognise import recognised
from resnetkit.tasks.task import modality_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    "names, noun",
    [
        (["a/1.wav", "b/2.flac"], "sounds"),
        (["train/a/1.MP3", "train/b/2.ogg", "README.txt"], "sounds"),
        (["a/1.txt", "b/2.txt"], "texts"),
        (["a/1.jpg", "a/1.txt", "b/2.jpg", "b/2.txt"], "images"),  # captions
        (["a/1.npy", "b/2.npy"], "images"),
        (["notes.md"], "images"),
        ([], "images"),
    ],
)
def test_folders_and_archives(names, noun, tmp_path):
    root = touch(tmp_path / "data", *names)
    root.mkdir(exist_ok=True)
    assert recognised(root) == noun
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as out:
        for name in names:
            out.write(root / name, name)
    assert recognised(tmp_path / "data.zip") == noun


@pytest.mark.parametrize(
    "name, content, noun",
    [
        ("a.csv", "path,label\nx/1.wav,yes\nx/2.wav,no\n", "sounds"),
        ("a.csv", "path,label,start,end\nx/1.flac,yes,0,1\n", "sounds"),
        ("a.csv", "text,coarse_label,fine_label\nwho,1,2\n", "texts"),
        ("a.csv", "path,label\nx/1.png,yes\n", "images"),
        ("a.csv", "path,label\n", "images"),
        ("a.csv", "Text,Label\nhello,yes\n", "texts"),
        ("a.csv", "hello there,yes\ngood bye then,no\nwell well,no\nso it is,yes\n", "texts"),
        ("a.csv", "file,kind,other\n1,2,3\n", "images"),
        ("a.csv", "x/1.png,cat\nx/2.png,dog\nx/3.png,cat\nx/4.png,dog\n", "images"),
        ("a.csv", "x/1.wav,cat\nx/2.wav,dog\nx/3.wav,cat\nx/4.wav,dog\n", "images"),
        ("a.csv", "", "images"),
        ("a.tsv", "hello\t1\n", "texts"),
        ("a.jsonl", '{"text": "a", "label": 1}\n', "texts"),
        ("a.bin", "\0\0", "images"),
    ],
)
def test_tables(name, content, noun, tmp_path):
    (tmp_path / name).write_text(content)
    assert recognised(tmp_path / name) == noun == modality_of(tmp_path / name).noun


def test_named_columns_are_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text("path,review,stars\n1,hello,2\n")
    assert recognised(tmp_path / "a.csv") == "images" and recognised(tmp_path / "a.csv", Chosen("review")) == "texts"


def test_a_folder_of_tables(tmp_path):
    (tmp_path / "train.tsv").write_text("hello\t1\n")
    assert recognised(tmp_path) == "texts"


def test_what_is_not_there():
    assert recognised(Path("nowhere")) == "images"
