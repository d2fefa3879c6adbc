"""Augmentation of texts as tokens: some are left out, one by one or in a row. All numbers come from one generator.

Token 0 is the padding, as in `data.tokens`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnetkit.training.shared import Rng

Tokens = NDArray[np.integer]


def drop_tokens(tokens: Tokens, share: float, rng: Rng, unknown: int = 0) -> Tokens:
    """Texts in which each token is replaced with a chance (word dropout, Iyyer et al. 2015, section 3.2).

    Args:
        tokens: [N, L].
        share: chance of each token, 0..1.
        rng: of the choice.
        unknown: what stands there then; 0, the padding, is nothing.

    Returns:
        A new array; padding stays, and a text keeps its first token where all others would go.
    """
    chosen = (rng.random(tokens.shape) < share) & (tokens != 0)
    emptied = (chosen | (tokens == 0)).all(1)
    chosen[emptied, 0] = False
    return np.where(chosen, tokens.dtype.type(unknown), tokens)


def delete_spans(tokens: Tokens, longest: float, rng: Rng) -> Tokens:
    """Texts without a run of tokens, those behind it moved up, so that it leaves no trace.

    Args:
        tokens: with padding at the end alone [N, L].
        longest: of the run, as a share of the text, 0..1; its length is drawn evenly from 0 to this, and a text keeps a
            token at least.
        rng: of lengths and places.
    """
    length = tokens.shape[1]
    sizes = length - (tokens[:, ::-1] != 0).argmax(1)
    sizes = np.where((tokens != 0).any(1), sizes, 0)
    widths = np.floor(rng.random(len(tokens)) * longest * sizes).astype(np.int64)
    widths = np.minimum(widths, np.maximum(sizes - 1, 0))
    starts = np.floor(rng.random(len(tokens)) * (sizes - widths + 1)).astype(np.int64)
    places = np.arange(length)[None]
    source = places + np.where(places >= starts[:, None], widths[:, None], 0)
    found = np.take_along_axis(tokens, source.clip(0, length - 1), 1)
    return np.where(source < length, found, tokens.dtype.type(0))
