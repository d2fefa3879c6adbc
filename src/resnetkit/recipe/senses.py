"""Settings of sounds and of texts: what the network sees of them, and how those to learn from are changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from resnetkit.recipe.kinds import STRICT, Auto, Share


@dataclass(frozen=True, config=STRICT)
class Sound:
    """What the network sees of a recording, and random changes of training recordings."""

    rate: Annotated[int, Field(ge=4_000, le=192_000)] | Auto = "auto"
    """Samples a second; auto: that of most files, 16,000 at most."""
    seconds: Annotated[float, Field(ge=0.05, le=600)] | Auto = "auto"
    """Length of what the network sees; auto: what 95 of 100 files last, 0.5 to 5. Longer files are heard in windows."""
    kept: Annotated[float, Field(ge=0.05, le=3_600)] | Auto = "auto"
    """Seconds of each training file that are kept, of which each epoch hears a random part; auto: 4 windows at most."""
    mels: Annotated[int, Field(ge=8, le=256)] | Auto = "auto"
    """Bands of the log-mel spectrum; auto: 40 under 16,000 samples a second, else 64."""
    window: Annotated[float, Field(ge=0.005, le=0.2)] = 0.025
    """Length of a frame, seconds."""
    hop: Annotated[float, Field(ge=0.001, le=0.2)] = 0.01
    """From one frame to the next, seconds."""
    mean: float | Auto = "auto"
    """Of all log-mel values, which is taken out; auto: as measured on training files."""
    std: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Deviation of all log-mel values, by which they are divided; auto: as measured on training files."""
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Largest relative change of speed, and pitch with it."""
    shift: Annotated[float, Field(ge=0)] = 0.125
    """Largest shift in time, seconds."""
    gain: Annotated[float, Field(ge=0, le=40)] = 6.0
    """Largest change of loudness, dB."""
    noise: Annotated[float, Field(ge=0, le=40)] = 5.0
    """White noise at this to 40 dB below the recording; 40: none."""
    mask_bands: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """SpecAugment (arXiv 1904.08779): share of the bands that each of two masks hides at most."""
    mask_frames: Annotated[float, Field(ge=0, le=0.5)] = 0.12
    """SpecAugment: share of the frames that each of two masks hides at most."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Of the additive-margin softmax (arXiv 1801.05599), for networks whose logits are cosines."""


@dataclass(frozen=True, config=STRICT)
class Text:
    """What the network sees of a text, and random changes of training texts."""

    units: Literal["auto", "words", "pieces", "bytes"] = "auto"
    """What a token is: a word that training texts have twice, a byte pair of theirs, or a byte; auto: bytes for VDCNN,
    else words."""
    vocabulary: Annotated[int, Field(ge=3, le=65_535)] = 20_000
    """Different words or pieces at most."""
    tokens: Annotated[int, Field(ge=3, le=65_535)] | Auto = "auto"
    """Different tokens that there are; auto: as found in the training texts."""
    length: Annotated[int, Field(ge=8, le=65_536)] | Auto = "auto"
    """Tokens that are read of a text; auto: what 99 of 100 training texts have, 16 to 512 words or 1,024 bytes."""
    lower: bool = True
    """Capitals count as small letters."""
    drop: Share = 0.1
    """Chance of each token to be left out."""
    span: Share = 0.1
    """Longest run of tokens that is left out, as a share of the text."""
    kmax: Annotated[int, Field(ge=1, le=64)] = 8
    """Largest values of each channel that VDCNN's head sees."""
    hidden: Annotated[int, Field(ge=0, le=8_192)] = 0
    """Width of VDCNN's two hidden layers; 0: none, which suits small data; 2,048 in its paper."""
    dropout: Share = 0.3
    """Share of the network's numbers that is left out, where it has dropout."""
