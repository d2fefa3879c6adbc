"""A server under load: overhead, throughput, overload, slow clients, disconnects, ends and deaths, memory, and peers.

    python bench/serve.py --photos ../shared/data/imagenet-samples
    python bench/serve.py --only ends --times 50

The server is `resnetkit serve` in a process of its own, with a ResNet-34 of fresh weights at 224 px (whose speed is
that of any other) and the backend that `auto` takes; the client is another process on the same cores. Bodies are
distinct crops of the photos as JPEG files. Latencies count from when a request was due. Peers (LitServe, and a FastAPI
application of twenty lines) answer with the same model, opened by resnetkit with the same backend.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load import write_photos
from serve_client import LOST, REFUSED, Seen, at_rate, in_turn, percentile, request

PATH, MB = "/predict?top=1", 1e6
CLIENTS = 64  # at once, which is what the queue holds
PASSES = 3  # over all files for a throughput, so that its beginning and its end count little
HERE = Path(__file__)


class Process:
    """A server's process, and its log as it comes."""

    def __init__(self, command: Sequence[str], ready: str) -> None:
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for(ready)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if '"event": "request"' not in line:
                self.lines.append(line)

    def wait_for(self, text: str, after: int = 0, seconds: float = 120) -> None:
        """Until a line of the log holds this text."""
        until = time.monotonic() + seconds
        while not any(text in line for line in self.lines[after:]):
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit(f"no {text!r} in:\n" + "".join(self.lines[-20:]))
            time.sleep(0.005)

    def worker(self) -> int:
        """The process that has the model open: of all that are below the server, the one with the most memory."""
        return max(below(self.process.pid), key=resident)


def below(pid: int) -> list[int]:
    """All processes that descend from one."""
    found, level = [], [pid]
    while level:
        asked = subprocess.run(["pgrep", "-P", ",".join(map(str, level))], capture_output=True, text=True, check=False)
        level = [int(each) for each in asked.stdout.split()]
        found += level
    return found


def resident(pid: int) -> float:
    """MB of a process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def ours(model: Path, *more: str, leaky: bool = False) -> Iterator[tuple[Process, int]]:
    """`resnetkit serve`, ready, and its port."""
    port = free_port()
    start = [sys.executable, str(HERE), "--leaky"] if leaky else [sys.executable, "-m", "resnetkit"]
    server = Process([*start, "serve", f"m={model}", "--port", str(port), "--json", *more], '"event": "ready"')
    try:
        yield server, port
    finally:
        server.process.kill()
        server.process.wait()


def leaky(argv: list[str]) -> None:
    """`resnetkit serve` whose workers keep 8 kB of each request: what a test of memory has to find."""
    from resnetkit import cli
    from resnetkit.serving import worker

    worker.run = leaky_run  # a worker's process gets it by name, from this file
    cli.main(argv)


def leaky_run(connection: socket.socket, opening: Any) -> None:
    """In the worker."""
    from resnetkit.serving import worker

    kept: list[bytearray] = []
    digest = worker._digest

    def keeping(job: Any) -> str:
        kept.append(bytearray(os.urandom(8192)))
        return digest(job)

    worker._digest = keeping
    worker.attend(connection, opening)


def print_row(name: str, value: str, aim: str = "") -> None:
    """One line of the table."""
    print(f"{name:52} {value:44} {aim}", flush=True)


def ms(values: Sequence[float], share: float) -> str:
    """A percentile in milliseconds."""
    return f"{1000 * percentile(values, share):.1f} ms"


def good(found: Sequence[Seen]) -> list[float]:
    """Seconds of those that were answered."""
    return [each.seconds for each in found if each.status == 200]


def bare(model: Path, files: Sequence[bytes], batch: int) -> tuple[list[float], float]:
    """The pipeline without a server: seconds of single predictions, and files/s of all of them at once."""
    import resnetkit

    opened = resnetkit.load(model)
    alone = []
    list(opened.predictions(files[:batch], top=1))
    for content in files[:200]:
        started = time.perf_counter()
        list(opened.predictions([content], top=1))
        alone.append(time.perf_counter() - started)
    started = time.perf_counter()
    list(opened.predictions(list(files) * PASSES, top=1))
    return alone, PASSES * len(files) / (time.perf_counter() - started)


def one_bare(model: Path, files: Sequence[bytes]) -> tuple[float, float]:
    """Median seconds and files/s of the bare pipeline, in a process of its own."""
    folder = model.parent / "photos"
    command = [sys.executable, str(HERE), "--bare", str(model), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    alone, together = json.loads(done.stdout.splitlines()[-1])
    return alone, together


def pace(model: Path, files: Sequence[bytes], rounds: int) -> None:
    """Overhead over the bare pipeline and throughput at saturation, in turns."""
    sent = [request(PATH, body) for body in files]
    overheads, shares, speeds = [], [], []
    for _ in range(rounds):
        alone, together = one_bare(model, files)
        with ours(model) as (_, port):
            asyncio.run(in_turn(port, sent, 1, 20))
            single = good(asyncio.run(in_turn(port, sent, 1, 200)))
            found = asyncio.run(in_turn(port, sent, CLIENTS, PASSES * len(sent)))
            speed = len(good(found)) / (max(each.over for each in found) - min(each.due for each in found))
        overheads.append(1000 * (statistics.median(single) - alone))
        shares.append(speed / together)
        speeds.append((speed, together))
    spread = f"{min(overheads):.1f} to {max(overheads):.1f}"
    print_row("overhead, p50 of one client", f"{statistics.median(overheads):.1f} ms ({spread})", "at most 5 ms")
    speed, together = (statistics.median(each) for each in zip(*speeds, strict=True))
    spread = f"{min(shares):.3f} to {max(shares):.3f}"
    value = f"{speed:.1f} of {together:.1f} files/s: {statistics.median(shares):.3f} ({spread})"
    print_row(f"throughput, {CLIENTS} clients, share of the bare pipeline", value, "at least 0.95")


def capacity(port: int, sent: Sequence[bytes]) -> float:
    """Requests/s at saturation."""
    found = asyncio.run(in_turn(port, sent, 8, min(len(sent), 300)))
    return len(good(found)) / (max(each.over for each in found) - min(each.due for each in found))


def overload(model: Path, files: Sequence[bytes], seconds: float) -> None:
    """At 0.7, 2 and 10 times the capacity, and afterwards."""
    sent = [request(PATH, body) for body in files]
    with ours(model) as (_, port):
        peak = capacity(port, sent)
        print_row("capacity, 8 clients", f"{peak:.1f} requests/s")
        calm = good(asyncio.run(at_rate(port, sent, 0.7 * peak, 4 * seconds)))
        ratio = percentile(calm, 0.99) / percentile(calm, 0.5)
        value = f"p50 {ms(calm, 0.5)}, p99 {ms(calm, 0.99)}, n = {len(calm):,}: {ratio:.1f} times"
        print_row("at 0.7 of it", value, "at most 5 times")
        for times in (2, 10):
            found = asyncio.run(at_rate(port, sent, times * peak, seconds))
            began = found[0].due
            answered = [each for each in found if each.status == 200 and each.over < began + seconds]
            rejected = [each.seconds for each in found if each.status == 503]
            other = len(found) - len(good(found)) - len(rejected)
            goodput = len(answered) / seconds / peak
            print_row(
                f"at {times} times: goodput", f"{goodput:.2f} of it, {other} neither 200 nor 503", "at least 0.90"
            )
            value = f"p50 {ms(rejected, 0.5)}, p99 {ms(rejected, 0.99)}, n = {len(rejected):,}"
            print_row(f"at {times} times: rejections", value, "p99 at most 50 ms")
            over = time.monotonic()
            while asyncio.run(in_turn(port, sent, 1, 1))[0].seconds > 3 * percentile(calm, 0.5):
                pass
            print_row(f"after {times} times: back", f"{time.monotonic() - over:.2f} s", "at most 2 s")


def slow(model: Path, files: Sequence[bytes], clients: int) -> None:
    """Healthy clients beside many slow ones; all of those have to be gone in the end."""
    sent = [request(PATH, body) for body in files]
    with ours(model) as (_, port):
        asyncio.run(in_turn(port, sent, 1, 20))
        idle = good(asyncio.run(in_turn(port, sent, 1, 400)))
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
        starts = [b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\n", sent[0][:2000], b""]
        for number, each in enumerate(crowd):
            each.sendall(starts[number % 3])
        began, closed = time.monotonic(), []
        drip = threading.Thread(target=drip_until_closed, args=(crowd, closed, began))
        drip.start()
        beside = good(asyncio.run(in_turn(port, sent, 1, 400)))
        drip.join()
    value = f"p99 {ms(beside, 0.99)}, idle {ms(idle, 0.99)}, n = {len(beside)}, {len(idle)}"
    ratio = percentile(beside, 0.99) / percentile(idle, 0.99)
    print_row(f"beside {clients} slow clients", f"{value}: {ratio:.2f} times", "at most 2 times")
    print_row("the last of them closed after", f"{max(closed):.1f} s, {len(closed)} of {clients}", "at most 35 s")


def drip_until_closed(crowd: list[socket.socket], closed: list[float], began: float) -> None:
    """A byte a second on each connection, until the server has ended it."""
    open_ = list(crowd)
    for each in open_:
        each.setblocking(False)
    while open_ and time.monotonic() - began < 60:
        for each in list(open_):
            try:
                ended = each.recv(1000) == b""
                each.send(b"a")
            except BlockingIOError:
                ended = False
            except OSError:
                ended = True
            if ended:
                closed.append(time.monotonic() - began)
                open_.remove(each)
                each.close()
        time.sleep(1)


def disconnects(model: Path, files: Sequence[bytes], count: int) -> None:
    """Clients that leave in the middle: while they send, while they wait, and while they are answered."""
    sent = [request(PATH, body) for body in files]
    with ours(model) as (server, port):
        for number in range(count):
            with socket.create_connection(("127.0.0.1", port)) as client:
                body = sent[number % len(sent)]
                client.sendall(body[: len(body) // 2] if number % 3 == 0 else body)
                time.sleep(0.001 * (number % 30))
        time.sleep(2)
        (after,) = asyncio.run(in_turn(port, sent, 1, 1))
        queue = metric(port, 'resnetkit_queue{model="m"}')
        bugs = sum('"bug"' in line for line in server.lines)
    value = (
        f"queue {queue:.0f}, the next answer {after.status} in {1000 * after.seconds:.0f} ms, bugs in the log {bugs}"
    )
    print_row(f"after {count:,} clients that left", value, "queue 0")


def metric(port: int, name: str) -> float:
    """A number of /metrics."""
    import http.client

    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/metrics")
    lines = client.getresponse().read().decode().splitlines()
    client.close()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def ends(model: Path, files: Sequence[bytes], times: int) -> None:
    """SIGTERM under load: nothing that was accepted may be lost."""
    sent = [request(PATH, body) for body in files]
    lost = codes = 0
    seconds, answered = [], 0
    for _ in range(times):
        with ours(model) as (server, port):
            loaded: list[Seen] = []
            load = threading.Thread(target=lambda p=port, f=loaded: f.extend(asyncio.run(at_rate(p, sent, 20, 4))))
            load.start()
            time.sleep(1.5)
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            codes += server.process.wait(60) != 0
            seconds.append(time.monotonic() - began)
            load.join()
            lost += sum(each.status == LOST for each in loaded)
            answered += sum(each.status == 200 for each in loaded)
    value = f"{lost} lost of {answered:,} answered, {codes} exits but 0, slowest {max(seconds):.1f} s"
    print_row(f"{times} SIGTERMs at 20 requests/s", value, "0 lost, exit 0 in 30 s")


def deaths(model: Path, files: Sequence[bytes], times: int) -> None:
    """SIGKILL for the worker under load: who was with it has a 503, and soon another is there."""
    sent = [request(PATH, body) for body in files]
    back, statuses = [], {}
    with ours(model) as (server, port):
        time.sleep(8)  # until the successors' process has imported all it needs
        for _ in range(times):
            loaded: list[Seen] = []
            load = threading.Thread(target=lambda f=loaded: f.extend(asyncio.run(at_rate(port, sent, 10, 3))))
            load.start()
            time.sleep(0.5)
            mark, began = len(server.lines), time.monotonic()
            os.kill(server.worker(), signal.SIGKILL)
            server.wait_for('"ready"', mark, 60)
            back.append(time.monotonic() - began)
            load.join()
            for each in loaded:
                statuses[each.status] = statuses.get(each.status, 0) + 1
    value = f"back in {statistics.median(back):.2f} s, slowest {max(back):.2f} s; statuses {statuses}"
    print_row(f"{times} kills of the worker", value, "at most 5 s; 200 and 503")


def memory(model: Path, files: Sequence[bytes], count: int) -> None:
    """Growth of server and worker together over many requests, and the same with a leak."""
    sent = [request(PATH, body) for body in files]
    for name, leak in (("memory grows by", False), ("the same with 8 kB kept of each", True)):
        with ours(model, "--backend", "onnxruntime", leaky=leak) as (server, port):
            asyncio.run(in_turn(port, sent, 4, count // 4))
            pids = [server.process.pid, server.worker()]
            before = sum(map(resident, pids))
            found = asyncio.run(in_turn(port, sent, 4, count))
            after = sum(map(resident, pids))
        value = (
            f"{after - before:.1f} MB over {len(good(found)):,} answers, after {count // 4:,} (from {before:.0f} MB)"
        )
        print_row(name, value, "over 20 MB" if leak else "at most 20 MB")


FASTAPI = """
import sys, uvicorn, resnetkit
from fastapi import FastAPI, Request
model, app = resnetkit.load(sys.argv[1]), FastAPI()
from starlette.concurrency import run_in_threadpool
def answer(body):
    return next(each for _, each in model.predictions([body], top=1))
@app.post("/predict")
async def predict(request: Request):
    return (await run_in_threadpool(answer, await request.body())).row()
print("peer ready", file=sys.stderr, flush=True)
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
LITSERVE = """
import sys, litserve, resnetkit
class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = resnetkit.load(sys.argv[1])
        print("peer ready", file=sys.stderr, flush=True)
    async def decode_request(self, request): return request["file"].file.read()
    async def predict(self, body):
        return next(each for _, each in self.model.predictions([body], top=1))
    async def encode_response(self, answer): return answer.row()
if __name__ == "__main__":
    server = litserve.LitServer(Api(enable_async=True), accelerator="cpu")
    server.run(port=int(sys.argv[2]), log_level="error", generate_client_file=False)
"""


def as_form(body: bytes) -> bytes:
    """A request with the file in a form, which is the only way that LitServe takes bytes."""
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jpg"\r\ncontent-type: image/jpeg\r\n\r\n'
    return request("/predict", head + body + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")


def peers(model: Path, files: Sequence[bytes], rounds: int) -> None:
    """The same load on LitServe, on a plain FastAPI application, and on ours, in turns."""
    table: dict[str, list[tuple[float, float, float]]] = {"resnetkit": [], "plain FastAPI": [], "LitServe": []}
    for _ in range(rounds):
        with ours(model) as (_, port):
            table["resnetkit"].append(measured(port, [request(PATH, body) for body in files]))
        with peer(model, FASTAPI) as port:
            table["plain FastAPI"].append(measured(port, [request("/predict", body) for body in files]))
        with peer(model, LITSERVE) as port:
            table["LitServe"].append(measured(port, [as_form(body) for body in files]))
    for name, rows in table.items():
        speed, middle, late = (statistics.median(each) for each in zip(*rows, strict=True))
        alone = f"one client p50 {1000 * middle:.1f}, p99 {1000 * late:.1f} ms"
        value = f"{speed:.1f} answers/s with {CLIENTS} clients; {alone}"
        print_row(name, value, f"{rounds} rounds")


def measured(port: int, sent: Sequence[bytes]) -> tuple[float, float, float]:
    """Answers/s of many clients, and p50 and p99 of one."""
    asyncio.run(in_turn(port, sent, 1, 20))
    single = good(asyncio.run(in_turn(port, sent, 1, 200)))
    found = asyncio.run(in_turn(port, sent, CLIENTS, len(sent)))
    speed = len(good(found)) / (max(each.over for each in found) - min(each.due for each in found))
    return speed, percentile(single, 0.5), percentile(single, 0.99)


@contextmanager
def peer(model: Path, text: str) -> Iterator[int]:
    """Another server of the same model, and its port."""
    port = free_port()
    script = model.parent / "peer.py"
    script.write_text(text, encoding="utf-8")
    server = Process([sys.executable, str(script), str(model), str(port)], "peer ready")
    try:
        until = time.monotonic() + 60
        while asyncio.run(in_turn(port, [request("/predict", b"")], 1, 1))[0].status == REFUSED:
            if time.monotonic() > until:
                raise SystemExit("the peer does not answer")
            time.sleep(0.1)
        yield port
    finally:
        for pid in [*below(server.process.pid), server.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server.process.wait()


def make(folder: Path, photos: Path | None, count: int, variant: str, size: int) -> tuple[Path, list[bytes]]:
    """A model with fresh weights, and the files."""
    import resnetkit
    from resnetkit.data.image import Preprocess

    write_photos(folder / "photos", photos, count, 0.6)
    network = getattr(resnetkit, variant)(num_classes=1000).eval()
    resnetkit.save(network, folder / "model", preprocess=Preprocess(size=size))
    resnetkit.load(folder / "model")  # which measures the backends once, for all that follow
    return folder / "model", read(folder / "photos")


def read(folder: Path) -> list[bytes]:
    """The files of a folder, in one order."""
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]


def main() -> None:
    """Measure, and print a table."""
    if "--leaky" in sys.argv:
        leaky(sys.argv[sys.argv.index("--leaky") + 1 :])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=400, help="different files")
    parser.add_argument("--only", nargs="*", default=[], help="pace overload slow disconnects ends deaths memory peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=50, help="of ends and deaths")
    parser.add_argument("--requests", type=int, default=20_000, help="of memory")
    parser.add_argument("--seconds", type=float, default=20, help="of each overload")
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        alone, together = bare(Path(arguments.bare[0]), read(Path(arguments.bare[1])), 32)
        print(json.dumps([statistics.median(alone), together]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        model, files = make(Path(temporary), arguments.photos, arguments.count, "resnet34", 224)
        small = Path(temporary) / "small"
        parts: dict[str, Callable[[], None]] = {
            "pace": lambda: pace(model, files, arguments.rounds),
            "overload": lambda: overload(model, files, arguments.seconds),
            "slow": lambda: slow(model, files, 200),
            "disconnects": lambda: disconnects(model, files, 1000),
            "ends": lambda: ends(model, files, arguments.times),
            "deaths": lambda: deaths(model, files, arguments.times),
            "memory": lambda: memory(*make(small, arguments.photos, 400, "resnet18", 64), arguments.requests),
            "peers": lambda: peers(model, files, arguments.rounds),
        }
        for name, part in parts.items():
            if not arguments.only or name in arguments.only:
                part()


if __name__ == "__main__":
    main()
