"""The labelling page in a real browser: what is on disc is what was painted, whatever happens."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import stored
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `label` is not installed")
pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 320, 240
TINY = ["--image-size", "128", "--segmenter-crop", "64", "--segmenter-batch", "2"]
PATIENCE = 120_000  # ms


class Command:
    """`python -m nbs_env.desk.label`, as a user starts it."""

    def __init__(self, home: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nbs_env.desk.label", "--images", str(home), "--no-browser", *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]
        assert self.address.startswith("http://127.0.0.1:")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait()


class Page:
    """The page, operated by mouse and keyboard; places are pixels of the image."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1300, "height": 800})
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.locator("#chip:not(:empty)").wait_for()

    def open(self, name: str) -> None:
        self.page.fill("#find", name)
        self.page.press("#find", "Enter")
        self.page.locator("#name", has_text=name).wait_for()

    def at(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#stage").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT) * 0.98
        left = box["x"] + (box["width"] - WIDTH * scale) / 2
        top = box["y"] + (box["height"] - HEIGHT * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def drag(self, *places: tuple[int, int], button: str = "left") -> None:
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place))
        self.page.mouse.up(button=button)

    def saved(self) -> None:
        self.page.locator("#saved", has_text=re.compile("^saved")).wait_for()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def train(self, number: int) -> None:
        self.page.click("#train")
        self.page.locator("#notice", has_text=f"Round {number} is done").wait_for()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Six images of dull noise, each with a bright spot."""
    rng = np.random.default_rng(0)
    (tmp_path / "mine" / "images").mkdir(parents=True)
    for number in range(6):
        image = rng.normal(100, 10, (HEIGHT, WIDTH, 3))
        image[60:90, 40 * number + 20 : 40 * number + 50] += 80
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / f"mine/images/{number}.png")
    return tmp_path / "mine"


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(steps: int = 6) -> Command:
        commands.append(Command(home, "--segmenter-steps", str(steps), *TINY))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.end()


def painted(home: Path, name: str) -> np.ndarray:
    values = stored(home / "masks" / f"{name}.png")
    assert set(np.unique(values)) <= {0, 255}
    return values == 255


def stroke(mask: np.ndarray, places: list[tuple[int, int]], size: int, value: bool = True) -> None:
    """Mark every pixel whose centre is within half of `size` of a line through the centres of `places`."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(float)
    for (x0, y0), (x1, y1) in pairwise(places):
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / length, 0, 1) if length else 0.0
        mask[(x - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2 <= (size / 2) ** 2] = value


def test_tools_leave_on_disc_what_they_say(home: Path, browser: Any, start: Callable[..., Command]) -> None:
    page = Page(browser, start().address)
    page.open("0.png")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    brush = [(20, 60), (40, 80), (48, 62)]
    page.drag(*brush)
    stroke(expected, brush, 12)
    page.press("l")
    page.page.keyboard.press("[")  # 12 to 10
    page.drag((200, 200), (300, 100))
    stroke(expected, [(200, 200), (300, 100)], 10)
    page.press("e")
    page.drag((30, 70), (30, 71))
    stroke(expected, [(30, 70), (30, 71)], 10, False)
    page.press("b")
    page.drag((250, 150), (251, 150), button="right")
    stroke(expected, [(250, 150), (251, 150)], 10, False)
    page.saved()
    np.testing.assert_array_equal(painted(home, "0"), expected)
    page.press("p")
    corners = [(100, 20), (140, 30), (120, 70)]
    for corner in corners:
        page.page.mouse.click(*page.at(*corner))
    page.press("Enter")
    page.saved()
    inside = painted(home, "0") & ~expected
    y, x = np.nonzero(inside)
    assert abs(len(x) - (40 * 50 - 20 * 10) / 2) < 50
    assert 100 <= x.min() <= x.max() <= 140
    assert 20 <= y.min() <= y.max() <= 70
    page.press("Control+z")
    page.page.locator("#redo:enabled").wait_for()
    page.saved()
    np.testing.assert_array_equal(painted(home, "0"), expected)
    page.press("Control+y")
    page.page.locator("#redo:disabled").wait_for()
    page.saved()
    np.testing.assert_array_equal(painted(home, "0"), expected | inside)
    page.page.keyboard.down("Shift")
    page.drag((110, 30), (110, 30))  # the polygon, whole
    page.page.keyboard.up("Shift")
    page.saved()
    np.testing.assert_array_equal(painted(home, "0"), expected)
    for _ in range(6):
        page.press("Control+z")
    page.page.locator("#chip", has_text="not labelled").wait_for()
    page.page.locator("#progress", has_text="0 labelled").wait_for()
    assert not (home / "masks" / "0.png").exists()
    assert not page.errors


def test_the_whole_loop(home: Path, browser: Any, start: Callable[..., Command]) -> None:
    command = start()
    page = Page(browser, command.address)
    expected = {}
    for name, x in (("0", 20), ("1", 60)):
        page.open(f"{name}.png")
        places = [(x + 5, 65), (x + 25, 65), (x + 25, 85), (x + 5, 85)]
        page.drag(*places)
        page.saved()
        expected[name] = np.zeros((HEIGHT, WIDTH), bool)
        stroke(expected[name], places, 12)
    page.open("2.png")
    page.press("g")
    page.page.locator("#progress", has_text="3 labelled, 1 good").wait_for()
    expected["2"] = np.zeros((HEIGHT, WIDTH), bool)
    for name, mask in expected.items():
        np.testing.assert_array_equal(painted(home, name), mask)
    page.train(1)
    metrics = json.loads((home / "runs" / "001" / "metrics.json").read_text())
    assert metrics["labeled"] == ["0", "1", "2"]
    page.open("3.png")
    page.page.locator("#chip", has_text="predicted").wait_for()
    assert not (home / "masks" / "3.png").exists()  # shown, not saved
    with Image.open(home / "runs" / "001" / "masks" / "3.png") as picture:
        mended = np.asarray(picture) > 0
    page.drag((145, 65), (165, 85))
    page.saved()
    stroke(mended, [(145, 65), (165, 85)], 12)
    expected["3"] = mended
    np.testing.assert_array_equal(painted(home, "3"), mended)
    page.train(2)
    assert "3" in json.loads((home / "runs" / "002" / "metrics.json").read_text())["labeled"]
    page.page.locator("#progress", has_text="4 labelled, 1 good, F1 left out").wait_for()

    page.page.reload()
    page.page.locator("#name", has_text="3.png").wait_for()
    page.page.locator("#chip", has_text="defect marked").wait_for()
    for name, mask in expected.items():
        np.testing.assert_array_equal(painted(home, name), mask)

    page.drag((200, 150), (220, 150))  # a stroke that is saved, and one that is under way
    page.saved()
    kept = painted(home, "3")
    page.page.mouse.move(*page.at(100, 200))
    page.page.mouse.down()
    page.page.mouse.move(*page.at(150, 200))
    command.end(signal.SIGKILL)
    page.page.mouse.up()
    page.page.locator("#notice", has_text="has ended").wait_for()
    page.page.close()
    again = Page(browser, start().address)
    again.page.locator("#progress", has_text="4 labelled, 1 good, F1 left out").wait_for()
    again.open("3.png")
    again.page.locator("#chip", has_text="defect marked").wait_for()
    np.testing.assert_array_equal(painted(home, "3"), kept)
    assert not page.errors
    assert not again.errors


def test_good_images_alone_begin_the_first_round(
    home: Path, browser: Any, start: Callable[..., Command]
) -> None:
    rng = np.random.default_rng(1)
    (home / "good").mkdir()
    for number in range(4):
        image = rng.normal(100, 10, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(home / "good" / f"{number}.png")
    page = Page(browser, start().address)
    page.page.locator("#notice", has_text="Round 1 is done. Enter keeps").wait_for()
    page.page.locator("#worth", has_text="No F1 yet").wait_for()
    assert page.page.locator("#progress").text_content() == "0 labelled, 0 good"
    page.open("2.png")
    page.page.locator("#chip", has_text="predicted defect").wait_for()
    page.page.locator("#looking", has_text="6 of 6 called bad").wait_for()
    page.press("Enter")
    page.page.locator("#progress", has_text="1 labelled, 0 good").wait_for()
    spot = np.zeros((HEIGHT, WIDTH), bool)
    spot[60:90, 100:130] = True
    found = painted(home, "2")
    assert found[spot].all()
    assert found[~spot].mean() < 0.2
    page.page.reload()
    page.page.locator("#progress", has_text="1 labelled").wait_for()
    assert [path.name for path in (home / "runs").glob("*.log")] == ["001.log"]
    assert not page.errors


def test_cancel_and_resume(home: Path, browser: Any, start: Callable[..., Command]) -> None:
    page = Page(browser, start(60).address)
    page.open("0.png")
    page.drag((25, 65), (45, 85))
    page.open("1.png")
    page.drag((65, 65), (85, 85))
    page.page.locator("#progress", has_text="2 labelled").wait_for()
    page.page.click("#train")
    page.page.locator("#left", has_text="segmenter").wait_for()
    page.page.click("#cancel")
    page.page.locator("#failed", has_text="interrupted; go on with --resume").wait_for()
    page.page.click("#resume")
    page.page.locator("#notice", has_text="Round 1 is done").wait_for()
    assert len(list((home / "runs").glob("*.log"))) == 1


def test_two_tabs(home: Path, browser: Any, start: Callable[..., Command]) -> None:
    address = start().address
    one, other = Page(browser, address), Page(browser, address)
    for page in (one, other):
        page.open("0.png")
    one.drag((20, 60), (40, 60))
    one.saved()
    kept = painted(home, "0")
    other.drag((100, 100), (140, 100))
    other.page.locator("#notice", has_text="changed elsewhere").wait_for()
    time.sleep(0.5)
    np.testing.assert_array_equal(painted(home, "0"), kept)
    other.drag((100, 100), (140, 100))  # now on what the first has painted
    other.saved()
    stroke(kept, [(100, 100), (140, 100)], 12)
    np.testing.assert_array_equal(painted(home, "0"), kept)
