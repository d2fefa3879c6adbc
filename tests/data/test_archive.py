"""Archives are read in place, and the dangerous ones are refused."""

import io
import os
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from conftest import write_classes
from resnetkit.data.archive import Member, members
from resnetkit.data.dataset import scan
from resnetkit.errors import DataError

ENDINGS = (".png", ".jpg")


def pack(path, root, compression=zipfile.ZIP_STORED, inside=""):
    """An archive of a folder's files."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", compression) as archive:
            for file in files:
                archive.write(file, os.path.join(inside, file.relative_to(root)))
    else:
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, os.path.join(inside, file.relative_to(root)))
    return path


def zipped(path, *entries):
    """A .zip of (name, content) or (ZipInfo, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


KINDS = [("a.zip", zipfile.ZIP_STORED), ("a.zip", zipfile.ZIP_DEFLATED), ("a.tar", 0)]


@pytest.mark.parametrize("inside", ["", "photos/", "./"])
@pytest.mark.parametrize(("name", "compression"), KINDS)
def test_an_archive_reads_as_its_folder(tmp_path, photos, name, compression, inside):
    (photos / "red" / "note.txt").write_text("x")
    folder = scan(photos, ENDINGS)
    archive = scan(pack(tmp_path / name, photos, compression, inside), ENDINGS)
    assert archive.classes == folder.classes and np.array_equal(archive.targets, folder.targets)
    assert [n.removeprefix("photos/") for n in archive.names] == list(
        folder.names
    ) and archive.ignored == folder.ignored
    for ours, theirs in zip(archive.files, folder.files, strict=True):
        with ours.open("rb") as file:
            assert file.read() == theirs.read_bytes()
    assert np.array_equal(archive.sizes(), folder.sizes())


def test_splits_and_system_files(tmp_path, photos):
    entries = [(f"data/{split}/{name}/1.png", b"x") for split in ("train", "val") for name in ("cat", "dog")]
    entries += [("__MACOSX/data/train/cat/._1.png", b"x"), ("data/train/cat/.DS_Store", b"x"), ("data/README", b"x")]
    dataset = scan(zipped(tmp_path / "a.zip", *entries), ENDINGS)
    assert dataset.given_splits == ("train", "val") and dataset.classes == ("cat", "dog") and len(dataset) == 4
    assert dict(dataset.ignored) == {"files outside class folders": 1, "hidden or system files": 2}


def test_one_class_in_an_archive_is_no_wrapper(tmp_path):
    dataset = scan(zipped(tmp_path / "a.zip", ("cat/1.png", b"x"), ("cat/2.png", b"x")), ENDINGS)
    assert dataset.classes == ("cat",)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def encrypted(path):
    zipped(path, ("a/1.png", b"x"))
    content = bytearray(path.read_bytes())
    for magic, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(magic) + at] |= 1
    path.write_bytes(content)


def compressed_otherwise(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.png", b"x")


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"a/{i}.png", bytes(150_000_000))


def overlapping(path):
    """Many names for the same deflated bytes (a "better zip bomb")."""
    zipped(path, ("a/0.png", b""))
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(bytes(3_000_000)) + packed.flush()
    header = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(body), 3_000_000, 7, 0) + b"a/0.png"
    entries = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, 0, len(body), 3_000_000, 7, 0, 0, 0, 0, 0, 0)
        + b"a/%d.png" % i
        for i in range(9)
    )
    start = len(header) + len(body)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, len(entries), start, 0)
    path.write_bytes(header + body + entries + end)


def tarred(path, **fields):
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a/1.png")
        for name, value in fields.items():
            setattr(info, name, value)
        archive.addfile(info, io.BytesIO(b""))


DANGEROUS = {
    "out of it": (lambda p: zipped(p, ("../../evil.png", b"x")), ".zip", "leads out of the archive"),
    "out of it, within": (lambda p: zipped(p, ("a/../../evil.png", b"x")), ".zip", "leads out of the archive"),
    "absolute": (lambda p: zipped(p, ("/etc/evil.png", b"x")), ".zip", "leads out of the archive"),
    "a drive": (lambda p: zipped(p, ("C:\\evil.png", b"x")), ".zip", "leads out of the archive"),
    "backslashes": (lambda p: zipped(p, ("a\\..\\..\\evil.png", b"x")), ".zip", "leads out of the archive"),
    "a link": (lambda p: zipped(p, (link("a/1.png"), b"/etc/passwd")), ".zip", "is a link"),
    "a name twice": (lambda p: zipped(p, ("a/1.png", b"x"), ("./a/1.png", b"y")), ".zip", "holds a/1.png twice"),
    "encrypted": (encrypted, ".zip", "is encrypted"),
    "another compression": (compressed_otherwise, ".zip", "compressed in a way that is not supported"),
    "a bomb": (bomb, ".zip", "announces more content than its size can hold"),
    "an overlapping bomb": (overlapping, ".zip", "announces more content than its size can hold"),
    "no archive": (lambda p: p.write_bytes(b"hello"), ".zip", "is not a .zip archive, or a damaged one"),
    "an empty file": (lambda p: p.touch(), ".tar", "is not a .tar archive, or a damaged one"),
    "no files": (lambda p: zipped(p), ".zip", "holds no class folders with images"),
    "tar out of it": (lambda p: tarred(p, name="../1.png"), ".tar", "leads out of the archive"),
    "tar link": (lambda p: tarred(p, type=tarfile.SYMTYPE, linkname="/etc/passwd"), ".tar", "is a link, a device"),
    "tar hard link": (lambda p: tarred(p, type=tarfile.LNKTYPE, linkname="b"), ".tar", "is a link, a device or sparse"),
    "tar device": (lambda p: tarred(p, type=tarfile.CHRTYPE), ".tar", "is a link, a device or sparse"),
    "tar pipe": (lambda p: tarred(p, type=tarfile.FIFOTYPE), ".tar", "is a link, a device or sparse"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", DANGEROUS)
def test_dangerous_archives_are_refused(tmp_path, name):
    """E10, in archives that users have: nothing is written, nothing is followed."""
    make, ending, message = DANGEROUS[name]
    path = tmp_path / f"a{ending}"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        scan(path, ENDINGS)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_damage_inside_is_found_when_it_is_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", os.urandom(100) * 50)
    member = next(iter(members(path).values()))
    content = bytearray(path.read_bytes())
    content[member.offset + 40] ^= 255
    path.write_bytes(content)
    with pytest.raises(OSError, match="in the archive"):
        member.open()
    with pytest.raises(OSError, match="cut short"):
        Member(path, "a/1.png", len(content) - 3, 10).open()
    assert str(member) == f"{path}/a/1.png" == os.fspath(member)


@pytest.mark.parametrize("damage", ["a header", "cut at a header", "cut in a header", "no end"])
def test_a_tar_that_ends_early_is_refused(tmp_path, photos, damage):
    """`tarfile` takes a damaged header for the end, and would lose the other members without a word."""
    path = pack(tmp_path / "a.tar", photos)
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        fourth, last = archive.getmembers()[3].offset, archive.getmembers()[-1]
    if damage == "a header":
        content[fourth + 5] ^= 255
    else:
        end = last.offset_data + -(-last.size // 512) * 512
        del content[{"cut at a header": fourth, "cut in a header": fourth + 100, "no end": end}[damage] :]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not a .tar archive, or a damaged one"):
        scan(path, ENDINGS)


def test_a_wrapper_may_hold_train_only(tmp_path):
    entries = [(f"photos/train/{name}/1.png", b"x") for name in ("cat", "dog")] + [("__MACOSX/x.png", b"x")]
    dataset = scan(zipped(tmp_path / "a.zip", *entries), ENDINGS)
    assert dataset.given_splits == ("train",) and dataset.classes == ("cat", "dog")
    assert dict(dataset.ignored) == {"hidden or system files": 1}


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.tgz", "photos.7z"])
def test_other_archives_say_what_to_do(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"cannot be read in place \(give a folder of class folders, a .zip or .tar"):
        scan(tmp_path / name, ENDINGS)


def test_train_and_eval_on_a_zip(tmp_path, run_cli):
    from conftest import tiny

    archive = pack(tmp_path / "photos.zip", write_classes(tmp_path / "photos"))
    code, _, err = run_cli("train", archive, *tiny("train.epochs=1"), "--json")
    assert code == 0, err
    code, out, err = run_cli("eval", "runs/photos", archive, "--split", "all", "--out", "scored")
    assert code == 0 and "n = 36" in out, err
    assert "data:image/jpeg;base64," in (tmp_path / "scored" / "report.html").read_text() or " 100.0 %" in out
