import numpy as np
import pytest
import torch

from resnetkit.data import audio
from resnetkit.data.audio import AudioPreprocess
from resnetkit.nn.spectrum import LogMel
from resnetkit.ops.spectrum import Mel

TOLERANCE = 2e-4  # of normalised values, which are some -3..3


@pytest.mark.parametrize("each", [False, True])
def test_equal_to_what_the_data_side_computes(each):
    numbers = (tuple(np.linspace(5, 12, 40)), tuple(np.linspace(2, 4, 40))) if each else ((9.0,), (3.0,))
    prepare = AudioPreprocess(8_000, 0.5, 40, mean=numbers[0], std=numbers[1])
    clips = np.stack([audio.to_integers(np.random.default_rng(0).normal(0, 0.1, 4000)), np.zeros(4000, np.int16)])
    layer = LogMel(prepare.mel, prepare.mean, prepare.std)
    ours = layer(torch.from_numpy(audio.to_floats(clips))).numpy()
    expected = audio.normalise(clips, prepare)
    assert ours.shape == expected.shape == (2, 1, 40, 48)
    assert np.abs(ours - expected).max() < TOLERANCE


def test_is_no_part_of_a_checkpoint():
    assert not LogMel(Mel()).state_dict() and not list(LogMel(Mel()).parameters())


def test_refuses_other_numbers():
    with pytest.raises(ValueError, match="one number or 64"):
        LogMel(Mel(), (0.0, 1.0), (1.0, 1.0))


def test_runs_outside_of_torch(tmp_path):
    """The graph that an export holds: ONNX Runtime gives the same, for any number of sounds."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, mel = onnx.helper, Mel(8_000, 200, 80, 40, 20, 4_000)
    layer = LogMel(mel, (9.0,), (3.0,))
    constants = {"p": layer.projection, "b": layer.bank, "mean": layer.mean, "std": layer.std}
    constants |= {"floor": torch.tensor(mel.floor), "one": torch.tensor([1])}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["x1"]),
        helper.make_node("Conv", ["x1", "p"], ["parts"], strides=[mel.hop]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("Split", ["squares"], ["re", "im"], axis=1, num_outputs=2),
        helper.make_node("Add", ["re", "im"], ["power"]),
        helper.make_node("Conv", ["power", "b"], ["energy"]),
        helper.make_node("Max", ["energy", "floor"], ["above"]),
        helper.make_node("Log", ["above"], ["logs"]),
        helper.make_node("Sub", ["logs", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "spectrum",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", "samples"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1, 40, "frames"])],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 4000), (3, 8000)):
        samples = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
        assert np.abs(session.run(None, {"x": samples})[0] - layer(torch.from_numpy(samples)).numpy()).max() < TOLERANCE
