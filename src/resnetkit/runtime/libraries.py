"""The folders that torchvision and Hugging Face's transformers read: what they cannot hold, their files, opening them.

No pickle is written: weights are safetensors, everything else JSON and Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from resnetkit.checkpoint import CARD, IMAGES, META, WEIGHTS, Checkpoint, Meta, Tensors, card
from resnetkit.data.image import Pixels, Preprocess, normalise, preprocess_from
from resnetkit.errors import UsageError
from resnetkit.runtime.backends import prepared_of, preprocess_of

Infer = Callable[[Pixels], NDArray[np.float32]]  # a batch [N, size, size, C] to logits [N, K]
BASIC = ("resnet18", "resnet34")
# The residual networks proper: transformers has no groups and no wider convolutions.
DEPTHS = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
    "resnet152": [3, 8, 36, 3],
}
OPTIONS = {"stem": "imagenet", "shortcut": "B", "pool": "last"}  # of which other libraries have these values only
KNOWN = (*OPTIONS, "in_channels", "replace_stride_with_dilation")
LOAD_TORCHVISION = """\
```python
import json

import torch
import torchvision
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torchvision.transforms import v2

network = torchvision.models.{variant}(num_classes={num_classes}{dilation})
network.load_state_dict(load_file("model.safetensors"))
network.eval()

prepare = v2.Compose([
    {resize},
    v2.PILToTensor(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize({mean}, {std}),
])
with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
with torch.inference_mode():
    logits = network(prepare(Image.open("photo.jpg").convert("RGB"))[None])
{answer}
```
"""
LOAD_HUGGING_FACE = """\
`.` is this folder, or its address on the Hub, `owner/name`:

```python
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained(".")
network = AutoModelForImageClassification.from_pretrained(".")
image = Image.open("photo.jpg").convert("{mode}")
logits = network(**processor(image, return_tensors="pt")).logits
{answer}
```
"""


def refuse_torchvision(meta: Meta) -> None:
    """Refuse what torchvision's builders cannot make.

    Raises:
        UsageError: says what it is and what to do.
    """
    from resnetkit.models import PUBLISHED

    _refuse_options(meta, "torchvision", PUBLISHED)
    channels = len(meta.preprocess["mean"])
    if channels != 3:
        fix = "train with --set image.channels=3, or --format huggingface, which has grey networks"
        raise UsageError(f"torchvision's builders take 3 channels, this network takes {channels}", fix=fix)


def refuse_huggingface(meta: Meta) -> None:
    """Refuse what transformers' ResNetForImageClassification cannot be.

    Raises:
        UsageError: says what it is and what to do.
    """
    _refuse_options(meta, "transformers", tuple(DEPTHS))
    channels = len(meta.preprocess["mean"])
    if channels not in (1, 3):
        raise UsageError(f"transformers' image processors take 1 or 3 channels, not {channels}", fix="keep our folder")
    if _dilation(meta):
        raise UsageError("transformers has no dilated stages", fix="--format torchvision has them")


def _refuse_options(meta: Meta, library: str, variants: tuple[str, ...]) -> None:
    if meta.task not in IMAGES:
        what = f"{library} holds models of images, not of the task {meta.task}"
        raise UsageError(what, fix="--format onnx or openvino hold those of sounds")
    if meta.variant not in variants:
        other = "--format torchvision has ResNeXt and Wide ResNet; " if library == "transformers" else ""
        fix = f"{other}train one of {', '.join(variants)}"
        raise UsageError(f"{library} has no {meta.variant}", fix=fix)
    for name, usual in OPTIONS.items():
        if meta.options.get(name, usual) != usual:
            what = f"{library} has no {name} {meta.options[name]!r}, only {usual!r}"
            raise UsageError(what, fix=f"train with --set model.{name}={usual}")
    for name in meta.options:
        if name not in KNOWN:
            raise UsageError(f"{library} has no {name}", fix="train without it")


def _dilation(meta: Meta) -> list[bool]:
    """Which of layer2, layer3, layer4 are dilated; nothing where none is."""
    dilated = [bool(each) for each in meta.options.get("replace_stride_with_dilation", ())]
    return dilated if any(dilated) else []


def write_torchvision(checkpoint: Checkpoint, folder: Path) -> None:
    """model.safetensors in torchvision's names (ours), classes.json, preprocess.json, and README.md that loads them."""
    meta, prepare = checkpoint.meta, preprocess_of(checkpoint)
    dilation = _dilation(meta)
    usage = LOAD_TORCHVISION.format(
        variant=meta.variant,
        num_classes=len(meta.classes),
        dilation=f", replace_stride_with_dilation={dilation}" if dilation else "",
        resize=_transforms(prepare),
        mean=list(prepare.mean),
        std=list(prepare.std),
        answer=_answer(meta, "classes[{}]"),
    )
    write_weights(folder, checkpoint.tensors)
    write_names(checkpoint, folder)
    (folder / CARD).write_text(card(public(meta), "torchvision", usage), encoding="utf-8")


def write_huggingface(checkpoint: Checkpoint, folder: Path) -> None:
    """model.safetensors in transformers' names, config.json, preprocessor_config.json and README.md."""
    from resnetkit.weights.keymaps import hugging_face_name

    meta, prepare = checkpoint.meta, preprocess_of(checkpoint)
    answer = _answer(meta, "network.config.id2label[{}]")
    usage = LOAD_HUGGING_FACE.format(mode="L" if prepare.channels == 1 else "RGB", answer=answer)
    if prepare.channels == 1:
        usage += "\nThe network takes grey images; `pipeline` would give it RGB.\n"
    write_weights(folder, {hugging_face_name(name): array for name, array in checkpoint.tensors.items()})
    write_json(folder / "config.json", resnet_config(meta))
    write_json(folder / "preprocessor_config.json", image_processor(prepare))
    (folder / CARD).write_text(card(public(meta), "transformers", usage), encoding="utf-8")


def _answer(meta: Meta, name: str) -> str:
    """From logits to names as Python; `name` is how an index {} becomes one."""
    if meta.task == "multilabel":
        return f"print([{name.format('index')} for index in (logits[0] >= 0).nonzero().flatten().tolist()])"
    return f"print({name.format('int(logits.argmax())')})"


def resnet_config(meta: Meta) -> dict[str, Any]:
    """config.json of transformers' ResNetForImageClassification."""
    basic = meta.variant in BASIC
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": len(meta.preprocess["mean"]),
        "embedding_size": 64,
        "hidden_sizes": [64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        "depths": DEPTHS[meta.variant],
        "layer_type": "basic" if basic else "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "problem_type": f"{'multi' if meta.task == 'multilabel' else 'single'}_label_classification",
        "id2label": {str(index): name for index, name in enumerate(meta.classes)},
        "label2id": {name: index for index, name in enumerate(meta.classes)},
    }


def image_processor(prepare: Preprocess) -> dict[str, Any]:
    """preprocessor_config.json: transformers' BitImageProcessor, or Llava's, which pads to a square, for letterbox.

    ConvNextImageProcessor, which transformers takes for its own ResNets, crops nothing from 384 pixels on.
    """
    square = {"height": prepare.size, "width": prepare.size}
    crop, letterbox = prepare.resize == "crop", prepare.resize == "letterbox"
    return {
        "image_processor_type": "LlavaImageProcessor" if letterbox else "BitImageProcessor",
        "do_convert_rgb": prepare.channels == 3,
        **({"do_pad": True} if letterbox else {}),
        "do_resize": True,
        "size": {"shortest_edge": _short_side(prepare)} if crop else square,
        "resample": {"bilinear": 2, "bicubic": 3}[prepare.interpolation],
        "do_center_crop": crop,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(prepare.mean),
        "image_std": list(prepare.std),
    }


def _short_side(prepare: Preprocess) -> int:
    """To what the short side is resized before the crop, in pixels; the crop then leaves as many on either side."""
    return prepare.size + 2 * round((prepare.size / prepare.crop_ratio - prepare.size) / 2)


def _transforms(prepare: Preprocess) -> str:
    """The resize as Python that uses torchvision and Pillow."""
    size, filtered = prepare.size, prepare.interpolation.upper()
    mode = f"v2.InterpolationMode.{filtered}"
    if prepare.resize == "crop":
        return f"v2.Resize({_short_side(prepare)}, {mode}),\n    v2.CenterCrop({size})"
    if prepare.resize == "squash":
        return f"v2.Resize(({size}, {size}), {mode})"
    colour = tuple(round(255 * value) for value in prepare.mean)
    pad = f"ImageOps.pad(image, ({size}, {size}), Image.Resampling.{filtered}, color={colour})"
    return f"v2.Lambda(lambda image: {pad})"


def open_torchvision(folder: Path, meta: Meta) -> tuple[Infer, str]:
    """What was written, in torchvision's own builder."""
    import torchvision
    from safetensors.torch import load_file

    dilation = {"replace_stride_with_dilation": _dilation(meta)} if _dilation(meta) else {}
    network = torchvision.models.get_model(meta.variant, weights=None, num_classes=len(meta.classes), **dilation)
    network.load_state_dict(load_file(folder / WEIGHTS))
    return _runs(network.eval(), meta), f"torchvision {torchvision.__version__}"


def open_huggingface(folder: Path, meta: Meta) -> tuple[Infer, str]:
    """What was written, in transformers where it is installed, and else in our own network through our own key map."""
    try:
        transformers = import_module("transformers")
        kind = transformers.AutoModelForImageClassification
    except (ImportError, RuntimeError):  # RuntimeError: there, but what it needs is not
        return _read_back(folder, meta), "resnetkit's own key map, as transformers is not installed"
    with _no_bars(transformers.utils.logging):
        network = kind.from_pretrained(folder, local_files_only=True).eval()
    return _runs(lambda batch: network(batch).logits, meta), f"transformers {transformers.__version__}"


@contextmanager
def _no_bars(switch: Any) -> Iterator[None]:
    shown = switch.is_progress_bar_enabled()
    switch.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            switch.enable_progress_bar()


def _read_back(folder: Path, meta: Meta) -> Infer:
    from resnetkit import models
    from resnetkit.weights.keymaps import renamed
    from resnetkit.weights.read import read_state

    network = models.build(meta.variant, num_classes=len(meta.classes), in_channels=len(meta.preprocess["mean"]))
    network.load_state_dict(renamed(read_state(folder / WEIGHTS))[0])
    return _runs(network.eval(), meta)


def _runs(network: Any, meta: Meta) -> Infer:
    import torch

    preprocess = preprocess_from(meta.preprocess, Path(META))

    def infer(batch: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = network(torch.from_numpy(normalise(batch, preprocess))).numpy()
        return logits

    return infer


def write_names(checkpoint: Checkpoint, folder: Path) -> None:
    """classes.json, names in the order of the logits, and preprocess.json, how images are prepared."""
    write_json(folder / "classes.json", list(checkpoint.meta.classes))
    write_json(folder / "preprocess.json", prepared_of(checkpoint).as_dict())


def public(meta: Meta) -> Meta:
    """Without the folders of this machine that lead to the weights it started from."""
    return meta if meta.weights.startswith("hf://") else replace(meta, weights=Path(meta.weights).name)


def write_weights(folder: Path, tensors: Tensors) -> None:
    """In float32, as our own backend computes: a library that takes the type of the file would compute in float16."""
    whole = {n: np.asarray(a, np.float32 if a.dtype.kind == "f" else a.dtype, order="C") for n, a in tensors.items()}
    # serialised in memory, since save_file would make a file that only its owner can read
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(whole, {"format": "pt"}))


def write_json(path: Path, value: Any) -> None:
    """JSON for others to read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
