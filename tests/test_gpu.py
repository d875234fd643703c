"""What a GPU computes, against float32 on the CPU, and that everything runs there; skipped without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import arguments

import agents.game
import agents.run
from agents.policy import Policy
from agents.reinforce import Reinforce
from baselines import unet
from baselines.alcn.trainer import ALCN, ALCNConfig
from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.detector import DAnoGANDetector
from baselines.d_anogan.trainer import DAnoGAN
from nbs_env.common import checkpoint
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.detector import Detector
from nbs_env.env import PatchSamplingEnv

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.02), ("bfloat16", 0.1)])
def test_updates_agree_with_the_cpu(
    precision: str, tolerance: float, dataset: AnomalyDataset, config: Config
) -> None:
    """Weights and draws are the CPU's on both. Convolutions in TF32 have ten bits, and errors add up."""
    patches = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    exact = PatchSamplingEnv(dataset, 2, config, "cpu").learner
    other = PatchSamplingEnv(dataset, 2, replace(config, precision=precision), DEVICE).learner  # type: ignore[arg-type]
    for _ in range(config.profile_length):
        one, two = exact.update(patches), other.update(patches)
        assert two.autoencoder_loss == pytest.approx(one.autoencoder_loss, rel=tolerance)
        np.testing.assert_allclose(other.loss_map(3).mean(), exact.loss_map(3).mean(), rtol=tolerance)
    assert one.prediction_loss is not None
    assert two.prediction_loss == pytest.approx(one.prediction_loss, rel=tolerance)


def test_an_episode_shows_the_same_as_on_the_cpu(dataset: AnomalyDataset, config: Config) -> None:
    envs = [PatchSamplingEnv(dataset, 2, config, device) for device in ("cpu", DEVICE)]
    for env in envs:
        env.reset(seed=0)
    for action in np.random.default_rng(0).integers(9, size=config.cloning_length + config.episode_length):
        (here, *_, one), (there, *_, two) = (env.step(action) for env in envs)
        np.testing.assert_allclose(there[[0, 1, 2, 4]], here[[0, 1, 2, 4]], rtol=1e-6)
        np.testing.assert_allclose(there[3].mean(), here[3].mean(), rtol=0.02)
        assert [one[name] for name in ("image", "R_clone", "R_cover")] == [
            two[name] for name in ("image", "R_clone", "R_cover")
        ]


def test_policy_agrees_with_the_cpu(dataset: AnomalyDataset, config: Config) -> None:
    env = PatchSamplingEnv(dataset, 2, config, DEVICE)
    agent = Reinforce(env, 0)
    window = torch.rand((1, 5, 128, 128), generator=torch.Generator().manual_seed(0))
    expected = Policy(torch.Generator().manual_seed(0))(window)
    torch.testing.assert_close(agent.policy(window.to(DEVICE)).cpu(), expected, rtol=0.02, atol=0.02)
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(env, config.warmup_updates + 1, lambda _: None)
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))


def test_a_killed_run_goes_on_and_its_detector_serves_the_cpu(
    folder: Path, dataset: AnomalyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(data_root=folder, run_dir=tmp_path / "run", device=DEVICE)
    original = agents.game.AgentGame._on_episode

    def dying(self: agents.game.AgentGame, info: dict[str, object]) -> None:
        original(self, info)
        if len(self.history) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(agents.game.AgentGame, "_on_episode", dying)
    with pytest.raises(SystemExit, match="130"):
        agents.run.main(words)
    monkeypatch.setattr(agents.game.AgentGame, "_on_episode", original)
    agents.run.main([*words, "--resume"])
    assert (tmp_path / "run" / "metrics.json").is_file()
    here, there = (Detector.load(tmp_path / "run" / "detector.pt", device) for device in ("cpu", DEVICE))
    images = dataset.images[:2]
    np.testing.assert_allclose(there.probabilities(images), here.probabilities(images), atol=0.1)


def test_baselines_run_and_their_models_serve_the_cpu(tmp_path: Path) -> None:
    images = torch.randint(
        256, (64, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    alcn = ALCN(ALCNConfig(batch_size=32), 0, DEVICE)
    alcn.advance(images.to(DEVICE))
    checkpoint.save(alcn.state_dict(), tmp_path / "alcn.pt")
    expected = alcn.errors(images.numpy()).squared
    loaded_alcn = ALCN(alcn.config, 0)
    loaded_alcn.load_state_dict(checkpoint.load(tmp_path / "alcn.pt"))
    np.testing.assert_allclose(loaded_alcn.errors(images.numpy()).squared, expected, rtol=0.05)

    model = DAnoGAN(DAnoGANConfig(clusters=3, batch_size=8, critic_steps=1, bfloat16=True), 0, DEVICE)
    model.check(model.step(images.to(DEVICE)))
    model.xzx_step(*next(model.xzx_batches(images.to(DEVICE))))
    detector = DAnoGANDetector([model], 0.5)
    detector.save(tmp_path / "d_anogan.pt")
    loaded = DAnoGANDetector.load(tmp_path / "d_anogan.pt")
    scores = (each.predict(images.numpy()) for each in (loaded, detector))
    np.testing.assert_allclose(*scores, rtol=0.05, atol=0.05)

    pictures = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((3, 64, 64), bool)
    masks[:, :9] = True
    trainer = unet.Trainer(pictures, masks, unet.UNetConfig(width=4, crop=64, steps=2), 0, DEVICE)
    assert list(trainer.steps(2)) == [1, 2]
    assert np.isfinite(trainer.probabilities(pictures)).all()
