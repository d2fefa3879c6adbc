"""A folder of photos to predictions: resnetkit against torchvision, timm, and plain loops over two engines.

    python bench/predict.py --photos ../shared/data/imagenet-samples --count 1000 > small.txt
    python bench/predict.py --photos ../shared/data/photos/large --count 200 --large > large.txt
    python bench/predict.py --picture docs/predict.svg small.txt large.txt

Distinct crops of the photos are written as JPEG files, and a ResNet-34 with fresh weights, whose speed is that of any
other, as a model folder and as ONNX. Every contestant is a process of its own, in turns; it counts from the first file
to the last answer, without imports, loading and one batch to warm up. Pillow decodes for all of them; the peers decode
whole files, resize the short side to 256 px and crop 224. torchvision and timm have a DataLoader of two workers, the
plain loops read, infer, read. Ratios are medians of the rounds, to the fastest peer of each round; those in int8 have
int8 peers: OpenVINO with the same int8 network (it takes pixels, so nobody normalises) in a plain loop, and in one
whose two threads decode ahead.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from load import write_photos

BATCH = 32
LINE = r"^(.{22}) +([\d.]+) images/s \(([\d.]+) to ([\d.]+)\)"  # of a table that is printed
PEERS = {
    "resnetkit": ("torchvision", "timm", "onnxruntime", "openvino"),
    "resnetkit int8": ("openvino int8", "openvino int8, ahead"),
}


def make_models(folder: Path) -> None:
    """A model folder, an ONNX file that takes normalised images, and an export in int8, whatever accuracy it loses."""
    import numpy as np

    import resnetkit
    from resnetkit.runtime.export import Evidence
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.int8 import Gate, write_int8
    from resnetkit.runtime.onnx import onnx_model
    from resnetkit.runtime.quantize import quantization_for

    resnetkit.save(resnetkit.resnet34(num_classes=1000).eval(), folder / "model")
    model = resnetkit.load(folder / "model", backend="torch", device="cpu")
    graph = graph_of(model.checkpoint)
    (folder / "model.onnx").write_bytes(onnx_model(graph).SerializeToString())
    pixels = np.stack([model.read(path) for path in photos_of(folder)[:BATCH]])
    logits = model.backend(pixels)
    gate = Gate(Evidence("photos", pixels, logits.argmax(1)), logits, most=1.0)
    quantization = quantization_for(graph, pixels, model.normalise, lambda done: None)
    write_int8(model, "openvino", folder / "int8", gate, quantization)


def photos_of(folder: Path) -> list[Path]:
    """The files that all contestants are given."""
    return sorted((folder / "photos").rglob("*.jpg"))


def ours(model_folder: Path, files: list[Path]) -> float:
    """Seconds of resnetkit."""
    import resnetkit
    from resnetkit.verbs.memory import keep_freed_memory

    keep_freed_memory()
    model = resnetkit.load(model_folder, device="cpu")
    list(model.predictions(files[:BATCH]))
    started = time.perf_counter()
    answers = list(model.predictions(files))
    seconds = time.perf_counter() - started
    assert len(answers) == len(files)
    return seconds


def through_loader(network: Any, transform: Callable[[Any], Any], files: list[Path]) -> float:
    """Seconds of a torch network behind a DataLoader of two workers."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Photos(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, row: int) -> Any:
            with Image.open(files[row]) as image:
                return transform(image.convert("RGB"))

    network.eval()
    with torch.inference_mode():
        network(torch.zeros(BATCH, 3, 224, 224)).softmax(1)
        started = time.perf_counter()
        loader = DataLoader(Photos(), batch_size=BATCH, num_workers=2)
        answers = torch.cat([network(batch).softmax(1).topk(5)[1] for batch in loader])
    assert len(answers) == len(files)
    return time.perf_counter() - started


def torchvision_loop(files: list[Path]) -> float:
    """Seconds of torchvision's network and its weights' transform."""
    import torchvision
    from torchvision.transforms import v2

    preset = torchvision.models.ResNet34_Weights.IMAGENET1K_V1.transforms()
    return through_loader(torchvision.models.resnet34(), v2.Compose([v2.PILToTensor(), preset]), files)


def timm_loop(files: list[Path]) -> float:
    """Seconds of timm's network and the transform of its configuration."""
    import timm

    network = timm.create_model("resnet34", pretrained=False)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    return through_loader(network, transform, files)


def square(path: Path) -> Any:
    """A file as 224 x 224 pixels, by Pillow."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def plain_loop(
    infer: Callable[[Any], Any], files: list[Path], *, normalised: bool = True, ahead: bool = False
) -> float:
    """Seconds of a loop that decodes a batch with Pillow and numpy, and infers it; or that decodes in threads ahead."""
    import numpy as np

    mean, std = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def prepared(squares: list[Any]) -> Any:
        pixels = np.stack(squares)
        if not normalised:
            return pixels
        return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))

    def batches() -> Iterator[Any]:
        starts = range(0, len(files), BATCH)
        if not ahead:
            yield from (prepared([square(path) for path in files[start : start + BATCH]]) for start in starts)
            return
        with ThreadPoolExecutor(2) as pool:
            coming = [pool.submit(square, path) for path in files]
            yield from (prepared([each.result() for each in coming[start : start + BATCH]]) for start in starts)

    infer(prepared([np.zeros((224, 224, 3), np.uint8)] * BATCH))
    started = time.perf_counter()
    answers = np.concatenate([np.argsort(-infer(batch), axis=1)[:, :5] for batch in batches()])
    assert len(answers) == len(files)
    return time.perf_counter() - started


def onnxruntime_loop(folder: Path, files: list[Path]) -> float:
    """Seconds of ONNX Runtime on two threads, without its reports home."""
    from resnetkit.runtime.engines import import_onnxruntime

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return plain_loop(lambda batch: session.run(["logits"], {"image": batch})[0], files)


def openvino_loop(file: Path, given: str, files: list[Path], *, ahead: bool = False) -> float:
    """Seconds of OpenVINO with its own choice of threads, what is float32 as such; without its reports home."""
    from resnetkit.runtime.engines import import_openvino

    model = import_openvino().Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    normalised = given == "image"
    return plain_loop(lambda batch: model({given: batch})["logits"], files, normalised=normalised, ahead=ahead)


def one(name: str, folder: Path) -> None:
    """Print the seconds of one contestant."""
    files, int8 = photos_of(folder), folder / "int8" / "model.xml"
    loops: dict[str, Callable[[], float]] = {
        "torchvision": lambda: torchvision_loop(files),
        "timm": lambda: timm_loop(files),
        "onnxruntime": lambda: onnxruntime_loop(folder, files),
        "openvino": lambda: openvino_loop(folder / "model.onnx", "image", files),
        "openvino int8": lambda: openvino_loop(int8, "pixels", files),
        "openvino int8, ahead": lambda: openvino_loop(int8, "pixels", files, ahead=True),
        "resnetkit": lambda: ours(folder / "model", files),
        "resnetkit int8": lambda: ours(folder / "int8", files),
    }
    print(json.dumps(loops[name]()))


def picture(path: Path, tables: Sequence[Path]) -> None:
    """Bars of images a second, with the range over the rounds, from printed tables; a panel each."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "resnetkit"  # the same numbers give the same file
    figure, axes = pyplot.subplots(1, len(tables), figsize=(5.4 * len(tables), 3.2), squeeze=False)
    for axis, table in zip(axes[0], tables, strict=True):
        rows = re.findall(LINE, table.read_text(encoding="utf-8"), re.MULTILINE)[::-1]
        middle, low, high = ([float(row[i]) for row in rows] for i in (1, 2, 3))
        ranges = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
        colours = ["tab:blue" if row[0].startswith("resnetkit") else "lightgrey" for row in rows]
        axis.barh([row[0].strip() for row in rows], middle, xerr=ranges, color=colours, ecolor="grey")
        axis.set(title=table.stem, xlabel="images/s")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run every contestant in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="crops of 8 megapixels and more of large photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=Path, help="draw this file from tables that were printed before")
    parser.add_argument("tables", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.picture:
        picture(arguments.picture, arguments.tables)
        return
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "photos", arguments.photos, arguments.count, 0.9 if arguments.large else 0.6)
        make_models(folder)
        speeds: dict[str, list[float]] = {name: [] for ours, peers in PEERS.items() for name in (ours, *peers)}
        for _ in range(arguments.rounds):
            for name, found in speeds.items():
                command = [sys.executable, __file__, "--one", name, str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(arguments.count / json.loads(done.stdout.splitlines()[-1]))
    for mine, peers in PEERS.items():
        best = [max(speeds[name][i] for name in peers) for i in range(arguments.rounds)]
        for name in (mine, *peers):
            found = speeds[name]
            ratio = statistics.median(one / peer for one, peer in zip(found, best, strict=True))
            spread = f"{min(found):.1f} to {max(found):.1f}"
            print(f"{name:22} {statistics.median(found):6.1f} images/s ({spread})  {ratio:.2f} times the fastest peer")


if __name__ == "__main__":
    main()
