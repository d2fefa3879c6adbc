"""Answers drawn over their images, with Pillow alone."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
GOLDEN = 0.61803398875  # of a circle: the hues of any number of classes are as far apart as can be
NONE = (0, 0, 0)
OPACITY = 0.5


def colour(k: int) -> Colour:
    """The colour of a class, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + k * GOLDEN) % 1, 0.85 if k % 2 else 0.65, 0.95 - 0.2 * (k % 3 == 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def palette() -> list[int]:
    """768 numbers for Pillow: the colours of 255 classes, and black for the index that is none."""
    return [value for k in range(255) for value in colour(k)] + list(NONE)


def draw_boxes(
    image: Image.Image, boxes: Sequence[Sequence[float]], texts: Sequence[str], colours: Sequence[Colour]
) -> Image.Image:
    """An image with boxes and a text at each; the first, the surest, are on top.

    Args:
        image: upright.
        boxes: xyxy in its pixels.
        texts: as "cat 0.93".
        colours: of each box.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    wide = max(1, round(min(image.size) / 240))
    font = ImageFont.load_default(max(10, round(min(image.size) / 36)))
    for box, text, of_box in reversed(list(zip(boxes, texts, colours, strict=True))):
        x1, y1, x2, y2 = box
        # Pillow refuses corners the wrong way round, which a box thinner than its outline would have
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=of_box, width=wide)
        _label(pen, (x1, y1), text, of_box, font)
    return drawn


def _label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    ground: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A text on its colour above a corner, or below where there is no room."""
    if not text:
        return
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x, y = corner[0], corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=ground)
    dark = 0.3 * ground[0] + 0.6 * ground[1] + 0.1 * ground[2] > 140
    pen.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)


def draw_mask(image: Image.Image, indices: NDArray[np.uint8], classes: Sequence[str]) -> Image.Image:
    """An image under the colours of its classes, with a legend of those that are there.

    Args:
        image: upright.
        indices: class index of each pixel [h, w]; what is no class stays as it is.
        classes: names.

    Raises:
        ValueError: the mask is of another size than the image.
    """
    if indices.shape != (image.height, image.width):
        raise ValueError(f"a mask of {indices.shape[::-1]} does not fit an image of {image.size}")
    ground = np.asarray(image.convert("RGB"), np.float32)
    colours = np.array(palette(), np.float32).reshape(-1, 3)[indices]
    shown = np.where((indices < len(classes))[:, :, None], OPACITY * colours + (1 - OPACITY) * ground, ground)
    drawn = Image.fromarray(shown.round().astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(max(10, round(min(image.size) / 30)))
    y = 0.0
    for k in (k for k in np.unique(indices).tolist() if k < len(classes)):
        _label(pen, (0, y), classes[k], colour(k), font)
        y = y + 4 + pen.textbbox((0, 0), classes[k], font=font)[3]
    return drawn


def painted(image: Image.Image, mask: NDArray[np.bool_], k: int) -> Image.Image:
    """An image, at whatever scale, with a mask [h, w] in the colour of a class over it."""
    shown = image.convert("RGB")
    small = Image.fromarray(mask).resize(shown.size, Image.Resampling.NEAREST)
    over = Image.blend(shown, Image.new("RGB", shown.size, colour(k)), OPACITY)
    return Image.composite(over, shown, small)


def overlaid(image: Image.Image, indices: NDArray[np.uint8]) -> Image.Image:
    """An image under the colours of its mask; where the mask has no class (255) it stays as it is.

    Args:
        image: upright, at whatever scale.
        indices: class index of each pixel [h, w].
    """
    shown = image.convert("RGB")
    small = Image.fromarray(indices).resize(shown.size, Image.Resampling.NEAREST)
    colours = small.convert("P")
    colours.putpalette(palette())
    mixed = Image.blend(shown, colours.convert("RGB"), OPACITY)
    return Image.composite(mixed, shown, Image.fromarray((np.asarray(small) != 255).astype(np.uint8) * 255))
