"""What the tests share: five small images, and settings that make an episode short."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import agents.run
import nbs_env.detect.detector
from nbs_env.autoencoder import Autoencoder
from nbs_env.common.networks import initialize
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.detector import CRF_CANDIDATES
from nbs_env.env import PatchSamplingEnv
from nbs_env.profiles import Weights

# Convolutions as small as these gain nothing from threads, here or in the commands that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def two_kernels() -> Iterator[None]:
    """Runs choose among two CRF kernels, not nine: trying all takes them longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nbs_env.detect.detector, "CRF_CANDIDATES", CRF_CANDIDATES[::8])
        yield


@pytest.fixture
def all_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nine: where their choice is tested, or other processes choose, in which nothing is patched."""
    monkeypatch.setattr(nbs_env.detect.detector, "CRF_CANDIDATES", CRF_CANDIDATES)


def known(
    name: str, images: np.ndarray, masks: np.ndarray, kinds: tuple[str, ...] | None = None
) -> AnomalyDataset:
    """Images that all have a mask, named 0, 1 and so on."""
    names = tuple(map(str, range(len(images))))
    return AnomalyDataset(name, images, masks, np.ones(len(images), bool), names, kinds or ("",) * len(names))


@pytest.fixture(scope="session")
def dataset() -> AnomalyDataset:
    """Five images 128x128 of noisy stripes, named 0 to 4, each but 3 with a rough spot of 30x30."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:128, :128]
    images, masks = [], []
    for number in range(5):
        angle = rng.uniform(0, np.pi)
        stripes = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) / 6)
        image = 120 + 60 * stripes[:, :, None] + rng.normal(0, 8, (128, 128, 3))
        mask = np.zeros((128, 128), bool)
        if number != 3:
            top, left = rng.integers(98, size=2)
            mask[top : top + 30, left : left + 30] = True
            image[mask] += rng.normal(0, 60, (900, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(mask)
    return known("tiny", np.stack(images), np.stack(masks), ("spot", "spot", "spot", "good", "spot"))


@pytest.fixture
def many(dataset: AnomalyDataset) -> AnomalyDataset:
    """Twelve images, each with a spot: four, turned."""
    keep = [0, 1, 2, 4]
    images, masks = (
        np.concatenate([np.rot90(part[keep], turn, (1, 2)) for turn in range(3)])
        for part in (dataset.images, dataset.masks)
    )
    return known("tiny", images, masks, ("spot",) * 12)


@pytest.fixture
def config() -> Config:
    """Every mechanism within a dozen updates: profiles of 3, re-initialisation after 5, warm-up of 2."""
    return Config(
        updates=20,
        image_size=128,
        episode_length=5,
        cloning_length=3,
        beta_horizon=16,
        warmup_updates=2,
        autoencoder_width=4,
        bottleneck_channels=8,
        minibatch_size=2,
        reinit_period=5,
        profile_length=3,
        buffer_updates=7,
        autoencoder_lr=1e-3,
        predictor_width=0.25,
        snapshot_cycles=2,
        precision="float32",
    )


@pytest.fixture
def env(dataset: AnomalyDataset, config: Config) -> PatchSamplingEnv:
    """These images, two of them labelled, under these settings."""
    return PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")


UPDATES = 12
GAME = {
    "agent": "reinforce",
    "updates": UPDATES,
    "episode-length": 4,
    "cloning-length": 4,
    "beta-horizon": UPDATES,
    "warmup-updates": 2,
    "autoencoder-width": 4,
    "bottleneck-channels": 4,
    "minibatch-size": 2,
    "reinit-period": 5,
    "profile-length": 3,
    "buffer-updates": 7,
    "predictor-crop": 64,
    "predictor-updates": 2,
    "predictor-width": 0.25,
    "snapshot-cycles": 2,
    "checkpoint-every": 3,
}
"""Options of the smallest game."""
TINY = {
    **GAME,
    "dataset": "folder",
    "labeled": "2",
    "device": "cpu",
    "image-size": 128,
    "segmenter-steps": 0,
    "segmenter-crop": 64,
    "segmenter-batch": 2,
    "memory-size": 0,
}
NO_GAME: dict[str, Any] = {name.replace("-", "_"): None for name in GAME}
"""Changes of `TINY` that leave the game out."""
ODD_SIZE = (150, 200)
"""(height, width) of image 2."""


def arguments(**changes: Any) -> list[str]:
    """The command line of `TINY` with changes; None leaves an option out, True makes it a flag."""
    options = TINY | {name.replace("_", "-"): value for name, value in changes.items()}
    words = []
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", *([] if value is True else str(value).split())]
    return words


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, dataset: AnomalyDataset) -> Path:
    """The five images of `dataset` as files; image 2 is larger, image 4 has no mask."""
    root = tmp_path_factory.mktemp("mine")
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for number, (image, mask) in enumerate(zip(dataset.images, dataset.masks, strict=True)):
        for kind, values in (("images", image), ("masks", mask * np.uint8(255))):
            picture = Image.fromarray(values)
            if number == 2:
                picture = picture.resize(ODD_SIZE[::-1])
            if (kind, number) != ("masks", 4):
                picture.save(root / kind / f"{number}.png")
    return root


fast_bfloat16 = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="emulated here: `auto` takes float32, and it is slow"
)
"""Marks what computes in bfloat16."""


SameBits = Callable[..., None]


@pytest.fixture(scope="session")
def same_bits() -> SameBits:
    """A function that fails where two nested structures of tensors, arrays and values differ in a bit."""

    def check(a: Any, b: Any, where: str = "") -> None:
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor | np.ndarray):
            assert a.dtype == b.dtype, where
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b), where)
        elif isinstance(a, Mapping):
            assert a.keys() == b.keys(), where
            for key in a:
                check(a[key], b[key], f"{where}[{key!r}]")
        elif isinstance(a, list | tuple):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                check(x, y, f"{where}[{i}]")
        else:
            assert a == b, where

    def to_numpy(value: torch.Tensor | np.ndarray) -> np.ndarray:
        if isinstance(value, np.ndarray):
            return value
        return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()

    return check


def moved(model: Any, act: Callable[[], object]) -> set[str]:
    """The networks of a model whose weights `act` changes."""
    before = {name: [p.clone() for p in network.parameters()] for name, network in model.networks.items()}
    act()
    return {
        name
        for name, network in model.networks.items()
        if not all(map(torch.equal, network.parameters(), before[name]))
    }


@pytest.fixture
def blobs() -> AnomalyDataset:
    """Twelve noisy grey images of 64 pixels, each with a darker disc of varying place."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    centres = rng.integers(12, 52, size=(12, 2))
    masks = np.stack([(y - a) ** 2 + (x - b) ** 2 < 64 for a, b in centres])
    grey = np.where(masks, 90, 150)[..., None] + rng.integers(-20, 20, size=(12, 64, 64, 3))
    return known("blobs", grey.astype(np.uint8), masks, ("disc",) * 12)


@pytest.fixture
def mine(folder: Path, tmp_path: Path) -> Path:
    """A copy of `folder` to spoil."""
    return shutil.copytree(folder, tmp_path / "mine")


Main = Callable[..., None]


@pytest.fixture
def main(folder: Path) -> Main:
    """The training command with the command line of `TINY` on `folder`, changes given as keywords."""

    def call(**changes: Any) -> None:
        agents.run.main(arguments(**{"data_root": folder} | changes))

    return call


@pytest.fixture(scope="session")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: 0 and 1 labelled, 2 and 3 scored, 4 without a mask."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    agents.run.main(arguments(data_root=folder, run_dir=directory, labeled="0 1", segmenter_steps=2))
    return directory


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that calls a command and gives back the one line that it fails with."""

    def call(main: Callable[..., None], *words: Any, **changes: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(*words, **changes)
        assert end.value.code == 2
        said = capsys.readouterr().err.splitlines()
        lines = [line for line in said if line and "update/s" not in line and not line.startswith("note: ")]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    return call


@pytest.fixture
def error(main: Main, fails: Callable[..., str]) -> Callable[..., str]:
    """Call `main`; the one line it fails with."""
    return partial(fails, main)


@pytest.fixture
def taught() -> DetectorConfig:
    """The smallest segmenter."""
    return DetectorConfig(
        image_size=128,
        segmenter_steps=3,
        segmenter_folds=2,
        segmenter_crop=64,
        segmenter_batch=2,
        precision="float32",
    )


def spot(height: int = 128, width: int = 128) -> np.ndarray:
    """A mask to paint."""
    mask = np.zeros((height, width), bool)
    mask[10:21, 30:47] = True
    return mask


def stored(path: Path) -> np.ndarray:
    """The levels of a mask file."""
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        return np.asarray(picture)


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def python(code: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Run `code` in a process of its own."""
    pipe, line = subprocess.PIPE, [sys.executable, "-c", code, *words]
    return subprocess.Popen(
        line, env=os.environ | environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def untrained_rings() -> list[list[Weights]]:
    """Two snapshots of three small autoencoders each, as drawn."""
    generator = torch.Generator().manual_seed(0)
    autoencoders = [[Autoencoder(8, 4) for _ in range(3)] for _ in range(2)]
    for ring in autoencoders:
        for autoencoder in ring:
            initialize(autoencoder, generator)
    return [[autoencoder.state_dict() for autoencoder in ring] for ring in autoencoders]


def raw_png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    """A PNG file, also one that Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.fixture
def noise_classes(tmp_path: Path) -> Path:
    """A folder `data` with three classes, a to c, of ten pictures of noise each."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            picture = Image.fromarray(rng.integers(256, size=(20, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"
