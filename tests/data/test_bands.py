"""Images of any number of channels: .npy files, bands and pages."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.image import Preprocess, decode, mean_and_std, normalise, pixels, stored_size, thumbnail
from resnetkit.errors import DataError, UsageError
from resnetkit.tasks.task import IMAGE

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 6)).astype(np.uint8)


def preprocess(channels, **more):
    mean, std = mean_and_std(channels)
    return Preprocess(size=16, mean=mean, std=std, **more)


def npy(array, **how):
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def pages(array):
    buffer = io.BytesIO()
    first, *rest = (Image.fromarray(np.ascontiguousarray(array[:, :, c])) for c in range(array.shape[2]))
    first.save(buffer, "TIFF", save_all=True, append_images=rest)
    return buffer.getvalue()


@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("channels", [2, 4, 5, 6, 16])
def test_each_channel_is_prepared_as_a_grey_image(channels, resize):
    array = np.random.default_rng(channels).integers(0, 256, (24, 20, channels)).astype(np.uint8)
    whole, alone = preprocess(channels, resize=resize), preprocess(1, resize=resize)
    found = pixels(decode(npy(array), whole), whole)
    expected = [pixels(decode(npy(array[:, :, c]), alone), alone)[:, :, 0] for c in range(channels)]
    np.testing.assert_array_equal(found, np.stack(expected, 2))
    assert normalise(found[None], whole).shape == (1, channels, 16, 16)


def test_files_arrays_and_pages_go_one_way(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(NOISE))
    (tmp_path / "named.png").write_bytes(npy(np.asfortranarray(NOISE)))
    sources = [tmp_path / "a.npy", tmp_path / "named.png", npy(NOISE), NOISE, pages(NOISE)]
    six = preprocess(6)
    found = {IMAGE.preprocess(IMAGE.read(source, six), six).tobytes() for source in sources}
    assert len(found) == 1
    assert stored_size(tmp_path / "a.npy") == (20, 24)


def test_grey_and_rgb_arrays_are_as_images(tmp_path):
    for channels, array in ((3, NOISE[:, :, :3]), (1, NOISE[:, :, 0]), (1, NOISE[:, :, :1]), (3, NOISE[:, :, 0])):
        buffer = io.BytesIO()
        Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array).save(buffer, "PNG")
        one, other = (decode(source, preprocess(channels)) for source in (npy(array), buffer.getvalue()))
        assert one.mode == other.mode and one.tobytes() == other.tobytes()


def test_four_bands_are_four_channels_where_four_are_asked_for():
    buffer = io.BytesIO()
    Image.fromarray(NOISE[:, :, :4], "RGBA").save(buffer, "TIFF")
    four = preprocess(4)
    np.testing.assert_array_equal(
        pixels(decode(buffer.getvalue(), four), four), pixels(decode(npy(NOISE[:, :, :4]), four), four)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(NOISE[:, :, :5]), "has 5 channels, not the 6 of the network .train with --set image.channels=5"),
        (npy(NOISE[:, :, 0]), "has 1 channels, not the 6"),
        (pages(NOISE[:, :, :5]), "has 1 channels, not the 6"),
        (npy(NOISE.astype(np.float32)), "holds float32 .24, 20, 6., not uint8"),
        (npy(np.zeros((4, 4, 17), np.uint8)), "up to 16 channels"),
        (npy(np.zeros((0, 4, 6), np.uint8)), "not uint8"),
        (npy(np.zeros((2, 3000, 6), np.uint8)), "times as long as wide"),
        (npy(NOISE)[:-1], "is cut short"),
        (npy(NOISE)[:40], "cannot be read"),
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "holds object"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "cannot be read: a .npy of version"),
    ],
)
def test_refused(content, message):
    with pytest.raises(DataError, match=message) as caught:
        decode(content, preprocess(6))
    assert str(caught.value).startswith("<bytes>: ") and "\n" not in str(caught.value)


def test_a_header_that_announces_a_terabyte():
    for shape in ((1_000_000, 1_000_000), (8_000, 8_000, 16)):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with pytest.raises(DataError, match="is over|holds over"):
            decode(header.getvalue(), preprocess(6))


def test_a_pickle_is_never_opened(monkeypatch):
    monkeypatch.setattr(pickle, "load", lambda *given, **more: pytest.fail("unpickled"))
    with pytest.raises(DataError):
        decode(npy(np.array([print], object), allow_pickle=True), preprocess(3))


def test_arrays_in_memory():
    with pytest.raises(UsageError, match=r"give uint8 \[H, W, 6\]"):
        IMAGE.read(NOISE[:, :, :3], preprocess(6))


def test_a_thumbnail_shows_the_first_three_channels():
    for array in (NOISE, NOISE[:, :, :2], NOISE[:, :, 0]):
        with Image.open(io.BytesIO(thumbnail(npy(array)))) as image:
            assert image.format == "JPEG" and image.mode == "RGB"
