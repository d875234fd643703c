"""What Algorithm 1 does once the patches are chosen: train, measure, predict, remember the best."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nbs_env.autoencoder import GRIDS, AutoencoderTrainer, loss_maps
from nbs_env.common.errors import TrainingError
from nbs_env.common.networks import adam, compute_dtype, initialize, place
from nbs_env.common.symmetries import dihedral
from nbs_env.config import Config
from nbs_env.predictor import Predictor, class_weights, logits, predict, prediction_loss
from nbs_env.profiles import ProfileBuffer, ProfileMeter, Snapshot, Weights, copy_weights
from nbs_env.rewards import Outcome, Reward, Update, pred_reward


@dataclass(frozen=True)
class AutoencoderUpdate(Update):
    """What one call of `Learner.update` did.

    Attributes:
        autoencoder_loss: mean squared error of the mini-batches, as `AutoencoderTrainer.train` gives it.
        prediction_loss: l_pred of the labelled images' newest profiles; None while the cycle is too young.
        buffer_loss: l_pred of the first draw from the buffer, before the predictor's step; None if empty.
    """

    autoencoder_loss: float
    prediction_loss: float | None
    buffer_loss: float | None


class Learner:
    """Autoencoder, predictor, profile buffer and snapshots: the `InternalLearner` of the papers.

    Masks of unlabelled images never get here: it is given the labelled ones alone.

    Args:
        images: (n, H, W, 3) uint8, labelled and unlabelled.
        labeled: indices of the labelled images.
        labeled_masks: (len(labeled), H, W) bool, with at least one anomalous pixel.
        config: all settings.
        device: where the networks live.
        seed: of weights, augmentation and buffer draws.
        reward: what an update pays as R_pred.
    """

    def __init__(
        self,
        images: np.ndarray,
        labeled: np.ndarray,
        labeled_masks: np.ndarray,
        config: Config,
        device: torch.device,
        seed: int,
        reward: Reward = pred_reward,
    ) -> None:
        self.reward = reward
        self.config, self.device, self.labeled = config, device, labeled
        self.dtype = compute_dtype(config.precision, device)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        if not isinstance(images, np.memmap):
            self.images = self.images.to(device)
        self.masks = torch.from_numpy(labeled_masks).to(device)
        self.weights = class_weights(self.masks, config.anomaly_weight)
        self.trainer = AutoencoderTrainer(
            config.bottleneck_channels, config.autoencoder_lr, device, self.dtype, config.autoencoder_width
        )
        self.meter = ProfileMeter(self.trainer.network.state_dict(), device, self.dtype)
        self.predictor = place(Predictor(config.profile_length, config.predictor_width), device)
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Begin from nothing."""
        self.weight_generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.trainer.reinitialize(self.weight_generator)
        initialize(self.predictor, self.weight_generator)
        self.optimizer = adam(self.predictor, self.config.predictor_lr)
        shape = (len(self.labeled), *self.images.shape[-2:])
        self.buffer = ProfileBuffer(
            self.config.buffer_updates, self.config.profile_length, shape, self.device
        )
        self.updates = 0
        self.ring: list[Weights] = []  # the newest autoencoders of this cycle, oldest first
        self.snapshots: list[Snapshot] = []  # best cycles, best first, the running one's best among them
        self._maps: dict[int, torch.Tensor] = {}

    @property
    def age(self) -> int:
        """Updates since the autoencoder was last re-initialised."""
        return self.updates % self.config.reinit_period

    @property
    def warmup(self) -> bool:
        """Whether the next update is one in which R_pred is not paid."""
        return self.age < self.config.warmup_updates

    def loss_map(self, image: int) -> torch.Tensor:
        """Current reconstruction loss (H, W) float32 of one image, measured when first asked for."""
        if image not in self._maps:
            self._maps[image] = self._measure(np.array([image]))[0]
        return self._maps[image]

    def pick(self, indices: np.ndarray) -> torch.Tensor:
        """Some of the images (n, 3, H, W) uint8, on the device."""
        return self.images[torch.from_numpy(indices)].to(self.device)

    @torch.enable_grad()  # whoever steps the environment may have switched gradients off
    def update(self, patches: np.ndarray, places: np.ndarray | None = None) -> AutoencoderUpdate:
        """One iteration of Algorithm 1 after the patches are chosen.

        Args:
            patches: (N, P, P, 3) uint8.
            places: where they were cut; not read here.

        Raises:
            TrainingError: a loss is no longer finite.
        """
        warmup = self.warmup
        loss = self.trainer.train(self._augment(patches), self.config.minibatch_size)
        grid = self.updates % len(GRIDS) if self.config.seams == "moving" else 0
        self.trainer.network.grid.copy_(torch.tensor(GRIDS[grid]))
        self._check(loss, "autoencoder", self.config.autoencoder_lr)
        self._remember()
        drawn = [self._train_predictor() for _ in range(self.config.predictor_updates)]
        buffer_loss = None if drawn[0] is None else float(drawn[0])
        newest = self.newest_logits()
        current = None if newest is None else float(prediction_loss(newest, self.masks, self.weights))
        for value in (buffer_loss, current):
            self._check(value, "predictor", self.config.predictor_lr)
        losses = {"buffer": buffer_loss, "current": current}
        paid = 0.0
        if not warmup:
            asked = losses[self.config.reward_profiles]
            assert asked is not None, "Config ties warmup_updates to profile_length"
            assert newest is not None
            maps = torch.stack([self.loss_map(image) for image in self.labeled.tolist()])
            paid = self.reward(Outcome(asked, newest, maps, self.masks))
        self.updates += 1
        ranked = losses[self.config.snapshot_profiles]
        if current is not None and ranked is not None:
            self._consider(ranked)
        reinitialized = self.age == 0
        if reinitialized:
            self.trainer.reinitialize(self.weight_generator)
            self.ring, self._maps = [], {}
        return AutoencoderUpdate(self.updates, paid, reinitialized, loss, current, buffer_loss)

    def _check(self, loss: float | None, network: str, lr: float) -> None:
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"the {network}'s loss became {loss} at update {self.updates + 1}; "
                f"lower {network}_lr ({lr}) and begin a new run"
            )

    def probability(self, image: int) -> torch.Tensor | None:
        """Present anomaly probability (H, W) of one image, or None while the cycle is too young."""
        if len(self.ring) < self.config.profile_length:
            return None
        profile = self.meter.measure(self.ring, self.pick(np.array([image])))
        return torch.sigmoid(predict(self.predictor, profile, self.dtype))[0]

    def newest_logits(self) -> torch.Tensor | None:
        """Logits (n, H, W) of the labelled images' newest profiles, or None while the cycle is too young."""
        profiles = self.buffer.newest()
        if profiles is None:
            return None
        return predict(self.predictor, profiles, self.dtype)

    def kept(self) -> list[Snapshot]:
        """The snapshots, the best first, each with the predictor that reads its profiles."""
        last = self.predictor.state_dict()
        return [replace(s, predictor=last if s.predictor is None else s.predictor) for s in self.snapshots]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the same bits, as tensors, numbers and strings."""
        return {
            "updates": self.updates,
            "autoencoder": self.trainer.network.state_dict(),
            "autoencoder_optimizer": self.trainer.optimizer.state_dict(),
            "predictor": self.predictor.state_dict(),
            "predictor_optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            "ring": self.ring,
            "snapshots": [vars(snapshot) for snapshot in self.snapshots],
            "weight_generator": self.weight_generator.get_state(),
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a learner with the same configuration and images."""
        self.updates = state["updates"]
        self.trainer.network.load_state_dict(state["autoencoder"])
        self.trainer.optimizer.load_state_dict(state["autoencoder_optimizer"])
        self.predictor.load_state_dict(state["predictor"])
        self.optimizer.load_state_dict(state["predictor_optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.ring = list(state["ring"])
        self.snapshots = [Snapshot(**snapshot) for snapshot in state["snapshots"]]
        self.weight_generator.set_state(state["weight_generator"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self._maps = {}

    def _augment(self, patches: np.ndarray) -> torch.Tensor:
        """Each patch under a random symmetry of the square, (N, 3, P, P) uint8."""
        symmetries = self.rng.integers(8, size=len(patches)).tolist()
        upright = torch.from_numpy(patches).permute(0, 3, 1, 2)
        return torch.stack([dihedral(x, k) for x, k in zip(upright, symmetries, strict=True)])

    def _measure(self, indices: np.ndarray) -> torch.Tensor:
        return loss_maps(self.trainer.network, self.pick(indices), self.dtype)

    def _measure_all(self) -> torch.Tensor:
        """Measure what has to be after an autoencoder update; the labelled images' maps."""
        labeled = self._measure(self.labeled)
        self._maps = dict(zip(self.labeled.tolist(), labeled, strict=True))
        return labeled

    def _remember(self) -> None:
        """Put the newest losses and autoencoder where profiles are made of them."""
        self.buffer.append(self._measure_all(), self.updates // self.config.reinit_period)
        self.ring.append(copy_weights(self.trainer.network, self.dtype))
        del self.ring[: -self.config.profile_length]

    def _train_predictor(self) -> torch.Tensor | None:
        """One step on profiles drawn from the buffer; their loss before it, or None while there are none."""
        ends = self.buffer.ends()
        if not len(ends):
            return None
        count, crop = self.config.minibatch_size, self.config.predictor_crop or self.config.image_size
        pairs = []
        for end in self.rng.choice(ends, size=count):
            image = int(self.rng.integers(len(self.labeled)))
            top, left = self.rng.integers(self.config.image_size - crop + 1, size=2)
            crop_of = (slice(top, top + crop), slice(left, left + crop))
            profile = self.buffer.normalized(int(end), image, crop_of)
            pair = torch.cat([profile, self.masks[image][crop_of][None].float()])
            pairs.append(dihedral(pair, int(self.rng.integers(8))))
        self.predictor.train()
        batch = torch.stack(pairs)
        loss = prediction_loss(logits(self.predictor, batch[:, :-1], self.dtype), batch[:, -1], self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _consider(self, loss: float) -> None:
        """Keep this moment if it is the best of its cycle, and the cycle if it is among the best."""
        period = self.config.reinit_period
        cycle = (self.updates - 1) // period
        others = [s for s in self.snapshots if (s.update - 1) // period != cycle]
        same = [s for s in self.snapshots if (s.update - 1) // period == cycle]
        if same and same[0].prediction_loss <= loss:
            return
        snapshots = [*others, self._snapshot(loss)]
        self.snapshots = sorted(snapshots, key=lambda s: s.prediction_loss)[: self.config.snapshot_cycles]

    def _snapshot(self, loss: float) -> Snapshot:
        predictor = None
        if self.config.snapshot_predictor == "moment":
            predictor = {name: value.clone() for name, value in self.predictor.state_dict().items()}
        return Snapshot(tuple(self.ring), loss, self.updates, predictor)
