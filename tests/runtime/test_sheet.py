"""A written ONNX model does what its nodes say."""

import numpy as np
import pytest

from resnetkit.runtime.sheet import SCORES, Sheet

onnxruntime = pytest.importorskip("onnxruntime")


def answers(sheet: Sheet, batch: np.ndarray) -> dict[str, np.ndarray]:
    model = sheet.model(("given", "FLOAT", ("batch", 3)), {SCORES: ("batch", 3), "logits": ("batch", 3)})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"given": batch}), strict=True))


@pytest.mark.parametrize("several", [False, True])
def test_scores_are_of_calibrated_logits(several: bool) -> None:
    sheet, batch = Sheet(), np.array([[1, 2, 4], [0, 0, 3]], np.float32)
    one = sheet.tensor("one", np.array(1, np.float32))
    assert sheet.tensor("one", np.array(5, np.float32)) == one  # the first one stays
    assert sheet._node("Add", ["given", one], "logits") == "logits"
    sheet.scores(2.0, several)
    found = answers(sheet, batch)
    np.testing.assert_array_equal(found["logits"], batch + 1)
    powers = np.exp(found["logits"] / 2)
    expected = powers / (1 + powers) if several else powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(found[SCORES], expected, rtol=1e-6)


def test_a_node_with_two_outputs() -> None:
    sheet = Sheet()
    count = sheet.tensor("k", np.array([2], np.int64))
    assert sheet._node("TopK", ["given", count], "values", "places", axis=1) == "values"
    sheet._node("Cast", ["places"], "logits", to=1)
    sheet._node("Identity", ["values"], SCORES)
    found = answers(sheet, np.array([[1, 5, 3]], np.float32))
    assert found[SCORES].tolist() == [[5, 3]] and found["logits"].tolist() == [[1, 2]]
