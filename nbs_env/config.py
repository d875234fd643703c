"""Every setting of the game, the environment and its learner, with the papers' values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import AtLeast, Count, Rate, check_types

PATCH = 64
"""Side in pixels of a patch: the autoencoder of Table 4.2 takes 64."""
WINDOW = 128
"""Side in pixels of what the agent sees around the patch: the policy of Table 4.1 takes 128."""


def check_image_size(side: int) -> None:
    """Raise `ConfigError` on a side of images that patches do not tile, or the window does not fit into."""
    if side % PATCH or side < WINDOW:
        raise ConfigError(f"image_size is {side}; choose a multiple of {PATCH} from {WINDOW} up")


@dataclass(frozen=True)
class Config:
    """Settings of the game. The defaults are the papers'; `PRESETS` has what works on two cores.

    Raises:
        ConfigError: a value of another type than its field's, or values that cannot work together.
    """

    updates: Count = 40_000
    """Autoencoder updates (episodes) of the whole run."""
    image_size: Count = 256
    """Side in pixels that every image is resized to (W and H of the papers); a multiple of `PATCH`."""
    shift: Count = 24
    """Pixels that a move shifts the patch by."""
    episode_length: Count = 64
    """Patches of the training segment, which train the autoencoder."""
    cloning_length: Annotated[int, AtLeast(0)] = 64
    """Patches of the cloning segment, on the labelled images, which earn R_clone and R_cover; 0: none."""
    training_images: Literal["all", "labeled", "unlabeled"] = "all"
    """Images that the training segment walks over: all of them (the paper), or those of one kind."""

    clone_reward: Annotated[float, AtLeast(0)] = 1.0
    """R_clone of a patch without an anomalous pixel; a patch with one earns its negative."""
    cover_weight: Annotated[float, AtLeast(0)] = 0.1
    """R_cover of a patch whose pixels are all new in this segment."""
    beta_horizon: Count = 40_000
    """Updates over which beta falls from 1 to 0 (thesis Eq. 3.3)."""
    reward_profiles: Literal["buffer", "current"] = "buffer"
    """Profiles whose loss is R_pred: the draw from the buffer, as printed, or the labelled images' newest."""
    warmup_updates: Annotated[int, AtLeast(0)] = 15
    """Updates after a re-initialisation in which R_pred is not paid (M of the papers)."""

    autoencoder_width: Count = 64
    """Channels of the autoencoder's first layer; the others keep their proportion to it (Table 4.2)."""
    bottleneck_channels: Count = 200
    """Channels of the autoencoder's bottleneck (K of Table 4.2); the papers take 500 for NanoTWICE."""
    minibatch_size: int = 8
    """Patches of an autoencoder step, and profiles of a predictor step (N of the papers)."""
    autoencoder_lr: Rate = 3e-4
    """Adam's learning rate for the autoencoder."""
    reinit_period: Count = 100
    """Updates between re-initialisations of the autoencoder (K of the papers)."""
    profile_length: Count = 10
    """Losses in a loss profile (T of the papers)."""
    seams: Literal["still", "moving"] = "still"
    """Where the seams between the tiles of a loss map lie: always in the same places, or half a tile further
    at every update."""

    predictor_width: float = 1
    """Factor on the predictor's hidden channels, in quarters; the papers take 1, and 2 on NanoTWICE and
    CrackForest."""
    predictor_lr: Rate = 1e-3
    """Adam's learning rate for the predictor."""
    predictor_updates: Count = 1
    """Predictor steps after each autoencoder update."""
    predictor_crop: int = 0
    """Side in pixels of the random crops the predictor trains on; 0 takes whole images, as the papers do."""
    anomaly_weight: Literal["balanced", "sqrt", "as_printed"] = "balanced"
    """Class weight of thesis Eq. 3.2, see DESIGN: #normal/#anomalous on the anomalous term, its square root,
    or the same number on the normal term as the equation is printed."""
    buffer_updates: Count = 200
    """Updates whose labelled loss maps the FIFO buffer keeps; each gives one profile a labelled image."""
    snapshot_cycles: Count = 1
    """Best re-initialisation cycles that the detector keeps and averages over."""
    snapshot_profiles: Literal["buffer", "current"] = "buffer"
    """Profiles whose loss says which moment is the best: as for `reward_profiles`."""
    snapshot_predictor: Literal["moment", "last"] = "moment"
    """Predictor that reads a kept moment's profiles: as it was at that moment, or as it is in the end."""
    mask_symmetries: bool = False
    """Average the detector's probabilities over the eight symmetries of the square."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` takes bfloat16 where the processor has it."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, ConfigError)
        check_image_size(self.image_size)
        if self.minibatch_size < 2 or self.episode_length < self.minibatch_size:
            raise ConfigError(
                f"minibatch_size is {self.minibatch_size}; choose 2 to episode_length ({self.episode_length})"
            )
        if self.reinit_period <= max(self.profile_length, self.warmup_updates):
            raise ConfigError(
                f"reinit_period is {self.reinit_period}; it must exceed profile_length "
                f"({self.profile_length}) and warmup_updates ({self.warmup_updates})"
            )
        if self.warmup_updates < self.profile_length - 1:
            raise ConfigError(
                f"warmup_updates is {self.warmup_updates}; R_pred needs a whole profile, so choose at least "
                f"profile_length - 1 ({self.profile_length - 1})"
            )
        if self.predictor_width <= 0 or self.predictor_width % 0.25:
            raise ConfigError(f"predictor_width is {self.predictor_width}; choose a multiple of 0.25")
        if self.predictor_crop and not 32 <= self.predictor_crop <= self.image_size:
            raise ConfigError(
                f"predictor_crop is {self.predictor_crop}; choose 0 for whole images, or 32 to image_size "
                f"({self.image_size})"
            )
        if self.buffer_updates < self.profile_length:
            raise ConfigError(
                f"buffer_updates is {self.buffer_updates}; it must be at least profile_length "
                f"({self.profile_length})"
            )


PAPER = Config()
_SHORT = replace(
    PAPER,
    cover_weight=0.7,
    reward_profiles="current",
    predictor_width=2,
    predictor_lr=3e-3,
    predictor_updates=6,
    predictor_crop=128,
    anomaly_weight="sqrt",
    seams="moving",
    snapshot_profiles="current",
    snapshot_predictor="last",
    mask_symmetries=True,
)
"""What short runs need: a predictor that learns more from each update, at a fifth of the price a step."""
PRESETS: dict[str, Config] = {
    "quick": replace(
        _SHORT,
        training_images="labeled",  # learnt sooner; enough where images look alike
        updates=110,
        beta_horizon=110,
        reinit_period=55,
        snapshot_cycles=2,
    ),
    "standard": replace(
        _SHORT,
        updates=300,
        beta_horizon=300,
        buffer_updates=300,
        snapshot_cycles=3,
    ),
    "paper": PAPER,
    "micro": replace(  # an episode in tens of milliseconds: for research on sampling
        _SHORT,
        training_images="labeled",
        image_size=128,
        updates=300,
        beta_horizon=300,
        buffer_updates=300,
        cloning_length=2,
        episode_length=4,
        minibatch_size=4,
        autoencoder_width=8,
        bottleneck_channels=32,
        autoencoder_lr=5e-3,  # few and small steps have to be large
        warmup_updates=9,
        predictor_width=0.5,
        predictor_lr=1e-2,
        predictor_updates=1,
        predictor_crop=32,
        seams="still",  # moving ones are measured in up to nine tiles in place of four
        snapshot_cycles=2,
        mask_symmetries=False,
    ),
}
