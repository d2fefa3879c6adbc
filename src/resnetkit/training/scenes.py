"""Images with boxes or masks: augmentation that moves both alike, batches of them, and what is learnt from.

Geometry is torchvision's (transforms v2 on its tensors that know what they are); what is drawn comes from `Draws`, as
everywhere, so a batch follows from (seed, step) whatever the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from resnetkit.data.image import mean_and_std
from resnetkit.training.augment import Draws, color

IGNORE = 255  # of a mask: pixels that are neither learnt from nor judged
TRIES = 10  # places that are tried for a crop before one without an object is taken
AUX_SHARE = 0.4  # of the second head in the loss, as in torchvision's reference training
Size = tuple[int, int]  # height and width in pixels
Target = dict[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: uint8 [C, h, w].
        boxes: xyxy in its pixels, float32 [n, 4]; none where there is a mask.
        labels: class index of each box, int64 [n].
        mask: class index of each pixel, `IGNORE` where it has none, uint8 [h, w]; None where there are boxes.
        shapes: which pixels are of each object, uint8 [n, h, w]; None where boxes are all that is known of them.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    mask: Tensor | None = None
    shapes: Tensor | None = None


@dataclass(frozen=True)
class Changes:
    """How strongly scenes are changed in training.

    Attributes:
        min_scale, max_scale: of objects, beside the size at which the whole image just fits, or beside their own.
        flip: chance of a mirror image, 0..1.
        flip_vertical: chance of an image upside down, for pictures without an up, as those of a microscope.
        color: brightness, contrast and saturation are scaled by 1 +- this.
        fitted: whether scales are beside the size at which the whole image just fits.
        min_visible: a box of which a smaller share is left, 0..1, is no object any more.
    """

    min_scale: float = 0.75
    max_scale: float = 1.5
    flip: float = 0.5
    flip_vertical: float = 0.0
    color: float = 0.3
    min_visible: float = 0.3
    fitted: bool = True


@dataclass(frozen=True)
class View:
    """What the canvas shows of an image: pixels of the canvas for one of the image, and where its corner lies.

    `left` and `top` are in pixels of the image; under 0 where there is a bar.
    """

    scale: float
    left: float
    top: float


def whole(image: Size, canvas: Size) -> View:
    """The whole image in the middle of the canvas, as large as it fits."""
    scale = min(canvas[0] / image[0], canvas[1] / image[1])
    return View(scale, (image[1] - canvas[1] / scale) / 2, (image[0] - canvas[0] / scale) / 2)


def shown(scene: Scene, view: View, canvas: Size, *, min_visible: float = 0.0) -> Scene:
    """What a canvas shows of a scene; bars are in the mean colour, and ignored in a mask.

    Args:
        scene: an image with boxes or a mask.
        view: which part.
        canvas: height and width of the result.
        min_visible: boxes of which a smaller share is seen, 0..1, are left out.
    """
    height, width = scene.image.shape[-2:]
    top, left = max(0, round(view.top)), max(0, round(view.left))
    bottom = min(height, max(top + 1, round(view.top + canvas[0] / view.scale)))
    right = min(width, max(left + 1, round(view.left + canvas[1] / view.scale)))
    size = _scaled(bottom - top, view.scale, canvas[0]), _scaled(right - left, view.scale, canvas[1])
    # bars before what is seen; what is rounded away goes to those after it
    above = min(canvas[0] - size[0], max(0, round(-view.top * view.scale)))
    before = min(canvas[1] - size[1], max(0, round(-view.left * view.scale)))
    bars = [before, above, canvas[1] - size[1] - before, canvas[0] - size[0] - above]

    def moved(part: Tensor, fill: Any = 0, how: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
        part = V.crop(part, top, left, bottom - top, right - left)
        part = V.resize(part, list(size), interpolation=how, antialias=True)
        result: Tensor = V.pad(part, bars, fill=fill)
        return result

    fill = [round(255 * value) for value in mean_and_std(scene.image.shape[0])[0]]
    image = moved(tv_tensors.Image(scene.image), fill).as_subclass(Tensor)
    # as an image: torchvision's way with masks takes the pixel before the nearest one, half a pixel off
    exact = InterpolationMode.NEAREST_EXACT
    mask = None if scene.mask is None else moved(tv_tensors.Image(scene.mask[None]), IGNORE, exact)
    mask = None if mask is None else mask.as_subclass(Tensor)[0]
    if not len(scene.boxes):
        shapes = None if scene.shapes is None else scene.shapes.new_zeros(0, *canvas)
        return Scene(image, scene.boxes, scene.labels, mask, shapes)
    given = tv_tensors.BoundingBoxes(scene.boxes, format="XYXY", canvas_size=(height, width))
    boxes = moved(given).as_subclass(Tensor)
    before_area = _areas(scene.boxes) * (size[0] / (bottom - top)) * (size[1] / (right - left))
    kept = (_areas(boxes) > min_visible * before_area) & (_areas(boxes) > 0)
    shapes = scene.shapes
    if shapes is not None:
        shapes = moved(tv_tensors.Image(shapes), 0, exact).as_subclass(Tensor)
        kept &= (shapes > 0).flatten(1).any(1)
        shapes = shapes[kept]
    return Scene(image, boxes[kept], scene.labels[kept], mask, shapes)


def _scaled(length: int, scale: float, most: int) -> int:
    return min(most, max(1, round(length * scale)))


def _areas(boxes: Tensor) -> Tensor:
    """[n] of boxes [n, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def mirrored(scene: Scene, across: bool, upside_down: bool) -> Scene:
    """A scene's mirror image, left to right, top to bottom, both or neither."""
    height, width = scene.image.shape[-2:]
    image, mask, shapes, boxes = scene.image, scene.mask, scene.shapes, scene.boxes
    axes = [axis for axis, on in ((-1, across), (-2, upside_down)) if on]
    if axes:
        image, mask = image.flip(axes), None if mask is None else mask.flip(axes)
        shapes = None if shapes is None else shapes.flip(axes)
    x1, y1, x2, y2 = boxes.unbind(1)
    if across:
        x1, x2 = width - x2, width - x1
    if upside_down:
        y1, y2 = height - y2, height - y1
    return Scene(image, torch.stack([x1, y1, x2, y2], 1), scene.labels, mask, shapes)


def cropped(scene: Scene, canvas: Size, changes: Changes, scale: float, places: NDArray[np.floating]) -> View:
    """A view at another scale, at the first of some places where the middle of an object is seen.

    Args:
        scene: an image with boxes or a mask.
        canvas: height and width of the result.
        changes: the range of scales.
        scale: where in it, 0..1.
        places: to try, y and x in 0..1 of what there is to choose [TRIES, 2]; without a hit the last one is taken.
    """
    size = scene.image.shape[-2], scene.image.shape[-1]
    low, high = math.log(changes.min_scale), math.log(changes.max_scale)
    zoom = (whole(size, canvas).scale if changes.fitted else 1.0) * math.exp(low + scale * (high - low))
    room = np.array([size[0] - canvas[0] / zoom, size[1] - canvas[1] / zoom])  # under 0 where there are bars
    middles = ((scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2).flip(1).numpy()  # y, x
    for place in places:
        corner = place * room
        inside = (middles >= corner) & (middles < corner + np.array(canvas) / zoom)
        if not len(middles) or inside.all(1).any():
            break
    return View(zoom, float(corner[1]), float(corner[0]))


def augmented(scenes: Sequence[Scene], canvas: Size, changes: Changes, rng: Draws) -> tuple[Tensor, list[Scene]]:
    """Scenes of any sizes as training sees them.

    Args:
        scenes: of this process.
        canvas: height and width of the result.
        changes: how strongly.
        rng: of the step.

    Returns:
        Images in 0..1, float32 [n, C, H, W], and the scenes on the canvas.
    """
    scales, places = rng.uniform(0, 1), rng.uniform(0, 1, TRIES, 2)
    across, upside_down = rng.uniform(0, 1) < changes.flip, rng.uniform(0, 1) < changes.flip_vertical
    seen = []
    for i, scene in enumerate(scenes):
        view = cropped(scene, canvas, changes, float(scales[i]), places[i])
        there = shown(scene, view, canvas, min_visible=changes.min_visible)
        seen.append(mirrored(there, bool(across[i]), bool(upside_down[i])))
    images = torch.stack([scene.image for scene in seen]).float().div_(255)
    # of other channels it is not known what they measure
    return color(images, changes.color if images.shape[1] in (1, 3) else 0.0, rng), seen


def normalised(images: Tensor) -> Tensor:
    """Images [n, C, H, W] in 0..1 less the mean, by the deviation, which the published weights expect; in place."""
    mean, std = (torch.tensor(values)[:, None, None] for values in mean_and_std(images.shape[1]))
    return images.sub_(mean).div_(std)


def box_targets(scenes: Sequence[Scene]) -> list[Target]:
    """What a detector learns from, and of objects whose pixels are known, these."""
    plain = [{"boxes": scene.boxes, "labels": scene.labels} for scene in scenes]
    each = zip(plain, scenes, strict=True)
    return [target if scene.shapes is None else {**target, "masks": scene.shapes} for target, scene in each]


def mask_targets(scenes: Sequence[Scene]) -> Tensor:
    """Class indices int64 [n, H, W]."""
    return torch.stack([scene.mask for scene in scenes if scene.mask is not None]).long()


def box_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of what a detector learns from."""
    return torch.stack(list(losses.values())).sum()


def mask_loss(outputs: Mapping[str, Tensor], masks: Tensor, weights: Tensor | None, dice: float) -> Tensor:
    """Cross-entropy, and Dice beside it, of every pixel that is not ignored; the second head counts less.

    Args:
        outputs: "out", and "aux" if there is one: logits [N, K, H, W].
        masks: class indices [N, H, W], `IGNORE` among them.
        weights: of the classes in the cross-entropy [K], or None.
        dice: share of the Dice loss, 0..1.
    """
    return sum(  # type: ignore[return-value]  # of at least one head
        (AUX_SHARE if name == "aux" else 1.0) * _pixel_loss(logits.float(), masks, weights, dice)
        for name, logits in outputs.items()
    )


def _pixel_loss(logits: Tensor, masks: Tensor, weights: Tensor | None, dice: float) -> Tensor:
    if not (masks != IGNORE).any():  # the mean over no pixel is NaN
        return logits.sum() * 0
    entropy = F.cross_entropy(logits, masks, weights, ignore_index=IGNORE)
    return (1 - dice) * entropy + dice * dice_loss(logits, masks) if dice else entropy


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - soft Dice, 2 |A B| / (|A| + |B|), mean over the classes that the batch has (arXiv 1606.04797).

    Args:
        logits: [N, K, H, W].
        masks: class indices [N, H, W]; pixels of `IGNORE` do not count.
    """
    counted = (masks != IGNORE)[:, None]
    truth = F.one_hot(masks.where(counted[:, 0], 0), logits.shape[1]).movedim(3, 1) * counted
    said = logits.softmax(1) * counted
    axes = (0, 2, 3)
    size = truth.sum(axes)
    overlap = 2 * (said * truth).sum(axes) / (said.sum(axes) + size).clamp(min=1e-6)
    return 1 - overlap[size > 0].mean()


def pixel_weights(counts: NDArray[np.integer], power: float = 0.5) -> Tensor:
    """Weights [K] of classes by their pixels: share to the power of -`power`, of mean 1 over the pixels.

    At 1 every class counts the same, which makes a class of a few pixels all that matters; at 0 every pixel does. A
    class without pixels gets 0.

    Args:
        counts: pixels of each class [K].
        power: 0..1.
    """
    share = counts / max(1, counts.sum())
    weights = np.where(counts > 0, np.maximum(share, 1e-12) ** -power, 0.0)
    return torch.from_numpy((weights / max((weights * share).sum(), 1e-12)).astype(np.float32))
