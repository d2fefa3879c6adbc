"""A download is whole and right, or it is not there, whatever server and disk do."""

import contextlib
import gzip
import logging
import os
import pty
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from resnetkit.errors import NetworkError, ResourceError
from resnetkit.weights import download as module
from resnetkit.weights.download import download
from weights.conftest import CONTENT, DIGEST, NAME, Request, command, python, serving


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "checkpoints" / NAME


@pytest.fixture
def get(site, target):
    """Download from the site, with a short patience."""

    def run(url=None, **changes):
        settings = {"sha256_prefix": DIGEST[:8], "max_bytes": len(CONTENT) + 1000, "stall_seconds": 5, **changes}
        return download(url or site.url, target, progress=False, **settings)

    return run


def refused(call, *words, error=NetworkError):
    with pytest.raises(error) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and caught.value.fix and caught.value.exit_code == (8 if error is NetworkError else 6)
    for word in words:
        assert word in line
    return line


def files(target):
    """What lies in the folder, lock files aside."""
    return sorted(path.name.replace(NAME, "") for path in target.parent.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(site, get, target):
    assert get() == target and target.read_bytes() == CONTENT
    assert files(target) == [""] and stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask()
    assert get() == target and len(site.requests) == 1
    assert site.requests[0][2]["Accept-Encoding"] == "identity" and site.ranges == [None]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("prefix", ["01234567", "0" * 64])
def test_a_wrong_hash_shows_both_and_leaves_nothing(get, target, prefix):
    refused(lambda: get(sha256_prefix=prefix), DIGEST, prefix, "--weights PATH")
    assert files(target) == []


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("after", [0, 1, 65_537, len(CONTENT) - 1])
def test_a_cut_connection_is_gone_on_from(site, get, target, after, reset):
    site.answer = lambda request: request.cut(after, reset)
    refused(get, "could not be downloaded", "" if reset else f"after {after:,} of {len(CONTENT):,} bytes")
    assert files(target) == [".part", ".part.etag"]
    kept = target.with_name(NAME + ".part").read_bytes()
    assert kept == CONTENT[:after]
    site.answer = Request.send_range
    assert get().read_bytes() == CONTENT and files(target) == [""]
    assert site.ranges == [None, f"bytes={after}-" if after else None]


FETCH = f"""
import os
from pathlib import Path
from resnetkit.weights.download import download
if len(sys.argv) > 3:
    os.setegid(int(sys.argv[3])), os.seteuid(int(sys.argv[3]))
download(sys.argv[1], Path(sys.argv[2]), sha256_prefix={DIGEST[:8]!r}, max_bytes=10**6, progress=False)
assert "torch" not in sys.modules
"""


def test_a_killed_process_leaves_no_file_and_no_lock(site, get, target):
    def half(request):
        request.head(Content_Length=len(CONTENT), ETag='"a"')
        request.wfile.write(CONTENT[:200_000])
        time.sleep(20)

    site.answer = half
    part = target.with_name(NAME + ".part")
    with subprocess.Popen(command(FETCH, site.url, target)) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size >= 100_000):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not target.exists() and (kept := part.stat().st_size) >= 100_000
    site.answer = Request.send_range
    assert get().read_bytes() == CONTENT and site.ranges == [None, f"bytes={kept}-"]


def test_killed_before_the_last_rename(site, get, target):
    target.parent.mkdir(parents=True)
    target.with_name(NAME + ".part").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT and site.requests == []


def other_tag_and_part(request):
    """Goes on although the content is another one."""
    request.send(CONTENT[request.first_byte() :], 206, ETag='"b"', Content_Range="bytes 1000-299999/300000")


RESUMES = {
    "honoured": (Request.send_range, 1),
    "ignored": (lambda request: request.send(ETag='"a"'), 1),
    "416": (lambda r: r.send(b"", 416) if r.first_byte() else r.send(ETag='"a"'), 2),
    "file changed": (lambda request: request.send_range(tag='"b"'), 1),
    "file changed, unheeded": (lambda r: other_tag_and_part(r) if r.first_byte() else r.send(), 2),
    "another range": (
        lambda r: (
            r.send(CONTENT, 206, ETag='"a"', Content_Range="bytes 0-299999/300000") if r.first_byte() else r.send()
        ),
        2,
    ),
    "206 that says nothing": (lambda r: r.send(CONTENT, 206) if r.first_byte() else r.send(), 2),
}


@pytest.mark.parametrize("case", RESUMES)
def test_resume(site, get, target, case):
    site.answer = lambda request: request.cut(1000)
    refused(get)
    site.requests.clear()
    site.answer, requests = RESUMES[case]
    assert get().read_bytes() == CONTENT and files(target) == [""]
    assert site.ranges[0] == "bytes=1000-" and len(site.requests) == requests
    assert site.requests[0][2]["If-Range"] == '"a"'


def test_a_part_of_unknown_origin_is_not_gone_on_from(site, get, target):
    target.parent.mkdir(parents=True)
    target.with_name(NAME + ".part").write_bytes(b"x" * 1000)
    assert get().read_bytes() == CONTENT and site.ranges == [None]


def test_a_resumed_file_is_checked_whole(site, get, target):
    site.answer = lambda request: request.cut(1000)
    refused(get)
    target.with_name(NAME + ".part").write_bytes(b"x" * 1000)
    site.answer = Request.send_range
    refused(get, "its SHA-256 is")
    assert files(target) == []
    assert get().read_bytes() == CONTENT


def endless(request):
    request.head(Transfer_Encoding="chunked")
    while True:
        request.wfile.write(b"10000\r\n" + bytes(65_536) + b"\r\n")


def too_long(request):
    request.send(CONTENT + b"x")
    request.wfile.write(b"x" * 1000)


BODIES = {
    "short, whole by its length": (lambda request: request.send(CONTENT[:-1]), "its SHA-256 is"),
    "longer": (too_long, "its SHA-256 is"),
    "gzip": (lambda r: r.send(gzip.compress(CONTENT), Content_Encoding="gzip"), "encoding gzip"),
    "login page": (lambda r: r.send(b"<html>log in</html>", Content_Type="text/html; charset=utf-8"), "a web page"),
    "login page as bytes": (lambda r: r.send(b"<html>log in</html>"), "its SHA-256 is"),
    "redirect to a login page": (
        lambda r: r.send(b"<html>", Content_Type="text/html") if "in" in r.path else r.send(b"", 302, Location="/in"),
        "a web page",
    ),
    "nothing": (lambda request: request.send(b""), "its SHA-256 is"),
    "more than expected": (lambda request: request.head(Content_Length=10**12), "at most 301,000 were expected"),
    "endless": (endless, "more than the 301,000 bytes"),
    "chunks that are none": (lambda r: (r.head(Transfer_Encoding="chunked"), r.wfile.write(b"zz\r\n")), ""),
    "not found": (lambda request: request.send(b"", 404), "the server answered 404"),
    "a fault of its own": (lambda request: request.send(b"", 503), "the server answered 503"),
    "no content": (lambda request: request.head(204), "the server answered 204"),
    "not HTTP": (lambda request: request.wfile.write(b"\x1b[31mhello\r\n\r\n"), ""),
    "a very long header": (lambda request: request.head(X_Long="x" * 100_000), ""),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_not_the_file(site, get, target, case):
    site.answer, words = BODIES[case]
    line = refused(get, "could not be downloaded", words)
    assert "\x1b" not in line and not target.exists()
    assert not [name for name in files(target) if case != "chunks that are none"], "of these nothing is worth keeping"
    site.answer = Request.send_range
    assert get().read_bytes() == CONTENT


def test_what_follows_the_announced_length_is_not_read(site, get):
    site.answer = lambda request: (request.send(), request.wfile.write(b"x" * 1000))
    assert get().read_bytes() == CONTENT


def drip(request):
    request.head(Content_Length=len(CONTENT), ETag='"a"')
    while True:
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(0.05)


SLOW = {
    "a byte at a time": drip,
    "nothing after the head": lambda request: (request.head(Content_Length=9), request.wfile.flush(), time.sleep(3)),
    "no head": lambda request: time.sleep(3),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_stalling_server_is_left(site, get, case):
    site.answer = SLOW[case]
    started = time.monotonic()
    refused(lambda: get(stall_seconds=0.4), "could not be downloaded")
    assert time.monotonic() - started < 2.5


def test_a_slow_server_is_not_a_stalling_one(site, get):
    def slow(request):
        request.head(Content_Length=len(CONTENT))
        for first in range(0, len(CONTENT), 30_000):
            request.wfile.write(CONTENT[first : first + 30_000])
            request.wfile.flush()
            time.sleep(0.1)

    site.answer = slow
    assert get(stall_seconds=0.4).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/again", "redirect"),
        ("file:///etc/passwd", "not allowed"),
        ("ftp://127.0.0.1/x", "is not https"),
        ("data:text/plain,x", "not allowed"),
        ("http://192.0.2.1/x", "http://192.0.2.1/x, which is not https"),
    ],
)
def test_redirects_lead_nowhere_else(site, get, target, location, words):
    site.answer = lambda request: request.send(b"", 302, Location=location)
    refused(get, words)
    assert files(target) == [] and len(site.requests) <= 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_here_is_followed(site, get, status):
    site.answer = lambda r: r.send() if r.path == "/there" else r.send(b"", status, Location="/there")
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "x\n"])
def test_unsafe_addresses_are_not_opened(get, target, url):
    refused(lambda: get(url), "is not https")
    assert not target.parent.exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    request += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem"
    try:
        subprocess.run(request.split(), cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl makes no certificate here")
    return folder / "cert.pem"


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with serving(lambda plain: context.wrap_socket(plain, server_side=True)) as site:
        site.url = site.url.replace("http:", "https:")
        yield site


def test_https_with_a_certificate_that_nobody_vouches_for(secure, get):
    refused(lambda: get(secure.url), "CERTIFICATE_VERIFY_FAILED")
    assert secure.requests == []


def test_https_with_a_trusted_certificate(secure, get, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(secure.url).read_bytes() == CONTENT


def test_https_never_leads_to_http(site, secure, get, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure.answer = lambda request: request.send(b"", 302, Location=site.url)
    refused(lambda: get(secure.url), "is not https")
    assert site.requests == []


def test_a_server_that_speaks_no_tls(site, get):
    refused(lambda: get(site.url.replace("http:", "https:")), "could not be downloaded", "SSL")


def test_proxies(site, get, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    refused(lambda: get("https://weights.invalid/x"), "refused")
    monkeypatch.setenv("https_proxy", site.address)
    site.answer = lambda request: request.send(b"", 407)
    refused(lambda: get("https://weights.invalid/x"), "407")
    assert site.requests[0][:2] == ("CONNECT", "weights.invalid:443")


def test_no_server(get):
    refused(lambda: get("http://127.0.0.1:1/x"), "refused")


def test_a_full_disk(get, target):
    target.parent.mkdir(parents=True)
    target.with_name(NAME + ".part").symlink_to("/dev/full")
    refused(get, "no space left", "TORCH_HOME", error=ResourceError)
    assert not target.exists()


def test_a_file_in_the_way(get, target):
    target.parent.parent.mkdir(parents=True)
    target.parent.touch()
    refused(get, str(target), "TORCH_HOME", error=ResourceError)


@pytest.fixture
def foreign():
    """A folder that everyone can reach, and the user to be there (root can write anywhere)."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), [65534] if os.geteuid() == 0 else []


@pytest.mark.parametrize("lock", [False, True], ids=["read-only folder", "another's lock"])
def test_a_cache_that_may_not_be_written_to(site, foreign, lock):
    folder, user = foreign
    if lock:
        (folder / f".{NAME}.lock").touch()
        (folder / f".{NAME}.lock").chmod(0o444)
    folder.chmod(0o777 if lock else 0o555)
    done = python(FETCH, site.url, folder / NAME, *user)
    assert done.returncode == 6, done.stderr
    assert "permission denied" in done.stdout and "TORCH_HOME" in done.stdout and done.stdout.count("\n") == 1
    folder.chmod(0o755)


def test_two_processes_download_once(site, target):
    def slowly(request):
        request.head(Content_Length=len(CONTENT), ETag='"a"')
        request.wfile.write(CONTENT[:1000])
        request.wfile.flush()
        time.sleep(2)
        request.wfile.write(CONTENT[1000:])

    site.answer = slowly
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command(FETCH, site.url, target), stderr=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        said = [process.communicate(timeout=50)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert len(site.requests) == 1 and target.read_bytes() == CONTENT
    assert sum("waiting for another process" in words for words in said) == 2


def test_the_size_is_announced_and_a_terminal_gets_a_bar(site, target, monkeypatch, caplog):
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            patch.setenv("TERM", "xterm")
            download(site.url, target, sha256_prefix=DIGEST[:8], max_bytes=10**6)
        shown = screen.read(100_000).decode()
    assert f"downloading {site.url}, 0.3 MB, to {target}" in caplog.text
    assert NAME[:8] in shown and "300.0/300.0 kB" in shown and "B/s" in shown


def test_without_a_terminal_there_are_lines(site, target, monkeypatch, caplog, capsys):
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    download(site.url, target, sha256_prefix=DIGEST[:8], max_bytes=10**6)
    assert f"{NAME}: 0 of 0 MB, " in caplog.text and "s left" in caplog.text
    assert capsys.readouterr().out == "", "stdout is for results"


@pytest.mark.parametrize("how", ["progress", "level"])
def test_quiet(site, target, caplog, monkeypatch, how):
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    if how == "level":
        logging.getLogger("resnetkit").setLevel(logging.ERROR)
    download(site.url, target, sha256_prefix=DIGEST[:8], max_bytes=10**6, progress=how != "progress")
    assert "s left" not in caplog.text and target.exists()
