"""What detectors see in the images, and which image to show next; looked at in the background."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from nbs_env.common.errors import CheckpointError, DataError
from nbs_env.data.images import resize_image
from nbs_env.desk import queries
from nbs_env.desk.label.folder import Folder, Outside
from nbs_env.desk.label.training import Training

if TYPE_CHECKING:
    from nbs_env.detect.detector import Detector, Judgement

FEATURES = 304
"""Numbers that `describe` gives."""
SIDE = 256
"""Side in pixels at which images are described."""
KEPT = 64
"""Judgements in memory."""


class Looking:
    """Looks at all images, in random order, with the encoder and with the detectors of the last two rounds.

    It rests while a round is under way.

    Args:
        folder: the images.
        training: where the detectors come from.
    """

    def __init__(self, folder: Folder, training: Training) -> None:
        self.folder, self.training = folder, training
        n = len(folder.files)
        self.features, self.described = np.zeros((n, FEATURES), np.float32), np.zeros(n, bool)
        self.unsure, self.judged = np.zeros(n), np.zeros(n, int)  # the round that judged last
        self.called: dict[int, dict[int, bool]] = {}  # round, image: bad?
        self.broken: set[int] = set()
        self.begin, self._stop = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._detectors: dict[int, Detector] = {}
        self._judgements: OrderedDict[tuple[int, int], Judgement] = OrderedDict()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Begin as soon as `begin` is set: the first image is not to wait for PyTorch."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the image that is being looked at."""
        self._stop.set()
        self.begin.set()
        self._thread.join(30)

    def next(self, passed: set[int], count: int) -> list[int]:
        """The images to show next.

        Before there is a detector, those whose features are farthest from what was labelled or passed; then,
        among such diverse ones, those that it is least sure of or that the last two disagree on most. Images
        that were not looked at yet follow in the order of their names.

        Args:
            passed: images that were shown and not labelled.
            count: how many.
        """
        out = {self.folder.numbers[stem] for stem in self.folder.masks()} | passed | self.broken
        gone = np.isin(np.arange(len(self.features)), sorted(out))
        known, latest = self.described.copy(), self._rounds()[-1:]
        judged = known & (self.judged == latest[0]) if latest else np.zeros_like(known)
        choose = bool((judged & ~gone).any())
        pool = np.flatnonzero(known & (gone | judged) if choose else known)
        seen = np.flatnonzero(gone[pool])
        if choose:
            found = queries.uncertain_among_diverse(self.features[pool], self.unsure[pool], seen, count)
        else:
            found = queries.farthest(self.features[pool], seen, count)
        best = pool[found].tolist()
        rest = [i for i in np.flatnonzero(~gone).tolist() if i not in best]
        return best + rest[: count - len(best)]

    def changes(self) -> list[dict[str, Any]]:
        """The images that the last two rounds judge differently, newly bad ones first."""
        rounds = self._rounds()
        if len(rounds) < 2:
            return []
        before, after = (self.called.get(number, {}).copy() for number in rounds)
        flipped = [i for i in sorted(after) if i in before and before[i] != after[i]]
        return [{"image": i, "bad": after[i]} for i in sorted(flipped, key=lambda i: not after[i])]

    def state(self) -> dict[str, int]:
        """How many images were described, judged by the latest round, and called bad by it."""
        latest = (self._rounds() or [-1])[-1]
        called = self.called.get(latest, {}).copy()
        described = int(self.described.sum())
        return {"described": described, "judged": len(called), "bad": sum(called.values())}

    def judgement(self, image: int, number: int) -> Judgement:
        """What the detector of a round says of an image, at its own working size: arrays of one.

        Raises:
            CheckpointError: there is no such round.
            DataError: the image cannot be read.
            Outside: it leads out of the folder.
        """
        if (image, number) not in self._judgements:
            self._judge(image, self.folder.pixels(image), number)
        return self._judgements[image, number]

    def _judge(self, image: int, rgb: np.ndarray, number: int) -> Judgement:
        detector = self._detector(number)
        found = detector.look([rgb], detector.methods[0])
        with self._lock:
            self._judgements[image, number] = found
            while len(self._judgements) > KEPT:
                self._judgements.popitem(last=False)
        self.called.setdefault(number, {})[image] = bool(found.bad[0])
        return found

    def _detector(self, number: int) -> Detector:
        from nbs_env.common.networks import pick_device
        from nbs_env.detect.detector import Detector

        with self._lock:
            if number not in self._detectors:
                self._detectors[number] = Detector.load(self.training.detector(number), pick_device("auto"))
                for old in sorted(self._detectors)[:-2]:
                    del self._detectors[old]
            return self._detectors[number]

    def _rounds(self) -> list[int]:
        """The last two."""
        return [each["round"] for each in self.training.rounds()][-2:]

    def _look(self) -> None:
        self.begin.wait()
        for stem in self.folder.masks():
            if self._stop.is_set():
                return
            with suppress(DataError, Outside):  # which the page says where it shows the image
                self.folder.read(self.folder.numbers[stem])
        order = np.random.default_rng(0).permutation(len(self.features)).tolist()
        while not self._stop.is_set():
            rounds = self._rounds()
            latest = rounds[-1] if rounds else 0
            for image in order:
                if self._stop.is_set() or self.training.running or self._rounds() != rounds:
                    break
                if image not in self.broken and not (self.described[image] and self.judged[image] == latest):
                    try:
                        self._look_at(image, rounds)
                    except (DataError, Outside):
                        self.broken.add(image)
                    except CheckpointError:
                        break  # which the page says where it shows a prediction
            self._stop.wait(0.5)

    def _look_at(self, image: int, rounds: list[int]) -> None:
        import torch

        from nbs_env.features.encoder import Encoder, describe, pretrained

        if not hasattr(self, "_encoder"):
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # the page comes first
            self._encoder = Encoder()
            self._encoder.load_state_dict(pretrained())
        rgb = self.folder.pixels(image)
        if not self.described[image]:
            self.features[image] = describe(self._encoder, resize_image(rgb, SIDE)[None])[0]
            self.described[image] = True
        found = [self._judge(image, rgb, number) for number in rounds]
        if not found:
            return
        maps = [each.probabilities for each in found]
        # Near 0 and 1 a detector may be sure and wrong: what the last two disagree on counts as well.
        detector = self._detector(rounds[-1])
        unsure = queries.uncertainty(maps[-1], detector.threshold_of(detector.methods[0]))[0]
        changed = queries.disagreement(maps[0], maps[-1])[0] if maps[0].shape == maps[-1].shape else 0.0
        self.unsure[image], self.judged[image] = max(unsure, changed), rounds[-1]
