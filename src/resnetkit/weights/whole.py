"""The state dict of a whole detector or segmenter into one of ours: all of it, or all but heads of other classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from torch import Tensor, nn

from resnetkit.checkpoint import refuse_unsound
from resnetkit.errors import ModelError

log = logging.getLogger("resnetkit")
# The last layers, whose size is the number of classes.
HEADS = (
    r"^(head\.classification_head\.cls_logits|roi_heads\.(box_predictor\.\w+|mask_predictor\.mask_fcn_logits)|"
    r"(aux_)?classifier(\.4)?)\."
)


def fit_whole(network: nn.Module, state: Mapping[str, Tensor], source: str) -> str:
    """Load a state dict of the same kind of network, as torchvision's, and say in one line what was loaded.

    Args:
        network: from `nn.detection.detector` or `nn.segmentation.segmenter`; loaded in place.
        state: names to tensors.
        source: what to call the weights in messages.

    Raises:
        ModelError: the tensors are those of another network, of which the first ten differences are listed, or hold
            NaN or infinite values.
    """
    own = network.state_dict()
    others = [name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape]
    heads = [name for name in others if re.search(HEADS, name)]
    differences = [f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}" for name in others]
    if set(others) == set(heads):
        # torchvision's modules rename what its older checkpoints call otherwise
        kept = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        refuse_unsound({name: tensor.cpu().numpy() for name, tensor in kept.items()}, source, fix="use other weights")
        result = network.load_state_dict({name: kept[name] for name in kept if name not in heads}, strict=False)
        # a norm that was frozen has no counter
        missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
        differences = [f"{name} is missing" for name in missing if name not in heads]
        differences += [f"{name} is not in the network" for name in result.unexpected_keys]
    if differences:
        more = f" and {len(differences) - 10} more" if len(differences) > 10 else ""
        what = f"are weights of another network: {'; '.join(differences[:10])}{more}"
        raise ModelError(what, path=source, fix="name the network that they are of, and its width")
    message = f"{source}: loaded {len(own) - len(heads)} of {len(own)} tensors"
    if heads:
        message += f"; heads re-initialised: {', '.join(sorted({name.rpartition('.')[0] for name in heads}))}"
    log.warning(message)
    return message
