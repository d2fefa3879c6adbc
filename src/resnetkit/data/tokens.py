"""A text to the numbers that a network takes: its bytes, or the pieces of a vocabulary.

`TextPreprocess` is one frozen value; `read`, `tokens` and `normalise` under it are the only way from a text to a
tensor. A text is brought to NFC first. By default its tokens are its bytes in UTF-8, so every language is known and
nothing is unknown; a vocabulary is the JSON of a `tokenizers` tokenizer, trained here on the texts at hand. The first
`length` tokens are kept; what is missing is filled up at the end with 0, which no token has.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from resnetkit.data import prose
from resnetkit.data.archive import Member
from resnetkit.data.prepared import prepared_from
from resnetkit.data.sources import Line
from resnetkit.errors import DataError, ModelError, ResourceError, UsageError

Tokens = NDArray[np.uint16]
PAD = 0
PADDING, UNKNOWN = "<pad>", "<unk>"
BYTES = 257  # the padding and 256 bytes
MAX_VOCABULARY = 65_535
HEAP = re.compile("([\u0300-\u036f]{4})[\u0300-\u036f]+")  # accents on accents, which no language has


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TextPreprocess:
    """From a text to the input of a network.

    Attributes:
        length: number of tokens.
        lower: whether capitals count as small letters.
        vocabulary: JSON of a tokenizer; "" for bytes.
    """

    length: Annotated[int, Field(ge=8, le=65_536)] = 1_024
    lower: bool = False
    vocabulary: str = ""

    @property
    def num_tokens(self) -> int:
        """Number of different tokens, the padding included."""
        return BYTES if not self.vocabulary else int(_tokenizer(self.vocabulary).get_vocab_size())

    @property
    def shape(self) -> tuple[int]:
        """Of the tokens of a text."""
        return (self.length,)

    @property
    def dtype(self) -> type[np.uint16]:
        """Of the tokens of a text."""
        return np.uint16

    def as_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return asdict(self)


def preprocess_from(values: Mapping[str, Any], path: Path) -> TextPreprocess:
    """The TextPreprocess in a model.json at `path`.

    Raises:
        ModelError: it is missing or not valid, or its vocabulary cannot be read.
        ResourceError: the package that reads vocabularies is missing.
    """
    found = prepared_from(TextPreprocess, values, path)
    try:
        found.num_tokens  # noqa: B018  reads the vocabulary
    except DataError as error:
        raise ModelError(error.what, path=path, fix="train or save the model again") from error
    return found


def read(source: Any, preprocess: TextPreprocess) -> str:
    """A text: a string is one itself, a Line has one; a Path, a file's bytes or a member of an archive hold one.

    Raises:
        DataError: it is empty, too long, or in another encoding.
        UsageError: it is none of these.
    """
    if isinstance(source, str):
        text, name = source, "<text>"
    elif isinstance(source, Line):
        text, name = source.text, source.name
    elif isinstance(source, Path | bytes | Member):
        text, name = prose.read(source), "<bytes>" if isinstance(source, bytes) else str(source)
    else:
        raise UsageError(f"a {type(source).__name__} is not a text", fix="give a string, or the Path of a file")
    text = tidy(prose.refuse_odd(text, name), preprocess)
    if not text.strip():
        raise DataError("empty text", path=name, fix="write something")
    return text


def tidy(text: str, preprocess: TextPreprocess) -> str:
    """NFC, small letters if asked for, and no more than four accents on one letter."""
    if not text.isascii():
        text = HEAP.sub(r"\1", unicodedata.normalize("NFC", text))
    return text.lower() if preprocess.lower else text


def tokens(text: str, preprocess: TextPreprocess) -> Tokens:
    """A text that `read` gave, as tokens [length]."""
    out = np.zeros(preprocess.length, np.uint16)
    found = _all_tokens(text, preprocess)[: preprocess.length]
    out[: len(found)] = found
    return out


def is_cut(text: str, preprocess: TextPreprocess) -> bool:
    """Whether a text has more tokens than are kept."""
    return len(_all_tokens(text, preprocess)) > preprocess.length


def encode(texts: Sequence[str], preprocess: TextPreprocess) -> Tokens:
    """Texts as their owner has them, as tokens [n, length]."""
    found = [tokens(tidy(text, preprocess), preprocess) for text in texts]
    return np.stack(found) if found else np.zeros((0, preprocess.length), np.uint16)


def normalise(batch: Tokens, preprocess: TextPreprocess) -> NDArray[np.int64]:
    """Tokens [N, length] as the int64 input of a network."""
    return batch.astype(np.int64)


def excerpt(text: str, most: int = 80) -> str:
    """The first characters of a text, in one line that can be printed."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"


def _all_tokens(text: str, preprocess: TextPreprocess) -> NDArray[np.integer]:
    if not preprocess.vocabulary:
        # one more character than fit is enough to know that it is cut
        return np.frombuffer(text[: preprocess.length + 1].encode(), np.uint8).astype(np.uint16) + np.uint16(1)
    return np.array(_tokenizer(preprocess.vocabulary).encode(text).ids, np.int64)


def _package() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ResourceError("a vocabulary needs tokenizers", fix='pip install "resnetkit[text]"') from error


@lru_cache(maxsize=4)
def _tokenizer(vocabulary: str) -> Any:
    package = _package()
    try:
        tokenizer = package.Tokenizer.from_str(vocabulary)
    except Exception as error:  # tokenizers raises nothing narrower
        raise DataError(f"the vocabulary cannot be read: {error}", fix="train it again") from error
    if tokenizer.token_to_id(PADDING) != PAD or tokenizer.get_vocab_size() > MAX_VOCABULARY:
        what = f"the vocabulary is over {MAX_VOCABULARY:,} tokens, or its first is not {PADDING}"
        raise DataError(what, fix="train it again")
    tokenizer.encode_special_tokens = True  # who writes <pad> means these five signs
    return tokenizer


def train_pieces(texts: Sequence[str], size: int, *, lower: bool = False) -> str:
    """A vocabulary of byte pairs (arXiv 1508.07909) over bytes, so that nothing is unknown, as JSON.

    Args:
        texts: to learn from, the training split alone.
        size: tokens at most, the padding and 256 bytes included; 258 to 65,535.
        lower: as in the TextPreprocess that it is for.
    """
    package = _package()
    tokenizer = package.Tokenizer(package.models.BPE())
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = package.pre_tokenizers.ByteLevel.alphabet()
    trainer = package.trainers.BpeTrainer(
        vocab_size=_size(size, BYTES + 1), initial_alphabet=alphabet, special_tokens=[PADDING], show_progress=False
    )
    return _trained(tokenizer, trainer, texts, lower)


def train_words(texts: Sequence[str], size: int, *, lower: bool = False) -> str:
    """A vocabulary of the words and signs that occur twice or more, the most frequent ones, as JSON.

    Args:
        texts: to learn from, the training split alone.
        size: tokens at most, the padding and the unknown word included; 3 to 65,535.
        lower: as in the TextPreprocess that it is for.
    """
    package = _package()
    tokenizer = package.Tokenizer(package.models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = package.pre_tokenizers.Whitespace()
    trainer = package.trainers.WordLevelTrainer(
        vocab_size=_size(size, 3), min_frequency=2, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    return _trained(tokenizer, trainer, texts, lower)


def _size(size: int, least: int) -> int:
    if not least <= size <= MAX_VOCABULARY:
        raise UsageError(f"a vocabulary of {size:,} tokens cannot be", fix=f"{least:,} to {MAX_VOCABULARY:,}")
    return size


def _trained(tokenizer: Any, trainer: Any, texts: Sequence[str], lower: bool) -> str:
    plain = TextPreprocess(lower=lower)
    tokenizer.train_from_iterator((tidy(text, plain) for text in texts), trainer)
    return str(tokenizer.to_str())
