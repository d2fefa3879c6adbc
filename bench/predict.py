"""A folder of photos to predictions: resnetkit against torchvision, timm, and plain loops over two engines.

    python bench/predict.py --photos ../shared/data/imagenet-samples --count 1000
    python bench/predict.py --photos ../shared/data/photos/large --count 200 --large

Distinct crops of the photos are written as JPEG files, and a ResNet-34 with fresh weights, whose speed is that of any
other, as a model folder and as ONNX. Every contestant is a process of its own, in turns; it counts from the first file
to the last answer, without imports, loading and one batch to warm up. Pillow decodes for all of them; the peers decode
whole files, resize the short side to 256 px and crop 224. torchvision and timm have a DataLoader of two workers, the
plain loops read, infer, read. Ratios are medians of the rounds, to the fastest peer of each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from load import write_photos

BATCH = 32
OURS = ("resnetkit",)
PEERS = ("torchvision", "timm", "onnxruntime", "openvino")


def make_models(folder: Path) -> None:
    """A model folder, and an ONNX file that takes normalised images."""
    import resnetkit
    from resnetkit.checkpoint import read
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.onnx import onnx_model

    resnetkit.save(resnetkit.resnet34(num_classes=1000).eval(), folder / "model")
    (folder / "model.onnx").write_bytes(onnx_model(graph_of(read(folder / "model"))).SerializeToString())


def ours(folder: Path, files: list[Path], backend: str) -> float:
    """Seconds of resnetkit."""
    import resnetkit
    from resnetkit.verbs.memory import keep_freed_memory

    keep_freed_memory()
    model = resnetkit.load(folder / "model", backend=backend, device="cpu")
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


def plain_loop(infer: Callable[[Any], Any], files: list[Path]) -> float:
    """Seconds of a loop that decodes a batch with Pillow and numpy, and infers it."""
    import numpy as np
    from PIL import Image

    mean, std = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def batches() -> Iterator[Any]:
        for start in range(0, len(files), BATCH):
            squares = []
            for path in files[start : start + BATCH]:
                with Image.open(path) as opened:
                    image = opened.convert("RGB")
                scale = 256 / min(image.size)
                image = image.resize(
                    (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
                )
                left, top = (image.width - 224) // 2, (image.height - 224) // 2
                squares.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
            yield np.ascontiguousarray(((np.stack(squares) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))

    infer(np.zeros((BATCH, 3, 224, 224), np.float32))
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


def openvino_loop(folder: Path, files: list[Path]) -> float:
    """Seconds of OpenVINO, in float32, with its own choice of threads; without its reports home."""
    from resnetkit.runtime.engines import import_openvino

    model = (
        import_openvino().Core().compile_model(str(folder / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    return plain_loop(lambda batch: model({"image": batch})["logits"], files)


def one(name: str, folder: Path) -> None:
    """Print the seconds of one contestant."""
    files = sorted((folder / "photos").rglob("*.jpg"))
    loops: dict[str, Callable[[], float]] = {
        "torchvision": lambda: torchvision_loop(files),
        "timm": lambda: timm_loop(files),
        "onnxruntime": lambda: onnxruntime_loop(folder, files),
        "openvino": lambda: openvino_loop(folder, files),
    }
    backend = name.partition("--backend ")[2] or "auto"
    print(json.dumps(loops[name]() if name in loops else ours(folder, files, backend)))


def main() -> None:
    """Run every contestant in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="crops of 8 megapixels and more of large photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_models(folder)
        write_photos(folder / "photos", arguments.photos, arguments.count, 0.9 if arguments.large else 0.6)
        speeds: dict[str, list[float]] = {name: [] for name in (*OURS, *PEERS)}
        for _ in range(arguments.rounds):
            for name, found in speeds.items():
                command = [sys.executable, __file__, "--one", name, str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(arguments.count / json.loads(done.stdout.splitlines()[-1]))
    best = [max(speeds[name][i] for name in PEERS) for i in range(arguments.rounds)]
    for name, found in speeds.items():
        ratio = statistics.median(mine / peer for mine, peer in zip(found, best, strict=True))
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:32} {statistics.median(found):6.1f} images/s ({spread})  {ratio:.2f} times the fastest peer")


if __name__ == "__main__":
    main()
