"""The benchmark of speed: every group has its cases, and a row says what the times come to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import speed


def test_rows_are_medians_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([4.0, 1.0, 2.0, 8.0, 2.0, 6.0])  # slow, fast, slow, fast ...
    monkeypatch.setattr(speed, "timed", lambda task, device: next(clock))
    a = torch.zeros(10, 20)
    cases = [speed.Case("slow", int), speed.Case("fast", lambda: a @ a.T, "slow", torch.float32)]
    slow, fast = speed.measure(cases, 3, "cpu", {torch.float32: 1000.0})
    assert (slow["seconds"], fast["seconds"]) == (2.0, 6.0)
    assert fast["times_faster"] == pytest.approx(2 / 6)
    assert fast["limit"] == pytest.approx(2 * 10 * 20 * 10 / 6 / 1000)
    assert slow["limit"] is None
    clock = iter(range(10))
    (row,) = speed.measure([speed.Case("quick", int, share=5)], 2, "cpu", {})
    assert row["seconds"] == 4.5  # of ten
    assert not list(clock)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [speed.Case("nothing", int), speed.Case("again", int, "nothing")]
    monkeypatch.setitem(speed.GROUPS, "tiny", lambda device: iter(cases))
    monkeypatch.setattr(speed, "limit", lambda dtype, device: 1e9)  # minutes where bfloat16 is emulated
    words = ["speed", "--groups", "tiny,step", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    speed.main()
    assert (tmp_path / "speed.md").read_text() in capsys.readouterr().out
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["reference"] for row in rows] == ["", "nothing", ""]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_call() -> None:
    held = []
    assert speed.peak(lambda: None, "cpu") == pytest.approx(0, abs=4)
    assert speed.peak(lambda: held.append(torch.ones(100 * 2**18)), "cpu") == pytest.approx(100, abs=4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_over_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["speed", "--memory-updates", "2", "--out", str(tmp_path), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", words)
    speed.main()
    held = json.loads((tmp_path / "memory.json").read_text())["mib"]
    assert len(held) == 2
    assert all(100 < each < 20_000 for each in held)
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    a, calls = torch.ones((50, 50)), []

    def task() -> None:
        calls.append(a @ a)

    monkeypatch.setattr(speed, "episode_cases", lambda device: iter([speed.Case("product", task)]))
    monkeypatch.setattr(sys, "argv", ["speed", "--trace", "--device", "cpu", "--out", str(tmp_path)])
    speed.main()
    assert "aten::mm" in capsys.readouterr().out
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events].count("aten::mm") == 1 < len(calls)


def test_unknown_group_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--groups", "steps"])
    with pytest.raises(SystemExit) as end:
        speed.main()
    assert end.value.code == 2
    assert "there is no group 'steps'; choose from step," in capsys.readouterr().err
