"""The residual units as a picture, drawn from the code: python docs/paper/units.py writes units.svg beside this file.

Each block of resnetkit.nn is run once on a tensor without memory; what its layers do, in the order in which they do it,
is what is drawn: the residual branch down the left, the shortcut down the right, the addition, the last ReLU.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from resnetkit.nn.blocks import BasicBlock, Bottleneck, PadShortcut
from resnetkit.nn.resnet import ResNet

HERE = Path(__file__).parent
STYLE = (
    "text{font:12px sans-serif;fill:#222;text-anchor:middle}.title{font-weight:bold}"
    "rect,circle{fill:#dce8f5;stroke:#345}path{fill:none;stroke:#345;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}rect,circle{fill:#24415f;stroke:#9bd}path{stroke:#9bd}}"
)
WIDTH, STEP, TOP = 340, 34, 62


def stage(block: type[BasicBlock | Bottleneck], shortcut: str) -> nn.Sequential:
    """The second stage of a network of two blocks a stage: its first unit changes shape, its second does not."""
    with torch.device("meta"):
        return ResNet(block, (2, 2, 2, 2), shortcut=shortcut).layer2  # type: ignore[arg-type]


def words(layer: nn.Module) -> str:
    """What a layer is called in the picture."""
    if isinstance(layer, nn.Conv2d):
        stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
        return f"{layer.kernel_size[0]}x{layer.kernel_size[1]}, {layer.in_channels} to {layer.out_channels}{stride}"
    if isinstance(layer, PadShortcut):
        return f"every {layer.stride}nd pixel, {layer.missing} zeros"
    return {"BatchNorm2d": "BatchNorm", "ReLU": "ReLU"}[type(layer).__name__]


def traced(unit: nn.Module, channels: int) -> tuple[list[str], list[str]]:
    """The layers of the branch and of the shortcut, as a forward pass calls them; the last ReLU is the branch's."""
    found: tuple[list[str], list[str]] = ([], [])

    def note(name: str, layer: nn.Module) -> None:
        def called(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found["downsample" in name].append(words(layer))

        layer.register_forward_hook(called)

    for name, layer in unit.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | PadShortcut):
            note(name, layer)
    unit(torch.empty(1, channels, 56, 56, device="meta"))
    return found


def box(x: int, y: int, text: str) -> str:
    """A layer."""
    return f'<rect x="{x - 72}" y="{y - 12}" width="144" height="24" rx="4"/><text x="{x}" y="{y + 4}">{text}</text>'


def drawn(left: int, title: str, layers: tuple[list[str], list[str]], height: int) -> str:
    """A unit: its input at the top, the addition and the last ReLU at the bottom."""
    branch, shortcut = layers
    x, side, end = left + 85, left + 248, height - 86
    parts = [f'<text class="title" x="{left + 166}" y="20">{title}</text><text x="{x}" y="44">x</text>']
    parts.append(f'<path d="M{x} 50V{height - 18}M{x} 54H{side}V{end}H{x + 10}"/>')
    parts += [box(x, TOP + 16 + STEP * i, text) for i, text in enumerate(branch[:-1])]
    if not shortcut:
        parts.append(f'<text x="{side - 30}" y="{(TOP + end) // 2}">identity</text>')
    parts += [box(side, TOP + 16 + STEP * i, text) for i, text in enumerate(shortcut)]
    parts.append(f'<circle cx="{x}" cy="{end}" r="10"/><text x="{x}" y="{end + 4}">+</text>')
    parts.append(box(x, height - 50, branch[-1]) + f'<text x="{x}" y="{height - 4}">y</text>')
    return "".join(parts)


def picture() -> str:
    """All units, as an SVG for light and dark pages."""
    units = [
        ("BasicBlock, identity", traced(stage(BasicBlock, "B")[1], 128)),
        ("BasicBlock, shortcut A", traced(stage(BasicBlock, "A")[0], 64)),
        ("BasicBlock, shortcut B", traced(stage(BasicBlock, "B")[0], 64)),
        ("Bottleneck, shortcut B", traced(stage(Bottleneck, "B")[0], 256)),
    ]
    height = TOP + STEP * max(len(branch) for _, (branch, _) in units) + 90
    body = "".join(drawn(WIDTH * i, title, layers, height) for i, (title, layers) in enumerate(units))
    label = "The residual units: branch, shortcut, addition, ReLU"
    size = f'viewBox="0 0 {WIDTH * len(units)} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}"><style>{STYLE}</style>'
    return f"{head}{body}</svg>\n"


if __name__ == "__main__":
    (HERE / "units.svg").write_text(picture(), encoding="utf-8")
