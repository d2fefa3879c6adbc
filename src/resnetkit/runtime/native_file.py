"""The files that our own kernels run: network.json says the layers, model.safetensors holds their weights; no torch.

A weight of 8 bits has a scale of each filter beside it, and network.json the range of each activation: real = scale *
(level - zero), as `ops.quantization` has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from resnetkit.checkpoint import MAX_JSON, NETWORK, WEIGHTS, read_tensors, refuse_unsound
from resnetkit.runtime.graph import INPUT, AddRelu, AveragePool, Conv, Graph, Linear, MaxPool, Mean, Node
from resnetkit.runtime.native_int8 import Quantized

KINDS: dict[str, type[Node]] = {kind.__name__: kind for kind in (Conv, MaxPool, AveragePool, AddRelu, Mean, Linear)}
ARRAYS = ("weight", "bias")
MOST = 64  # of a stride, a padding and a dilation


def write_network(network: Quantized, folder: Path) -> None:
    """network.json and model.safetensors, in a folder that is being written."""
    tensors: dict[str, NDArray[Any]] = {f"{name}.scale": scale for name, scale in network.scales.items()}
    nodes = []
    for node in network.graph.nodes:
        values = {field.name: getattr(node, field.name) for field in fields(node)}
        for name in ARRAYS:
            if name in values:
                tensors[f"{node.name}.{name}"] = np.ascontiguousarray(values.pop(name))
        nodes.append({"kind": type(node).__name__, **values})
    graph = network.graph
    found = {"nodes": nodes, "channels": graph.channels, "size": graph.size, "outputs": graph.outputs}
    told = {**found, "ranges": network.ranges}
    (folder / NETWORK).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    # serialised in memory, since save_file would make a file that only its owner can read
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(tensors))


def read_network(folder: Path) -> Quantized:
    """What `write_network` wrote.

    Raises:
        ModelError: the tensors cannot be read, or are no numbers.
        ValueError, KeyError, TypeError: the layers are none that can be computed.
    """
    if (folder / NETWORK).stat().st_size > MAX_JSON:
        raise ValueError(f"{NETWORK} is larger than that of a network")
    told = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
    tensors = read_tensors(folder / WEIGHTS)
    refuse_unsound(tensors, folder / WEIGHTS)
    nodes = tuple(_nodes(told["nodes"], tensors))
    names = {node.name for node in nodes}
    outputs = tuple(told["outputs"])
    if not set(outputs) <= names or outputs != Graph.outputs:
        raise ValueError(f"gives {outputs}")
    graph = Graph(nodes, _number(told["channels"], 1, 2**13), _number(told["size"], 1, 2**16), outputs)
    scales = {node.name: tensors[f"{node.name}.scale"] for node in nodes if _is_rounded(node)}
    for node in nodes:
        if node.name in scales and scales[node.name].shape != node.bias.shape:  # type: ignore[union-attr]
            raise ValueError(f"{node.name} has no scale for each filter")
    ranges = {str(name): (float(low), float(high)) for name, (low, high) in told["ranges"].items()}
    if not all(math.isfinite(end) for each in ranges.values() for end in each):
        raise ValueError("a range is not finite")
    return Quantized(graph, scales, ranges)


def _is_rounded(node: Node) -> bool:
    return isinstance(node, Conv) and node.weight.dtype == np.int8


def _number(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r} is no number from {least} to {most}")
    return value


def _nodes(told: list[dict[str, Any]], tensors: Mapping[str, NDArray[Any]]) -> Iterator[Node]:
    """Nodes whose sources come before them."""
    known = {INPUT}
    for values in told:
        node = _node(dict(values), tensors)
        if not isinstance(node.name, str) or node.name in known:
            raise ValueError(f"{node.name!r} is no name of a layer")
        sources = node.sources if isinstance(node, Mean) else (node.source,)
        sources = (*sources, node.other) if isinstance(node, AddRelu) else sources
        if not known.issuperset(sources):
            raise ValueError(f"{node.name} takes {sources}, which is not there")
        known.add(node.name)
        yield node


def _node(values: dict[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Node:
    kind = KINDS[values.pop("kind")]
    for name in {field.name for field in fields(kind)} & set(ARRAYS):
        values[name] = tensors[f"{values['name']}.{name}"]
    if kind is Mean:
        values["sources"] = tuple(values["sources"])
    if kind is not Conv:
        return kind(**values)
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
        values[name] = _number(values[name], least, MOST if name != "groups" else 2**13)
    if values["weight"].dtype not in (np.float32, np.int8) or values["bias"].dtype != np.float32:
        raise ValueError(f"{values['name']} has weights of the type {values['weight'].dtype}")
    return Conv(**{**values, "relu": values["relu"] is True})
