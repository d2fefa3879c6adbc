"""Weights files on the Hugging Face Hub, those that its cache on this machine has already, and uploads."""

from __future__ import annotations

import errno
import logging
import os
import re
import traceback
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
PUSH = "could not be pushed to"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?", re.ASCII)
LOG_IN = "hf auth login, or set HF_TOKEN, to a token that may write there"
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


def refuse_push(repository: str, *, offline: bool) -> None:
    """Refuse an upload before any work is done for it.

    Raises:
        UsageError: the repository is not of the form owner/name.
        NetworkError: the network is forbidden, or there is no token.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise UsageError("is no repository on the Hub", path=repository, fix="give --push owner/name")
    if offline:
        what = "cannot be pushed to: the network is forbidden (RESNETKIT_OFFLINE or HF_HUB_OFFLINE)"
        raise NetworkError(what, path=repository, fix="leave --push out, or allow the network")
    _token(repository)


def push(folder: Path, repository: str, *, progress: bool = True) -> str:
    """Upload the files of a folder; the address of the repository, which is made, and private, where there is none.

    Args:
        folder: holds files only.
        repository: owner/name.
        progress: show the Hub's bars on a terminal.

    Raises:
        NetworkError: the Hub cannot be reached, or refuses the token or a file.
    """
    hub, token = _hub(), _token(repository)
    fix = f"the files are in {folder}; where the token is refused: {LOG_IN}"
    with _one_line(repository, PUSH, fix, token), _bars(hub, progress):
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        size = sum(file.stat().st_size for file in folder.iterdir())
        log.warning("uploading %s to %s, %.1f MB", folder, repository, size / 1e6)
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of resnetkit")
    return str(address)


def _token(repository: str) -> str:
    """What the library finds where it keeps it: HF_TOKEN, or what `hf auth login` has left."""
    with _one_line(repository, PUSH, LOG_IN):
        token: str | None = _hub().get_token()
    if not token:
        raise NetworkError("cannot be pushed to: there is no token", path=repository, fix=LOG_IN)
    return token


def _hub() -> ModuleType:
    """The library without its telemetry, which would name torch and the calling program, looked up on the Hub."""
    import huggingface_hub
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def _cache() -> str | None:
    """What the environment says now, since the library reads it once, when it is imported; None for its default."""
    return os.environ.get("HF_HUB_CACHE")


def cache() -> Path:
    """Where the Hub's library keeps what it downloads."""
    given = _cache()
    if given:
        return Path(given)
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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
def _one_line(
    address: str, what: str = "could not be downloaded", fix: str = BY_HAND, secret: str = ""
) -> Iterator[None]:
    """Turn whatever the library raises into an error of ours: the classes of its HTTP client change with versions.

    Args:
        address: on the Hub.
        what: to say of it.
        fix: the way out.
        secret: is shown to nobody, whatever a server answers.
    """
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
        said = f"{error} {error.__cause__}" if type(error) is RuntimeError and error.__cause__ else str(error)
        words = printable(" ".join(said.split())) or type(error).__name__
        leaks = bool(secret) and secret in "".join(traceback.format_exception(error))
        shown = (words.replace(secret, "<token>") if leaks else words)[:300]
        raise NetworkError(f"{what}: {shown}", path=address, fix=fix) from (None if leaks else error)
