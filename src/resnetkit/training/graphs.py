"""Steps on a GPU as CUDA graphs: few images take it less time than torch takes to start their kernels one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Work = Callable[[Tensor, Any], Tensor]  # inputs and targets on the device to the loss; it leaves gradients
Shapes = tuple[torch.Size, torch.Size]
PLAIN = 3  # times that a shape is worked on as usual before it is recorded: libraries choose and allocate in the first
MOST = 4  # recordings: the batches of an epoch have two sizes at most, those of growing images more
ROOM = 0.25  # of the GPU's memory: what takes more keeps it busy as it is


@dataclass(frozen=True)
class Recording:
    """A step of one shape: what it reads and writes, always at the same place in memory."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    targets: Tensor
    loss: Tensor
    gradients: list[Tensor | None]

    def replay(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of other inputs and targets of that shape."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.loss


@dataclass
class Recorded:
    """A work as it is, but on a GPU recorded for each shape that comes again and again, and replayed from then on.

    Attributes:
        work: with the same operations for every input of a shape, and none that waits for the GPU.
        parameters: whose gradients it leaves.
    """

    work: Work
    parameters: list[nn.Parameter]
    seen: Counter[Shapes] = field(default_factory=Counter)
    recordings: dict[Shapes, Recording] = field(default_factory=dict)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """What the work gives."""
        shapes = inputs.shape, targets.shape
        self.seen[shapes] += 1
        if shapes not in self.recordings:
            if self.seen[shapes] <= PLAIN or len(self.recordings) == MOST or not _has_room(inputs.device):
                return self.work(inputs, targets)
            self.recordings[shapes] = self._recorded(inputs, targets)
        recording = self.recordings[shapes]
        loss = recording.replay(inputs, targets)
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _recorded(self, inputs: Tensor, targets: Tensor) -> Recording:
        own, graph = (inputs.clone(), targets.clone()), torch.cuda.CUDAGraph()
        for parameter in self.parameters:
            parameter.grad = None  # so that gradients are written, not added to those before
        # other threads go on making batches meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss = self.work(*own)
        return Recording(graph, *own, loss, [parameter.grad for parameter in self.parameters])


def _has_room(device: torch.device) -> bool:
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_allocated(device) < ROOM * total
