"""TensorBoard's event files, written where they are called from."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from nbs_env.common.checkpoint import unwritable

_count = itertools.count()


class Curves:
    """Figures and pictures by step, for `tensorboard --logdir`.

    PyTorch's own writer writes in a thread, which on a full disc dies with a traceback.

    Args:
        directory: where the event file goes.
        purge_step: what earlier files there have from this step on is void; None: nothing.

    Raises:
        WriteError: here and in all methods, where the file cannot be written.
    """

    def __init__(self, directory: Path, purge_step: int | None = None) -> None:
        name = f"{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        self.path = directory / f"events.out.tfevents.{name}"
        self._file = self.path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        self._write(Event(step=step, summary=summary.scalar(name, value)))

    def add_image(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, uint8 (H, W) or (H, W, 3)."""
        shape = "HW" if picture.ndim == 2 else "HWC"
        self._write(Event(step=step, summary=summary.image(name, picture, dataformats=shape)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._file.close()
        except OSError as failed:
            if error is None:
                raise unwritable(self.path, failed) from failed
