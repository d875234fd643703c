"""Files that an attacker has made, for every command that loads one: nothing in them is executed."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .forks import command
from .small import COMMANDS, Row, furnished

MARKER = "executed"


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def _torch(bomb: Bomb, **more: Any) -> bytes:
    file = io.BytesIO()
    torch.save(bomb, file, **more)
    return file.getvalue()


def _inside(bomb: Bomb) -> bytes:
    """A detector and a checkpoint in one, but for the rings and the learner."""
    file = io.BytesIO()
    state = {"kind": "nbs_env.Detector", "rings": [[bomb]], "settings": bomb, "learner": bomb, "images": ""}
    torch.save(state, file)
    return file.getvalue()


def _tar(bomb: Bomb) -> bytes:
    """The oldest form of `torch.save`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            entry, data = tarfile.TarInfo(name), pickle.dumps(bomb)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _zip(*names: str) -> Callable[[Bomb], bytes]:
    def make(bomb: Bomb) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, pickle.dumps(bomb))
        return file.getvalue()

    return make


PAYLOADS: dict[str, Callable[[Bomb], bytes]] = {
    "pickle": pickle.dumps,
    "pickle, protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "torch.save": _torch,
    "torch.save within a state": _inside,
    "torch.save before 1.6": lambda bomb: _torch(bomb, _use_new_zipfile_serialization=False),
    "tar": _tar,
    "zip": _zip("archive/data.pkl", "archive/version"),
    "zip without a folder": _zip("data.pkl"),
    "TorchScript": _zip("archive/data.pkl", "archive/constants.pkl", "archive/version"),
    "JSON that names a function": lambda bomb: json.dumps(
        {"run": {"agent": "os:system", "data_root": None, "labeled": ["1"]}, "config": {}, "agent": {}}
    ).encode(),
    "JSON a hundred thousand deep": lambda bomb: b"[" * 100_000,
}
TARGETS = (
    ("train", "run/checkpoint.pt"),
    ("train", "run/config.json"),
    ("train", "run/teaching.pt"),
    ("d_anogan", "run/checkpoint.pt"),
    ("alcn", "run/alcn/a/checkpoint.pt"),
    ("predict", "done/detector.pt"),
    ("nbs", "done/nbs.pt"),
    ("cifar10", "cifar10/data_batch_1"),
)
"""Command, and the file that is replaced where it begins or goes on."""


def attacker(place: Path, model: Path) -> Iterator[Row]:
    """Hand every payload to every command that loads a file."""
    tried, broken = 0, []
    for name, file in TARGETS:
        each = COMMANDS[name]
        source = furnished(place / f"{name}-{Path(file).stem}", model)
        if file.startswith("run/"):
            outcome = command(each.module, *each.start.split(), cwd=source)
            assert outcome.code == 0, outcome.err
        (source / file).parent.mkdir(exist_ok=True)
        for number, (title, payload) in enumerate(PAYLOADS.items()):
            folder = furnished(place / f"{name}-{Path(file).stem}-{number}", source)
            marker = folder / MARKER
            (folder / file).write_bytes(payload(Bomb(str(marker))))
            outcome = command(each.module, *(each.resume or each.start).split(), cwd=folder)
            named = "os:system" if "function" in title and file.endswith("json") else Path(file).name
            wrong = "IT WAS EXECUTED" if marker.exists() else outcome.complaint(named)
            broken += [f"{each.title}, {file} is {title}: {wrong}"] if wrong else []
            tried += 1
    yield Row("attacker", "nothing in a file is executed; one error line that names it", tried, broken)
