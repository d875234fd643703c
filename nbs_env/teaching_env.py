"""The same game with another learner: patches of unlabelled images, with soft targets, teach a segmenter."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nbs_env import rewards
from nbs_env.config import PRESETS, Config, ConfigError
from nbs_env.data import AnomalyDataset
from nbs_env.detect.segmenter import Segmenter, segment_images
from nbs_env.detect.teaching import Teacher, folds
from nbs_env.detect.views import Views
from nbs_env.env import PatchSamplingEnv
from nbs_env.networks import compute_dtype, load_state
from nbs_env.profiles import Weights
from nbs_env.rewards import Outcome, Update
from nbs_env.twin import random_patches
from nbs_env.vector import PatchSamplingVectorEnv

TEACHING = replace(
    PRESETS["micro"],
    training_images="unlabeled",
    cloning_length=0,
    beta_horizon=1,
    updates=600,
    episode_length=8,
    reinit_period=150,
    segmenter_steps=150,
    segmenter_folds=2,
    segmenter_crop=64,
)
"""Settings at which an episode is one step of the segmenter."""
_LEAST = 1e-4
"""No target is surer than this: where the window shows 0, there is no image."""


@dataclass(frozen=True)
class TeachingUpdate(Update):
    """What one call of `TeachingLearner.update` did.

    Attributes:
        teaching_loss: mean loss of the steps, each before it was taken.
        prediction_loss: weighted cross-entropy of the labelled images left out, afterwards.
    """

    teaching_loss: float
    prediction_loss: float


class TeachingLearner:
    """A segmenter in its second round: an `InternalLearner`.

    In the first round one is taught by some of the labelled images; what it says of the unlabelled ones are
    the soft targets. In the second, cycle after cycle, another begins from the pre-trained weights; each of
    its steps has labelled crops and, beside them, `segmenter_batch` patches with their targets. Wrong targets
    hurt, and right ones teach: which patches, is the agent's to say. The labelled images that neither round
    learns from say what came of it.

    Args:
        dataset: images and masks; the labelled ones' masks alone are read.
        labeled: indices of the labelled images.
        config: all settings.
        device: where the networks live.

    Raises:
        ConfigError: no labelled image can be left out such that both parts show a defect.
    """

    warmup = False

    def __init__(
        self, dataset: AnomalyDataset, labeled: np.ndarray, config: Config, device: torch.device
    ) -> None:
        masks = dataset.masks[labeled]
        parts = [part for part in folds(masks, config.segmenter_folds) if masks[part].any()]
        if not parts:
            raise ConfigError("labeled: two images with a defect are needed, of which one is left out")
        self.config, self.device, self.labeled, self.updates = config, device, labeled, 0
        self.dtype = compute_dtype(config.precision, device)
        self.images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2)
        self.taught = np.delete(labeled, parts[0])
        self.views = Views(dataset, "square")
        self.left_out = labeled[parts[0]]
        shown = torch.from_numpy(dataset.images[self.left_out]).permute(0, 3, 1, 2).float() / 255
        self.exam = shown.to(device), torch.from_numpy(masks[parts[0]]).to(device).float()
        self.graduate: Weights | None = None
        """The segmenter that was best on the images left out, of those whose cycle is complete."""

    def restart(self, seed: int) -> None:
        """Begin from nothing: the first round."""
        self.rng, self.updates, self.best, self.graduate = np.random.default_rng(seed), 0, math.inf, None
        teacher = self._teacher(self.config.segmenter_steps)
        for _ in range(self.config.segmenter_steps):
            teacher.step()
        self.targets = self.look(teacher.segmenter)
        self._begin_cycle()

    def look(self, segmenter: Segmenter) -> np.ndarray:
        """Probabilities (n, H, W) float16 of all images, the mean over the symmetries."""
        found = segment_images(segmenter, self.views.data.images, self.dtype, symmetries=True)
        return found.clip(_LEAST, 1 - _LEAST).astype(np.float16)

    def _teacher(self, steps: int) -> Teacher:
        config, seed = replace(self.config, segmenter_steps=steps), int(self.rng.integers(2**31))
        none = np.zeros(0, int)
        return Teacher(self.views, self.taught, none, config, seed, self.device, self.dtype)

    def _begin_cycle(self) -> None:
        patches = self.config.episode_length  # of each walker; more of them cannot be foreseen
        steps = self.config.reinit_period * math.ceil(patches / self.config.segmenter_batch)
        self.student = self._teacher(steps)

    @property
    def age(self) -> int:
        """Updates since the segmenter last began anew."""
        return self.updates % self.config.reinit_period

    def loss_map(self, image: int) -> torch.Tensor:
        """What the first round does not know of one image: the entropy (H, W) of its target, in bits."""
        p = torch.from_numpy(self.targets[image]).to(self.device).float()
        return -(p * p.log2() + (1 - p) * (1 - p).log2())

    def probability(self, image: int) -> torch.Tensor:
        """What the segmenter says of one image now."""
        seen = segment_images(self.student.segmenter, self.views.data.images[[image]], self.dtype)
        return torch.from_numpy(seen[0])

    @torch.enable_grad()  # whoever steps the environment may have switched gradients off
    def update(self, patches: np.ndarray, places: np.ndarray) -> TeachingUpdate:
        """Teach with patches (N, P, P, 3) uint8 from `places` (N, 3): image, top row, left column.

        Without any, one step is taken on labelled crops alone.

        Raises:
            TrainingError: a loss is no longer finite.
        """
        twin_loss = math.nan
        if self.config.reward == "difference":
            before = copy.deepcopy(self._student_state())
            self._learn(*random_patches(self, len(patches)))
            twin_loss = self.examine()
            self._load_student(before)
        teaching_loss = self._learn(patches, places)
        prediction_loss = self.examine()
        self.updates += 1
        reinitialized = self.age == 0
        if reinitialized:
            if prediction_loss < self.best:
                self.best, self.graduate = prediction_loss, self.student.segmenter.state_dict()
            self._begin_cycle()
        paid = rewards.REWARDS[self.config.reward](Outcome(prediction_loss, twin_loss))
        return TeachingUpdate(self.updates, paid, reinitialized, teaching_loss, prediction_loss)

    def _learn(self, patches: np.ndarray, places: np.ndarray) -> float:
        size, batch = self.config.patch_size, self.config.segmenter_batch
        targets = [self.targets[i, y : y + size, x : x + size].astype(np.float32) for i, y, x in places]
        losses = [
            self.student.step(list(patches[start : start + batch]), targets[start : start + batch])
            for start in range(0, max(1, len(patches)), batch)
        ]
        return float(np.mean(losses))

    @torch.no_grad()
    def examine(self) -> float:
        """Weighted cross-entropy of the labelled images left out."""
        self.student.segmenter.eval()
        return float(self.student.loss(*self.exam))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the same bits, as tensors, numbers and strings."""
        return {
            "updates": self.updates,
            "best": self.best,
            "graduate": self.graduate,
            "targets": torch.from_numpy(self.targets),
            "rng": json.dumps(self.rng.bit_generator.state),
            **self._student_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a learner with the same configuration and images."""
        self.rng = np.random.default_rng(0)
        self._begin_cycle()
        self.updates, self.best, self.graduate = state["updates"], state["best"], state["graduate"]
        self.targets = state["targets"].numpy()
        self._load_student(state)
        self.rng.bit_generator.state = json.loads(state["rng"])

    def _student_state(self) -> dict[str, Any]:
        return {
            "segmenter": self.student.segmenter.state_dict(),
            "optimizer": self.student.optimizer.state_dict(),
            "schedule": self.student.schedule.state_dict(),
            "crops": json.dumps(self.student.rng.bit_generator.state),
        }

    def _load_student(self, state: dict[str, Any]) -> None:
        self.student.segmenter.load_state_dict(state["segmenter"])
        load_state(self.student.optimizer, state["optimizer"])
        self.student.schedule.load_state_dict(state["schedule"])
        self.student.rng.bit_generator.state = json.loads(state["crops"])


class PatchTeachingEnv(PatchSamplingEnv):
    """Pick the patches of unlabelled images, and so the soft targets, that a segmenter is taught with.

    Actions, observations, walk and episodes are those of `PatchSamplingEnv`; `TeachingLearner` takes the
    place of the autoencoder. Channel 3 of an observation is what the first round does not know: the entropy
    of its probability, in (0, 1] bits. So `highest-loss` is the sampler that takes the most uncertain
    patches, `lowest-loss` the one that takes the most confident ones.

    ## Rewards
    On the last step, R_pred: minus the loss of labelled images that were left out, or with
    `reward="difference"` what it is below that of a twin that got random patches. With `TEACHING`, the
    default settings, there is no cloning segment, and the first episode pays nothing (beta is 1 there).

    ## Info
    The last step's `update`, `teaching_loss` and `prediction_loss` (of the images left out) take the place of
    the autoencoder's figures.

    ## Registered as
    `nbs_env/PatchTeaching-v0`.

    Args:
        dataset: see `PatchSamplingEnv`, as `labeled`, `device` and `render_mode`.
        labeled: at least two images with a defect.
        config: all settings; default: `TEACHING`.
        device: "cpu", "cuda", or "auto".
        render_mode: "rgb_array" or None.

    Raises:
        ConfigError: settings that belong to the other game, or no labelled image can be left out; and
            whatever `PatchSamplingEnv` raises.
    """

    default_config = TEACHING

    def make_learner(self, device: torch.device) -> TeachingLearner:
        """The segmenter in its second round."""
        config = self.config
        if config.training_images != "unlabeled":
            raise ConfigError(f"training_images is {config.training_images}; what teaches is unlabeled")
        if config.reward not in ("prediction", "difference"):
            raise ConfigError(f"reward is {config.reward}; a segmenter has prediction and difference alone")
        if not config.segmenter_steps:
            raise ConfigError("segmenter_steps is 0; the first round takes steps, 150 for a start")
        return TeachingLearner(self.dataset, self.labeled, config, device)


class PatchTeachingVectorEnv(PatchSamplingVectorEnv):
    """`PatchSamplingVectorEnv`, over a `PatchTeachingEnv`."""

    single = PatchTeachingEnv
