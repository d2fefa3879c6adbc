"""Eight bits: exact zeros, errors of half a level, and torch's own rounding."""

import numpy as np
import pytest
import torch

from resnetkit.ops.quantization import REDUCED, WHOLE, scale_and_zero, weight_levels


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 5.0), (2.0, 5.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_a_level_and_the_range_is_covered(low, high):
    scale, zero = scale_and_zero(low, high)
    assert scale.dtype == np.float32 and zero.dtype == np.uint8 and scale > 0
    assert -int(zero) * scale <= min(low, 0) + scale / 2 and (255 - int(zero)) * scale >= max(high, 0) - scale / 2


def test_activations_are_rounded_by_half_a_level_at_most():
    values = np.linspace(-1, 3, 1001, dtype=np.float32)
    scale, zero = scale_and_zero(-1, 3)
    near = torch.fake_quantize_per_tensor_affine(torch.from_numpy(values), float(scale), int(zero), 0, 255).numpy()
    assert np.abs(near - values).max() <= scale  # half a level, and half of one that the zero was moved by


@pytest.mark.parametrize("most", [WHOLE, REDUCED])
def test_weights_have_a_scale_for_each_output(most):
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)) * np.array([1, 10, 100, 0])[:, None, None, None]
    levels, scales = weight_levels(weight, most)
    assert levels.dtype == np.int8 and scales.dtype == np.float32 and scales[3] == 1 and not levels[3].any()
    assert [int(np.abs(each).max()) for each in levels] == [most, most, most, 0]
    assert (np.abs(levels * scales[:, None, None, None] - weight).reshape(4, -1).max(1) <= scales / 2 * 1.001).all()
    expected = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(weight).float(), torch.from_numpy(scales), torch.zeros(4, dtype=torch.int32), 0, -128, 127
    )
    np.testing.assert_allclose(levels * scales[:, None, None, None], expected.numpy(), rtol=1e-6)
