"""The drills themselves: a broken promise of each kind is found, and a kept one is none."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drills import __main__ as command_line
from drills import service
from drills.attacker import MARKER, PAYLOADS, Bomb
from drills.disc import no_space_for
from drills.forks import Outcome, fork
from drills.inputs import inputs
from drills.kills import killed
from drills.small import Command, Row, content, difference, furnish

from nbs_env.common import checkpoint


def fail(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (lambda: None, 0),
        (lambda: fail(None), 0),
        (lambda: fail(3), 3),
        (lambda: fail("no"), 1),
        (lambda: 1 / 0, 1),
    ],
)
def test_a_child_ends_as_the_interpreter_would(task: Callable[[], object], code: int) -> None:
    assert fork(task).code == code


def test_a_child_is_heard_killed_and_weighed() -> None:
    outcome = fork(lambda: print("x" * 300_000))  # more than a pipe holds
    assert (outcome.code, len(outcome.out)) == (0, 300_001)
    assert fork(lambda: time.sleep(60), kill_after=0.1).code == -signal.SIGKILL
    light, heavy = fork(lambda: None).peak, fork(lambda: np.ones(2**27)).peak
    assert 800 < heavy - light < 1100  # 1024 MiB, of which some may be what the parent had freed


BAR = "check:  0%| | 0/3 [00:00<?, ?image/s]"


@pytest.mark.parametrize(
    ("code", "err", "complaint"),
    [
        (2, "error: a.png is damaged\n", ""),
        (2, f"note: 3 left out\n{BAR}\nerror: a.png is damaged\n", ""),
        (2, f"{BAR}error: a.png is damaged\n", "lines instead"),
        (1, "error: a.png is damaged\n", "exit code 1"),
        (0, "", "exit code 0"),
        (2, "error: a.png\nerror: a.png\n", "2 lines"),
        (2, "a.py: a warning\nerror: a.png\n", "2 lines"),
        (2, "error: something is damaged\n", "a.png is not named"),
        (2, "Traceback (most recent call last):\nerror: a.png\n", "a traceback"),
    ],
)
def test_a_refusal_is_one_line_that_names_it(code: int, err: str, complaint: str) -> None:
    wrong = Outcome(code, "", err, 0.0, 0.0).complaint("a.png")
    assert complaint in wrong
    assert bool(wrong) == bool(complaint)


def test_content_tells_whole_files_from_halves(tmp_path: Path) -> None:
    checkpoint.save({"a": torch.arange(3), "seconds": 1.0}, tmp_path / "a.pt")
    checkpoint.save_json({"b": 1, "training_seconds": 2.0}, tmp_path / "b.json")
    checkpoint.save_picture(np.eye(4) > 0, tmp_path / "masks" / "c.png")
    (tmp_path / "d.json.part").write_text("{")
    found = content(tmp_path)
    assert set(found) == {"a.pt", "b.json", "masks/c.png"}
    assert set(found["a.pt"]) == {"a"}
    assert found["b.json"] == {"b": 1}
    for name in found:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{Path(name).name} is not whole"):
            content(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_a_difference_is_found_in_a_single_bit() -> None:
    def value() -> dict[str, Any]:
        return {"a": [torch.zeros(3), np.ones(2)], "b": {"c": 1.0}}

    assert difference(value(), value()) == ""
    other = value()
    other["a"][0][1] = -1e-45
    assert difference(value(), other).startswith("/a/0: ")
    assert "/b/c" in difference(value(), value() | {"b": {"c": 1.0000000000000002}})
    assert "only one has /b/c" in difference(value(), {"a": value()["a"]})
    assert difference({"b": 1.0}, {"b": 1}) == "/b: 1.0 and 1"
    assert difference([torch.ones(1)], [torch.ones(1, dtype=torch.float64)])


FAKE = """
import json, sys, time
from pathlib import Path
run = Path("run")
kind, resumed = sys.argv[1], "--resume" in sys.argv
state = run / "state.json"
if resumed and not state.exists():
    print("error: run holds no run to resume; leave --resume out", file=sys.stderr)
    sys.exit(2)
run.mkdir(exist_ok=True)
step = json.loads(state.read_text())["step"] if resumed else 0
while step < 20:
    step += 1
    time.sleep(0.01)
    text = json.dumps({"step": step, "filler": "x" * 100_000})
    part = state if kind == "halves" else run / "state.json.part"
    with part.open("w") as file:
        file.write(text[:10])
        file.flush()
        time.sleep(0.03)  # most of the time, so that some kill falls into it
        file.write(text[10:])
    part.replace(state)
if kind == "forgetful" and resumed:
    step = -1
(run / "metrics.json").write_text(json.dumps({"steps": step}))
"""


@pytest.mark.parametrize(
    ("kind", "found"), [("honest", ""), ("halves", "is not whole"), ("forgetful", "metrics.json/steps")]
)
def test_kills_find_halves_and_other_ends(
    kind: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "fake_command.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    each = Command("fake", "fake_command", kind, f"{kind} --resume")
    row = killed(tmp_path, tmp_path / "model", [each], 15, np.random.default_rng(0))
    assert row.tried == 15
    assert bool(row.broken) == bool(found)
    assert any(found in each for each in row.broken) or not found


def test_space_ends_at_the_file_named(tmp_path: Path) -> None:
    def write(name: str) -> None:
        no_space_for(name, 10)
        checkpoint.save_json([1] * 100, tmp_path / "a.json")
        try:
            checkpoint.save({"x": torch.zeros(1000)}, tmp_path / "b.pt")
        except (OSError, RuntimeError):
            fail(7)

    outcomes = {name: fork(partial(write, name)) for name in ("c.json", "b.pt", "a.json")}
    assert [outcome.code for outcome in outcomes.values()] == [0, 7, 1]
    assert "a.json" in outcomes["a.json"].err


def test_payloads_are_live(tmp_path: Path) -> None:
    """What the drill hands out does execute where it is unpickled without care."""
    marker = tmp_path / MARKER
    for title in ("torch.save", "torch.save within a state", "torch.save before 1.6"):
        torch.load(io.BytesIO(PAYLOADS[title](Bomb(str(marker)))), weights_only=False)
        marker.unlink()


def test_inputs_tell_a_refusal_from_what_is_accepted(tmp_path: Path) -> None:
    model = furnish(tmp_path / "model")
    (model / "done").mkdir()
    cases = {"predict": (("--device tpu", "tpu"), ("--device  tpu", "gpu")), "drills": (("--help", "help"),)}
    (row,) = inputs(tmp_path / "inputs", model, cases)
    assert row.tried == 3
    assert [line.split(":")[0] for line in row.broken] == ["predict, --device  tpu", "drills, --help"]


@pytest.mark.parametrize(("more", "kept"), [(18, True), (21, False)])
def test_memory_that_grows_with_the_folder_is_found(
    more: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(module: str, words: str, cwd: Path) -> Outcome:
        _, _, _, images, _, out, *_ = words.split()
        masks, files = cwd / out / "masks", list((cwd / images).iterdir())
        masks.mkdir(parents=True)
        for file in files:
            (masks / file.name).touch()
        return Outcome(0, "", "", 1.0, 400 + more * (len(files) > 5))

    monkeypatch.setattr(service, "command", predict)
    (row,) = service.folder(tmp_path / "folder", 10)
    assert row.tried == 10
    assert (not row.broken) == kept


def test_the_report_names_what_was_broken() -> None:
    rows = [Row("kills", "the same bits", 3, ["run 2: other values"]), Row("disc", "one line", 2, [])]
    text = command_line.report(rows, ["--out", "x"], 1.0)
    assert "| kills | the same bits | 3 | 1 |  |" in text
    assert text.rstrip().endswith("- kills: run 2: other values")
    assert "Broken" not in command_line.report(rows[1:], [], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("group", command_line.GROUPS)
def test_promises_are_kept(group: str, tmp_path: Path) -> None:
    words = f"-m tests.drills --out {tmp_path} --groups {group} --kills 10 --images 2000".split()
    environment, root = os.environ | {"OMP_NUM_THREADS": "1"}, Path(__file__).parents[1]
    done = subprocess.run([sys.executable, *words], env=environment, cwd=root, capture_output=True, text=True)
    rows = json.loads((tmp_path / "drills.json").read_text())
    assert [row["broken"] for row in rows] == [[]] * len(rows), done.stdout
    assert done.returncode == 0
