"""Files that an attacker has made, or that are not what they should be, for every command that loads one."""

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
from .small import COMMANDS, Row, complete, furnished

MARKER = "executed"


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def _torch(value: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **more)
    return file.getvalue()


def _state(bomb: Bomb) -> dict[str, Any]:
    """A detector and a checkpoint in one, but for the rings and the learner."""
    return {
        "kind": "nbs_env.Detector", "rings": [[bomb]], "settings": bomb, "learner": bomb, "images": ""
    }  # fmt: skip


def _tar(bomb: Bomb) -> bytes:
    """The oldest form of `torch.save`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            entry, data = tarfile.TarInfo(name), pickle.dumps(bomb)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _zip(bomb: Bomb, *names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, pickle.dumps(bomb))
    return file.getvalue()


FUNCTION = {"agent": "os:system", "config": {}, "options": {}}
PAYLOADS: dict[str, Callable[[Bomb], bytes]] = {
    "pickle": pickle.dumps,
    "pickle, protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "torch.save": _torch,
    "torch.save within a state": lambda bomb: _torch(_state(bomb)),
    "torch.save before 1.6": lambda bomb: _torch(bomb, _use_new_zipfile_serialization=False),
    "tar": _tar,
    "zip": lambda bomb: _zip(bomb, "archive/data.pkl", "archive/version"),
    "zip without a folder": lambda bomb: _zip(bomb, "data.pkl"),
    "TorchScript": lambda bomb: _zip(bomb, "archive/data.pkl", "archive/constants.pkl", "archive/version"),
    "JSON that names a function": lambda bomb: json.dumps(
        {"run": {"data_root": None, "labeled": ["1"]}, "detector": {}, "game": FUNCTION}
    ).encode(),
    "JSON a hundred thousand deep": lambda bomb: b"[" * 100_000,
    "of no bytes": lambda bomb: b"",
    "text": lambda bomb: b"hello",
    "a list": lambda bomb: _torch([1]),
    "a tensor": lambda bomb: _torch(torch.zeros(3)),
    "not UTF-8": lambda bomb: b'{"run": "\xff"}',
}
"""The first eleven are an attacker's."""
TARGETS = {
    "train": "run/checkpoint.pt run/config.json run/teaching.pt",
    "d_anogan": "run/checkpoint.pt",
    "alcn": "run/alcn/a/checkpoint.pt",
    "predict": "done/detector.pt",
    "nbs": "done/nbs.pt",
    "cifar10": "cifar10/data_batch_1",
}
"""Command, and the files that are replaced where it begins or goes on."""


def attacker(place: Path, model: Path) -> Iterator[Row]:
    """Hand every payload to every command that loads a file."""
    tried, broken = 0, []
    for name, files in TARGETS.items():
        each = COMMANDS[name]
        source = furnished(place / name, model)
        if files.startswith("run/"):
            complete(each, source)
        for file in files.split():
            for title, payload in PAYLOADS.items():
                folder = furnished(place / f"{name}-{tried}", source)
                marker = folder / MARKER
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_bytes(payload(Bomb(str(marker))))
                outcome = command(each.module, each.resume or each.start, folder)
                named = "os:system" if "function" in title and file.endswith("json") else Path(file).name
                wrong = "IT WAS EXECUTED" if marker.exists() else outcome.complaint(named)
                broken += [f"{each.title}, {file} is {title}: {wrong}"] if wrong else []
                tried += 1
    yield Row("attacker", "nothing in a file is executed; one error line that names it", tried, broken)
