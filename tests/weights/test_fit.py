"""A state dict goes in whole, or all but the head and the stem; another architecture is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnetkit.errors import ModelError
from resnetkit.models import build, resnet34
from resnetkit.weights.fit import HEAD, fit, inflate_stem

SHARED = Path(__file__).parents[3] / "shared/weights/resnet34-tiny-imagenet.safetensors"


@pytest.fixture(scope="module")
def source():
    """ResNet-18 for 1,000 classes of RGB images, in eval."""
    torch.manual_seed(1)
    return build("resnet18").eval()


def loads_all_but_head(network, state):
    own = network.state_dict()
    assert all(torch.equal(own[n], state[n].to(own[n].dtype)) for n in state if n not in HEAD)


def test_whole_state(source, caplog):
    network = build("resnet18")
    message = fit(network, source.state_dict(), "w.pth")
    assert message == "w.pth: loaded 122 of 122 tensors"
    assert message in caplog.messages
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_head_of_another_size_is_made_anew():
    state = build("resnet34").state_dict()
    assert len(state) == 218
    network = build("resnet34", num_classes=5)
    fresh = network.fc.weight.detach().clone()
    message = fit(network, state, "IMAGENET1K_V1")
    assert "loaded 216 of 218 tensors; head 1000 -> 5 re-initialised" in message
    assert torch.equal(network.fc.weight, fresh)
    loads_all_but_head(network, state)


@pytest.mark.parametrize("channels", [1, 6])
def test_stem_for_other_channels_sees_the_same(source, channels):
    network = build("resnet18", in_channels=channels).eval()
    message = fit(network, source.state_dict(), "w")
    assert message == f"w: loaded 122 of 122 tensors; stem 3 -> {channels} channels"
    x = torch.randn(2, 1 if channels == 1 else 3, 64, 64)
    as_rgb, as_network = (x.expand(-1, 3, -1, -1), x) if channels == 1 else (x, torch.cat([x, x], 1))
    with torch.no_grad():
        torch.testing.assert_close(network(as_network), source(as_rgb), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 6])
def test_deep_stem_for_other_channels_sees_the_same(channels):
    deep = build("resnet34d").eval()
    network = build("resnet34d", in_channels=channels).eval()
    message = fit(network, deep.state_dict(), "w")
    assert message.endswith(f"tensors; stem 3 -> {channels} channels")
    x = torch.randn(2, 1 if channels == 1 else 3, 64, 64)
    as_rgb, as_network = (x.expand(-1, 3, -1, -1), x) if channels == 1 else (x, torch.cat([x, x], 1))
    with torch.no_grad():
        torch.testing.assert_close(network(as_network), deep(as_rgb), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("own", "other"), [("resnet34d", "resnet34"), ("resnet34", "resnet34d")])
def test_another_stem_is_another_architecture(own, other):
    network, state = build(own, in_channels=1), build(other).state_dict()
    with pytest.raises(ModelError, match=r"conv1\.\S+ is missing"):
        fit(network, state, "w.pth")


def test_inflated_stem_repeats_and_scales():
    weight = torch.randn(4, 3, 7, 7)
    assert torch.equal(inflate_stem(weight, 1), weight.sum(1, keepdim=True))
    for channels in (2, 4, 6, 7):
        inflated = inflate_stem(weight, channels)
        assert inflated.shape == (4, channels, 7, 7)
        for channel in range(channels):
            torch.testing.assert_close(inflated[:, channel], weight[:, channel % 3] * 3 / channels)
    torch.testing.assert_close(inflate_stem(weight[:, :1], 3).sum(1), weight[:, 0])


def test_another_architecture_lists_the_first_ten_differences(source):
    network = build("resnet34")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        fit(network, source.state_dict(), "w.pth")
    assert caught.value.exit_code == 5
    own = {name for name in before if not name.endswith("num_batches_tracked")}
    missing = [name for name in before if name in own - source.state_dict().keys()]
    listed = "; ".join(f"{name} is missing" for name in missing[:10])
    assert f"{listed} and {len(missing) - 10} more (" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"layer1.0.bn1.weight": None}, "layer1.0.bn1.weight is missing"),
        ({"fc.bias": None}, "fc.bias is missing"),
        ({"extra": torch.zeros(1)}, "extra is not in the network"),
        ({"bn1.weight": torch.zeros(3)}, r"bn1.weight is \(3,\), not \(64,\)"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1.weight is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)"),
        ({"conv1.weight": torch.zeros(64, 1, 3, 3)}, r"conv1.weight is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)"),
        ({"fc.weight": torch.zeros(())}, "fc.weight is"),
    ],
)
def test_each_difference_is_named(source, change, difference):
    state = {name: tensor for name, tensor in {**source.state_dict(), **change}.items() if tensor is not None}
    with pytest.raises(ModelError, match=difference) as caught:
        fit(build("resnet18"), state, "w.pth")
    assert " more" not in str(caught.value)


def test_batch_counters_may_be_missing(source):
    state = {name: t for name, t in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    network = build("resnet18")
    fit(network, state, "w.pth")
    loads_all_but_head(network, state)


@pytest.mark.parametrize("in_channels", [3, 1])
def test_half_precision_is_cast(source, in_channels):
    state = {name: tensor.half() for name, tensor in source.state_dict().items() if tensor.is_floating_point()}
    network = build("resnet18", in_channels=in_channels)
    fit(network, state, "w.pth")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    expected = state.pop("conv1.weight").float()
    torch.testing.assert_close(network.conv1.weight.data, expected if in_channels == 3 else expected.sum(1, True))
    loads_all_but_head(network, state)
    assert torch.equal(network.fc.weight, state["fc.weight"].float())


DTYPES = ("float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize("name", DTYPES)
def test_floats_of_every_size_are_cast_with_a_note(source, name):
    dtype = getattr(torch, name)
    state = {key: t.to(dtype) if t.is_floating_point() else t for key, t in source.state_dict().items()}
    network = build("resnet18")
    assert fit(network, state, "w.pth") == f"w.pth: loaded 122 of 122 tensors; cast from {name}"
    assert torch.equal(network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"].float())


def spoilt(state, name, value):
    return {**state, name: torch.full_like(state[name], value)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("layer3.0.conv1.weight", float("nan"), "layer3.0.conv1.weight holds NaN or infinite values"),
        ("fc.bias", float("inf"), "fc.bias holds NaN or infinite values"),
        ("bn1.running_var", -1e-3, "bn1.running_var holds negative variances"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unsound_weights_are_refused(source, name, value, words, dtype):
    state = {key: t.to(dtype) if t.is_floating_point() else t for key, t in source.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        fit(build("resnet18", num_classes=7), spoilt(state, name, value), "w.pth")
    assert str(caught.value) == f"w.pth: {words} (start from other weights)"


def test_only_zeros_are_refused(source):
    with pytest.raises(ModelError, match="all weights are zero"):
        fit(build("resnet18"), {name: torch.zeros_like(t) for name, t in source.state_dict().items()}, "w.pth")


def test_quantised_weights_are_refused(source):
    """Integers without their scales are no weights, whatever their names and shapes."""
    state = {name: t.to(torch.int8) if t.ndim == 4 else t for name, t in source.state_dict().items()}
    with pytest.raises(ModelError, match="conv1.weight is int8, not floating point"):
        fit(build("resnet18"), state, "w.pth")


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED.name} is not beside the repository")
@pytest.mark.parametrize(("num_classes", "said"), [(200, "218 of 218 tensors"), (5, "head 200 -> 5 re-initialised")])
def test_shared_weights(num_classes, said, caplog):
    network = resnet34(weights=SHARED, num_classes=num_classes)
    loads_all_but_head(network, load_file(SHARED))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert said in caplog.text
