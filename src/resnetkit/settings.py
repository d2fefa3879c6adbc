"""All settings of a training, as frozen typed values; each is explained where it stands, and docs/settings.md has all.

"auto" is decided by `verbs.train` before the first step, and the decision is what the run's recipe.toml holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Auto = Literal["auto"]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class Data:
    """Where the examples are and how they are split."""

    source: str = ""
    """Folder of class folders, a .zip or .tar of them, or a CSV of path,label[,split] or path,labels[,split]; images
    with boxes (COCO JSON, Pascal VOC, YOLO) or with masks; recordings likewise; texts as .csv, .tsv or .jsonl."""
    task: str = "auto"
    """classify: one class an image; multilabel: several labels or none; detect: boxes; instances: boxes and the pixels
    of each object; segment: a class for every pixel; sound, text, sound-multilabel, text-multilabel: classes or labels
    of these; auto: read from the data."""
    val: Share = 0.15
    """Share of the training images that chooses the best epoch, where the data has no val split."""
    test: Share = 0.15
    """Share that is only scored, where the data has no splits."""
    allow_empty_class: bool = False
    """Go on with a class that has no images, or none in a given split."""
    allow_leak: bool = False
    """Go on although given splits share images, byte for byte."""
    max_bad: Share = 0.0
    """Share of the images of a split that may be unreadable and are left out; they are listed."""
    follow_links: bool = False
    """Follow links to files outside the folder."""
    text: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Column that holds the text, by name or by number from 1; "": by the usual names."""
    label: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Column that holds the label of a text, likewise."""
    fixes: str = ""
    """A CSV of path,action,label, as `check --write` makes it: images to leave out or to give another label."""
    ignore: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Names or values of what masks hold that is no class, with commas between, as "void,11"; 255 never is one."""


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network and where its weights start from."""

    variant: str = "resnet34"
    """Name of the network, see `resnetkit.models`; of sounds resnet18 and of texts words, if left out."""
    width: Annotated[int, Field(ge=8, le=512)] | Auto = "auto"
    """Channels of the first stage; auto: the variant's; of sounds 32, if left out."""
    weights: str = "auto"
    """A published name, a weights file, hf://owner/name, or "none"; auto: IMAGENET1K_V1, or none under 64 px."""
    stem: Literal["auto", "imagenet", "small", "deep", "spectrum"] = "auto"
    """small: 3x3, stride 1, no pooling; deep: three of 3x3; spectrum: keeps twice the frames of a sound; auto: the
    variant's, small under 64 px without weights, of sounds spectrum where there are fewer than 128 frames."""
    shortcut: Literal["auto", "none", "A", "B", "C", "D"] = "auto"
    """A pads, B projects where shapes change, C everywhere, D averages and projects; none: for texts; auto: the
    variant's."""
    pool: Literal["last", "all"] = "last"
    """Stages whose pooled features the last layer sees; all: more accurate on few images, not for torchvision, timm."""
    head: Literal["auto", "fcos", "retinanet", "fasterrcnn", "maskrcnn", "unet", "fcn", "deeplabv3"] = "auto"
    """What finds boxes (the first three), objects with masks (maskrcnn) or masks on the network's features; auto: fcos,
    maskrcnn, unet."""
    head_width: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    """Channels of it: of the pyramid and the heads of boxes, a multiple of 32 from 64 (auto: 128), or of the U-Net at
    half the image's size (auto: 24)."""
    zero_init_residual: bool = True
    """Start every residual branch at zero; only without weights."""
    stochastic_depth: Share = 0.0
    """Chance to skip the last block in training."""
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"] = "none"
    """The last part that stays as it is, BatchNorm statistics included."""


@dataclass(frozen=True, config=STRICT)
class Image:
    """What the network sees of an image."""

    size: Annotated[int, Field(ge=8, le=4096)] | Auto = "auto"
    """Height and width in pixels; auto: 224, or for smaller images their own size, 32 at least; CIFAR networks: 32; of
    boxes and masks the height, where the long side is that of the images, 320 at least and 384 at most."""
    width: Annotated[int, Field(ge=0, le=4096)] | Auto = "auto"
    """Width in pixels of what boxes and masks are found in; auto: by the images' proportions. 0: as the height."""
    start_size: Annotated[int, Field(ge=0, le=4096)] = 0
    """Pixels at which the whole network begins to learn; grows to size in two thirds of the steps; 0: always size."""
    resize: Literal["crop", "squash", "letterbox", "window"] = "crop"
    """crop: centre square; squash: all of it, without proportions; letterbox: all of it, with bars; window: of masks,
    in overlapping windows of size by width, at its own resolution."""
    crop_ratio: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    """Side of the centre square as a share of the short side; auto: 0.875, or 1 under 64 px."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize."""
    channels: Annotated[int, Field(ge=1, le=16)] = 3
    """1: grey, 3: RGB; others: .npy of [H, W, C], or images of as many bands or pages."""


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
    window: Annotated[float, Field(ge=0.005, le=0.2)] | Auto = "auto"
    """Length of a frame, seconds; auto: 0.025, or 0.04 where the network sees more than 2 seconds."""
    hop: Annotated[float, Field(ge=0.001, le=0.2)] | Auto = "auto"
    """From one frame to the next, seconds; auto: 0.01, or 0.02 where the network sees more than 2 seconds."""
    level: bool = True
    """Take the loudness of a clip, that of its loud frames, out first."""
    centre: Probability = 0.0
    """Share of each band's mean over loud frames that is taken out too, and with it what microphone and room add."""
    mean: float | Auto = "auto"
    """Of all log-mel values, which is taken out; auto: as measured on training files."""
    std: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Deviation of all log-mel values, by which they are divided; auto: as measured on training files."""
    speed: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Largest relative change of speed, and pitch with it; to speaker34 a voice at each of four speeds up to it is
    another speaker (0.2, if left out)."""
    voice: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Largest relative change of all frequencies at the same tempo, as other throats make it; speaker34: 0, if left
    out."""
    pace: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Largest relative change of tempo at the same pitch."""
    shift: Annotated[float, Field(ge=0)] = 0.125
    """Largest shift in time, seconds."""
    gain: Annotated[float, Field(ge=0, le=40)] = 6.0
    """Largest change of loudness, dB."""
    noise: Annotated[float, Field(ge=0, le=40)] = 5.0
    """Noise, of rumble to hiss, in half of the recordings, at this to 40 dB below them; 40: none."""
    room: Annotated[float, Field(ge=0, le=5)] = 0.4
    """Longest time in which an echo dies away that half of the recordings get, seconds; 0: none."""
    emphasis: Annotated[float, Field(ge=0, le=40)] = 9.0
    """Largest change of the loudness of bands against each other, dB, as other microphones and rooms make it."""
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


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random changes of training images, each drawn from (seed, step)."""

    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Random resized crop: smallest share of the area; boxes and masks are shown smaller too, by a quarter at most."""
    max_aspect: Annotated[float, Field(ge=1)] = 1.333
    """Random resized crop: largest change of proportions."""
    flip: bool = True
    """Mirror left and right; off where sides matter, as in writing."""
    flip_vertical: bool = False
    """Mirror top and bottom too; for pictures without an up, as those of a microscope."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation, degrees."""
    color: Probability = 0.2
    """Largest relative change of brightness, contrast and saturation."""
    trivial_augment: bool = False
    """One random operation an image (TrivialAugment, arXiv 2103.10158)."""
    erasing: Probability = 0.0
    """Chance that a rectangle is blanked (random erasing, arXiv 1708.04896)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup (arXiv 1710.09412); 0: off; of sounds 0.2, if left out, of speaker34 0."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of cutmix (arXiv 1905.04899); 0: off. With mixup, one of both by turns at random."""


@dataclass(frozen=True, config=STRICT)
class Optim:
    """The optimiser, its schedule, and the loss."""

    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """SGD with Nesterov momentum 0.9, or AdamW; auto: AdamW to fine-tune, else SGD."""
    lr: Positive | Auto = "auto"
    """Peak learning rate; auto: by optimiser, batch size, and whether weights are given."""
    backbone_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Rate of everything but the head, as a share of the head's."""
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    """Both end at zero; one-cycle rises as a cosine from lr/25, cosine rises on a line from 0."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Not on norms and biases."""
    label_smoothing: Share = 0.1
    """Share of the target given to all classes (arXiv 1512.00567), or to both outcomes of each label."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class counts the same, whatever its number of images; a label as much as its absence."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    ema_decay: Share = 0.0
    """Decay a step of the averaged weights that are evaluated and kept; 0: off."""


@dataclass(frozen=True, config=STRICT)
class Train:
    """How long, how much at a time, and on what."""

    epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Passes over the training images with the whole network; 0: only what `finetune` says."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Images a step, over all processes."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a lower calibrated loss on val; 0: never."""
    time_limit: Annotated[float, Field(ge=0)] = 0.0
    """Seconds for everything; 0: none. The number of epochs is cut to what fits."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of splits, first weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """auto: f32 on CPUs, bf16 on GPUs that compute in it, f16 on older ones."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """auto: whichever is faster in a few steps."""
    kernels: Literal["auto", "own", "torch"] = "auto"
    """own: convolutions and their gradients by our kernels, on CPUs in channels_last; auto: own if compiled."""
    workers: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    """Processes that decode, where the decoded images do not fit the cache; auto: one a core."""


@dataclass(frozen=True, config=STRICT)
class Finetune:
    """What is learnt on stored features of the frozen network, before all of it learns in train.epochs."""

    head: bool = True
    """Fit the last layer alone first, on features that are computed once; only with weights."""
    statistics: Literal["auto", "kept", "renewed"] = "auto"
    """Of BatchNorm, before features are computed: renewed: they move towards those of the training images; auto: that,
    unless model.freeze is given."""
    keep_statistics: bool = True
    """BatchNorm keeps the means and deviations that it began with, and learns its scale and shift only."""
    views: Annotated[int, Field(ge=0, le=64)] | Auto = "auto"
    """Augmented views of each image whose maps of layer3 are stored, so that layer4 and the head learn from them; 0: no
    such stage; auto: as many as a time limit allows, 0 without one."""
    layer4_epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = "auto"
    """Passes over the training images of that stage, one view in each."""
    engine: Literal["auto", "torch", "onnxruntime", "openvino", "ncnn", "native"] = "auto"
    """What runs the frozen network on a CPU, and the final one that is scored; auto: the fastest with torch's answers,
    where it is worth measuring; elsewhere, and in several processes, torch."""


@dataclass(frozen=True, config=STRICT)
class Grow:
    """Train a shallower network first, and let it grow into model.variant on the way."""

    from_: str = ""
    """The variant to begin with, as resnet18 for resnet34; model.weights are its own; "": none."""
    at: Share = 0.5
    """Share of the steps after which it grows."""


@dataclass(frozen=True, config=STRICT)
class Cache:
    """Where decoded images are kept, so that each is decoded once and not in every epoch of every run."""

    folder: str = "auto"
    """A folder; "none": in memory only; auto: resnetkit/pixels under RESNETKIT_CACHE or the user's cache folder."""
    gb: Annotated[float, Field(ge=0)] = 4.0
    """Largest size, 10^9 bytes, of all that is kept there; a set that is larger is decoded anew in every epoch."""


@dataclass(frozen=True, config=STRICT)
class Calibrate:
    """What the validation images say about how far the model may be believed."""

    sets: Literal["lac", "aps"] = "lac"
    """Sets of classes with a stated coverage: lac makes the smallest, aps gives hard images larger and easy ones
    smaller ones, and none is empty."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """All settings of a training."""

    data: Data = Data()
    model: Model = Model()
    image: Image = Image()
    sound: Sound = Sound()
    text: Text = Text()
    augment: Augment = Augment()
    optim: Optim = Optim()
    train: Train = Train()
    finetune: Finetune = Finetune()
    grow: Grow = Grow()
    cache: Cache = Cache()
    calibrate: Calibrate = Calibrate()
