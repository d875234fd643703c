"""A run under way: what is trained, taught, logged and checkpointed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from agents.scoring import overlays
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.detect.segmenter import Segmenter
from nbs_env.detect.teaching import Taught, candidates, folds, teach
from nbs_env.env import PatchSamplingEnv

if TYPE_CHECKING:
    from agents.run import RunArgs


class Session:
    """The running state of one run: what is logged, checkpointed and finally scored."""

    def __init__(
        self, args: RunArgs, directory: Path, env: PatchSamplingEnv, agent: Any, settings: dict[str, Any]
    ) -> None:
        self.args, self.directory, self.env, self.agent = args, directory, env, agent
        self.learner, self.config, self.settings = env.learner, env.config, json.dumps(settings)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.arithmetic = f"{self.learner.device.type}, {str(self.learner.dtype).removeprefix('torch.')}"

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "settings": self.settings,
            "learner": self.learner.state_dict(),
            "agent": self.agent.state_dict(),
            "arithmetic": self.arithmetic,
            "env_rng": json.dumps(self.env.np_random.bit_generator.state),
            "history": json.dumps(self.history),
            "visits": torch.from_numpy(self.env.task.visits),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            CheckpointError: it is no such state.
        """
        with checkpoint.unpacking(self.directory / "checkpoint.pt"):
            self.learner.load_state_dict(state["learner"])
            self.agent.load_state_dict(state["agent"])
            self.env.np_random.bit_generator.state = json.loads(state["env_rng"])
            self.history = list(json.loads(state["history"]))
            self.seconds = float(state["seconds"])
            self.env.task.visits[:] = state["visits"].numpy()
            if state["arithmetic"] != self.arithmetic:
                print(f"note: begun on {state['arithmetic']}, so the run will not end with the same bits")

    def announce(self) -> None:
        """Say what runs, and on what."""
        data, config, device = self.env.dataset, self.config, self.learner.device
        threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
        left = config.updates - self.learner.updates
        print(
            f"{self.args.agent} on {data.name}: {len(data)} images, {len(self.env.labeled)} labelled "
            f"({', '.join(data.names[i] for i in self.env.labeled)}); preset {self.args.preset}, "
            f"{left} of {config.updates} updates to go\n"
            f"on {self.arithmetic}{threads}; everything goes to {self.directory}",
            flush=True,
        )

    def train(self) -> None:
        """Let the agent learn over the updates that are left."""
        left = self.config.updates - self.learner.updates
        if left <= 0:
            return
        done, total = self.learner.updates, self.config.updates
        self.started = time.perf_counter()
        with (
            Curves(self.directory, purge_step=done + 1) as self.curves,
            tqdm(total=total, initial=done, unit="update") as self.bar,
        ):
            self.agent.learn(self.env, left, self._on_episode)

    def teach(self) -> Taught:
        """Teach the segmenter; a part that was complete when a run was killed is not done again."""
        file, config = self.directory / "teaching.pt", self.config
        parts: dict[str, Any] = {}
        if file.is_file():
            with checkpoint.unpacking(file):
                parts = checkpoint.load(file)
                Segmenter().load_state_dict(parts.get("all", Segmenter().state_dict()))
                kept = {"labeled", "good", "good_pixels"}
                assert all(part.keys() == kept for name, part in parts.items() if name != "all")
        data = self.env.dataset
        left_out = len(folds(data.masks[self.env.labeled], config.segmenter_folds))
        rounds = left_out * len(candidates(data, config.segmenter_size)) + 1 - len(parts)

        with tqdm(total=rounds * config.segmenter_steps, desc="segmenter", unit="step") as bar:
            return teach(
                self.env.dataset,
                self.env.labeled,
                config,
                self.args.seed,
                self.learner.device,
                self.learner.dtype,
                parts,
                on_step=lambda loss: bar.update(),
                on_part=lambda: checkpoint.save(parts, file),
            )

    def _on_episode(self, info: dict[str, Any]) -> None:
        """Log one episode, and put a checkpoint where one is due."""
        update = info["update"]
        row = {k: float(v) for k, v in info.items() if isinstance(v, float | int) and k != "image"}
        self.history.append(row)
        for name, value in row.items():
            self.curves.add_scalar(name if "/" in name else f"train/{name}", value, update)
        shown = {"ae": info["autoencoder_loss"], "l_pred": info["prediction_loss"], "beta": info["beta"]}
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items() if v is not None})
        self.bar.update()
        if update % 25 == 0:
            self._picture(update)
        if update % self.args.checkpoint_every == 0 or update == self.config.updates:
            self.seconds += time.perf_counter() - self.started
            checkpoint.save(self.state_dict(), self.directory / "checkpoint.pt")
            self.started = time.perf_counter()

    def _picture(self, update: int) -> None:
        """Show the labelled images as they are predicted now."""
        logits = self.learner.newest_logits()
        if logits is None:
            return
        probabilities = torch.sigmoid(logits).cpu().numpy()
        shown = self.env.labeled[:3]
        sheet = overlays(self.env.dataset, shown, probabilities[:3], probabilities[:3] >= 0.5)
        self.curves.add_image("labelled images", np.asarray(sheet), update)
