import json
import zipfile

import numpy as np
import pytest

from resnetkit.data import text
from resnetkit.data.dataset import assign_splits
from resnetkit.data.text import Chosen
from resnetkit.errors import DataError

GOOD, BAD = "a long sentence, with a comma", "another one"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def labels(corpus):
    return [corpus.rows.classes[k] for k in corpus.rows.targets]


def test_csv_with_header(tmp_path):
    source = write(tmp_path / "r.csv", f'Label,id,Text\ngood,1,"{GOOD}"\nbad,2,"two\nlines, ""quoted"""\n')
    corpus = text.scan(source)
    assert corpus.texts == (GOOD, 'two\nlines, "quoted"') and labels(corpus) == ["good", "bad"]
    assert list(corpus.rows.names) == ["r.csv#line=2", "r.csv#line=4"]


@pytest.mark.parametrize("content", [f"{GOOD}\t1\n{BAD}\t0\n", f"1\t{GOOD}\n0\t{BAD}"])
def test_tsv_without_header(tmp_path, content):
    corpus = text.scan(write(tmp_path / "r.tsv", content))
    assert corpus.texts == (GOOD, BAD) and labels(corpus) == ["1", "0"] and corpus.rows.names[0] == "r.tsv#line=1"


def test_tsv_knows_no_quotes(tmp_path):
    corpus = text.scan(write(tmp_path / "r.tsv", f'text\tlabel\n"{GOOD}\tx\n{BAD}"\ty\n'))
    assert corpus.texts == (f'"{GOOD}', f'{BAD}"')


def test_columns_by_name_and_by_number(tmp_path):
    named = write(tmp_path / "r.csv", "phrase,rating,text\nfine,5,x\npoor,1,x\n")
    assert text.scan(named, Chosen("phrase", "rating")).texts == ("fine", "poor")
    assert labels(text.scan(named, Chosen(label="rating"))) == ["5", "1"]
    bare = write(tmp_path / "n.csv", "1,title,some words\n2,title,more words\n")
    corpus = text.scan(bare, Chosen("3", "1"))
    assert corpus.texts == ("some words", "more words") and labels(corpus) == ["1", "2"]


def test_a_header_of_which_one_name_is_usual(tmp_path):
    lines = "".join(f"{'ab'[i % 2]}\t{GOOD} {i}\n" for i in range(6))
    corpus = text.scan(write(tmp_path / "r.tsv", f"coarse\tquestion\n{lines}"))
    assert len(corpus) == 6 and corpus.rows.classes == ("a", "b") and corpus.rows.names[0] == "r.tsv#line=2"
    with pytest.raises(DataError, match="line 1 has the label 'coarse'"):
        text.scan(write(tmp_path / "r.tsv", f"coarse\twords\n{lines}"))


def test_jsonl(tmp_path):
    lines = [{"text": "a", "label": 1, "group": 7}, {"text": "b\u2028c", "label": True, "group": 8}]
    corpus = text.scan(write(tmp_path / "r.jsonl", "\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines)))
    assert corpus.texts == ("a", "b\u2028c") and labels(corpus) == ["1", "True"]
    assert corpus.rows.names[1] == "r.jsonl#line=3" and corpus.rows.groups.tolist() == [0, 1]


def test_several_labels(tmp_path):
    lists = write(tmp_path / "r.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n')
    assert text.scan(lists).rows.targets.tolist() == [[1, 1], [0, 0]]
    column = write(tmp_path / "r.csv", "text,labels\na,x|y\nb,\n")
    assert text.scan(column).rows.targets.tolist() == [[1, 1], [0, 0]]


def test_folders_and_archives_of_texts(tmp_path):
    files = {"train/pos/1.txt": GOOD, "train/neg/1.txt": BAD, "train/neg/2.txt": " \n", "test/pos/1.txt": "x"}
    for name, content in files.items():
        write(tmp_path / "d" / name, content)
    corpus = text.scan(tmp_path / "d")
    assert corpus.texts == (BAD, GOOD, "x") or corpus.texts == ("x", BAD, GOOD)
    assert corpus.select("test").texts == ("x",) and corpus.rows.ignored == (("empty texts", 1),)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert text.scan(tmp_path / "d.zip").texts == corpus.texts


def test_splits_by_files(tmp_path):
    for name, word in (("train.tsv", "a"), ("dev.tsv", "b"), ("test.tsv", "c"), ("notes.csv", "d")):
        write(tmp_path / name, f"{word} {GOOD}\t1\n{word} {BAD}\t0\n")
    corpus = text.scan(tmp_path)
    assert corpus.rows.given_splits == ("train", "val", "test") and len(corpus) == 6
    assert corpus.select("val").texts == (f"b {GOOD}", f"b {BAD}")
    write(tmp_path / "val.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match="is the val split, but another"):
        text.scan(tmp_path)


def test_splits_by_column(tmp_path):
    corpus = text.scan(write(tmp_path / "r.csv", "text,label,split\na,1,train\nb,2,dev\nc,1,test\n"))
    assert corpus.select("val").texts == ("b",)
    write(tmp_path / "train.csv", "text,label,split\na,1,train\n")
    with pytest.raises(DataError, match="by its name, and has a column split"):
        text.scan(tmp_path)


def test_empty_texts_are_counted(tmp_path):
    corpus = text.scan(write(tmp_path / "r.csv", 'text,label\na,1\n"  ",1\n,2\n'))
    assert corpus.texts == ("a",) and corpus.rows.ignored == (("empty texts", 2),)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("r.csv", "", "has no lines"),
        ("r.csv", "text,label\n", "has no lines"),
        ("r.csv", "text,label\n,1\n", "holds no texts"),
        ("r.csv", "text,label\na,1\nb\n", "line 3 has 1 columns, line 1 has 2"),
        ("r.csv", "text,label\na,b,1\n", "line 2 has 3 columns"),
        ("r.csv", 'text,label\na,1\n"b,1\n', "line 3: unexpected end"),
        ("r.csv", "text,label\na,1\nb,\n", "line 3 has no label"),
        ("r.csv", "text,text,label\na,b,1\n", "a column twice"),
        ("r.csv", "text,label,split\na,1,dev\nb,1,\n", "line 3 has no split"),
        ("r.csv", "text,label,split\na,1,holdout\n", "line 2 has the split 'holdout'"),
        ("r.csv", "a,b,c\n1,2,3\n", "3 columns, and which hold .* from line 1: a, b, c"),
        ("r.csv", "phrase,rating\n" + "some words,1\nmore words,2\n" * 3, "'rating', which no other line has"),
        ("r.jsonl", '{"text": "a", "label": 1}\n{"text": 3}\n', "line 2 has a int where a text"),
        ("r.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2 has no label"),
        ("r.jsonl", '{"text": "a", "label": {}}\n', "line 1 has {} as a label"),
        ("r.jsonl", '{"text": "\\ud800", "label": 1}\n', "line 1 holds half of a character"),
        ("r.jsonl", '{"text": "a",\n', "line 1 is not JSON"),
        ("r.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("r.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("r.jsonl", '{"words": "a", "label": 1}\n', "no column that holds the text"),
        ("r.txt", "a", "is one text"),
        ("missing/r.csv", None, "no such file"),
    ],
)
def test_wrong_tables(tmp_path, name, content, what):
    source = tmp_path / name if content is None else write(tmp_path / name, content)
    with pytest.raises(DataError, match=what) as found:
        text.scan(source)
    assert found.value.fix


def test_wrong_columns(tmp_path):
    source = write(tmp_path / "r.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match=r"no column 'words'.*it has text, label"):
        text.scan(source, Chosen("words", "label"))
    with pytest.raises(DataError, match="'label' is text and label"):
        text.scan(source, Chosen("label", "label"))


def test_repeats_stay_on_one_side(tmp_path):
    words = [f"text {i}" for i in range(20)]
    same = ["Cafe\u0301  au lait", "caf\u00e9 AU lait\n", "cafe au lait"]
    assert text.first_alike([*words, *same]).tolist() == [*range(20), 20, 20, 22]
    lines = "".join(f"{t},{i % 2}\n" for i, t in enumerate(words + words))
    corpus = text.scan(write(tmp_path / "r.csv", f"text,label\n{lines}"))
    rows = assign_splits(corpus.rows, val=0.2, test=0.2, seed=0, first=text.first_alike(corpus.texts))
    assert not len(text.straddling(text.Corpus(rows, corpus.texts)))
    assert rows.given_splits == ("train", "val", "test")


def test_straddling(tmp_path):
    corpus = text.scan(write(tmp_path / "r.csv", "text,label,split\na,1,train\nb,2,train\nA ,1,test\nb,2,train\n"))
    assert text.straddling(corpus).tolist() == [0, 2]


def test_fingerprint_sees_a_text(tmp_path):
    one = text.scan(write(tmp_path / "r.csv", "text,label\na,1\nb,2\n"))
    other = text.scan(write(tmp_path / "r.csv", "text,label\na,1\nc,2\n"))
    again = text.scan(write(tmp_path / "r.csv", "text,label\na,1\nb,2\n"))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert one.take(np.array([1])).texts == ("b",)


def test_a_group_may_be_nought(tmp_path):
    lines = [json.dumps({"text": f"words {i}", "label": "ab"[i % 2], "group": i // 2}) for i in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert text.scan(tmp_path / "a.jsonl").rows.groups.tolist() == [0, 0, 1, 1]
