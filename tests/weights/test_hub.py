"""Weights from the Hub, against a server of this machine that answers as the Hub does."""

import base64
import hashlib
import json
import os
import time

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import save

from resnetkit.errors import ModelError, NetworkError, ResourceError, UsageError
from resnetkit.models import resnet18
from resnetkit.weights.hub import cached, hub_file, parse, push, refuse_push, verify_blob
from resnetkit.weights.known import known_weights

CONTENT = save({"a": torch.arange(50_000.0)})
COMMIT = "0123456789" * 4
ADDRESS = "hf://owner/name"


def resolve(request, content=CONTENT, **headers):
    """One repository with one file, at /owner/name/resolve/main/model.safetensors."""
    if request.path != "/owner/name/resolve/main/model.safetensors":
        code = "EntryNotFound" if request.path.startswith("/owner/name/") else "RepoNotFound"
        request.send(b"", 404, X_Error_Code=code)
        return
    etag = hashlib.sha256(content).hexdigest()
    request.send_range(content, tag=f'"{etag}"', **{"X_Repo_Commit": COMMIT, **headers})


@pytest.fixture
def hub(site, monkeypatch):
    monkeypatch.setenv("RESNETKIT_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", site.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's attempts
    site.answer = resolve
    return site


def refused(address, *words, error=NetworkError):
    with pytest.raises(error) as caught:
        known_weights("resnet18", address)
    line = str(caught.value)
    assert "\n" not in line and caught.value.fix
    for word in words:
        assert word in line
    return caught.value


@pytest.mark.parametrize("more", ["", "@main", "/model.safetensors", "@main/model.safetensors"])
def test_a_file_is_fetched_and_then_in_the_cache(hub, monkeypatch, caplog, more):
    state, source = known_weights("resnet18", ADDRESS + more)
    assert source == ADDRESS + more and torch.equal(state["a"], torch.arange(50_000.0))
    assert f"downloading {source}, 0.2 MB" in caplog.text
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    count = len(hub.requests)
    assert known_weights("resnet18", source)[0].keys() == {"a"} and len(hub.requests) == count


def test_nothing_is_asked_or_told_but_what_is_needed(hub):
    known_weights("resnet18", ADDRESS, progress=False)
    assert {path for _, path, _ in hub.requests} == {"/owner/name/resolve/main/model.safetensors"}
    agents = {headers[key] for _, _, headers in hub.requests for key in headers if key.lower() == "user-agent"}
    assert not any("torch" in agent or "agent/" in agent for agent in agents)
    assert not are_progress_bars_disabled()


def test_a_network_is_loaded(hub):
    state = resnet18(num_classes=4).state_dict()
    hub.answer = lambda request: resolve(request, save(state))
    loaded = resnet18(weights=ADDRESS, num_classes=4).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_another_architecture_is_refused(hub):
    with pytest.raises(ModelError, match=f"{ADDRESS}: are weights of another architecture"):
        resnet18(weights=ADDRESS)


def test_a_pickle_is_read_as_one(hub, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w")
    served = {"pytorch_model.bin": (tmp_path / "w").read_bytes(), "evil.bin": b"\x80\x04cposix\nsystem\n."}

    def answer(request):
        name = request.path.rpartition("/")[2]
        request.send_range(served[name], tag=f'"{name}"', X_Repo_Commit=COMMIT)

    hub.answer = answer
    assert known_weights("resnet18", ADDRESS + "/pytorch_model.bin")[0]["a"].tolist() == [1, 1]
    refused(ADDRESS + "/evil.bin", "holds more than tensors", error=ModelError)


@pytest.mark.parametrize(
    ("address", "words"), [(ADDRESS + "/other.safetensors", "Entry"), ("hf://owner/other", "Repo")]
)
def test_what_the_hub_does_not_have(hub, address, words):
    assert refused(address, "could not be downloaded", words).exit_code == 8


ANSWERS = {
    "private": lambda request: request.send(b"", 401),
    "down": lambda request: request.send(b"", 503),
    "no hub": lambda request: request.send(b"<html>", Content_Type="text/html"),
    "login page": lambda request: request.send(b"", 302, Location="http://127.0.0.1:1/login"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_hub_that_does_not_answer_as_one(hub, case):
    hub.answer = ANSWERS[case]
    assert refused(ADDRESS, "could not be downloaded", "--weights PATH").exit_code == 8
    assert cached("owner/name") is None


def test_no_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    refused(ADDRESS, "could not be downloaded")


def test_a_download_that_ends_half_way_is_not_taken(hub):
    def half(request):
        if request.command == "HEAD":
            return resolve(request)
        request.head(Content_Length=len(CONTENT))
        return request.wfile.write(CONTENT[:1000])

    hub.answer = half
    refused(ADDRESS, "could not be downloaded")
    assert cached("owner/name") is None
    hub.answer = resolve
    assert known_weights("resnet18", ADDRESS)[0].keys() == {"a"}


def test_content_of_another_hash_is_refused(hub):
    """The library itself looks at the size only."""
    damaged = CONTENT[:-1] + b"\x55"
    hub.answer = lambda request: resolve(request, damaged, X_Linked_Etag=f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    error = refused(ADDRESS, "corrupt: its SHA-256 is " + hashlib.sha256(damaged).hexdigest(), "delete this file")
    os.unlink(error.path)
    hub.answer = resolve
    assert known_weights("resnet18", ADDRESS)[0].keys() == {"a"}


def test_a_cache_that_cannot_be_written_to(hub, tmp_path):
    (tmp_path / "hub-cache").touch()
    assert refused(ADDRESS, "HF_HOME", error=ResourceError).exit_code == 6


def test_offline_and_not_cached(hub, monkeypatch):
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    refused(ADDRESS, "is not in the Hub's cache")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://a/b", ("a/b", None, "model.safetensors")),
        ("hf://a/b@v1.0", ("a/b", "v1.0", "model.safetensors")),
        ("hf://a.b/c-d_e/sub/w.bin", ("a.b/c-d_e", None, "sub/w.bin")),
    ],
)
def test_parse(address, expected):
    assert parse(address) == expected


BAD = [
    "hf://",
    "hf://a",
    "hf://a/",
    "hf://a/b/../../x",
    "hf://a/b@",
    "hf://ü/b",
    "hf://a/b c",
    "hf://-a/b--c",
    "hf://a/b\n",
]


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("offline", [False, True])
def test_bad_addresses(hub, address, offline):
    with pytest.raises(UsageError) as caught:
        hub_file(address, offline=offline)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value) and hub.requests == []


def test_a_blob_that_is_a_link_to_a_shared_one(tmp_path):
    """Such a one is named after another kind of hash."""
    shared, blob, path = tmp_path / ("0" * 64), tmp_path / hashlib.sha256(b"x").hexdigest(), tmp_path / "w"
    shared.write_bytes(b"x")
    blob.symlink_to(shared.name)
    path.symlink_to(blob.name)
    assert verify_blob(path)


TOKEN = "hf_aVerySecretToken"
FILES = {
    "model.safetensors": save({"a": torch.arange(100_000.0)}),
    "config.json": b"{}\n",
    "README.md": "---\nlibrary_name: transformers\n---\n# 犬\n".encode(),
}


class Repository:
    """A repository on a Hub that takes small files in the commit itself and weights as LFS objects."""

    def __init__(self, exists=False):
        self.exists, self.made, self.blobs, self.files = exists, [], {}, {}

    def __call__(self, request):
        assert request.headers["Authorization"] in (None, f"Bearer {TOKEN}")
        steps = {
            "/api/repos/create": self.create,
            "/api/validate-yaml": lambda request, _: request.send_json({"errors": [], "warnings": []}),
            "/api/models/owner/name/preupload/main": self.modes,
            "/owner/name.git/info/lfs/objects/batch": self.batch,
            "/api/models/owner/name/commit/main": self.commit,
        }
        content = request.body()
        path = request.path.partition("?")[0]
        if path.startswith("/store/"):
            self.blobs[path.removeprefix("/store/")] = content
            request.send(b"")
        elif path in steps:
            steps[path](request, content)
        else:
            request.send_json({"error": "there is no such thing"}, 404)

    def create(self, request, content):
        self.made.append(json.loads(content))
        where = f"http://{request.headers['Host']}/owner/name"
        request.send_json({"url": where, "name": "owner/name"}, 409 if self.exists else 200)

    def modes(self, request, content):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(content)["files"]
        ]
        request.send_json({"files": files})

    def batch(self, request, content):
        store = f"http://{request.headers['Host']}/store"
        objects = [
            {**thing, "actions": {"upload": {"href": f"{store}/{thing['oid']}"}}}
            for thing in json.loads(content)["objects"]
        ]
        request.send_json({"transfer": "basic", "objects": objects})

    def commit(self, request, content):
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
        where = f"http://{request.headers['Host']}/owner/name/commit/{COMMIT}"
        request.send_json({"commitUrl": where, "commitOid": COMMIT, "success": True})


@pytest.fixture
def store(hub, monkeypatch):
    """A Hub to push to, without its store of chunks (Xet), which speaks a protocol of its own."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.answer = Repository()
    return hub


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    for name, content in FILES.items():
        (tmp_path / "out" / name).write_bytes(content)
    return tmp_path / "out"


# the library's own way to call its HTTP client
LFS = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")


@LFS
@pytest.mark.parametrize("exists", [False, True])
def test_what_arrives_is_what_was_sent(store, folder, caplog, exists):
    store.answer = Repository(exists)
    assert push(folder, "owner/name", progress=False) == f"{store.address}/owner/name"
    assert store.answer.files == FILES
    assert store.answer.made == [{"name": "name", "organization": "owner", "visibility": "private"}]
    assert f"uploading {folder} to owner/name, 0.4 MB" in caplog.text
    agents = {headers[key] for _, _, headers in store.requests for key in headers if key.lower() == "user-agent"}
    assert agents and not any("torch" in agent or "agent/" in agent for agent in agents)


def not_pushed(folder, *words):
    with pytest.raises(NetworkError) as caught:
        push(folder, "owner/name", progress=False)
    line = str(caught.value)
    assert "\n" not in line and "owner/name: could not be pushed to: " in line and str(folder) in caught.value.fix
    for word in words:
        assert word in line
    return caught.value


def refusing(path, answer):
    """A Hub that answers so where the path ends so."""
    good = Repository()
    return lambda request: answer(request) if request.path.partition("?")[0].endswith(path) else good(request)


STEPS = ["repos/create", "validate-yaml", "preupload/main", "objects/batch", "commit/main"]


@LFS
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_hub_that_refuses(store, folder, step, status):
    store.answer = refusing(step, lambda request: request.send_json({"error": "no"}, status))
    assert not_pushed(folder).exit_code == 8


@LFS
@pytest.mark.parametrize("step", STEPS)
def test_a_hub_that_does_not_answer_an_upload_as_one(store, folder, step):
    store.answer = refusing(step, lambda request: request.send(b"<html>", Content_Type="text/html"))
    not_pushed(folder)


@LFS
def test_a_refused_object(store, folder):
    digest = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    store.answer = refusing(digest, lambda request: request.send(b"", 403))
    not_pushed(folder, "model.safetensors", "403")


def test_the_token_is_shown_to_nobody(store, folder):
    """Even where the server says it back."""

    def echo(request):
        secret = request.headers["Authorization"]
        request.send_json({"error": secret}, 403, X_Error_Message=f"{secret} may not write")

    store.answer = refusing("repos/create", echo)
    error = not_pushed(folder, "<token>")
    assert TOKEN not in str(error) and error.__cause__ is None and error.__suppress_context__


def test_no_hub_to_push_to(store, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    not_pushed(folder)


def test_a_push_is_refused_before_any_work(store, monkeypatch):
    refuse_push("owner/name", offline=False)
    for bad in ("name", "a/b/c", "hf://a/b", "a b/c", "a/ü", "a/b\n", ""):
        with pytest.raises(UsageError, match="is no repository on the Hub"):
            refuse_push(bad, offline=False)
    with pytest.raises(NetworkError, match="the network is forbidden"):
        refuse_push("owner/name", offline=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(NetworkError, match="there is no token .hf auth login"):
        refuse_push("owner/name", offline=False)
    assert store.requests == []
