"""The page about a run: its figures are the run's, nothing in it can run, and it stays small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import UPDATES
from PIL import Image

from nbs_env.common import checkpoint
from nbs_env.common.runs import digests
from nbs_env.data import AnomalyDataset
from nbs_env.desk import report, run
from nbs_env.desk.report import write_report
from nbs_env.desk.run import RunArgs, settings
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.metrics import pixel_curve

Made = Callable[..., tuple[Path, AnomalyDataset]]
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)<", "{{title}} & 'quoted' \"name\" #1?")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the content of the scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.scripts += [""] * (tag == "script")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def content(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A function that writes a run of a segmenter without training one, and its images."""

    def make(names: tuple[str, ...], size: int = 64, truth: bool = True) -> tuple[Path, AnomalyDataset]:
        rng = np.random.default_rng(0)
        noise = rng.integers(-25, 25, (len(names), size, size, 3))
        images = (128 + noise + rng.integers(-60, 60, (len(names), 1, 1, 1))).astype(np.uint8)
        smooth = rng.random((len(names), size // 8, size // 8)).repeat(8, axis=1).repeat(8, axis=2)
        probabilities = (smooth * 0.9 + 0.1 * rng.random(smooth.shape)).astype(np.float32)
        masks = smooth > 0.95
        known, kinds = np.full(len(names), truth), ("",) * len(names)
        data = AnomalyDataset("folder/<b>mine</b>", images, masks & truth, known, names, kinds)
        directory = tmp_path / "made"
        rows = []
        for name, probability, mask in zip(names, probabilities, masks, strict=True):
            levels, found = (probability * 255).round().astype(np.uint8), probability >= 0.9
            checkpoint.save_picture(levels, directory / "probabilities" / f"{name}.png")
            checkpoint.save_picture(found, directory / "masks" / f"{name}.png")
            row = {
                "image": name,
                "image_score": probability.max(),
                "highest_probability": probability.max(),
                "anomalous_share": found.mean(),
                "bad": int(found.any()),
                "defective": int(mask.any()) if truth else "",
            }
            rows.append(row)
        checkpoint.save_csv(rows, directory / "predictions.csv")
        config = DetectorConfig(segmenter_steps=1)
        stored = settings(RunArgs(dataset="folder", data_root=tmp_path / "</script>"), config, None)
        checkpoint.save_json(stored | {"images": digests(images=images)}, directory / "config.json")
        metrics = {
            "dataset": data.name,
            "labeled": list(names[:1]),
            "masks": "segmenter",
            "thresholds": {"segmenter": 0.9},
            "alarms": {},
            "expected": {"good": (0, 0), "defective": (1, 2), "rate": 0.01},
            "methods": {"segmenter": {}},
            "curve": pixel_curve(probabilities, masks, 0.9) if truth else None,
            "history": [],
        }
        checkpoint.save_json(metrics, directory / "metrics.json")
        return directory, data

    return make


def test_the_figures_are_those_of_the_run(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    content = Page(finished / "report.html").content
    assert content["methods"] == metrics["methods"]
    curve, place = content["curve"], content["default"]
    assert content["thresholds"] == curve["thresholds"]
    assert content["thresholds"][place] == metrics["thresholds"]["segmenter"]
    figures = metrics["methods"]["segmenter"]
    true, false = curve["true"][place], curve["false"][place]
    assert true > 0
    assert true / (true + false) == pytest.approx(figures["pixel_precision"], abs=1e-12)
    assert true / curve["anomalous"] == pytest.approx(figures["pixel_recall"], abs=1e-12)
    images = content["images"]
    assert sorted(image["name"] for image in images) == ["2", "3", "4"]
    assert [image["score"] for image in images] == sorted((image["score"] for image in images), reverse=True)
    assert {image["name"]: image["defective"] for image in images} == {"2": True, "3": False, "4": None}
    for kind, defective in (("defective", True), ("good", False)):
        called = [image["bad"] for image in images if image["defective"] is defective]
        assert [sum(called), len(called)] == metrics["called_bad"]["segmenter"][kind]
    for image in images:  # what the page goes by when the threshold is moved says the same where it stands
        assert image["bad"] == (image["highest"] >= content["thresholds"][place])
    series = content["curves"]["series"]
    losses = [row["prediction_loss"] for row in metrics["history"] if "prediction_loss" in row]
    assert [y for _, y in series["prediction_loss"]] == pytest.approx(losses)
    assert content["curves"]["marks"] == [row["update"] for row in metrics["history"] if row["reinitialized"]]
    patches = sum(np.sum(image["visits"]) for image in content["walk"])
    assert patches == UPDATES * 4


def test_links_lead_to_files(finished: Path, folder: Path) -> None:
    for image in Page(finished / "report.html").content["images"]:
        name = image["name"]
        assert (finished / image["link"]).resolve() == (folder / "images" / f"{name}.png").resolve()
        assert (finished / image["mask_link"]).resolve() == finished / "masks" / f"{name}.png"
        assert {"image", "probability", "mask"} <= image.keys()


def test_made_again_it_is_the_same(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the images as they lie on disc, and after the run's own."""
    before = (finished / "report.html").read_bytes()
    report.main([str(finished)])
    assert (finished / "report.html").read_bytes() == before
    assert " of 3 images " in capsys.readouterr().out


def test_moved_images_leave_a_page_without_photos(finished: Path, tmp_path: Path, mine: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    config = json.loads((finished / "config.json").read_text())
    config["run"]["data_root"] = str(tmp_path / "gone")
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.warns(match="without photos and truth: .*gone: no such directory"):
        page, _ = write_report(tmp_path / "copy")
    assert all("image" not in image and "mask" in image for image in Page(page).content["images"])
    page, _ = write_report(tmp_path / "copy", data_root=mine)
    assert all("image" in image for image in Page(page).content["images"])
    Image.new("RGB", (128, 128)).save(mine / "images" / "3.png")
    with pytest.warns(match="other images than the run had"):
        write_report(tmp_path / "copy", data_root=mine)


def test_a_page_that_fails_is_one_line(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    directory, data = made(("a", "b"))
    (directory / "probabilities" / "b.png").write_bytes(b"nothing")
    run.report(directory, data)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: no report.html (")
    assert "b.png is truncated, damaged" in line


def test_nothing_in_a_name_or_a_setting_is_markup(made: Made) -> None:
    directory, data = made(HOSTILE)
    page = Page(write_report(directory, data)[0])
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == len(page.scripts) == 2
    assert (tags.count("img"), tags.count("b")) == (1, 0)  # that of the viewer
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert {image["name"] for image in page.content["images"]} == set(HOSTILE)
    for image in page.content["images"]:
        assert not set("<>\"'?#") & set(image["mask_link"])
    assert page.content["settings"]["run"]["data_root"].endswith("</script>")
    links = [attributes.get(key) for _, attributes in page.elements for key in ("src", "href")]
    assert [link for link in links if link] == ["data:,"], "nothing is fetched"


def test_without_truth_there_is_no_precision(made: Made) -> None:
    directory, data = made(tuple("abc"), truth=False)
    content = Page(write_report(directory, data)[0]).content
    assert content["curve"] is None
    for image in content["images"]:
        assert image["defective"] is None
        assert "truth" not in image


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("config.json", "holds neither a run nor predictions; give the --run-dir of nbs train"),
        ("metrics.json", "holds no finished run; `nbs train --resume"),
        ("predictions.csv", "holds no finished run"),
        ("", "predictions.csv is truncated, damaged or of another kind"),
    ],
)
def test_what_is_no_run_is_one_line(missing: str, line: str, made: Made, fails: Callable[..., str]) -> None:
    directory, _ = made(("a",))
    if missing:
        (directory / missing).unlink()
    else:
        (directory / "predictions.csv").write_text("image,image_score\na,high\n")
    assert line in fails(report.main, [str(directory)])
    assert not (directory / "report.html").exists()


def test_few_bytes_leave_the_lowest_scores_without_pictures(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, data = made(tuple(map(str, range(12))))
    monkeypatch.setattr(report, "BUDGET", 40_000)
    page, _ = write_report(directory, data)
    has = ["image" in image for image in Page(page).content["images"]]
    assert has == sorted(has, reverse=True)
    assert any(has)
    assert not all(has)
    layers = ("image", "mask", "probability", "truth")
    images = Page(page).content["images"]
    assert sum(len(image.get(layer, "")) for image in images for layer in layers) <= 40_000


@pytest.mark.slow
def test_a_thousand_images_take_at_most_20_megabytes(made: Made) -> None:
    directory, data = made(tuple(f"{i:04}" for i in range(1000)), size=256)
    page, _ = write_report(directory, data)
    assert page.stat().st_size < 20e6
    assert all("image" in image for image in Page(page).content["images"])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_and_the_sliders_move_the_figures(
    scheme: str, browser: Any, finished: Path, made: Made
) -> None:
    content = Page(finished / "report.html").content
    curve, figures = content["curve"], content["methods"]["segmenter"]
    hostile, data = made(HOSTILE)
    write_report(hostile, data)
    page = browser.new_context(color_scheme=scheme, viewport={"width": 400, "height": 900}).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(hostile.joinpath("report.html").as_uri())
    assert set(page.locator("td.name").all_inner_texts()) == set(HOSTILE)
    page.goto(finished.joinpath("report.html").as_uri())

    def shown(row: str) -> list[str]:
        return page.locator(f"#figures-{row} td").all_inner_texts()

    def move(slider: str, to: int) -> None:
        page.locator(f"#{slider}").evaluate(
            "(s, v) => { s.value = v; s.dispatchEvent(new Event('input')) }", to
        )

    own = [f"{figures[f'pixel_{name}']:.3f}" for name in ("precision", "recall", "f1")]
    assert shown("pixels") == own
    called = page.locator("#called").inner_text()
    for place in (content["default"] // 2, 0):
        move("pixel", place)
        true, false = curve["true"][place], curve["false"][place]
        assert shown("pixels")[:2] == [f"{true / (true + false):.3f}", f"{true / curve['anomalous']:.3f}"]
    assert page.locator("#called").inner_text() == "100 %"
    move("image", 3)  # above the highest of three scores
    assert page.locator("#called").inner_text() == "0 %"
    assert page.locator("#count-bad").inner_text() == "0"
    assert page.locator("#count-wrong").inner_text() == "1"
    page.click("#reset")
    assert (shown("pixels"), page.locator("#called").inner_text()) == (own, called)
    page.click("#images tbody tr:first-child")
    page.wait_for_function("document.getElementById('photo').src.startsWith('file:')")  # the original
    page.keyboard.press("p")
    page.wait_for_function(
        "(() => { const c = document.getElementById('overlay'), d = c.getContext('2d');"
        "return d.getImageData(0, 0, c.width, c.height).data.every((v, i) => i % 4 < 3 || v === 255) })()"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert said == []
