"""models: the numbers are those of the networks."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from resnetkit import api, models


@pytest.mark.parametrize("variant", ["resnet18", "resnet50", "resnext50_32x4d", "resnet50d", "resnet56", "plain34"])
def test_stages_add_up_to_the_network(variant: str) -> None:
    stages = api.describe_model(variant)
    summary = next(row for row in api.list_models() if row.name == variant)
    with torch.device("meta"):
        network, x = models.build(variant).eval(), torch.empty(1, 3, summary.size, summary.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    assert sum(stage.multiply_adds for stage in stages) == summary.multiply_adds == counter.get_total_flops() // 2
    assert sum(stage.parameters for stage in stages) == sum(p.numel() for p in network.parameters())
    assert sum(stage.share for stage in stages) == pytest.approx(1) and summary.weights_bytes == 4 * summary.parameters


@pytest.mark.parametrize("variant", models.SEQUENCES)
def test_those_of_texts_and_sounds_too(variant: str) -> None:
    stages = api.describe_model(variant)
    summary = next(row for row in api.list_models() if row.name == variant)
    assert sum(stage.multiply_adds for stage in stages) == summary.multiply_adds > 0
    assert sum(stage.parameters for stage in stages) == summary.parameters
    assert (stages[0].name, stages[-1].name) == ("stem", "fc") and summary.size == 0 and not summary.accuracy


def test_costs_that_are_known() -> None:
    """wespeaker gives its ResNet34 6.63 M parameters with 80 bands: 64 have less behind the pooling."""
    found = {row.name: row for row in api.list_models()}
    assert 5e6 < found["speaker34"].parameters < 6.7e6
    assert found["vdcnn29"].input == "1,024 bytes" and found["words"].parameters > 20_000 * 128


def test_resnet34_is_that_of_the_paper() -> None:
    """Table 1: outputs and blocks; table 3 counts 3.6 G multiply-adds."""
    rows = [(stage.name, stage.blocks, stage.kernels, stage.output) for stage in api.describe_model("resnet34")]
    assert rows == [
        ("stem", 1, "7x7", (64, 56, 56)),
        ("layer1", 3, "3x3, 3x3", (64, 56, 56)),
        ("layer2", 4, "3x3, 3x3", (128, 28, 28)),
        ("layer3", 6, "3x3, 3x3", (256, 14, 14)),
        ("layer4", 3, "3x3, 3x3", (512, 7, 7)),
        ("fc", 1, "average, linear", (1000,)),
    ]


def test_a_stem_of_three_convolutions_is_one_stage() -> None:
    stem, first, *_ = api.describe_model("resnet34d")
    assert (stem.name, stem.blocks, stem.kernels, stem.stride) == ("stem", 1, "3x3, 3x3, 3x3", 4)
    assert stem.output == first.output == (64, 56, 56)


def test_the_list_by_the_command(run_cli) -> None:
    code, out, _ = run_cli("models")
    assert code == 0 and "IMAGENET1K_V1 73.31 %" in out and "non-commercial" in out
    assert all(f"\n{name} " in out for name in models.VARIANTS)
    rows = json.loads(run_cli("models", "--json")[1])
    names = [*models.VARIANTS, *models.SEQUENCES]
    assert sorted(row["name"] for row in rows) == sorted(names) and rows[1]["parameters"] == 21_797_672


def test_one_network_by_the_command_and_its_drawing(run_cli) -> None:
    code, out, _ = run_cli("models", "resnet34", "--size", "64", "--svg", "r.svg")
    assert code == 0 and "512 x 2 x 2" in out and len(out.splitlines()) == 7
    text = Path("r.svg").read_text()
    boxes = ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}rect")
    assert (
        len(list(boxes)) == 6
        and "prefers-color-scheme:dark" in text
        and "http" not in text.replace("http://www.w3", "")
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["resnet35"], "there is no model"),
        (["--size", "64"], "of one network"),
        (["resnet18", "--size", "4"], "size = 4"),
        (["vdcnn9", "--size", "64"], "no images"),
    ],
)
def test_refused(flags: list[str], message: str, run_cli) -> None:
    code, _, err = run_cli("models", *flags)
    assert code == 2 and message in err and err.count("\n") == 1
