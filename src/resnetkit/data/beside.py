"""Images with a picture of numbers each: the same name in another folder; the numbers are classes, or objects.

The picture lies in `trainannot` beside `train`, or in `masks` (or `labels`, `SegmentationClass`, ...) beside `images`
(or `JPEGImages`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.annotated import LYING, header_of
from resnetkit.data.dataset import File
from resnetkit.data.formats import DECODE_ERRORS, QUIET, REPLACE, open_image, opened, reason, refuse_extreme
from resnetkit.data.place import Findings, Place
from resnetkit.data.tree import SPLIT_FOLDERS
from resnetkit.errors import DataError, printable

SPREAD = {"L;2": 85, "L;4": 17}  # what Pillow multiplies greys of so many bits by
NARROW = ("1", "P", "L")  # modes of 8 bits at most
ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
LOSSY = (".jpg", ".jpeg", ".webp")
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pngimages")
AFTER = ("annot", "_annot", "_mask", "_masks", "_labels")  # train -> trainannot
SUFFIXES = ("", "_mask", "_L")  # of a picture's name after its image's


@dataclass(frozen=True)
class Kind:
    """What the numbers of a picture are.

    Attributes:
        one, all: an index of a class, or what else it is.
        most: how many there may be.
        fix: for a picture with more.
        folders: in which such pictures lie, in lower case.
        after: what may follow the name of a split in that of a folder of them.
    """

    one: str
    all: str
    most: int
    fix: str
    folders: tuple[str, ...]
    after: tuple[str, ...] = AFTER


@dataclass(frozen=True)
class Numbers:
    """What is in a picture.

    Attributes:
        values: as they are stored, uint8 or uint16 [h, w].
        turn: EXIF's orientation, by which they are turned with their image; 1 where they lie right.
        image: whether that can be read; one that cannot is left out where images are decoded.
    """

    values: NDArray[np.unsignedinteger]
    turn: int
    image: bool = True


def partners(place: Place, kind: Kind, findings: Findings) -> dict[str, str]:
    """Picture by image, in the order of the images; those without one are told, and those of JPEG refused.

    Raises:
        DataError: all pictures are in a lossy format.
    """
    images = sorted(name for same in place.images.values() for name in same)
    found, lossy, without = {}, None, []
    for name in images:
        candidates = list(_candidates(name, place, kind))
        mask = next((each for each in candidates if each.lower().endswith(ENDINGS)), None)
        lossy = lossy or next((each for each in candidates if each.lower().endswith(LOSSY)), None)
        if mask:
            found[name] = mask
        else:
            without.append(name)
    if lossy and not found:
        what = f"is a mask in a lossy format, in which {kind.all} do not survive"
        raise DataError(what, path=place.path(lossy), fix="save masks as PNG")
    folders = {_folder(name) for name in found}
    used, mask_folders = set(found.values()), {_folder(mask) for mask in found.values()}
    for name in without:
        if _folder(name) in folders:
            findings.add("images without a mask, left out", name)
        elif _folder(name) in mask_folders and name not in used:
            findings.add("masks without an image, left out", name)
    return found


def partner(place: Place, image: str, kind: Kind) -> str | None:
    """The picture of one image."""
    return next((name for name in _candidates(image, place, kind) if name.lower().endswith(ENDINGS)), None)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _candidates(image: str, place: Place, kind: Kind) -> Iterator[str]:
    """Files that may be the picture of an image."""
    *folders, last = image.split("/")
    stem = PurePosixPath(last).stem
    for at, folder in enumerate(folders):
        own = folder.casefold()
        # of split folders alone: "surgical" and "surgical_mask" are two classes of images
        others = kind.folders if own in IMAGES else [f"{own}{end}" for end in kind.after if own in SPLIT_FOLDERS]
        around = place.folders.get("/".join(folders[:at]), ()) if others else ()
        for other in (each for each in around if each.casefold() in others):
            start = "/".join([*folders[:at], other, *folders[at + 1 :]])
            names = (f"{start}/{stem}{suffix}{ending}" for suffix in SUFFIXES for ending in (*ENDINGS, *LOSSY))
            yield from (name for name in names if name in place.known)


def read(mask: File, image: File, kind: Kind) -> Numbers:
    """The numbers of a picture, and how they lie to their image.

    A picture of the size of the stored image is turned as EXIF turns that; one of the size of the upright image lies
    right already. Where the two are the same, it is turned.

    Raises:
        DataError: it cannot be read, holds colours or too large values, or is of another size than its image.
    """
    values, header = _values(mask, kind), header_of(image)
    if header is None:
        return Numbers(values, 1, image=False)
    stored, orientation = header
    upright = stored[::-1] if orientation in LYING else stored
    size = values.shape[1], values.shape[0]
    if size not in (stored, upright):
        what = f"is {size[0]} x {size[1]}, and its image {printable(str(image))} is {upright[0]} x {upright[1]}"
        raise DataError(what, path=str(mask), fix="make both of one size")
    return Numbers(values, orientation if size == stored else 1)


def _values(mask: File, kind: Kind) -> NDArray[np.unsignedinteger]:
    name = str(mask)
    try:
        with QUIET, opened(mask) as stream, open_image(stream, name) as image:
            refuse_extreme(image, name)
            narrow = image.mode in NARROW
            if not narrow and not image.mode.startswith("I"):
                what = f"is a picture of mode {image.mode}, and a mask holds {kind.one} in each pixel"
                raise DataError(what, path=name, fix="save it as PNG of one channel, or with a palette")
            # Pillow spreads two and four bits of grey over 0 to 255
            step = SPREAD.get(str(image.tile[0][3]), 1) if image.mode == "L" and image.tile else 1
            array = np.asarray(image) // step
    except DECODE_ERRORS as error:
        raise DataError(f"cannot be read: {reason(error)}", path=name, fix=REPLACE) from error
    if not narrow and array.size and (array.max() >= kind.most or array.min() < 0):
        what = f"holds {array.max()}, and {kind.all} are under {kind.most}"
        raise DataError(what, path=name, fix=kind.fix)
    return array.astype(np.uint8 if narrow else np.uint16)
