"""The game as a part of a run: an agent plays it, is logged and checkpointed, and leaves snapshots."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from agents.base import AgentError, check_state, file_name
from agents.load import agent_class
from agents.policy import Policy
from agents.trained import save as save_policy
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.desk.run import RunArgs
from nbs_env.detect.finish import Played, overlays
from nbs_env.env import PatchSamplingEnv


class AgentGame:
    """What `nbs_env.desk.run.run` plays before it teaches a detector; see its `Game`.

    Args:
        agent: as `agents.load.agent_class` takes it.
        config: settings of the game.
        options: the agent's, an instance of its class's `Options`.
        checkpoint_every: updates between checkpoints.

    Raises:
        AgentError: there is no such agent.
        RunError: there are too few updates for a profile.
    """

    def __init__(self, agent: str, config: Config, options: Any = None, checkpoint_every: int = 25) -> None:
        agent_class(agent)
        if config.updates < config.profile_length:
            raise RunError(
                f"updates is {config.updates}; a detector needs a whole profile, so choose at least "
                f"profile_length ({config.profile_length}), or leave --agent out to play no game"
            )
        self.agent_name, self.name = agent, file_name(agent)
        self.config, self.options, self.checkpoint_every = config, options, checkpoint_every

    def settings(self) -> dict[str, Any]:
        """What makes it what it is."""
        options = asdict(self.options) if self.options else {}
        return {"agent": self.agent_name, "config": asdict(self.config), "options": options}

    def begin(
        self, data: AnomalyDataset, labeled: np.ndarray, args: RunArgs, settings: str, state: Any
    ) -> str:
        """Make environment and agent, on from `state` if there is one.

        Raises:
            AgentError: the agent's state could not be stored.
            CheckpointError: `state` is no such state.
        """
        names = [data.names[i] for i in labeled]
        self.env = PatchSamplingEnv(data, names, self.config, device=args.device)
        self.env.reset(seed=args.seed)
        self.agent = agent_class(self.agent_name)(self.env, seed=args.seed, options=self.options)
        check_state(self.agent)
        self.learner, self.run_settings = self.env.learner, settings
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.arithmetic = f"{self.learner.device.type}, {str(self.learner.dtype).removeprefix('torch.')}"
        if state is not None:
            with checkpoint.unpacking(args.directory(self.name) / "checkpoint.pt"):
                self._load_state_dict(state)
        left, updates = self.config.updates - self.learner.updates, self.config.updates
        return f"{self.agent_name}, {left} of {updates} updates to go"

    def play(self, directory: Path) -> Played:
        """Let the agent learn over the updates that are left.

        Writes checkpoint.pt, TensorBoard's curves, walk.npz and, of a policy that can be taken along,
        policy.pt into `directory`.

        Raises:
            AgentError: the agent stopped early.
        """
        self.directory, total = directory, self.config.updates
        done = self.learner.updates
        self.started = time.perf_counter()
        if done < total:
            with (
                Curves(directory, purge_step=done + 1) as self.curves,
                tqdm(total=total, initial=done, unit="update") as self.bar,
            ):
                self.agent.learn(self.env, total - done, self._on_episode)
        if self.learner.updates < total:
            raise AgentError(
                f"agent {self.agent_name!r} stopped after {self.learner.updates} of {total} updates; its "
                "learn has to play all episodes that it is asked for"
            )
        if isinstance(policy := getattr(self.agent, "policy", None), Policy):
            save_policy(policy, directory / "policy.pt")
        save_walk(self.env.task.visits, self.env.dataset.names, directory)
        return Played(self.learner.kept(), self.config.mask_symmetries, self.history, self.seconds)

    def _state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "settings": self.run_settings,
            "learner": self.learner.state_dict(),
            "agent": self.agent.state_dict(),
            "arithmetic": self.arithmetic,
            "env_rng": json.dumps(self.env.np_random.bit_generator.state),
            "history": json.dumps(self.history),
            "visits": torch.from_numpy(self.env.task.visits),
            "seconds": self.seconds,
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.agent.load_state_dict(state["agent"])
        self.env.np_random.bit_generator.state = json.loads(state["env_rng"])
        self.history = list(json.loads(state["history"]))
        self.seconds = float(state["seconds"])
        self.env.task.visits[:] = state["visits"].numpy()
        if state["arithmetic"] != self.arithmetic:
            print(f"note: begun on {state['arithmetic']}, so the run will not end with the same bits")

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
        if update % self.checkpoint_every == 0 or update == self.config.updates:
            self.seconds += time.perf_counter() - self.started
            checkpoint.save(self._state_dict(), self.directory / "checkpoint.pt")
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


def save_walk(visits: np.ndarray, names: Sequence[str], directory: Path) -> None:
    """Write walk.npz: names and counts (k, cells, cells) of the images that were walked over, if any were."""
    where = np.flatnonzero(visits.any(axis=(1, 2))).tolist()
    if len(where):
        found, file = io.BytesIO(), directory / "walk.npz"
        np.savez_compressed(found, names=np.array([names[i] for i in where]), visits=visits[where])
        checkpoint.replace_file(file, lambda part: part.write_bytes(found.getvalue()))
