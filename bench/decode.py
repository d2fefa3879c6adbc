r"""Whether decoding JPEG files at a fraction of their size changes answers: one network on the same files, both ways.

    python bench/decode.py --weights ../shared/weights/resnet34-tiny-imagenet.safetensors \
        --photos ../shared/data/imagenet-samples --count 6000
    python bench/decode.py --weights ... --photos ../shared/data/photos/large --count 300 --large --size 64 --size 224

Different crops of the photos, re-encoded as JPEG files whose sides are multiples of 16, as those of cameras are, are
decoded as `predict` does it (`draft` 2: libjpeg leaves out what the resize would, as long as twice the pixels remain)
and whole (`draft` 0), and a ResNet-34 answers both. Told are the share of the files of which less than all pixels were
decoded, the share with the same top-1 class, of all files and of these, with Wilson's 95 % interval (as if crops of one
photo had nothing in common), and how far the logits of these differ, beside the gap between a file's two largest. As a
yardstick, the same for these files decoded whole after they were saved once more, as JPEG of quality 90.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from load import write_photos
from PIL import Image

BATCH = 32


@dataclass(frozen=True)
class Answers:
    """Logits [N, K] of scaled and of whole decoding and of files that are saved again; what was decoded smaller [N]."""

    scaled: Any
    whole: Any
    again: Any
    smaller: Any


def make_model(folder: Path, weights: Path, size: int) -> None:
    """A model folder of the weights, whose convolutions are float16."""
    from safetensors.torch import load_file

    import resnetkit
    from resnetkit.data.image import Preprocess

    tensors = load_file(weights)
    network = resnetkit.resnet34(num_classes=len(tensors["fc.bias"]))
    network.load_state_dict({name: value.to(network.state_dict()[name].dtype) for name, value in tensors.items()})
    resnetkit.save(network.eval(), folder, preprocess=Preprocess(size=size))


def saved_again(picture: Any) -> Any:
    """A picture after JPEG of quality 90."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return Image.open(file).convert("RGB")


def answered(folder: Path, files: Sequence[Path], backend: str) -> Answers:
    """All answers for each file; where scaled decoding is whole, its answer stands for all three."""
    import resnetkit
    from resnetkit.data.image import decode, pixels, stored_size

    model = resnetkit.load(folder, backend=backend, device="cpu")
    way = model.preprocess
    full = replace(way, draft=0.0)

    def logits(pictures: Sequence[Any]) -> Any:
        return model.backend(model.normalise(np.stack([pixels(each, way) for each in pictures])))

    rows = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        scaled, whole = ([decode(path, each) for path in batch] for each in (way, full))
        assert all(each.size == stored_size(path) for each, path in zip(whole, batch, strict=True))
        smaller = np.array([a.size != b.size for a, b in zip(scaled, whole, strict=True)])
        first = logits(scaled)
        others = [first, first]
        if smaller.any():
            others = [logits(whole), logits(list(map(saved_again, whole)))]
        rows.append((first, *others, smaller))
    return Answers(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def same_top1(some: Any, others: Any) -> str:
    """The share with the same top-1 class, and its interval."""
    from resnetkit.ops.intervals import wilson

    share = wilson(int((some.argmax(1) == others.argmax(1)).sum()), len(some))
    low, value, high = (100 * (each or 0.0) for each in (share.low, share.value, share.high))
    return f"same top-1 {value:.2f} % ({low:.2f} to {high:.2f}, n = {share.n:,})"


def told(answers: Answers) -> str:
    """The figures in words."""
    lines = [f"decoded smaller: {100 * answers.smaller.mean():.1f} %; all: {same_top1(answers.scaled, answers.whole)}"]
    if answers.smaller.any():
        scaled, whole, again = (each[answers.smaller] for each in (answers.scaled, answers.whole, answers.again))
        two = np.sort(whole, axis=1)[:, -2:]
        gaps = two[:, 1] - two[:, 0]
        for name, other in (("decoded smaller", scaled), ("saved again", again)):
            differs = gaps[other.argmax(1) != whole.argmax(1)]
            lines.append(
                f"{name}: {same_top1(other, whole)}; logits differ by {np.abs(other - whole).mean():.4f} in the mean, "
                f"{np.abs(other - whole).max():.3f} at most; gap where top-1 differs: {max(differs, default=0):.3f}"
            )
        lines.append(f"logits have a deviation of {whole.std():.2f}, the gap a median of {np.median(gaps):.2f}")
    return "\n".join(lines)


def main() -> None:
    """Write the files, answer them both ways at each size, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors of a ResNet-34")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to cut crops from")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--large", action="store_true", help="crops of 90 to 100 %% of the sides, not 60 to 100 %%")
    parser.add_argument("--size", type=int, action="append", help="input of the network, px; 64 if left out")
    parser.add_argument("--backend", default="torch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_photos(root / "photos", arguments.photos, arguments.count, 0.9 if arguments.large else 0.6)
        files = sorted((root / "photos").rglob("*.jpg"))
        for size in arguments.size or [64]:
            make_model(root / f"model{size}", arguments.weights, size)
            answers = answered(root / f"model{size}", files, arguments.backend)
            print(f"{len(files):,} files at {size} px\n{told(answers)}", flush=True)


if __name__ == "__main__":
    main()
