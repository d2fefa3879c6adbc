import pytest
import torch

from resnetkit.nn.sequence import VDCNN, Block1d, TextResNet, WaveResNet, kmax, vdcnn

PAPER = {9: 2.2, 17: 4.3, 29: 4.6, 49: 7.8}  # million parameters, arXiv 1606.01781, table 2
OURS = {9: 1_575_936, 17: 3_664_896, 29: 4_033_536, 49: 7_154_688}


def count(module, kind):
    return sum(p.numel() for m in module.modules() if isinstance(m, kind) for p in m.parameters(recurse=False))


@pytest.mark.parametrize("depth", PAPER)
def test_vdcnn_has_the_depth_and_the_size_of_the_paper(depth):
    """The paper's figures are 0.6 to 0.65 M larger at every depth, by what it does not say; the steps agree."""
    network = vdcnn(depth, 2)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert len(convolutions) == depth
    assert count(network, torch.nn.Conv1d) == OURS[depth]
    assert 0.55e6 < PAPER[depth] * 1e6 - OURS[depth] < 0.66e6
    assert network.fc1.in_features == 4096 and network.fc2.in_features == 2048


@pytest.mark.parametrize("shortcut", ["none", "A", "B"])
@pytest.mark.parametrize("length", [5, 64, 101])
def test_vdcnn_shapes(shortcut, length):
    network = vdcnn(9, 3, 100, shortcut=shortcut, hidden=0).eval()
    tokens = torch.randint(1, 100, (2, length))
    features = network.forward_features(tokens)
    assert {name: x.shape[1] for name, x in features.items()} == {"C2": 64, "C3": 128, "C4": 256, "C5": 512}
    embedding, logits = network.forward_head(features)
    assert embedding.shape == (2, 4096) and logits.shape == (2, 3)
    assert torch.equal(network(tokens), logits)


def test_shortcuts_differ_in_parameters_only_where_channels_change():
    sizes = {s: sum(p.numel() for p in vdcnn(9, 2, shortcut=s, hidden=0).parameters()) for s in ("none", "A", "B")}
    projections = 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)
    assert sizes["A"] == sizes["none"] and sizes["B"] - sizes["A"] == projections


def test_a_block_is_the_formula():
    block, x = Block1d(4, 4).eval(), torch.randn(2, 4, 9)
    branch = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    assert torch.allclose(block(x), (branch + x).relu())
    plain = Block1d(4, 4, "none").eval()
    plain.load_state_dict(block.state_dict())
    assert torch.allclose(plain(x), branch.relu())
    padded = Block1d(4, 6, "A").eval()
    torch.nn.init.zeros_(padded.bn2.weight)
    assert torch.equal(padded(x)[:, :4], x.relu()) and not padded(x)[:, 4:].any()


def test_kmax_keeps_the_order():
    x = torch.tensor([[[3.0, 1, 5, 2, 4]]])
    assert kmax(x, 3).tolist() == [[[3, 5, 4]]]
    assert kmax(x, 6).tolist() == [[[3, 1, 5, 2, 4, 0]]]


def test_text_resnet():
    network = TextResNet(3, 50, layers=(1, 2, 1), dim=8, width=4).eval()
    tokens = torch.tensor([[3, 4, 0, 0, 0, 0, 0, 0], [0] * 8])
    features = network.forward_features(tokens)
    assert torch.allclose(features["C1"][0, :, 0], network.embedding.weight[[3, 4]].mean(0))
    assert [features[f"C{i}"].shape[1:] for i in (2, 3, 4)] == [(4, 8), (8, 4), (16, 2)]
    embedding, logits = network.forward_head(features)
    assert embedding.shape == (2, 24) and logits.shape == (2, 3) and torch.isfinite(logits).all()


def test_wave_resnet_is_m34_res():
    """4 M parameters in arXiv 1610.00087, table 1."""
    network = WaveResNet(10)
    assert abs(sum(p.numel() for p in network.parameters()) - 4.0e6) < 0.05e6
    assert sum(isinstance(m, torch.nn.Conv1d | torch.nn.Linear) for m in network.modules()) == 34
    features = network.eval().forward_features(torch.randn(2, 1, 8000))
    assert [x.shape[2] for x in features.values()] == [501, 126, 32, 8]
    assert network(torch.randn(2, 1, 3)).shape == (2, 10)


@pytest.mark.parametrize("make", [lambda: vdcnn(9, 2, 30, hidden=0), lambda: TextResNet(2, 30, width=16)])
def test_learns_which_token_is_there(make):
    torch.manual_seed(0)
    tokens = torch.randint(2, 30, (64, 32))
    targets = torch.arange(64) % 2
    tokens[targets == 1, 10] = 1
    network = make()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(tokens), targets).backward()
        optimizer.step()
    network.eval()
    assert (network(tokens).argmax(1) == targets).float().mean() > 0.9
    assert not network.embedding.weight[0].any(), "the padding stays zero"


def test_names_of_tensors_are_frozen():
    names = set(vdcnn(9, 2, shortcut="B").state_dict())
    expected = {"embedding.weight", "conv1.weight", "layer1.0.conv1.weight", "layer4.0.downsample.0.weight"}
    assert expected | {"layer2.0.bn2.running_var", "fc1.weight", "fc2.bias", "fc.weight"} <= names
    assert {"conv1.weight", "bn1.bias", "layer4.2.conv2.weight", "fc.bias"} <= set(WaveResNet(2).state_dict())


def test_refuses_what_cannot_be():
    for make in (lambda: vdcnn(10, 2), lambda: VDCNN((1, 1, 1), 2), lambda: VDCNN((1, 1, 1, 1), 2, k=0)):
        with pytest.raises(ValueError, match="must be"):
            make()
    for make in (lambda: TextResNet(2, layers=()), lambda: WaveResNet(2, shortcut="C")):
        with pytest.raises(ValueError, match="must be"):
            make()
