"""Every setting of the detector: how its segmenter is taught, and when an image is called bad."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import AtLeast, Between, Count, Rate, check_types
from nbs_env.config import PATCH, check_image_size

Size = int | Literal["square", "own"]
"""The size that an image is worked on, see `DetectorConfig.segmenter_size`."""


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of the detector; `PRESETS` has those of whole runs.

    Raises:
        ConfigError: a value of another type than its field's, or values that cannot work together.
    """

    image_size: Count = 256
    """Side in pixels that every image is resized to; a multiple of 64."""
    segmenter_steps: Annotated[int, AtLeast(0)] = 0
    """Steps of the segmenter that is taught, and of each that its threshold is chosen with; 0: no
    segmenter."""
    segmenter_folds: Count = 5
    """Parts that the labelled images are divided into; each is left out once, to choose the threshold."""
    segmenter_size: int | Literal["square", "own", "auto"] = "square"
    """Images as the segmenter sees them: the squares of `image_size`; or with the aspect ratio kept, this
    many pixels on the longer side; or all their own pixels; `auto` tries squares, 512 and own ones and takes
    what is best on labelled images that were left out."""
    segmenter_crop: int = 128
    """Side in pixels of the crops that the segmenter learns from; a multiple of 16."""
    segmenter_batch: Count = 8
    """Crops of a step of the segmenter."""
    segmenter_lr: Rate = 1e-3
    """Adam's learning rate for the segmenter at first; it falls to 0. Its encoder has a tenth of it."""
    segmenter_symmetries: bool = False
    """Average the segmenter's probabilities over the symmetries of the square, in eight times the time."""
    memory_size: Annotated[int, AtLeast(0)] = 0
    """Vectors at most of the memory of what normal images look like; 0: no memory."""
    paste_share: Annotated[float, AtLeast(0)] = 0.0
    """Share of the segmenter's crops into which a labelled defect is pasted."""
    false_alarm_rate: Annotated[float, Between(0, 1)] = 0.05
    """Share of good images that may be called bad; the scores of those that nothing was learnt from say from
    which image score that is."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` takes bfloat16 where the processor has it."""

    def __post_init__(self) -> None:
        """Check types and bounds first, then what has to fit together."""
        check_types(self, ConfigError)
        check_image_size(self.image_size)
        if self.paste_share >= 1:
            raise ConfigError(f"paste_share is {self.paste_share}; choose a value from 0 to less than 1")
        size = self.segmenter_size
        if isinstance(size, int) and size < PATCH:
            raise ConfigError(f"segmenter_size is {size}; choose {PATCH} or more, square, own or auto")
        largest = size if isinstance(size, int) else 4096 if size == "own" else self.image_size
        if self.segmenter_crop % 16 or not 32 <= self.segmenter_crop <= largest:
            raise ConfigError(
                f"segmenter_crop is {self.segmenter_crop}; choose a multiple of 16 from 32 to {largest} "
                f"(segmenter_size is {size})"
            )


PAPER = DetectorConfig()
PRESETS: dict[str, DetectorConfig] = {
    "quick": replace(PAPER, segmenter_steps=200, segmenter_folds=2, memory_size=4000, paste_share=0.5),
    "standard": replace(
        PAPER,
        segmenter_steps=600,
        segmenter_folds=3,
        segmenter_size="auto",
        segmenter_symmetries=True,
        memory_size=4000,
        paste_share=0.5,
    ),
    "paper": PAPER,  # which has no segmenter
    "micro": replace(PAPER, image_size=128),
}
"""By the names of the game's presets."""
