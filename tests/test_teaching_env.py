"""The game whose learner is a segmenter in its second round."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SameBits
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker

import nbs_env
from nbs_env.config import ConfigError
from nbs_env.data import AnomalyDataset
from nbs_env.detect.segmenter import segment
from nbs_env.teaching_env import TEACHING, PatchTeachingEnv, TeachingLearner
from nbs_env.twin import random_patches

SMALL = replace(
    TEACHING,
    episode_length=4,
    profile_length=1,
    warmup_updates=0,
    reinit_period=3,
    segmenter_steps=2,
    segmenter_batch=2,
    precision="float32",
)


def make(dataset: AnomalyDataset, **changes: Any) -> PatchTeachingEnv:
    return PatchTeachingEnv(dataset, ["0", "1", "2"], replace(SMALL, **changes), "cpu")


def updates(learner: TeachingLearner, count: int) -> list[dict[str, Any]]:
    """Random patches, `count` updates of them."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        places = np.column_stack([rng.integers(3, 5, 4), rng.integers(65, size=(4, 2))])
        patches = [learner.views.data.images[i, y : y + 64, x : x + 64] for i, y, x in places]
        found.append(vars(learner.update(np.stack(patches), places)))
    return found


@pytest.fixture
def begun(dataset: AnomalyDataset) -> TeachingLearner:
    learner = make(dataset).learner
    learner.restart(3)
    return learner


def test_both_checkers_are_content(dataset: AnomalyDataset) -> None:
    env = gymnasium.make(
        "nbs_env/PatchTeaching-v0", dataset=dataset, labeled=["0", "1", "2"], config=SMALL, device="cpu"
    )
    assert isinstance(env.unwrapped, nbs_env.PatchTeachingEnv)
    check_env(env.unwrapped, skip_render_check=True)
    env_checker.check_env(env)


def test_a_pickled_copy_learns_on_as_the_original(begun: TeachingLearner, same_bits: SameBits) -> None:
    updates(begun, 1)
    other = pickle.loads(pickle.dumps(begun))
    same_bits(updates(other, 2), updates(begun, 2))


def test_an_episode_walks_over_unlabelled_images_and_is_paid_at_its_end(dataset: AnomalyDataset) -> None:
    env = make(dataset)
    paid, images = [], set()
    for episode in range(4):
        env.reset(seed=1 if not episode else None)
        done = False
        while not done:
            _, reward, done, _, info = env.step(8)
            images.add(info["image"])
            assert done or reward == 0
        paid.append((reward, info["R_pred"], info["prediction_loss"], info["reinitialized"]))
    assert images <= {3, 4}
    assert [row[-1] for row in paid] == [False, False, True, False]
    assert [row[0] for row in paid] == [0, *(row[1] for row in paid[1:])]  # beta is 1 at first, then 0
    assert all(row[1] == -row[2] for row in paid)


def test_the_window_shows_what_the_first_round_does_not_know(dataset: AnomalyDataset) -> None:
    env = make(dataset)
    seen, _ = env.reset(seed=0)
    p = env.learner.targets[env.walk.image].astype(np.float64)
    bits = np.pad(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)), 32)
    top, left = env.walk.top, env.walk.left
    np.testing.assert_allclose(seen[3], bits[top : top + 128, left : left + 128], atol=1e-3)
    inside = np.pad(np.ones(p.shape, bool), 32)[top : top + 128, left : left + 128]
    np.testing.assert_array_equal(seen[3] > 0, inside)


def test_masks_that_nobody_drew_change_nothing(dataset: AnomalyDataset, same_bits: SameBits) -> None:
    rng = np.random.default_rng(0)
    masks = dataset.masks.copy()
    masks[3:] = rng.random(masks[3:].shape) < 0.5
    states = []
    for data in (dataset, replace(dataset, masks=masks)):
        learner = make(data).learner
        learner.restart(3)
        updates(learner, 2)
        states.append(learner.state_dict())
    same_bits(*states)


def test_what_is_left_out_is_not_learnt_from(dataset: AnomalyDataset, same_bits: SameBits) -> None:
    """Another mask of it: another reward, but the same first round and the same second one."""
    learners = []
    for flipped in (False, True):
        masks = dataset.masks.copy()
        left_out = make(dataset).learner.left_out
        masks[left_out, :8, :8] ^= flipped
        learner = make(replace(dataset, masks=masks)).learner
        learner.restart(3)
        np.testing.assert_array_equal(learner.left_out, left_out)
        learners.append(learner)
    (plain,), (changed,) = (updates(learner, 1) for learner in learners)
    assert plain["prediction_loss"] != changed["prediction_loss"]
    same_bits(*(learner.student.segmenter.state_dict() for learner in learners))


def test_the_reward_is_the_loss_of_the_images_left_out(begun: TeachingLearner) -> None:
    (found,) = updates(begun, 1)
    images = begun.views.data.images[begun.left_out]
    truth = torch.from_numpy(begun.views.data.masks[begun.left_out])
    begun.student.segmenter.eval()
    logits = segment(
        begun.student.segmenter, torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.float32
    )
    taught = begun.views.data.masks[begun.taught]
    weight = np.sqrt((~taught).sum() / taught.sum())
    each = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none").double()
    expected = torch.where(truth, weight * each, each).mean()
    assert found["R_pred"] == -found["prediction_loss"] == pytest.approx(-float(expected.detach()), rel=1e-5)


def test_the_twin_that_gets_the_same_patches_is_paid_nothing(dataset: AnomalyDataset) -> None:
    learner = make(dataset, reward="difference").learner
    learner.restart(3)
    for _ in range(2):
        assert learner.update(*random_patches(learner, 4)).R_pred == 0
    assert updates(learner, 1)[0]["R_pred"] != 0


def test_right_targets_teach_and_wrong_ones_hurt(dataset: AnomalyDataset) -> None:
    losses = []
    for wrong in (False, True):
        learner = make(dataset, reinit_period=20, segmenter_lr=5e-3).learner
        learner.restart(3)
        learner.targets = np.abs(dataset.masks - np.float16(wrong))
        losses.append(updates(learner, 16)[-1]["prediction_loss"])
    assert losses[0] < 0.9 * losses[1]


def test_a_stored_learner_goes_on_with_the_same_bits(
    dataset: AnomalyDataset, begun: TeachingLearner, same_bits: SameBits
) -> None:
    updates(begun, 4)  # one cycle is complete
    other = make(dataset).learner
    other.load_state_dict(copy.deepcopy(begun.state_dict()))
    same_bits(other.state_dict(), begun.state_dict())
    assert updates(other, 3) == updates(begun, 3)
    same_bits(other.state_dict(), begun.state_dict())


def test_the_best_complete_cycle_is_kept(begun: TeachingLearner, same_bits: SameBits) -> None:
    assert begun.graduate is None
    found = updates(begun, 6)
    ends = [row["prediction_loss"] for row in found if row["reinitialized"]]
    assert len(ends) == 2
    assert begun.best == min(ends)
    assert begun.graduate is not None
    begun.student.segmenter.load_state_dict(begun.graduate)
    assert begun.examine() == begun.best


def test_two_walkers_teach_one_segmenter(dataset: AnomalyDataset) -> None:
    envs = gymnasium.make_vec(
        "nbs_env/PatchTeaching-v0", 2, dataset=dataset, labeled=["0", "1", "2"], config=SMALL, device="cpu"
    )
    envs.reset(seed=0)
    for _ in range(SMALL.episode_length):
        _, rewards, *_, infos = envs.step(np.array([8, 8]))
    assert infos["final_info"]["update"].tolist() == [1, 1]
    assert rewards.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_images": "all"}, "training_images is all"),
        ({"reward": "separation"}, "reward is separation"),
        ({"segmenter_steps": 0}, "segmenter_steps is 0"),
    ],
)
def test_settings_of_the_other_game_are_refused(
    dataset: AnomalyDataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(dataset, **changes)


def test_one_defect_is_too_few(dataset: AnomalyDataset) -> None:
    with pytest.raises(ConfigError, match="two images with a defect"):
        PatchTeachingEnv(dataset, ["0"], SMALL, "cpu")
    with pytest.raises(ConfigError, match="every image is labelled"):
        PatchTeachingEnv(dataset, list(dataset.names), SMALL, "cpu")
