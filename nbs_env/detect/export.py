"""What a run ships as one ONNX file: `nbs export --run RUN_DIR --out detector.onnx`.

Everything is inside the graph: resizing, segmenter, memory or both, thresholds. Input `image`, uint8
(n, h, w, 3), RGB, n images of one size, from 64x64 up. Outputs `probability`, float32 (n, h, w), `mask`, bool
(n, h, w), `score`, float32 (n,), the mean of an image's highest 0.1 % of probabilities, and `bad`, bool (n,),
whether an image is called bad. Needs the extra `export`.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import command
from nbs_env.detect.detector import Detector
from nbs_env.detect.fusion import TOP
from nbs_env.detect.segmenter import probable

OUTPUTS = ("probability", "mask", "score", "bad")
PLANES = ["n", "height", "width"]
OPSET = 18
"""The first one whose Resize can smooth while it shrinks."""
RESIZE = "Resize <antialias = 1, exclude_outside = 1, mode = "
BITS = 22
"""Of the fractions that Pillow resizes with."""
WHOLE = {"thousand": [1000], "one": [1], "flat": [0, -1], "plane": [1], "inner": [1, 2, 3]}
"""Constants that are lists of whole numbers."""


@dataclass(frozen=True)
class ExportArgs:
    """What to export."""

    run: Path
    """Directory of a finished run, or its detector.pt."""
    out: Path
    """The file to write."""


def export(detector: Detector, file: Path) -> None:
    """Write the first method of `detector` as ONNX.

    Raises:
        RunError: the extra `export` is not installed, or the method is `nbs`.
        WriteError: the file cannot be written.
    """
    try:
        import onnx
        import onnx.parser
    except ImportError as error:
        raise RunError(
            "onnx is not installed; python -m pip install 'neural-batch-sampling[export]'"
        ) from error
    method, side = detector.methods[0], detector.image_size
    if method == "nbs":
        raise RunError(
            "this detector has neither segmenter nor memory to export; train it with --segmenter-steps or "
            "--memory-size above 0"
        )
    size, network, buffer = detector.size_of(method), _Evidence(detector, method), io.BytesIO()
    parts = ["odds"] * (network.share < 1) + ["distances"] * (network.share > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other exporter needs a package more, for the same graph
        torch.onnx.export(
            network,
            (torch.zeros(1, side, side, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[*parts, "working"],
            dynamic_axes={"image": dict(enumerate(PLANES))},
        )
    model = onnx.load_from_string(buffer.getvalue())
    alarm, threshold = detector.alarms.get(method), detector.threshold_of(method)
    levels = {"half": 0.5, "lowest": -TOP, "highest": TOP, "threshold": threshold}
    levels |= {} if alarm is None else {"alarm": alarm}
    _follow(onnx, model.graph, levels, _after(parts, alarm is not None))
    facts = {
        "method": method,
        "image_size": side if size == "square" else size,
        "threshold": threshold,
        "white": 255,
    }
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    model.producer_name = "neural-batch-sampling"
    onnx.checker.check_model(model, full_check=True)
    checkpoint.replace_file(file, lambda part: part.write_bytes(model.SerializeToString()))


class _Evidence(torch.nn.Module):
    """Images (n, h, w, 3) uint8 to the terms of `fusion.mixed` (n, 1, H, W), and to the working size (2,).

    The terms are the segmenter's log-odds, and the memory's distances in squares, each times its share.
    """

    def __init__(self, detector: Detector, method: str) -> None:
        super().__init__()
        self.share, self.symmetries = detector.share_of(method), detector.segmenter_symmetries
        self.size, self.side = detector.size_of(method), detector.image_size
        if self.share < 1:
            self.segmenter = copy.deepcopy(detector.segmenter).cpu().eval()
        if self.share > 0:
            self.memory = copy.deepcopy(detector.memory).cpu()

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        levels, square = image.permute(0, 3, 1, 2), torch.tensor([self.side, self.side])
        size, parts = torch._shape_as_tensor(levels)[2:], []
        if self.size == "square":
            working = square
        elif self.size == "own":
            working = size
        else:  # as `working_size` has it
            working = ((2 * size * self.size + size.max()) // (2 * size.max())).clamp(min=1)
        small = levels / 255 if self.size == "own" else _resized(levels, size, working)
        if self.share < 1:
            p = probable(self.segmenter, small, self.symmetries)
            parts.append((1 - self.share) * (p / (1 - p)).log().clamp(-TOP, TOP)[:, None])
        if self.share > 0:
            squares = small if self.size == "square" else _resized(levels, size, square)
            parts.append(self.share * self.memory(squares)[:, None])
        return [*parts, working]


def _resized(levels: torch.Tensor, size: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Levels (n, 3, *size) uint8 to (n, 3, *target) in [0, 1], as Pillow does: columns, then rows."""
    rows, columns = (_fractions(size[i : i + 1], target[i : i + 1]) for i in range(2))
    between = _whole(levels.double() @ columns.T)
    return _whole(rows @ between).float() / 255


def _fractions(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pillow's (target, source) bicubic weights of the pixels of a line, times 2 ** BITS.

    Lengths are of shape (1,): the exporter would divide numbers of none in float32.
    """
    scale = source.double() / target.double()
    centers = _middles(target)[:, None] * scale
    away = (_middles(source) - centers).abs() / scale.clamp(min=1)
    x, near = away.clamp(max=2), away.clamp(max=1)
    weights = 2 - x * (4 - x * (2.5 - 0.5 * x)) + (near - 1) ** 2 * (2 * near - 1)
    return (weights / weights.sum(dim=1, keepdim=True) * 2**BITS).round()


def _middles(count: torch.Tensor) -> torch.Tensor:
    """The middles of `count` pixels of a line."""
    return torch.arange(count[0], dtype=torch.float64) + 0.5  # type: ignore[call-overload]


def _whole(sums: torch.Tensor) -> torch.Tensor:
    """Sums of levels times `_fractions` to whole levels."""
    return (sums / 2**BITS + 0.5).floor().clamp(0, 255)


# What `Detector.predict` does after that, a node a line


def _after(parts: list[str], with_alarm: bool) -> list[str]:
    """From the network's outputs to the graph's."""
    return [
        "size = Shape <start = 1, end = 3> (image)",
        f"planes = Shape <end = 2> ({parts[0]})",
        "working_sizes = Concat <axis = 0> (planes, working)",
        "whole_sizes = Concat <axis = 0> (planes, size)",
        f'fitted = {RESIZE}"linear"> ({parts[-1]}, , , working_sizes)',  # which the odds are
        f"mean = Sum ({', '.join([*parts[:-1], 'fitted'])})",
        "clipped = Clip (mean, lowest, highest)",
        "probabilities = Sigmoid (clipped)",
        f'whole = {RESIZE}"linear"> (probabilities, , , whole_sizes)',
        "probability = Squeeze (whole, plane)",
        "inside = GreaterOrEqual (probabilities, threshold)",
        "inside_levels = Cast <to = 1> (inside)",
        f'whole_mask = {RESIZE}"linear"> (inside_levels, , , whole_sizes)',
        "mask_plane = GreaterOrEqual (whole_mask, half)",
        "mask = Squeeze (mask_plane, plane)",
        "rows = Reshape (probabilities, flat)",
        "pixels = ReduceProd (working)",
        "thousandth = Div (pixels, thousand)",
        "count = Max (thousandth, one)",
        "top, places = TopK (rows, count)",
        "score = ReduceMean <keepdims = 0> (top, plane)",
        "fullest = ReduceMax <keepdims = 0> (inside_levels, inner)",
        f"bad = GreaterOrEqual ({'score, alarm' if with_alarm else 'fullest, half'})",
    ]


def _follow(onnx: Any, graph: Any, levels: dict[str, float], after: list[str]) -> None:
    """Put nodes behind the network, with constants and `levels` that they use."""
    graph.node.extend(map(onnx.parser.parse_node, after))
    used = {name for node in graph.node for name in node.input}
    for kind, constants in ((np.int64, WHOLE), (np.float32, levels)):
        for name in used & constants.keys():
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(constants[name], kind), name))
    floats, bools, value = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.helper.make_tensor_value_info
    del graph.output[:]
    for name, kind, shape in zip(
        OUTPUTS, (floats, bools, floats, bools), (PLANES, PLANES, ["n"], ["n"]), strict=True
    ):
        graph.output.append(value(name, kind, shape))


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Export what the command line says."""
    args = tyro.cli(ExportArgs, args=argv, description=__doc__)
    state = Detector.file_of(args.run)
    with checkpoint.unpacking(state):
        detector = Detector.load(state)
    export(detector, args.out)
    print(f"{args.out}: image uint8 (n, h, w, 3) to {', '.join(OUTPUTS)}")


if __name__ == "__main__":
    main()
