"""Image sets: what is drawn, what is read, and files that are refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from groundup.config import UserError
from groundup.data.images import SHAPES, load_images, read_idx, shapes


def idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim))
    return header + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def test_shapes_are_the_same_every_time_and_of_all_classes():
    first, second = shapes(200, 7), shapes(200, 7)
    assert np.array_equal(first.pixels, second.pixels)
    assert set(first.labels.tolist()) == set(range(len(SHAPES))) and first.names == SHAPES
    other = shapes(200, 8)
    assert not np.array_equal(first.pixels, other.pixels)
    normal = first.normalized()
    assert normal.shape == (200, 1, 16, 16) and normal.dtype == np.float32
    assert -1 <= normal.min() < normal.max() <= 1


def test_digits_are_split_without_overlap():
    pytest.importorskip("sklearn")
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert len(train) + len(test) == 1797 and len(test) == 299
    assert train.pixels.shape[1:] == (8, 8) and train.pixels.max() == 255


def test_a_folder_of_idx_files_is_read(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (5, 7, 6), dtype=np.uint8)
    labels = np.array([2, 0, 1, 2, 1], np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(pixels))
    with gzip.open(tmp_path / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(idx(labels))
    found = load_images(str(tmp_path), "test")
    assert np.array_equal(found.pixels, pixels) and found.labels.tolist() == labels.tolist()
    assert found.names == ("0", "1", "2")
    with pytest.raises(UserError, match="holds neither train-images"):
        load_images(str(tmp_path), "train")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:4]))
    with pytest.raises(UserError, match="5 images but 4 labels"):
        load_images(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "begins with nothing"),
        (b"PK\x03\x04 and so on", "not an IDX file"),
        (idx(np.zeros((3, 2, 2), np.uint8))[:-1], "cut off: its header says 3 × 2 × 2"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "4294967295 × 4294967295"),
    ],
)
def test_damaged_files_are_refused(tmp_path, data, complaint):
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(UserError, match=complaint):
        read_idx(path, dimensions=3)


def test_a_cut_off_archive_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((3, 2, 2), np.uint8)))[:-12])
    with pytest.raises(UserError, match="damaged or cut off"):
        read_idx(path, dimensions=3)


def test_a_missing_set_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        load_images(str(tmp_path / "nothing"), "train")
