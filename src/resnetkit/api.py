"""The public functions, each loaded from where it lives when it is first used (PEP 562).

`import resnetkit` must cost nothing: no torch, no pydantic, no verb is imported before a name is asked for.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetkit.models import (
        grow,
        resnet18,
        resnet20,
        resnet32,
        resnet34,
        resnet34d,
        resnet44,
        resnet50,
        resnet50d,
        resnet56,
        resnet101,
        resnet110,
        resnet152,
        resnext50_32x4d,
        resnext101_32x8d,
        resnext101_64x4d,
        wide_resnet50_2,
        wide_resnet101_2,
    )
    from resnetkit.nn.blocks import BasicBlock, Bottleneck, conv1x1, conv3x3
    from resnetkit.nn.resnet import ResNet
    from resnetkit.runtime.model import load
    from resnetkit.runtime.save import save
    from resnetkit.verbs.bench import bench
    from resnetkit.verbs.check import check
    from resnetkit.verbs.compare import compare
    from resnetkit.verbs.demo import demo
    from resnetkit.verbs.doctor import doctor
    from resnetkit.verbs.embed import embed
    from resnetkit.verbs.eval import evaluate
    from resnetkit.verbs.explain import explain
    from resnetkit.verbs.export import export
    from resnetkit.verbs.models import describe_model, list_models
    from resnetkit.verbs.predict import predict
    from resnetkit.verbs.serve import serve
    from resnetkit.verbs.train import train

HOMES = {
    "resnetkit.nn.blocks": ("BasicBlock", "Bottleneck", "conv1x1", "conv3x3"),
    "resnetkit.nn.resnet": ("ResNet",),
    "resnetkit.models": (
        "grow",
        "resnet18",
        "resnet20",
        "resnet32",
        "resnet34",
        "resnet34d",
        "resnet44",
        "resnet50",
        "resnet50d",
        "resnet56",
        "resnet101",
        "resnet110",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ),
    "resnetkit.runtime.model": ("load",),
    "resnetkit.runtime.save": ("save",),
    "resnetkit.verbs.train": ("train",),
    "resnetkit.verbs.eval": ("evaluate",),
    "resnetkit.verbs.embed": ("embed",),
    "resnetkit.verbs.export": ("export",),
    "resnetkit.verbs.compare": ("compare",),
    "resnetkit.verbs.check": ("check",),
    "resnetkit.verbs.explain": ("explain",),
    "resnetkit.verbs.bench": ("bench",),
    "resnetkit.verbs.doctor": ("doctor",),
    "resnetkit.verbs.models": ("describe_model", "list_models"),
    "resnetkit.verbs.predict": ("predict",),
    "resnetkit.verbs.serve": ("serve",),
    "resnetkit.verbs.demo": ("demo",),
}

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "bench",
    "check",
    "compare",
    "conv1x1",
    "conv3x3",
    "demo",
    "describe_model",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export",
    "grow",
    "list_models",
    "load",
    "predict",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet34d",
    "resnet44",
    "resnet50",
    "resnet50d",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "save",
    "serve",
    "train",
    "wide_resnet50_2",
    "wide_resnet101_2",
]


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """While modules are imported: what they make stays, and looking through it again and again takes half a second."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            with _nothing_collected():
                return getattr(import_module(home), name)
    raise AttributeError(f"module 'resnetkit' has no attribute {name!r}")
