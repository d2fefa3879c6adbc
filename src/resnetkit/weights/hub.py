"""Weights files on the Hugging Face Hub, and those that its cache on this machine has already."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from resnetkit.errors import NetworkError, ResnetkitError, UsageError, printable
from resnetkit.files import sha256
from resnetkit.weights.download import BY_HAND, cache_errors

log = logging.getLogger("resnetkit")
SCHEME = "hf://"
FILE = "model.safetensors"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?", re.ASCII)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EFBIG)


def hub_file(address: str, *, offline: bool, progress: bool = True) -> Path:
    """The file that hf://owner/name[@revision][/file] names, from the Hub's cache or downloaded there.

    Args:
        address: the file left out is model.safetensors, the revision main.
        offline: take what the cache has, without a look at the network.
        progress: show the Hub's bar on a terminal.

    Raises:
        UsageError: the address is not of that form.
        NetworkError: there is no such file, it cannot be had, or it is not what its name in the cache says.
        ResourceError: the cache cannot be written to.
    """
    repository, revision, file = parse(address)
    if offline:
        found = cached(repository, file, revision)
        if found is None:
            raise NetworkError("is not in the Hub's cache and the network is forbidden", path=address, fix=BY_HAND)
    else:
        found = _download(address, progress)
    verify_blob(found)
    return found


def parse(address: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of an address on the Hub.

    Raises:
        UsageError: it is not of the form hf://owner/name[@revision][/file].
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or ".." in Path(parts[3] or "").parts:
        raise UsageError("is no address on the Hub", path=address, fix=f"hf://owner/name, {FILE} is taken from there")
    return parts[1], parts[2], parts[3] or FILE


def cached(repository: str, file: str = FILE, revision: str | None = None) -> Path | None:
    """The file in the Hub's cache, or None; opens no socket."""
    with _one_line(f"{SCHEME}{repository}"):
        found = _hub().try_to_load_from_cache(repository, file, revision=revision, cache_dir=_cache())
    return Path(found) if isinstance(found, str) else None


def verify_blob(path: Path) -> bool:
    """Whether a file of the Hub's cache could be checked: it is a link to a blob that is named after its SHA-256.

    Raises:
        NetworkError: it was, and is not what its name says.
    """
    with cache_errors(path):
        # one step only: a blob can itself be a link to one that is named after another kind of hash
        blob = path.parent / os.readlink(path) if path.is_symlink() else path
        if not re.fullmatch("[0-9a-f]{64}", blob.name):
            return False
        found = sha256(blob)
    if found != blob.name:
        fix = "delete this file, it is then downloaded again"
        raise NetworkError(f"corrupt: its SHA-256 is {found}, not its name", path=blob.resolve(), fix=fix)
    return True


def _download(address: str, progress: bool) -> Path:
    repository, revision, file = parse(address)
    hub = _hub()
    where = {"revision": revision, "endpoint": os.environ.get("HF_ENDPOINT"), "cache_dir": _cache()}
    with _one_line(address), _bars(hub, progress):
        plan = hub.hf_hub_download(repository, file, dry_run=True, **where)
        if plan.will_download:
            log.warning("downloading %s, %.1f MB", address, (plan.file_size or 0) / 1e6)
        return Path(hub.hf_hub_download(repository, file, **where))


def _hub() -> ModuleType:
    """The library without its telemetry, which would name torch and the calling program, looked up on the Hub."""
    import huggingface_hub
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def _cache() -> str | None:
    """What the environment says now, since the library reads it once, when it is imported; None for its default."""
    return os.environ.get("HF_HUB_CACHE")


@contextmanager
def _bars(hub: ModuleType, progress: bool) -> Iterator[None]:
    silence = not progress and not hub.utils.are_progress_bars_disabled()
    if silence:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            hub.utils.enable_progress_bars()


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    """Turn whatever the library raises into an error of ours: the classes of its HTTP client change with versions."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except ResnetkitError:
        raise
    except HFValidationError as error:
        raise UsageError("is no address on the Hub", path=address, fix="hf://owner/name") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            with cache_errors(Path(error.filename or address)):
                raise
        words = printable(" ".join(str(error).split()))[:300] or type(error).__name__
        raise NetworkError(f"could not be downloaded: {words}", path=address, fix=BY_HAND) from error
