import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from resnetkit.data import tokens
from resnetkit.data.tokens import TextPreprocess
from resnetkit.errors import DataError, ModelError, ResourceError, UsageError

PLAIN = TextPreprocess(length=8)
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "The CAT and the dog"]


def test_bytes():
    assert tokens.tokens("aé", PLAIN).tolist() == [98, 196, 170, 0, 0, 0, 0, 0]
    assert tokens.tokens("abcdefghij", PLAIN).tolist() == [98, 99, 100, 101, 102, 103, 104, 105]
    assert PLAIN.num_tokens == 257 and tokens.tokens("\u00ff", PLAIN).max() < 257
    assert tokens.is_cut("abcdefghi", PLAIN) and not tokens.is_cut("abcdefgh", PLAIN)


def test_encode():
    found = tokens.encode(["Ab", "e\u0301"], TextPreprocess(length=8, lower=True))
    assert found.shape == (2, 8) and found[0, :3].tolist() == [98, 99, 0] and found[1, :3].tolist() == [196, 170, 0]
    assert tokens.encode([], PLAIN).shape == (0, 8)
    assert tokens.normalise(found, PLAIN).dtype == "int64"


def test_read(tmp_path):
    (tmp_path / "a.txt").write_text("words", encoding="utf-8")
    assert tokens.read(tmp_path / "a.txt", PLAIN) == tokens.read("words", PLAIN) == tokens.read(b"words", PLAIN)
    for empty in ("", " \n\t", b""):
        with pytest.raises(DataError, match="empty text"):
            tokens.read(empty, PLAIN)
    for wrong in (3, None, ["a"]):
        with pytest.raises(UsageError, match="is not a text"):
            tokens.read(wrong, PLAIN)
    with pytest.raises(DataError, match="half of a character"):
        tokens.read("\ud800", PLAIN)


def test_heaps_of_accents_are_bounded():
    assert len(tokens.read("z" + "\u0301\u0302\u0303" * 1000, PLAIN)) <= 5


def test_a_megabyte_takes_no_time():
    wide = TextPreprocess(length=1024)
    started = time.perf_counter()
    tokens.tokens(tokens.read("é" * 1_000_000, wide), wide)
    assert time.perf_counter() - started < 2


def test_pieces():
    pytest.importorskip("tokenizers")
    vocabulary = tokens.train_pieces(TEXTS * 5, 300)
    pieces = TextPreprocess(length=16, vocabulary=vocabulary)
    assert vocabulary == tokens.train_pieces(TEXTS * 5, 300)
    assert 257 < pieces.num_tokens <= 300
    known, strange = tokens.tokens("the cat", pieces), tokens.tokens("日本", pieces)
    assert (known > 0).sum() < len("the cat") and (strange > 0).sum() == 6, "nothing is unknown"
    assert (tokens.tokens("<pad>", pieces) > 0).sum() >= 3, "who writes the sign means the sign"


def test_words():
    pytest.importorskip("tokenizers")
    words = TextPreprocess(length=8, lower=True, vocabulary=tokens.train_words(TEXTS, 50, lower=True))
    found = tokens.encode(["THE cat, barked"], words)[0].tolist()
    the, cat, comma, barked = found[:4]
    assert the > 1 and cat > 1 and comma == barked == 1 and found[4:] == [0] * 4
    assert tokens.is_cut("the " * 9, words) and not tokens.is_cut("the " * 8, words)


def test_refused():
    for wrong in ({"length": 4}, {"length": 100_000}, {"other": 1}):
        with pytest.raises(ValidationError):
            TextPreprocess(**wrong)
    for train, size in ((tokens.train_pieces, 100), (tokens.train_words, 70_000)):
        with pytest.raises(UsageError, match="cannot be"):
            train(TEXTS, size)
    with pytest.raises(DataError, match="vocabulary cannot be read"):
        tokens.tokens("a", TextPreprocess(vocabulary="{"))


def test_without_the_package(monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(tokens.importlib, "import_module", refuse)
    with pytest.raises(ResourceError, match=r"resnetkit\[text\]"):
        tokens.train_words(TEXTS, 50)
    with pytest.raises(ResourceError, match=r"resnetkit\[text\]"):
        tokens.preprocess_from({"vocabulary": "{}"}, Path("model.json"))


def test_preprocess_of_a_model(tmp_path):
    made = TextPreprocess(16, True, tokens.train_words(TEXTS, 50))
    assert tokens.preprocess_from(made.as_dict(), tmp_path) == made
    for wrong in ({"length": 1}, {"words": 3}, {"vocabulary": "{"}, {"vocabulary": 3}):
        with pytest.raises(ModelError):
            tokens.preprocess_from({**made.as_dict(), **wrong}, tmp_path)


def test_excerpt():
    assert tokens.excerpt("two\nlines\x07 ") == "two lines"
    assert tokens.excerpt("a" * 100, 10) == "a" * 9 + "…" and tokens.excerpt("a" * 10, 10) == "a" * 10
