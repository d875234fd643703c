"""The rounds of training: each is a run without a game in `runs/NUMBER` of the folder, its log beside it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbs_env.common.errors import RunError
from nbs_env.common.options import parse_first
from nbs_env.common.runs import held
from nbs_env.data.dataset import some
from nbs_env.data.images import resize_mask
from nbs_env.desk.label.folder import Folder
from nbs_env.detect.config import DetectorConfig

COMMAND = (sys.executable, "-m", "nbs_env.desk.run")
"""What a round runs: with the preset `quick`, a minute or two."""
LEAST_GOOD = 2
"""Good images from which on a round needs no defect: what is usual is how far one lies from the others."""
TAIL = 6000
"""Bytes of a log that are shown."""
PROGRESS = re.compile(r"(?:(\w+): +)?(\d+)%\|.*\| *\d+/\d+ \[[\d:]+<([\d:?]+)")


class Training:
    """One round after the other, in a process of its own.

    Args:
        folder: what to learn from.
        words: options of `nbs train`.
    """

    def __init__(self, folder: Folder, words: list[str]) -> None:
        self.folder, self.words = folder, words
        self.home = folder.home / "runs"
        self.image_size = parse_first(DetectorConfig, words).image_size
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._rounds: dict[int, dict[str, Any]] = {}

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that were finished: `round`, `labelled`, and `f1` on images left out (or None)."""
        for number in self._numbers():
            if number not in self._rounds:
                with suppress(OSError, ValueError, LookupError, TypeError):  # it is not finished
                    text = self._place(number).joinpath("metrics.json").read_text(encoding="utf-8")
                    metrics = json.loads(text)
                    labelled, f1 = len(metrics["labeled"]), metrics["f1_left_out"]
                    self._rounds[number] = {"round": number, "labelled": labelled, "f1": f1}
        return [self._rounds[number] for number in sorted(self._rounds)]

    def detector(self, number: int) -> Path:
        """The detector of a round."""
        return self._place(number) / "detector.pt"

    @property
    def own(self) -> bool:
        """Whether a round is under way that this page began."""
        return self.process is not None and self.process.poll() is None

    @property
    def running(self) -> bool:
        """Whether a round is under way, perhaps one that outlived the page that began it."""
        numbers = self._numbers()
        return self.own or (bool(numbers) and held(self._place(numbers[-1])))

    def state(self) -> dict[str, Any]:
        """What the page shows of the latest round."""
        numbers = self._numbers()
        if not numbers:
            return {"round": 0, "running": False}
        last = numbers[-1]
        done = any(each["round"] == last for each in self.rounds())
        log = self._tail(last)
        found = [match for line in log if (match := PROGRESS.match(line))]
        what, share, left = found[-1].groups() if found else ("", 0, "")
        return {
            "round": last,
            "running": (running := self.running),
            "own": self.own,
            "done": done,
            "resumable": not running and not done and self._resumable(last),
            "what": what or "training",
            "share": int(share) / 100,
            "left": left,
            "log": [line for line in log if not PROGRESS.match(line)],
        }

    def start(self) -> None:
        """Begin a round with all masks that are there, and with the good images beside them.

        Raises:
            RunError: one is under way, or there is nothing to learn from.
            DataError: a mask cannot be read.
        """
        with self._lock:
            self._refuse_second()
            good, bad, thin = self._labelled()
            if not bad and (thin or self.folder.good + len(good) < LEAST_GOOD):
                why = f"mark a defect in one image first, or {LEAST_GOOD} images as good"
                if thin:
                    why = f"the defects in {some(thin)} are too thin for {self.image_size} pixels; start the "
                    why += f"page with --image-size {2 * self.image_size}"
                raise RunError(f"there is nothing to learn from: {why}")
            # A single name could be taken for a number of images.
            names = sorted(good + bad)
            labelled = names if len(names) > 1 else [str(len(names))]
            data = ["--dataset", "folder", "--data-root", str(self.folder.home)]
            self._run(max(self._numbers(), default=0) + 1, [*self.words, *data, "--labeled", *labelled])

    def resume(self) -> None:
        """Go on with the latest round.

        Raises:
            RunError: there is none to go on with.
        """
        with self._lock:
            self._refuse_second()
            numbers = self._numbers()
            if not numbers or not self._resumable(numbers[-1]):
                raise RunError("there is no round to go on with; train")
            self._run(numbers[-1], ["--resume"])

    def cancel(self) -> None:
        """Interrupt the round that is under way, as Ctrl-C does."""
        if self.process is not None and self.own:
            self.process.send_signal(signal.SIGINT) if sys.platform != "win32" else self.process.terminate()

    def close(self) -> None:
        """Interrupt what runs, and wait for its end."""
        self.cancel()
        if self.process is not None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _refuse_second(self) -> None:
        if self.running:
            raise RunError("a round is under way; wait for it, or cancel it")

    def _labelled(self) -> tuple[list[str], list[str], list[str]]:
        """The good images, those with a defect, and those whose defects would vanish."""
        good: list[str] = []
        thin: list[str] = []
        bad: list[str] = []
        for stem in sorted(self.folder.masks()):
            mask, _ = self.folder.read(self.folder.numbers[stem])
            if mask is not None:
                lasts = resize_mask(mask, self.image_size).any()
                (bad if lasts else thin if mask.any() else good).append(stem)
        return good, bad, thin

    def _run(self, number: int, words: list[str]) -> None:
        place = self._place(number)
        log = place.with_suffix(".log")
        self.home.mkdir(exist_ok=True)
        for path in (self.home, place, log):
            self.folder.inside(path)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*COMMAND, "--run-dir", str(place), *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def _resumable(self, number: int) -> bool:
        """Whether the round was begun, and no mask has changed since."""
        config = self._place(number) / "config.json"
        if not config.is_file() or any(each["round"] == number for each in self.rounds()):
            return False
        return all(p.stat().st_mtime <= config.stat().st_mtime for p in self.folder.masks().values())

    def _numbers(self) -> list[int]:
        """All rounds that were begun, whatever became of them."""
        names = {path.stem for path in self.home.iterdir()} if self.home.is_dir() else set()
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def _place(self, number: int) -> Path:
        return self.home / f"{number:03d}"

    def _tail(self, number: int) -> list[str]:
        """The last lines of a round's log, each progress bar as it was last drawn."""
        try:
            with self._place(number).with_suffix(".log").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        lines = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
        return [line for line in lines if line]
