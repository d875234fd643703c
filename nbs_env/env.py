"""The patch-sampling task as a Gymnasium environment (thesis Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded

from nbs_env.common import pictures
from nbs_env.common.errors import ConfigError, DataError
from nbs_env.common.networks import pick_device
from nbs_env.common.settings import whole_number
from nbs_env.config import PATCH, PRESETS, WINDOW, Config
from nbs_env.data import AnomalyDataset, load, split
from nbs_env.learner import Learner
from nbs_env.rewards import Reward, Step, pred_reward
from nbs_env.task import PatchSamplingTask
from nbs_env.walk import Walk
from nbs_env.walker import Walker

own_gradients = torch.inference_mode(False)
"""Whoever calls may be in inference mode; what is made in it could not be trained or written to after it."""


class PatchSamplingEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Pick the patches that an autoencoder trains on, so that its loss profiles tell anomalies apart.

    ## Action space
    `Discrete(9)`. 0-7 shift the 64x64 patch by 24 pixels to N, NE, E, SE, S, SW, W, NW, clipped so that it
    stays inside the image; 8 goes to a random place of another random image. The patch is sampled where
    the action has put it.

    ## Observation space
    `Box((5, 128, 128), float32)`: the window around the patch, channels first. 0-2 RGB in [0, 1]; 3 the
    current reconstruction loss, >= 0; 4 the sampling history, 1 where a pixel was sampled in this segment.
    What lies outside the image is 0 in every channel. Neither the segment nor beta is in it: an agent without
    memory sees no difference between a step that is paid for cloning and one that trains.

    ## Episode
    One iteration of Algorithm 1 in two segments, each starting at a random place with an empty history:
    `cloning_length` steps on the labelled images, whose patches train nothing, then `episode_length` steps
    whose patches train the autoencoder. On the last step the autoencoder takes its mini-batches, losses are
    measured, the predictor is updated, and the episode terminates.

    ## Rewards (Eq. 3.3)
    Cloning segment: `beta * (R_clone + R_cover)`, with R_clone = +1 for a patch without an anomalous pixel
    and -1 for another, and R_cover = `cover_weight` times the share of its pixels that are new. Last step:
    `(1 - beta) * R_pred`, R_pred = -l_pred, 0 during warm-up. beta falls from 1 to 0 over `beta_horizon`
    updates. A `reward` of one's own takes the place of -l_pred.

    ## Registered as
    `nbs_env/PatchSampling-v0`, and `nbs_env/PatchSamplingMicro-v0` with the preset `micro` and three labelled
    images: the same rules at a size where an episode takes tens of milliseconds.

    ## Info
    Every step: `segment` ("cloning" or "training"; of the next patch at `reset`), `image`, `R_clone`,
    `R_cover`, `R_pred` (unweighted), `beta`, `warmup`. Last step: also `update`, `autoencoder_loss`,
    `prediction_loss`, `buffer_loss` (None where there is none yet), `reinitialized`, and the means of the
    cloning segment, `R_clone_mean` and `R_cover_mean`.

    ## Between episodes
    The learner outlives the episode. The first `reset`, and `reset(options={"restart": True})`, begin from
    nothing; every other begins the next iteration. A seed seeds the walk, and the learner where it begins.

    Args:
        dataset: images and masks; default: the built-in `synthetic` one.
        labeled: how many labelled images to draw (with seed 0), or their names.
        config: all settings, or the name of a preset; default: `quick`.
        device: "cpu", "cuda", or "auto".
        render_mode: "rgb_array" or None.
        reward: what an update pays as R_pred, of an `Outcome`.

    Raises:
        DataError: the labelled images cannot be drawn, or none has a defect.
        ConfigError: an argument is of another kind, the images have another size than `config.image_size`, or
            there is no such device or render mode.
        ResetNeeded: `step` or `render` before the first `reset`, or `step` after the end.
        InvalidAction: `step` is given anything but a whole number from 0 to 8.

    Example:
        >>> env = PatchSamplingEnv(load("synthetic", count=8), labeled=5)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, info["segment"]
        ((5, 128, 128), 'cloning')
        >>> observation, reward, terminated, truncated, info = env.step(8)  # to another image
        >>> bool(np.isclose(reward, info["beta"] * (info["R_clone"] + info["R_cover"])))
        True
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    @own_gradients
    def __init__(
        self,
        dataset: AnomalyDataset | None = None,
        labeled: int | Sequence[str] = 5,
        config: Config | str | None = None,
        device: str = "auto",
        render_mode: str | None = None,
        reward: Reward = pred_reward,
    ) -> None:
        config = "quick" if config is None else config
        if isinstance(config, str):
            if config not in PRESETS:
                raise ConfigError(f"config is {config!r}; choose {', '.join(PRESETS)}, or give a Config")
            config = PRESETS[config]
        if not isinstance(config, Config):
            raise ConfigError(f"config is {config!r}; give an nbs_env Config, or None")
        if dataset is not None and not isinstance(dataset, AnomalyDataset):
            raise ConfigError(f"dataset is {dataset!r}; give an nbs_env AnomalyDataset, or None")
        if not callable(reward):
            raise ConfigError(f"reward is {reward!r}; give a function of an nbs_env.rewards.Outcome")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode is {render_mode!r}; choose rgb_array, or None for no pictures")
        self.config = config
        self.dataset = dataset or load("synthetic", image_size=self.config.image_size)
        self.render_mode = render_mode
        size, shape = self.config.image_size, self.dataset.images.shape[1:3]
        if shape != (size, size):
            raise ConfigError(
                f"image_size is {size} but {self.dataset.name} has images of {shape} pixels; read them with "
                "load(..., image_size=...), or set image_size to theirs"
            )
        self.labeled, self.unlabeled = split(self.dataset, number_or_names(labeled), np.random.default_rng(0))
        if not self.dataset.masks[self.labeled].any():
            raise DataError(
                f"{self.dataset.name}: no labelled image has a defect, and a game needs one; label one that "
                "has, or train without an agent"
            )
        shape = (5, WINDOW, WINDOW)
        low, high = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        high[3] = np.inf
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(9)
        self.reward = reward
        self.learner = self.make_learner(pick_device(device))
        self.task = PatchSamplingTask(self.dataset, self.labeled, self.learner, self.config)

    def make_learner(self, device: torch.device) -> Any:
        """What trains on the patches, any `InternalLearner`: the papers' autoencoder and predictor."""
        masks = self.dataset.masks[self.labeled]
        return Learner(self.dataset.images, self.labeled, masks, self.config, device, 0, self.reward)

    @property
    def walker(self) -> Walker:
        """Who walks the patch."""
        return self.task.walkers[0]

    @property
    def walk(self) -> Walk:
        """Where the patch is, and has been."""
        return self.walker.walk

    @own_gradients
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next iteration, or start from nothing (see the class)."""
        (step,) = self.begin(seed, options)
        return self.walk.window(), step.info()

    def begin(self, seed: int | None, options: dict[str, Any] | None, walkers: int = 1) -> list[Step]:
        """`reset`, of one walker or several."""
        super().reset(seed=seed)
        restart = bool((options or {}).get("restart"))
        return self.task.begin(self.np_random, walkers, seeded=seed is not None, restart=restart)

    @own_gradients
    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move, sample the patch, pay what is due; the last step trains (see the class)."""
        (step,) = self.task.step([action])
        return self.walk.window(), step.reward, self.task.done, False, step.info()

    def render(self) -> np.ndarray | None:
        """Side by side, (H, 4 W, 3) uint8: image with path and patch, loss, history, prediction."""
        return None if self.render_mode is None else self.draw(self.walker)

    @own_gradients
    def draw(self, walker: Walker) -> np.ndarray:
        """What `render` gives, of any walker over this environment's images."""
        if not walker.begun:
            raise ResetNeeded("no episode has begun; call reset before render")
        walk, image = walker.walk, self.dataset.images[walker.walk.image]
        here = [(top, left) for index, top, left in walk.path if index == walk.image]
        loss = self.learner.loss_map(walk.image).cpu().numpy()
        present = self.learner.probability(walk.image)
        probability = np.zeros_like(loss) if present is None else present.cpu().numpy()
        return np.concatenate(
            [
                pictures.draw_path(image, here, (walk.top, walk.left), PATCH),
                pictures.heat(loss, 0.0, float(np.quantile(loss, 0.99)) or 1.0),
                pictures.heat(walk.history(), 0.0, 1.0),
                pictures.heat(probability, 0.0, 1.0),
            ],
            axis=1,
        )


def number_or_names(labeled: Any) -> int | list[str]:
    """How many labelled images to draw, or their names, as `split` takes them.

    Raises:
        ConfigError: it is neither.
    """
    if np.ndim(labeled):
        return list(labeled)
    number = whole_number(labeled)
    if number is None:
        raise ConfigError(f"labeled is {labeled!r}; give a whole number of images, or a list of their names")
    return number
