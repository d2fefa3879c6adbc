"""Which weights are published: torchvision's own table, and under which other names the same weights may lie here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from resnetkit.data.image import Preprocess

# The same values as torchvision published them until 2020, in the older serialisation and without the batch counters
# (pytorch/vision issue 2068). The other files were published once.
OLDER = {
    "resnet18-f37072fd.pth": "resnet18-5c106cde.pth",
    "resnet34-b627a593.pth": "resnet34-333f7ec4.pth",
    "resnet50-0676ba61.pth": "resnet50-19c8e357.pth",
    "resnet101-63fe2227.pth": "resnet101-5d3b4d8f.pth",
    "resnet152-394f9c45.pth": "resnet152-b121ed2d.pth",
}
# How timm calls torchvision's weights in its repositories on the Hub.
TIMM_TAGS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k"}


@dataclass(frozen=True)
class Published:
    """Published weights of a variant.

    Attributes:
        variant, name: "resnet34", "IMAGENET1K_V1".
        url: of the file; its name carries the first digits of its SHA-256.
        num_bytes: of the file, right to about a thousand.
        num_params: of the network.
        accuracy: top-1 and top-5 on the 50,000 validation images of ImageNet as published, fractions 0..1.
        classes: names in the order of the logits.
        preprocess: what the accuracy was measured with.
    """

    variant: str
    name: str
    url: str
    num_bytes: int
    num_params: int
    accuracy: Mapping[str, float]
    classes: tuple[str, ...]
    preprocess: Preprocess

    @property
    def file(self) -> str:
        """Name of the file in torch's cache."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def files(self) -> tuple[str, ...]:
        """Names under which torch's cache may have these weights, the current one first."""
        return tuple(filter(None, (self.file, OLDER.get(self.file))))

    @property
    def hub_repository(self) -> str:
        """Where the Hub has them, as model.safetensors."""
        return f"timm/{self.variant}.{TIMM_TAGS[self.name]}"


def sha256_prefix(file: str) -> str:
    """What the SHA-256 of a file begins with, as its name says: resnet34-b627a593.pth."""
    found = re.search(r"-([0-9a-f]{8,64})\.", file)
    assert found, f"{file} carries no hash"
    return found[1]


def published(variant: str) -> dict[str, Published]:
    """The weights of a variant by name; nothing where torchvision has none."""
    from torchvision.models import get_model_weights  # takes a second, and weights from a file need none of it

    try:
        return {weights.name: _published(variant, weights) for weights in get_model_weights(variant)}
    except ValueError:  # not a model of torchvision's
        return {}


def _published(variant: str, weights: Any) -> Published:
    meta, transforms = weights.meta, weights.transforms()
    (scores,) = meta["_metrics"].values()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    return Published(
        variant=variant,
        name=weights.name,
        url=weights.url,
        num_bytes=round(meta["_file_size"] * 2**20),
        num_params=meta["num_params"],
        accuracy={"accuracy": scores["acc@1"] / 100, "top5": scores["acc@5"] / 100},
        classes=tuple(meta["categories"]),
        preprocess=Preprocess(
            size=crop,
            crop_ratio=crop / resize,
            interpolation=transforms.interpolation.value,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        ),
    )
