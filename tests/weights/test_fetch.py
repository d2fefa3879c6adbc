"""Published weights: from torch's cache under either name, from the Hub's cache, or downloaded, and always checked."""

import hashlib
import os
import pwd
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnetkit.errors import NetworkError, ResourceError
from resnetkit.models import resnet18
from resnetkit.weights import known
from resnetkit.weights.download import offline
from resnetkit.weights.fetch import torch_cache, weights_file
from resnetkit.weights.published import OLDER, published
from weights.conftest import CONTENT, DIGEST, python

CURRENT, BEFORE = f"net-{DIGEST[:8]}.pth", "resnet34-0123abcd.pth"
SOCKETS = []
WATCHING = False


def watch(event, arguments):
    if WATCHING and event.startswith("socket."):
        SOCKETS.append((event, arguments))


sys.addaudithook(watch)


@pytest.fixture
def no_sockets():
    """What a test does with sockets, in whatever library, is an error; forbidding the network is left to the test."""
    global WATCHING
    SOCKETS.clear()
    WATCHING = True
    yield
    WATCHING = False
    assert SOCKETS == []


@pytest.fixture
def weights(site):
    """Weights that are published on a server of this machine."""
    return replace(published("resnet34")["IMAGENET1K_V1"], url=site.address + "/" + CURRENT, num_bytes=len(CONTENT))


@pytest.fixture
def online(monkeypatch):
    monkeypatch.delenv("RESNETKIT_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def put(name, content):
    torch_cache().mkdir(parents=True, exist_ok=True)
    (torch_cache() / name).write_bytes(content)
    return torch_cache() / name


def put_in_hub(root, repository, content, file="model.safetensors", name=None, revision="main"):
    """A file as huggingface_hub lays it down."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot, blob = folder / "snapshots" / ("c" * 40), folder / "blobs" / (name or hashlib.sha256(content).hexdigest())
    for path in (snapshot, blob.parent, folder / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text("c" * 40)
    blob.write_bytes(content)
    (snapshot / file).symlink_to(f"../../blobs/{blob.name}")
    return snapshot / file


@pytest.mark.parametrize("name", ["RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_offline(monkeypatch, online, name, value, expected):
    monkeypatch.setenv(name, value)
    assert offline() is expected


def test_downloaded_into_the_cache_of_torch_and_found_there(site, weights, online):
    path = weights_file(weights, progress=False)
    assert path == torch_cache() / CURRENT and path.read_bytes() == CONTENT
    assert weights_file(weights) == path and len(site.requests) == 1


def test_more_than_the_published_size_is_not_downloaded(site, weights, online):
    site.answer = lambda request: request.send(CONTENT + bytes(2_000_000))
    with pytest.raises(NetworkError, match="2,300,000 bytes, at most 1,348,576 were expected"):
        weights_file(weights)


def test_cached_and_offline(weights, no_sockets):
    path = put(CURRENT, CONTENT)
    assert weights_file(weights) == path


@pytest.mark.parametrize("variable", ["RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_with_empty_caches_names_the_ways_out(weights, monkeypatch, online, no_sockets, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(NetworkError) as caught:
        weights_file(weights)
    assert caught.value.exit_code == 8 and not torch_cache().exists()
    for word in (str(torch_cache() / CURRENT), "RESNETKIT_OFFLINE", "--weights PATH", "--weights none"):
        assert word in str(caught.value)


@pytest.mark.parametrize("address", ["hf://timm/resnet34.tv_in1k", "IMAGENET1K_V1"])
def test_offline_opens_no_socket(no_sockets, address):
    with pytest.raises(NetworkError) as caught:
        known.known_weights("resnet34", address)
    assert caught.value.exit_code == 8


def test_the_watch_on_sockets_sees_them(site, weights, online):
    global WATCHING
    WATCHING = True
    weights_file(weights, progress=False)
    WATCHING = False
    assert {event for event, _ in SOCKETS} >= {"socket.getaddrinfo", "socket.connect"}


def test_the_older_file_is_taken(weights, monkeypatch, no_sockets):
    older = f"resnet34-{DIGEST[:8]}.pth"
    monkeypatch.setitem(OLDER, BEFORE, older)
    weights = replace(weights, url=f"https://weights.invalid/{BEFORE}")
    path = put(older, CONTENT)
    assert weights_file(weights) == path


def test_the_cache_of_the_hub_is_looked_into(weights, tmp_path, no_sockets):
    path = put_in_hub(tmp_path / "hub-cache", "timm/resnet34.tv_in1k", CONTENT)
    assert weights_file(weights) == path
    current = put(CURRENT, CONTENT)
    assert weights_file(weights) == current, "torch's own comes first"


def test_a_hub_file_that_cannot_be_checked_is_passed_over(weights, tmp_path):
    put_in_hub(tmp_path / "hub-cache", "timm/resnet34.tv_in1k", CONTENT, name="5f0e" * 10)
    with pytest.raises(NetworkError, match="is not in the cache"):
        weights_file(weights)


def test_a_snapshot_without_its_weights_is_not_taken(weights, tmp_path):
    """As a download of several files leaves it when it ends half way."""
    path = put_in_hub(tmp_path / "hub-cache", "timm/resnet34.tv_in1k", b"{}", file="config.json")
    (path.parents[2] / "blobs" / f"{DIGEST}.incomplete").write_bytes(CONTENT[:1000])
    (path.parent / "model.safetensors").symlink_to(f"../../blobs/{DIGEST}")
    for address in ("hf://timm/resnet34.tv_in1k", "hf://timm/resnet34.tv_in1k@main/model.safetensors"):
        with pytest.raises(NetworkError, match="is not in the Hub's cache"):
            known.known_weights("resnet34", address)
    with pytest.raises(NetworkError, match="is not in the cache"):
        weights_file(weights)


@pytest.mark.parametrize("where", ["current", "older", "hub"])
def test_a_corrupt_file_in_a_cache_is_named_and_kept(weights, monkeypatch, tmp_path, where):
    damaged = CONTENT[:1000] + bytes([CONTENT[1000] ^ 1]) + CONTENT[1001:]
    monkeypatch.setitem(OLDER, CURRENT, "net-0123abcd.pth")
    if where == "hub":
        path = put_in_hub(tmp_path / "hub-cache", "timm/resnet34.tv_in1k", damaged, name=DIGEST).resolve()
    else:
        path = put(CURRENT if where == "current" else "net-0123abcd.pth", damaged)
    with pytest.raises(NetworkError) as caught:
        weights_file(weights)
    line = str(caught.value)
    assert line.startswith(f"{path}: corrupt: its SHA-256 is {hashlib.sha256(damaged).hexdigest()}")
    assert "delete this file" in line and caught.value.exit_code == 8 and path.read_bytes() == damaged


def test_a_network_from_the_cache(weights, monkeypatch, caplog):
    """The whole way, with a file of real weights."""
    torch.manual_seed(0)
    state = resnet18().state_dict()
    torch.save(state, "whole.pth")
    content = Path("whole.pth").read_bytes()
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    ours = replace(published("resnet18")["IMAGENET1K_V1"], url=f"https://weights.invalid/{name}")
    monkeypatch.setattr(known, "published", lambda variant: {"IMAGENET1K_V1": ours})
    put(name, content)
    loaded = resnet18(pretrained=True).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    assert "IMAGENET1K_V1: loaded 122 of 122 tensors" in caplog.text
    network = resnet18(True, num_classes=3, in_channels=1)
    assert torch.equal(network.layer4[1].bn2.weight, state["layer4.1.bn2.weight"]) and network.fc.out_features == 3


@pytest.mark.parametrize("variable", [None, "TORCH_HOME", "XDG_CACHE_HOME"])
def test_without_home(monkeypatch, tmp_path, weights, variable):
    """The list of users knows the home of this one."""
    for name in ("HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    expected = f"{pwd.getpwuid(os.getuid()).pw_dir}/.cache/torch"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
        expected = f"{tmp_path}/torch" if variable == "XDG_CACHE_HOME" else str(tmp_path)
    with pytest.raises(NetworkError) as caught:
        weights_file(weights)
    assert caught.value.path == f"{expected}/hub/checkpoints/{CURRENT}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that is in no list")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child only asks for a path
def test_a_user_without_any_home(monkeypatch):
    for name in ("HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setuid(54_321)
            torch_cache()
        except ResourceError as error:
            said = "there is no home folder to keep weights in (set HOME, or TORCH_HOME to a folder)"
            code = error.exit_code if str(error) == said else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6


def test_the_home_of_the_hub_is_respected(tmp_path):
    path = put_in_hub(tmp_path / "home" / "hub", "timm/resnet34.tv_in1k", CONTENT)
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_CACHE"}
    code = "from resnetkit.weights.hub import cached\nprint(cached('timm/resnet34.tv_in1k'), 'torch' in sys.modules)"
    done = python(code, env={**environment, "HF_HOME": str(tmp_path / "home")})
    assert done.stdout == f"{path} False\n", done.stderr
