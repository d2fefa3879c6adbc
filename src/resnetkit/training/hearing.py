"""Sounds in a training: what "auto" becomes, the network, and how clips are changed in each epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from resnetkit import models
from resnetkit.data import audio, sound
from resnetkit.data.audio import AudioPreprocess, Clip
from resnetkit.data.dataset import Dataset, File
from resnetkit.errors import DataError, UsageError
from resnetkit.models import Network
from resnetkit.nn.speaker import SpeakerResNet, with_margin
from resnetkit.recipe import replace
from resnetkit.settings import Recipe
from resnetkit.training import sounds
from resnetkit.training.augment import Draws
from resnetkit.training.networks import residual
from resnetkit.training.shared import Shared
from resnetkit.training.sounds import SpecAugment

USUAL = {
    "model.variant": "resnet18",
    "model.width": 32,
    "model.weights": "none",
    "optim.optimizer": "adamw",
    "optim.weight_decay": 0.05,
    "optim.label_smoothing": 0.05,
    "augment.mixup": 0.2,
    "train.epochs": 25,
}
# of networks for voices: what tells speakers apart is not varied, and each speed is another speaker
OF_VOICES = {"sound.voice": 0.0, "sound.speed": 0.2, "optim.label_smoothing": 0.0, "augment.mixup": 0.0}
COPIES = (-1.0, -0.5, 0.5, 1.0)  # of each speaker, by their share of `sound.speed`
RATE = 2e-3  # of AdamW for batches of 32
PROBED = 200  # files that are looked at
SHORTEST, LONGEST = 0.5, 5.0  # seconds of a clip, if nobody says
MOST_KEPT = 4  # clips that are kept of a training file
HIGHEST_RATE = 16_000
WORD = 2.0  # seconds up to which a clip is heard in frames short enough for the sounds of speech
FRAMES, LONG_FRAMES = (0.025, 0.01), (0.04, 0.02)  # seconds of a frame, and from one to the next
FEW_FRAMES = 128  # of which the strides of an image's network would leave four
NEPERS = math.log(10) / 10  # of energy in a dB
SPEEDS = 7  # different ones
QUIETEST = 40.0  # dB that noise lies under the recording at most


def settle(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Decide what depends on the recordings: rate, length, bands, mean and deviation of the spectra.

    Raises:
        ResourceError: the package that reads sounds is missing.
        UsageError: a setting has no meaning for sounds.
    """
    files = _spread(dataset.select("train").files)
    own, found = recipe.sound, _stored(files)
    rate = (
        own.rate
        if own.rate != "auto"
        else min(HIGHEST_RATE, int(np.median([each.rate for each in found] or [HIGHEST_RATE])))
    )
    most = float(np.quantile([each.seconds for each in found] or [1.0], 0.95))
    seconds = own.seconds if own.seconds != "auto" else min(LONGEST, max(SHORTEST, math.ceil(4 * most) / 4))
    kept = own.kept if own.kept != "auto" else round(min(max(most, seconds), MOST_KEPT * seconds), 2)
    if kept < seconds:
        raise UsageError(f"sound.kept = {kept:g} is shorter than sound.seconds = {seconds:g}", fix="give it as much")
    mels = own.mels if own.mels != "auto" else 40 if rate < HIGHEST_RATE else 64
    window, hop = FRAMES if seconds <= WORD else LONG_FRAMES
    changes: dict[str, Any] = {"sound.rate": rate, "sound.seconds": seconds, "sound.kept": kept, "sound.mels": mels}
    changes["sound.window"] = window if own.window == "auto" else own.window
    changes["sound.hop"] = hop if own.hop == "auto" else own.hop
    if recipe.model.variant == models.WAVES:
        changes |= {"sound.mean": 0.0, "sound.std": 1.0, "train.memory_format": "contiguous"}
    settled = replace(recipe, changes)
    if "auto" in (settled.sound.mean, settled.sound.std):
        mean, std = _levels(files, replace(settled, {"sound.mean": 0.0, "sound.std": 1.0}))
        changes = {} if settled.sound.mean != "auto" else {"sound.mean": mean}
        settled = replace(settled, changes | ({} if settled.sound.std != "auto" else {"sound.std": std}))
    return replace(settled, {"model.stem": _stem(settled)})  # what cannot be is told now


def _stem(recipe: Recipe) -> str:
    """What is asked for; of a spectrum of few frames the one that keeps more of them, where the usual would be."""
    usual = models.VARIANTS[recipe.model.variant].stem if recipe.model.variant in models.VARIANTS else ""
    few = preprocess_of(recipe).frames < FEW_FRAMES
    return "spectrum" if recipe.model.stem == "auto" and usual == "imagenet" and few else recipe.model.stem


def _spread(files: Sequence[File]) -> Sequence[File]:
    """Some files, evenly apart."""
    stride = max(1, math.ceil(len(files) / PROBED))
    return [files[row] for row in range(0, len(files), stride)]


def _stored(files: Sequence[File]) -> list[sound.Stored]:
    """What the headers say, of parts their own length; what cannot be read is told when it is decoded."""
    found = []
    for file in files:
        with suppress(DataError):
            whole = sound.stored(file)
            _, start, end = sound.whole_and_part(file)
            seconds = (whole.seconds if end is None else end) - start
            found.append(dataclasses.replace(whole, seconds=seconds if math.isfinite(seconds) else LONGEST))
    return found


def _levels(files: Sequence[File], recipe: Recipe) -> tuple[float, float]:
    """Mean and deviation of the log-mel values of some files."""
    preprocess, clips = preprocess_of(recipe), []
    for file in files:
        with suppress(DataError):
            samples = audio.read(file, preprocess)
            clips.append(audio.clip(samples[: preprocess.samples], preprocess))
    if not clips:
        return AudioPreprocess.mean[0], AudioPreprocess.std[0]
    spectra = audio.centred(audio.log_mel(np.stack(clips), preprocess), preprocess)
    return round(float(spectra.mean()), 4), round(max(float(spectra.std()), 0.01), 4)


def preprocess_of(recipe: Recipe) -> AudioPreprocess:
    """How recordings are prepared under a recipe."""
    own = recipe.sound
    assert own.rate != "auto" and own.seconds != "auto" and own.mels != "auto", "the verb decides before the first step"
    assert own.mean != "auto" and own.std != "auto", "the verb decides before the first step"
    assert own.window != "auto" and own.hop != "auto", "the verb decides before the first step"
    try:
        return AudioPreprocess(
            form="wave" if recipe.model.variant == models.WAVES else "mel",
            rate=own.rate,
            seconds=own.seconds,
            mels=own.mels,
            window=own.window,
            hop=own.hop,
            level=own.level,
            centre=own.centre,
            mean=(own.mean,),
            std=(own.std,),
        )
    except ValueError as error:  # bands without a frequency, or a clip shorter than a frame
        raise UsageError(f"these settings of sound do not go together: {_reason(error)}", fix="change one") from error


def _reason(error: ValueError) -> str:
    told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return told.removeprefix("Value error, ")


def stored(recipe: Recipe) -> AudioPreprocess:
    """What is kept of a training file."""
    assert recipe.sound.kept != "auto", "the verb decides before the first step"
    return dataclasses.replace(preprocess_of(recipe), seconds=recipe.sound.kept)


def build(recipe: Recipe, num_classes: int) -> Network:
    """The network with fresh weights, or with those that are named."""
    model = recipe.model
    if model.variant not in models.SEQUENCES:
        return residual(recipe, num_classes, 1)
    torch.manual_seed(recipe.train.seed)
    options: dict[str, Any] = {"num_classes": num_classes}
    if model.width != "auto":
        options["width"] = model.width
    if model.variant == models.SPEAKER:
        options |= {"mels": recipe.sound.mels, "margin": recipe.sound.margin, "copies": len(copies_of(recipe))}
    return models.assembled(model.variant, options)


def loss(network: Any, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy; of a network for voices with its margin, while it learns."""
    logits = network(inputs).float()
    if isinstance(network, SpeakerResNet):
        logits = with_margin(logits, targets, network.margin, network.scale)
    if weights is not None and logits.shape[1] > len(weights):  # every copy of a speaker counts as that one
        weights = weights.repeat(logits.shape[1] // len(weights))
    return F.cross_entropy(logits, targets, weights)


def copies_of(recipe: Recipe) -> tuple[float, ...]:
    """The speeds at which a network for voices hears each speaker as yet another one; none for other networks.

    Somebody who talks faster, at a higher pitch and with a smaller throat, is somebody else (Yamamoto et al. 2019,
    "Speaker augmentation and bandwidth extension for deep speaker embedding"). Few speakers become many so, and where
    they are few a network learns which of them a voice resembles, not what makes two voices differ.
    """
    most = recipe.sound.speed
    if not most or recipe.model.variant != models.SPEAKER or recipe.data.task != "sound":
        return ()
    return tuple(round(1 + share * most, 3) for share in COPIES)


def heard(
    clips: Clip, targets: Tensor, aspects: NDArray[np.floating], recipe: Recipe, rng: Draws
) -> tuple[Tensor, Tensor]:
    """Stored clips [n, kept] to a network's input, each another part of its file, and changed; and their targets.

    Of a network for voices the targets are those of all copies side by side [n, K (1 + copies)].
    """
    preprocess, own, shared = preprocess_of(recipe), recipe.sound, Shared(rng)
    waves = audio.to_floats(_parts(clips, aspects, preprocess.samples, shared))
    copies = copies_of(recipe)
    if copies:
        chosen = shared.integers(0, 1 + len(copies), len(clips))
        waves = sounds.at_speeds(waves, (1.0, *copies), chosen)
        targets = (F.one_hot(torch.from_numpy(chosen), 1 + len(copies))[:, :, None] * targets[:, None]).flatten(1)
    elif own.speed:
        factors = np.linspace(1 - own.speed, 1 + own.speed, SPEEDS).round(3).tolist()
        waves = sounds.random_speed(waves, factors, shared)
    return _changed(waves, recipe, shared), targets


def _changed(waves: NDArray[np.float32], recipe: Recipe, shared: Shared) -> Tensor:
    """Samples [n, length] to a network's input, changed in all that is no matter of speed."""
    preprocess, own = preprocess_of(recipe), recipe.sound
    if own.shift:
        waves = sounds.time_shift(waves, round(own.shift * preprocess.rate), shared)
    if own.room:
        waves = sounds.random_rooms(waves, preprocess.rate, own.room, shared)
    if own.gain:
        waves = sounds.random_gain(waves, own.gain, shared)
    if own.noise < QUIETEST:
        waves = sounds.random_noise(waves, own.noise, QUIETEST, shared)
    found = torch.from_numpy(audio.normalise(audio.to_integers(waves), preprocess))
    if preprocess.form == "wave":
        return found
    if own.emphasis:
        found = sounds.emphasis(found, own.emphasis * NEPERS / preprocess.std[0], shared)
    if own.voice:
        found = sounds.voices(found, preprocess.mel, own.voice, shared)
    if own.pace:
        found = sounds.paces(found, own.pace, shared)
    if not (own.mask_bands or own.mask_frames):
        return found
    bands, frames = round(own.mask_bands * preprocess.mels), round(own.mask_frames * preprocess.frames)
    return sounds.spec_augment(found, SpecAugment(bands, frames), shared)


def _parts(clips: Clip, aspects: NDArray[np.floating], length: int, rng: Shared) -> Clip:
    """A random part [n, length] of each clip, inside what is sound of it."""
    kept = clips.shape[1]
    if kept == length:
        return clips
    sounding = np.minimum(np.rint(np.minimum(aspects, 1) * kept), kept)
    first = (kept - sounding) // 2
    room = np.maximum(sounding - length, 0)
    middle = (kept - length) // 2
    starts = np.where(room > 0, first + np.floor(rng.random(len(clips)) * (room + 1)), middle).astype(np.int64)
    return np.take_along_axis(clips, starts[:, None] + np.arange(length), 1)


def centre(clips: Clip, recipe: Recipe) -> Tensor:
    """The middle of stored clips, unchanged."""
    preprocess = preprocess_of(recipe)
    start = (clips.shape[1] - preprocess.samples) // 2
    return torch.from_numpy(audio.normalise(clips[:, start : start + preprocess.samples], preprocess))
