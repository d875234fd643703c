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

import numpy as np
import pytest
import torch
from drills import __main__ as command_line
from drills import service
from drills.attacker import MARKER, PAYLOADS, Bomb
from drills.cases import CASES, Case
from drills.disc import no_space_for
from drills.forks import Outcome, fork
from drills.inputs import inputs
from drills.kills import killed
from drills.small import Command, Row, content, difference, furnish

from nbs_env.common import checkpoint


def end(code: int = 0, out: str = "", err: str = "") -> Outcome:
    return Outcome(code, out, err, 0.0, 0.0)


def fail(code: object, *lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)
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
    start = time.monotonic()
    assert fork(lambda: time.sleep(60), kill_after=0.1).code == -signal.SIGKILL
    assert time.monotonic() - start < 30
    light, heavy = fork(lambda: None).peak, fork(lambda: np.ones(2**27)).peak
    assert 800 < heavy - light < 1100  # 1024 MiB, of which some may be what the parent had freed


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (end(2, err="error: a.png is damaged\n"), ""),
        (
            end(2, err="note: 3 left out\ncheck:  0%| | 0/3 [00:00<?, ?image/s]\nerror: a.png is damaged\n"),
            "",
        ),
        (end(2, err="check:  0%| | 0/3 [00:00<?, ?image/s]error: a.png is damaged\n"), "lines instead"),
        (end(1, err="error: a.png is damaged\n"), "exit code 1"),
        (end(0), "exit code 0"),
        (end(2, err="error: a.png\nerror: a.png\n"), "2 lines"),
        (end(2, err="a.py: a warning\nerror: a.png\n"), "2 lines"),
        (end(2, err="error: something is damaged\n"), "a.png is not named"),
        (end(2, err="Traceback (most recent call last):\nerror: a.png\n"), "a traceback"),
    ],
)
def test_a_refusal_is_one_line_that_names_it(outcome: Outcome, complaint: str) -> None:
    wrong = outcome.complaint("a.png")
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
    for name in list(found):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{Path(name).name} is not whole"):
            content(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_a_difference_is_found_in_a_single_bit() -> None:
    def value() -> dict[str, object]:
        return {"a": [torch.zeros(3), np.ones(2)], "b": {"c": 1.0}}

    assert difference(value(), value()) == ""
    other = value()
    other["a"][0][1] = -1e-45  # type: ignore[index]
    assert difference(value(), other) == "/a/0: other values"
    assert "/b/c" in difference(value(), value() | {"b": {"c": 1.0000000000000002}})
    assert "only one has b" in difference(value(), {"a": value()["a"]})
    assert "float and int" in difference({"b": 1.0}, {"b": 1})


FAKE = """
import json, os, sys, time
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
    if kind == "halves":
        with state.open("w") as file:
            file.write(text[:10])
            file.flush()
            time.sleep(0.03)  # most of the time, so that some kill falls into it
            file.write(text[10:])
    else:
        part = run / "state.json.part"
        part.write_text(text)
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
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fake_command.py").write_text(FAKE)
    (tmp_path / "model").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "code")
    each = Command("fake", "fake_command", kind, f"{kind} --resume")
    rng = np.random.default_rng(0)
    row = killed(tmp_path, tmp_path / "model", [each], 15, rng)
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

    assert fork(partial(write, "c.json")).code == 0
    assert fork(partial(write, "b.pt")).code == 7
    assert fork(partial(write, "a.json")).code == 1
    outcome = fork(partial(write, "a.json"))
    assert "a.json" in outcome.err


def test_payloads_are_live(tmp_path: Path) -> None:
    """What the drill hands out does execute where it is unpickled without care."""
    marker = tmp_path / MARKER
    loads = partial(torch.load, weights_only=False)
    for title in ("torch.save", "torch.save within a state", "torch.save before 1.6"):
        loads(io.BytesIO(PAYLOADS[title](Bomb(str(marker))))) if marker.exists() else None
        loads(io.BytesIO(PAYLOADS[title](Bomb(str(marker)))))
        marker.unlink()


def test_cases_are_of_many_kinds() -> None:
    assert len(CASES) >= 60
    assert len({(case.what, case.command) for case in CASES}) == len(CASES)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    home = furnish(tmp_path / "model")
    (home / "done").mkdir()
    return home


def test_inputs_tell_a_refusal_from_what_is_accepted(model: Path, tmp_path: Path) -> None:
    rows = list(
        inputs(
            tmp_path / "inputs",
            model,
            [
                Case("no such device", "predict", "tpu", "--device tpu"),
                Case("something else is named", "predict", "gpu", "--device tpu"),
                Case("nothing is wrong", "drills", "help", "--help"),
            ],
            [Case("predict", "predict", "colour", "--colour blue")],
        )
    )
    assert [row.tried for row in rows] == [3, 1]
    assert [line.split(":")[0] for line in rows[0].broken][-1] == "nothing is wrong (drills)"
    assert len(rows[0].broken) == 2
    assert not rows[1].broken


@pytest.mark.parametrize(("more", "kept"), [(18, True), (21, False)])
def test_memory_that_grows_with_the_folder_is_found(
    more: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(module: str, *words: str, cwd: Path) -> Outcome:
        masks = cwd / words[5] / "masks"
        masks.mkdir(parents=True)
        files = list((cwd / words[3]).iterdir())
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


@pytest.mark.parametrize(
    ("words", "named"), [("--kills 0", "kills"), ("--groups fires", "fires"), ("--images 0", "images")]
)
def test_wrong_values(words: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["--out", str(tmp_path / "out"), *words.split()])
    assert end.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("group", command_line.GROUPS)
def test_promises_are_kept(group: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.drills", "--out", tmp_path, "--groups", group]
    words += ["--kills", 10, "--images", 2000]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line, root = [str(word) for word in words], Path(__file__).parents[1]
    done = subprocess.run(line, env=environment, cwd=root, capture_output=True, text=True)
    rows = json.loads((tmp_path / "drills.json").read_text())
    assert [row["broken"] for row in rows] == [[]] * len(rows), done.stdout
    assert done.returncode == 0
