"""A torch network as a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from resnetkit import checkpoint
from resnetkit.data.image import Preprocess, mean_and_std
from resnetkit.errors import UsageError
from resnetkit.models import SPEAKER, VARIANTS, WAVES, WORDS, Network, Variant
from resnetkit.nn.resnet import ResNet
from resnetkit.nn.sequence import VDCNN, VDCNN_LAYERS, TextResNet, WaveResNet
from resnetkit.nn.speaker import SpeakerResNet
from resnetkit.tasks.task import IMAGE, task_named


def save(
    network: ResNet,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    weights: str = "none",
    scores: Mapping[str, Any] | None = None,
    task: str = "classify",
) -> Path:
    """Write a network as a model folder, published by one rename.

    Args:
        network: one of the family's.
        folder: must not exist.
        classes: name of each logit; "0" .. "n-1" by default.
        preprocess: how images are prepared; by default that of ImageNet's published weights.
        weights: what the weights started from.
        scores: metrics on held-out data, for the model card.
        task: "classify", or "multilabel" where an image has several labels or none.

    Raises:
        UsageError: there is no such task, the network is none of the family, or the number of classes is not that of
            its logits.
        ResourceError: the folder exists, or the disk refuses.
    """
    if task_named(task).modality is not IMAGE:
        raise UsageError(f"networks of the task {task} are saved by train", path=folder, fix="resnetkit train")
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(network.fc.out_features))
    if not isinstance(network.bn1, nn.BatchNorm2d):
        what = f"a network with {type(network.bn1).__name__} cannot be saved"
        raise UsageError(what, path=folder, fix="build it with BatchNorm, or keep its state_dict")
    channels, options = network.in_channels, options_of(network)
    if options.get("stem") == "spectrum":
        raise UsageError("the stem of spectra is not one of images", path=folder, fix="imagenet, small or deep")
    if preprocess is None:
        mean, std = mean_and_std(channels)
        preprocess = Preprocess(mean=mean, std=std)
    if preprocess.channels != channels:
        fix = "give a Preprocess whose mean and std have as many numbers"
        raise UsageError(f"the network takes {channels} channels, its preprocess {preprocess.channels}", fix=fix)
    meta = checkpoint.Meta(task, variant_of(network), options, names, preprocess.as_dict(), weights, dict(scores or {}))
    return checkpoint.write(Path(folder), meta, tensors_of(network))


def tensors_of(network: nn.Module) -> dict[str, NDArray[Any]]:
    """What a network holds, by name, but what is of use in training alone."""
    training = "others." if isinstance(network, SpeakerResNet) else None
    found = network.state_dict().items()
    return {
        name: tensor.detach().cpu().numpy() for name, tensor in found if not (training and name.startswith(training))
    }


def variant_of(network: Network) -> str:
    """Name of the variant that a network is.

    Raises:
        UsageError: it is none of the family.
    """
    if isinstance(network, SpeakerResNet):
        return SPEAKER
    if isinstance(network, TextResNet | WaveResNet):
        return WORDS if isinstance(network, TextResNet) else WAVES
    stages = [stage for name, stage in network.named_children() if name.startswith("layer")]
    blocks = [len(list(stage.children())) for stage in stages]
    if isinstance(network, VDCNN):
        return next(f"vdcnn{depth}" for depth, layers in VDCNN_LAYERS.items() if layers == tuple(blocks))
    width = next(network.bn1.parameters()).numel()
    first = next(stages[0].children())
    conv = first.get_submodule("conv2")
    found = [
        name
        for name, variant in VARIANTS.items()
        if (type(first), tuple(blocks)) == (variant.block, variant.layers)
        and isinstance(conv, nn.Conv2d)
        and (conv.groups, conv.out_channels) == variant.convolution_at(width)
    ]
    if found:  # resnet34 and resnet34d have the same blocks: the one that differs less in the rest
        return min(found, key=lambda name: len(_changes(network, VARIANTS[name])))
    raise UsageError("the network is none of the family", fix=f"build one of {', '.join(VARIANTS)}")


def options_of(network: Network) -> dict[str, Any]:
    """What differs from the variant's defaults and changes what the network computes in evaluation."""
    if isinstance(network, SpeakerResNet):
        return {"mels": network.mels, "width": network.bn1.num_features, "embedding": network.fc.weight.shape[1]}
    if isinstance(network, WaveResNet):
        return {"width": network.bn1.num_features, "shortcut": network.shortcut}
    if isinstance(network, TextResNet | VDCNN):
        return _options_of_text(network)
    variant = VARIANTS[variant_of(network)]
    options: dict[str, Any] = {"in_channels": network.in_channels}
    width = len(network.bn1.get_parameter("weight"))  # whatever norm it is
    if width != variant.width:
        options["width"] = width
    options |= _changes(network, variant)
    dilated = [_dilation(stage[-1]) for stage in network.stages.values()]
    if dilated[-1] > 1:
        options["replace_stride_with_dilation"] = [b > a for a, b in zip(dilated, dilated[1:], strict=False)]
    return options


def _options_of_text(network: TextResNet | VDCNN) -> dict[str, Any]:
    known = {"num_tokens": network.embedding.num_embeddings, "shortcut": network.shortcut}
    if isinstance(network, TextResNet):
        return {**known, "width": network.bn1.num_features}
    return {**known, "k": network.k, "hidden": network.fc1.out_features if isinstance(network.fc1, nn.Linear) else 0}


def _changes(network: ResNet, variant: Variant) -> dict[str, str]:
    """Stem, shortcut and pooling, where they are not those of the variant."""
    deep = isinstance(network.conv1, nn.Sequential)
    steps = getattr(network.maxpool, "stride", None)
    stem = "small" if steps is None else "deep" if deep else "imagenet" if steps == 2 else "spectrum"
    changes = {} if stem == variant.stem else {"stem": stem}
    changes |= {} if network.shortcut == variant.shortcut else {"shortcut": network.shortcut}
    return changes if network.pool == "last" else {**changes, "pool": network.pool}


def _dilation(block: nn.Module) -> int:
    conv = block.get_submodule("conv2")
    return conv.dilation[0] if isinstance(conv, nn.Conv2d) else 1
