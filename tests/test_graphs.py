"""CUDA graphs on the CPU: a stand-in records kernels with their tensors, as a graph does, and replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SameBits, fast_bfloat16
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents.reinforce import Reinforce, ReinforceOptions
from nbs_env import checkpoint, graphs
from nbs_env.autoencoder import AutoencoderTrainer, loss_maps
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.graphs import Graphed, Recording

aten = torch.ops.aten


class Kernels(TorchDispatchMode):
    """Every kernel that runs, with the tensors it reads and writes; reading back is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kernel in (aten._local_scalar_dense.default, aten.lift_fresh.default):
            raise RuntimeError("a value is read back, or comes from the host")
        result = kernel(*args, **(kwargs or {}))
        self.calls.append((kernel, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Run the kernels again, on the same tensors."""
        for kernel, args, kwargs, before in self.calls:
            for old, new in zip(tree_leaves(before), tree_leaves(kernel(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the CPU record; the list gets the name of what is replayed at each replay."""
    replayed: list[str] = []

    def record(
        function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], settings: dict[str, Any]
    ) -> Recording:
        places, kernels, done = tuple(x.clone() for x in inputs), Kernels(), []
        with kernels:
            result = function(*places, **settings)

        def replay() -> None:
            if done:  # unlike a GPU's, this recording has computed already
                kernels.replay()
            done.append(True)
            replayed.append(function.__name__)

        return Recording(replay, places, result)

    monkeypatch.setattr(graphs, "can_record", lambda device: True)
    monkeypatch.setattr(graphs, "aside", lambda function, inputs, settings: function(*inputs, **settings))
    monkeypatch.setattr(graphs, "record", record)
    return replayed


@pytest.fixture
def both_ways(replays: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """True, while the CPU records, then False, while it does not."""

    def ways() -> Iterator[bool]:
        for recorded in (True, False):
            monkeypatch.setattr(graphs, "can_record", lambda device, yes=recorded: yes)
            yield recorded

    return ways()


def double(x: torch.Tensor, plus: int = 0) -> torch.Tensor:
    return 2 * x + plus


def test_replays_after_warming_up_for_each_shape_and_setting(replays: list[str]) -> None:
    graphed = Graphed(double)
    for x in torch.arange(10.0):
        for shape, plus in (((1,), 0), ((2,), 0), ((2,), 1)):
            inputs = x.expand(shape).clone()
            assert torch.equal(graphed(inputs, plus=plus), 2 * inputs + plus)
    assert len(replays) == 3 * (10 - Graphed.WARM_UP)


def test_results_stay_as_they_are(replays: list[str]) -> None:
    graphed = Graphed(double)
    results = [graphed(torch.tensor([float(n)])) for n in range(8)]
    assert [float(result) for result in results] == [2 * n for n in range(8)]


def test_what_cannot_be_recorded_goes_on_with_a_warning(replays: list[str]) -> None:
    graphed = Graphed(lambda x: x * float(x))
    for n in range(Graphed.WARM_UP):
        assert float(graphed(torch.tensor([float(n)]))) == n**2
    with pytest.warns(RuntimeWarning, match="read back"):
        assert float(graphed(torch.tensor([5.0]))) == 25
    assert float(graphed(torch.tensor([6.0]))) == 36
    assert not replays


def patches(update: int) -> np.ndarray:
    return np.random.default_rng(update).integers(256, size=(5, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("precision", "reconstruct"),
    [("float32", "rgb"), ("float32", "features"), pytest.param("bfloat16", "rgb", marks=fast_bfloat16)],
)
def test_a_recorded_learner_keeps_its_bits(
    precision: Any,
    reconstruct: Any,
    dataset: AnomalyDataset,
    config: Config,
    replays: list[str],
    both_ways: Iterator[bool],
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    """Over re-initialisations and taking over an earlier state."""
    config = replace(config, precision=precision, reconstruct=reconstruct)
    ways, places = {}, np.array([[i, 8 * i, 64 - 8 * i] for i in range(5)])
    for recorded in both_ways:
        env = PatchSamplingEnv(dataset, 2, config, "cpu")
        env.reset(seed=0)
        learner, updates = env.learner, []
        for update in range(24):
            update_of = vars(learner.update(patches(update), places))
            updates.append((update_of, learner.loss_map(3).numpy().copy()))
            if update == 17:
                checkpoint.save(learner.state_dict(), tmp_path / "state.pt")
            if update == 20:
                learner.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
        ways[recorded] = (updates, learner.state_dict())
        assert {"_take_step", "_predictor_step", "_loss_maps"} <= set(replays)
    same_bits(*ways.values())


def test_a_step_of_the_autoencoder_is_recorded_whole(replays: list[str], both_ways: Iterator[bool]) -> None:
    """The autoencoder of Table 4.2, not a thin one; a remainder makes a second recording."""
    losses = []
    for _ in both_ways:
        trainer = AutoencoderTrainer(4, 1e-3, torch.device("cpu"), torch.float32)
        trainer.reinitialize(torch.Generator().manual_seed(0))
        batch = torch.from_numpy(patches(0)).permute(0, 3, 1, 2)
        losses.append([trainer.train(batch, 2) for _ in range(5)])
    assert losses[0] == losses[1]
    assert replays == ["_take_step"] * 2 * (5 - Graphed.WARM_UP)


def test_recorded_maps_follow_the_weights(
    dataset: AnomalyDataset,
    config: Config,
    replays: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ring's autoencoders are put into one network in turn, whose seams move with them."""
    learner = PatchSamplingEnv(dataset, 2, replace(config, seams="moving"), "cpu").learner
    images = learner.pick(np.arange(5))
    expected = []
    for update in range(4):
        learner.update(patches(update))
        with monkeypatch.context() as eager:
            eager.setattr(graphs, "can_record", lambda device: False)
            expected.append(loss_maps(learner.trainer.network, images, torch.float32))
        assert torch.equal(loss_maps(learner.trainer.network, images, torch.float32), expected[-1])
    replays.clear()
    repeats = Graphed.WARM_UP + 2
    for _ in range(repeats):  # the five images are one call, and each of the three places of the seams
        profiles = learner.meter.measure(learner.ring, images)
        assert torch.equal(profiles, torch.stack(expected[-3:], dim=1))
    assert len(replays) == 3 * (repeats - Graphed.WARM_UP)


@pytest.mark.parametrize("walkers", [1, 2])
def test_recorded_policy_plays_and_learns_as_it_would(
    walkers: int,
    both_ways: Iterator[bool],
    replays: list[str],
    dataset: AnomalyDataset,
    config: Config,
    same_bits: SameBits,
) -> None:
    runs = []
    for _ in both_ways:
        env = PatchSamplingEnv(dataset, 2, config, "cpu")
        env.reset(seed=0)
        agent, infos = Reinforce(env, 0, ReinforceOptions(walkers=walkers)), []
        agent.learn(env, 6, infos.append)
        runs.append((infos, agent.state_dict(), env.walk.path))
    same_bits(*runs)
    assert "_probabilities" in replays
