"""The segmenter of a run as one ONNX file: `nbs export --run RUN_DIR --out detector.onnx`.

Everything is inside the graph. Input `image`, uint8 (h, w, 3), RGB, of any size from 64x64 up. Outputs
`probability`, float32 (h, w), `mask`, bool (h, w), `score`, float32, the mean of the highest 0.1 % of the
probabilities, and `bad`, bool, whether the image is called bad. Needs the extra `export`.
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
from nbs_env.detect.config import Size
from nbs_env.detect.detector import Detector
from nbs_env.detect.segmenter import STRIDE, Segmenter, probable

OUTPUTS = ("probability", "mask", "score", "bad")
OPSET = 18
"""The first one whose Resize can smooth while it shrinks, as Pillow does."""
RESIZE = "Resize <antialias = 1, cubic_coeff_a = -0.5, exclude_outside = 1, mode = "
WHOLE = {
    "one_rgb": [1, 3],
    "zero_pads": [0] * 6,
    "thousand": [1000],
    "stride": [STRIDE],
    "one": [1],
    "two": [2],
    "first": [0],
    "flat": [-1],
    "axes": [0, 1],
    "axes_of_map": [1, 2],
    "origin": [0, 0],
    "ones": [1, 1],
}
"""Constants that are lists of whole numbers."""


@dataclass(frozen=True)
class ExportArgs:
    """What to export."""

    run: Path
    """Directory of a finished run with a segmenter, or its detector.pt."""
    out: Path
    """The file to write."""


def export(detector: Detector, file: Path) -> None:
    """Write the segmenter of `detector` as ONNX.

    Raises:
        RunError: the extra `export` is not installed, or there is no segmenter.
        WriteError: the file cannot be written.
    """
    try:
        import onnx
        import onnx.parser
    except ImportError as error:
        raise RunError(
            "onnx is not installed; python -m pip install 'neural-batch-sampling[export]'"
        ) from error
    if "segmenter" not in detector.methods:
        raise RunError("this detector has no segmenter to export; train it with --segmenter-steps above 0")
    buffer = io.BytesIO()
    network = _Probable(copy.deepcopy(detector.segmenter).cpu().eval(), detector.segmenter_symmetries)
    side, size = detector.image_size, detector.segmenter_size
    sides = {2: "rows", 3: "columns"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other exporter needs a package more, for the same graph
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["small"],
            output_names=["whole_map"],
            dynamic_axes=None if size == "square" else {"small": sides},
        )
    model = onnx.load_from_string(buffer.getvalue())
    alarm = detector.image_threshold
    levels = {"zero": 0, "white": 255, "half": 0.5, "threshold": detector.segmenter_threshold}
    levels |= {} if alarm is None else {"alarm": alarm}
    _surround(onnx, model.graph, levels, _before(size, side), _after(alarm is not None))
    working = side if size == "square" else size
    facts = {"image_size": working, "threshold": detector.segmenter_threshold, "white": 255}
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    model.producer_name = "neural-batch-sampling"
    onnx.checker.check_model(model, full_check=True)
    checkpoint.replace_file(file, lambda part: part.write_bytes(model.SerializeToString()))


class _Probable(torch.nn.Module):
    """Images (1, 3, H, W) in [0, 1], H and W multiples of 16, to probabilities (1, H, W)."""

    def __init__(self, segmenter: Segmenter, symmetries: bool) -> None:
        super().__init__()
        self.segmenter, self.symmetries = segmenter, symmetries

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return probable(self.segmenter, images, torch.float32, self.symmetries)


# What `Detector.predict` does before and after the network, a node a line


def _before(size: Size, side: int) -> list[str]:
    """From `image` to `small`: resized, as levels from 0 to 1, padded to multiples of 16."""
    lines = [
        "channels_first = Transpose <perm = [2, 0, 1]> (image)",
        "levels = Cast <to = 1> (channels_first)",
        "batch = Unsqueeze (levels, first)",
        "size = Shape <end = 2> (image)",
    ]
    if size == "own":
        lines += ["working = Identity (size)", "clipped = Identity (batch)"]
    else:
        if size == "square":
            lines.append(f"working = Constant <value_ints = [{side}, {side}]> ()")
        else:  # as `working_size` has it
            lines += [
                f"doubled = Constant <value_ints = [{2 * size}]> ()",
                "longer = ReduceMax <keepdims = 1> (size)",
                "size_doubled = Mul (size, doubled)",
                "numerator = Add (size_doubled, longer)",
                "denominator = Mul (longer, two)",
                "rounded = Div (numerator, denominator)",
                "working = Max (rounded, one)",
            ]
        lines += [
            # Pillow shrinks rows, rounds, shrinks columns, rounds.
            "height = Shape <end = 1> (image)",
            "working_width = Slice (working, one, two)",
            "sizes_between = Concat <axis = 0> (one_rgb, height, working_width)",
            *_resized("batch", "sizes_between", "between"),
            "sizes_small = Concat <axis = 0> (one_rgb, working)",
            *_resized("between", "sizes_small", "clipped"),
        ]
    return [
        *lines,
        "unpadded = Div (clipped, white)",
        "negative = Neg (working)",
        "lacking = Mod (negative, stride)",
        "pads = Concat <axis = 0> (zero_pads, lacking)",
        'small = Pad <mode = "edge"> (unpadded, pads)',
    ]


def _resized(source: str, sizes: str, target: str) -> list[str]:
    """Resampled to whole levels, as Pillow does."""
    return [
        f'{target}_curve = {RESIZE}"cubic"> ({source}, , , {sizes})',
        f"{target}_and_half = Add ({target}_curve, half)",
        f"{target}_whole = Floor ({target}_and_half)",
        f"{target} = Clip ({target}_whole, zero, white)",
    ]


def _after(with_alarm: bool) -> list[str]:
    """From `whole_map` to the outputs."""
    return [
        "probabilities = Slice (whole_map, origin, working, axes_of_map)",
        "whole_sizes = Concat <axis = 0> (ones, size)",
        "planes = Unsqueeze (probabilities, first)",
        f'whole = {RESIZE}"linear"> (planes, , , whole_sizes)',
        "probability = Squeeze (whole, axes)",
        "inside = GreaterOrEqual (planes, threshold)",
        "inside_levels = Cast <to = 1> (inside)",
        f'whole_mask = {RESIZE}"linear"> (inside_levels, , , whole_sizes)',
        "mask_plane = GreaterOrEqual (whole_mask, half)",
        "mask = Squeeze (mask_plane, axes)",
        "row = Reshape (probabilities, flat)",
        "pixels = Size (row)",
        "thousandth = Div (pixels, thousand)",
        "highest = Max (thousandth, one)",
        "top, places = TopK (row, highest)",
        "score = ReduceMean <keepdims = 0> (top)",
        "fullest = ReduceMax <keepdims = 0> (inside_levels)",
        f"bad = GreaterOrEqual ({'score, alarm' if with_alarm else 'fullest, half'})",
    ]


def _surround(onnx: Any, graph: Any, levels: dict[str, float], before: list[str], after: list[str]) -> None:
    """Put nodes around the network, with constants and `levels` that they use."""
    network = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(map(onnx.parser.parse_node, before))
    graph.node.extend([*network, *map(onnx.parser.parse_node, after)])
    used = {name for node in graph.node for name in node.input}
    for kind, constants in ((np.int64, WHOLE), (np.float32, levels)):
        for name in used & constants.keys():
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(constants[name], kind), name))
    floats, bools, plane = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, ["height", "width"]
    value = onnx.helper.make_tensor_value_info
    graph.input.append(value("image", onnx.TensorProto.UINT8, [*plane, 3]))
    for name, kind, shape in zip(
        OUTPUTS, (floats, bools, floats, bools), (plane, plane, [], []), strict=True
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
    print(f"{args.out}: image uint8 (h, w, 3) to {', '.join(OUTPUTS)}")


if __name__ == "__main__":
    main()
