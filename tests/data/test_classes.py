"""Readers of classes: CIFAR-10 in its three forms, Plant Village, and MVTec AD as good and defective."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import save

from baselines.tasks import home, read_classes
from nbs_env.data import GOOD, DataError, cifar10
from nbs_env.data.classes import read_cifar10, read_mvtec, read_plant_village


@pytest.fixture
def planes() -> tuple[np.ndarray, np.ndarray]:
    """Six batches of two records: channels first as the original files have them, and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(6, 2, 3, 32, 32), dtype=np.uint8), rng.integers(10, size=(6, 2))


def write_binary(root: Path, planes: tuple[np.ndarray, np.ndarray]) -> None:
    for name, data, labels in zip(cifar10.BATCHES, *planes, strict=True):
        records = np.concatenate([labels[:, None].astype(np.uint8), data.reshape(2, -1)], axis=1)
        records.tofile(root / f"{name}.bin")


def write_python(root: Path, planes: tuple[np.ndarray, np.ndarray]) -> None:
    for name, data, labels in zip(cifar10.BATCHES, *planes, strict=True):
        batch = {b"data": data.reshape(2, -1), b"labels": labels.tolist()}
        (root / name).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_original_cifar10(write: object, planes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path, planes)
    images, labels = cifar10.read(tmp_path)
    np.testing.assert_array_equal(images, planes[0].reshape(12, 3, 32, 32).transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(labels, planes[1].ravel())


@pytest.mark.parametrize("inside", ["", "cifar10", "cifar-10-batches-py"])
def test_a_data_set_is_found_in_the_folder_that_holds_it(
    inside: str, planes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    write_python(tmp_path / inside, planes)
    np.testing.assert_array_equal(read_classes("cifar10", tmp_path, 32, 3).labels, planes[1].ravel())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvisions_folder_is_looked_for_first(name: str, folder: str, tmp_path: Path) -> None:
    """Where case does not matter, its MNIST is a folder of the name mnist."""
    (tmp_path / name).mkdir()
    assert home(name, tmp_path) == tmp_path / name
    (tmp_path / folder / "raw").mkdir(parents=True, exist_ok=True)
    assert home(name, tmp_path) == tmp_path / folder / "raw"


def test_a_pickle_with_code_is_refused(planes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "touched",)  # type: ignore[return-value]

    write_python(tmp_path, planes)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(DataError, match="test_batch: not a readable batch of CIFAR-10"):
        cifar10.read(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_cifar10_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number, name in enumerate(["test/cat/0.png", "train/truck/0.png", "train/cat/1.png"]):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 0, 0)).save(file, "png")
            archive.writestr(name, file.getvalue())
    data = read_cifar10(tmp_path, 28, 3)
    assert data.images.shape == (3, 3, 28, 28)
    assert [data.names[label] for label in data.labels] == ["cat", "truck", "cat"]
    assert data.images[:, 0, 0, 0].tolist() == [2, 1, 0]  # train/ before test/


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"no zip", "not a readable zip of images"),
        ("data_batch_1.bin", b"12345", "missing or truncated"),
        ("data_batch_1", b"12345", "not a readable batch"),
        ("other", b"", "holds no CIFAR-10; expected data_batch_1..5"),
    ],
)
def test_what_is_no_cifar10(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        cifar10.read(tmp_path)


def picture(file: Path, shade: int, size: int = 70) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shade, shade, shade)).save(file)


def test_plant_village_by_species(tmp_path: Path) -> None:
    for number, folder in enumerate(["Apple___Apple_scab", "Apple___healthy", "Corn___healthy", "Fig___rot"]):
        picture(tmp_path / folder / "leaf.jpg", 10 * number)
    found = read_plant_village(tmp_path, 32, 1)
    assert list(found) == ["Apple"]  # the others have no healthy or no diseased leaves
    assert found["Apple"].names == ("Apple_scab", GOOD)
    assert found["Apple"].images.shape == (2, 1, 32, 32)
    with pytest.raises(DataError, match="holds no Plant Village"):
        read_plant_village(tmp_path / "Apple___healthy", 32, 1)


def test_mvtec_as_good_and_defective(tmp_path: Path) -> None:
    for shade, folder in ((10, "train/good"), (20, "test/good"), (30, "test/bent")):
        picture(tmp_path / "bolt" / folder / "0.png", shade)
    save(tmp_path / "bolt" / "ground_truth" / "bent" / "0_mask.png", np.eye(70, dtype=bool))
    data = read_mvtec(tmp_path, 64, 3)["bolt"]
    assert data.names == (GOOD, "bent")
    shades = data.images[:, 0, 0, 0].tolist()
    assert dict(zip(shades, data.labels.tolist(), strict=True)) == {10: 0, 20: 0, 30: 1}
    with pytest.raises(DataError, match="holds no categories of MVTec AD"):
        read_mvtec(tmp_path / "bolt", 64, 3)
