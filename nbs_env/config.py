"""Every setting of the environment and its learner, with the papers' values as defaults, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import check_types

PATCH = 64
"""Side in pixels of a patch: the autoencoder of Table 4.2 takes 64."""
WINDOW = 128
"""Side in pixels of what the agent sees around the patch: the policy of Table 4.1 takes 128."""


@dataclass(frozen=True)
class Config:
    """Settings of one run. The defaults are the papers'; `PRESETS` has what works on two cores.

    Raises:
        ConfigError: a value of another type than its field's, or values that cannot work together.
    """

    updates: int = 40_000
    """Autoencoder updates (episodes) of the whole run."""
    image_size: int = 256
    """Side in pixels that every image is resized to (W and H of the papers); a multiple of `PATCH`."""
    shift: int = 24
    """Pixels that a move shifts the patch by."""
    episode_length: int = 64
    """Patches of the training segment, which train the autoencoder."""
    cloning_length: int = 64
    """Patches of the cloning segment, on the labelled images, which earn R_clone and R_cover; 0: none."""
    training_images: Literal["all", "labeled", "unlabeled"] = "all"
    """Images that the training segment walks over: all of them (the paper), or those of one kind."""

    clone_reward: float = 1.0
    """R_clone of a patch without an anomalous pixel; a patch with one earns its negative."""
    cover_weight: float = 0.1
    """R_cover of a patch whose pixels are all new in this segment."""
    beta_horizon: int = 40_000
    """Updates over which beta falls from 1 to 0 (thesis Eq. 3.3)."""
    reward_profiles: Literal["buffer", "current"] = "buffer"
    """Profiles whose loss is R_pred: the draw from the buffer, as printed, or the labelled images' newest."""
    warmup_updates: int = 15
    """Updates after a re-initialisation in which R_pred is not paid (M of the papers)."""

    autoencoder_width: int = 64
    """Channels of the autoencoder's first layer; the others keep their proportion to it (Table 4.2)."""
    bottleneck_channels: int = 200
    """Channels of the autoencoder's bottleneck (K of Table 4.2); the papers take 500 for NanoTWICE."""
    minibatch_size: int = 8
    """Patches of an autoencoder step, and profiles of a predictor step (N of the papers)."""
    autoencoder_lr: float = 3e-4
    """Adam's learning rate for the autoencoder."""
    reinit_period: int = 100
    """Updates between re-initialisations of the autoencoder (K of the papers)."""
    profile_length: int = 10
    """Losses in a loss profile (T of the papers)."""
    seams: Literal["still", "moving"] = "still"
    """Where the seams between the tiles of a loss map lie: always in the same places, or half a tile further
    at every update."""

    predictor_width: float = 1
    """Factor on the predictor's hidden channels, in quarters; the papers take 1, and 2 on NanoTWICE and
    CrackForest."""
    predictor_lr: float = 1e-3
    """Adam's learning rate for the predictor."""
    predictor_updates: int = 1
    """Predictor steps after each autoencoder update."""
    predictor_crop: int = 0
    """Side in pixels of the random crops the predictor trains on; 0 takes whole images, as the papers do."""
    anomaly_weight: Literal["balanced", "sqrt", "as_printed"] = "balanced"
    """Class weight of thesis Eq. 3.2, see DESIGN: #normal/#anomalous on the anomalous term, its square root,
    or the same number on the normal term as the equation is printed."""
    buffer_updates: int = 200
    """Updates whose labelled loss maps the FIFO buffer keeps; each gives one profile a labelled image."""
    snapshot_cycles: int = 1
    """Best re-initialisation cycles that the detector keeps and averages over."""
    snapshot_profiles: Literal["buffer", "current"] = "buffer"
    """Profiles whose loss says which moment is the best: as for `reward_profiles`."""
    snapshot_predictor: Literal["moment", "last"] = "moment"
    """Predictor that reads a kept moment's profiles: as it was at that moment, or as it is in the end."""
    mask_symmetries: bool = False
    """Average the detector's probabilities over the eight symmetries of the square."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` takes bfloat16 where the processor has it."""

    segmenter_steps: int = 0
    """Steps of the segmenter that is taught after the last update, and of each that its threshold is chosen
    with; 0: no segmenter."""
    segmenter_folds: int = 5
    """Parts that the labelled images are divided into; each is left out once, to choose the threshold."""
    segmenter_size: int | Literal["square", "own", "auto"] = "square"
    """Images as the segmenter sees them: the squares of `image_size`; or with the aspect ratio kept, this
    many pixels on the longer side; or all their own pixels; `auto` tries squares, 512 and own ones and takes
    what is best on labelled images that were left out."""
    segmenter_crop: int = 128
    """Side in pixels of the crops that the segmenter learns from; a multiple of 16."""
    segmenter_batch: int = 8
    """Crops of a step of the segmenter."""
    segmenter_lr: float = 1e-3
    """Adam's learning rate for the segmenter at first; it falls to 0. Its encoder has a tenth of it."""
    segmenter_symmetries: bool = False
    """Average the segmenter's probabilities over the symmetries of the square, in eight times the time."""
    false_alarm_rate: float = 0.01
    """Share of good images that may be called bad; the segmenter's scores of those that it had not seen say
    from which image score that is."""
    paste_share: float = 0.0
    """Share of the segmenter's crops into which a labelled defect is pasted."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, ConfigError)
        if self.updates < (0 if self.segmenter_steps else 1):
            raise ConfigError(f"updates is {self.updates}; it must be at least 1, or 0 with segmenter_steps")
        for name in (
            *("image_size", "shift", "episode_length", "beta_horizon", "autoencoder_width"),
            *("bottleneck_channels", "reinit_period", "profile_length"),
            *("predictor_updates", "buffer_updates", "snapshot_cycles", "segmenter_folds", "segmenter_batch"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("cloning_length", "warmup_updates", "clone_reward", "cover_weight", "segmenter_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 < self.false_alarm_rate < 1:
            raise ConfigError(f"false_alarm_rate is {self.false_alarm_rate}; choose a share between 0 and 1")
        if not 0 <= self.paste_share < 1:
            raise ConfigError(f"paste_share is {self.paste_share}; choose a value from 0 to less than 1")
        for name in ("autoencoder_lr", "predictor_lr", "segmenter_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a value between 0 and 1")
        if self.image_size % PATCH or self.image_size < WINDOW:
            raise ConfigError(
                f"image_size is {self.image_size}; choose a multiple of {PATCH} from {WINDOW} up"
            )
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
        if isinstance(self.segmenter_size, int) and self.segmenter_size < 64:
            raise ConfigError(
                f"segmenter_size is {self.segmenter_size}; choose 64 or more, square, own or auto"
            )
        largest = self.segmenter_size if isinstance(self.segmenter_size, int) else self.image_size
        largest = 4096 if self.segmenter_size == "own" else largest
        if self.segmenter_crop % 16 or not 32 <= self.segmenter_crop <= largest:
            raise ConfigError(
                f"segmenter_crop is {self.segmenter_crop}; choose a multiple of 16 from 32 to {largest} "
                f"(segmenter_size is {self.segmenter_size})"
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
        paste_share=0.5,
        segmenter_steps=200,
        segmenter_folds=2,
    ),
    "standard": replace(
        _SHORT,
        updates=300,
        beta_horizon=300,
        buffer_updates=300,
        snapshot_cycles=3,
        paste_share=0.5,
        segmenter_steps=600,
        segmenter_folds=3,
        segmenter_size="auto",
        segmenter_symmetries=True,
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
