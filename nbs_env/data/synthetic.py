"""Made-up surfaces with made-up defects: needs no files, has exact masks, and a knob for how hard it is.

Three textures (the categories): `weave` (a twill of irregular yarns), `wood` (rings, fibres and pores) and
`speckle` (a granite of dark and light grains). Four defects: tears, stains, scratches and foreign threads.
The textures hold much that is hard to reconstruct and normal, the defects some that is faint, so a large
reconstruction error alone does not tell one from the other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.images import resize_image, resize_mask
from nbs_env.data.reading import Request

SIDE = 256
"""Side in pixels that an image is made with."""
GOOD_PERIOD = 7
"""One image in so many is good, at a random place among them."""
MIXED = "mixed"
"""The kind of an image with defects of several kinds."""

Array = NDArray[np.float64]
Generator = np.random.Generator
_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float64)
_SUPERSAMPLE = 4  # strokes are drawn so many times as large, which gives their edges exact fractions


def read(request: Request) -> AnomalyDataset:
    """Make the images; the category is the texture, `weave` if none is given.

    An image depends on the seed, the texture, the difficulty and its own number alone: fewer images are the
    first of more.

    Raises:
        DataError: If the texture is unknown, the count below 1 or the difficulty outside 0 to 1.
    """
    request.without_mask_values()
    texture = request.category or "weave"
    if texture not in TEXTURES:
        raise DataError(f"synthetic has no texture {texture!r}; choose one of {', '.join(TEXTURES)}")
    if request.count < 1:
        raise DataError(f"{request.count} synthetic images asked for; ask for at least 1")
    if not 0 <= request.difficulty <= 1:
        raise DataError(f"difficulty is {request.difficulty}; it must be from 0 to 1")
    if request.seed < 0:
        raise DataError(f"seed is {request.seed}; it must not be negative")
    images, masks, kinds = [], [], []
    for number in range(request.count):
        image, mask, kind = make_image(texture, request.seed, number, request.difficulty)
        images.append(resize_image(image, request.image_size))
        masks.append(resize_mask(mask, request.image_size))
        kinds.append(kind)
    return AnomalyDataset(
        name=f"synthetic/{texture}",
        images=np.stack(images),
        masks=np.stack(masks),
        has_mask=np.ones(request.count, dtype=np.bool_),
        names=tuple(f"{number:03d}" for number in range(request.count)),
        kinds=tuple(kinds),
    )


def make_image(
    texture: str, seed: int, number: int, difficulty: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    """Make one image, RGB `(256, 256, 3)`, its mask `(256, 256)` and its defect kind."""
    stream = list(TEXTURES).index(texture)
    block, place = divmod(number, GOOD_PERIOD)
    good_place = np.random.default_rng([seed, stream, 0, block]).integers(GOOD_PERIOD)
    rng = np.random.default_rng([seed, stream, 1, number])
    image = TEXTURES[texture](rng)
    # A defect is as plain on a rough texture as on a smooth one if its contrast grows with the spread.
    spread = float(np.clip(image.mean(axis=2).std(), 20, 30))
    mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
    kinds: set[str] = set()
    if place != good_place:
        for _ in range(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))):
            kind = str(rng.choice(list(DEFECTS)))
            contrast = (2.6 - 1.7 * difficulty) * rng.uniform(0.65, 1.35) * spread
            alpha, paint = DEFECTS[kind](image, 1.3 - 0.6 * difficulty, rng.spawn(1)[0])
            image = image + _opacity(image, alpha, paint, contrast) * alpha[..., None] * (paint - image)
            mask |= alpha >= 0.5
            kinds.add(kind)
    kind = GOOD if not kinds else kinds.pop() if len(kinds) == 1 else MIXED
    return _photograph(image, rng), mask, kind


def _opacity(image: Array, alpha: Array, paint: Array, contrast: float) -> float:
    """The opacity, at most 1, that changes the marked pixels by the contrast (grey levels) on average."""
    hit = alpha >= 0.5
    change = np.abs((paint - image)[hit].mean(axis=0)).mean()
    return float(min(1.0, contrast / max(change, 1.0)))


def _photograph(image: Array, rng: Generator) -> NDArray[np.uint8]:
    """Uneven light, a slightly soft lens and sensor noise."""
    slope = rng.normal(0, 0.09, 2)
    x, y = _X / SIDE - 0.5, _Y / SIDE - 0.5
    light = 1 + slope[0] * x + slope[1] * y - 0.18 * (x**2 + y**2) + 0.03 * _noise(rng, 3, 3)
    image = gaussian_filter(image, (0.55, 0.55, 0)) * light[..., None]
    return np.clip(image + rng.normal(0, 3.0, image.shape), 0, 255).round().astype(np.uint8)


# Textures: each gives an RGB image (256, 256, 3) in 0..255.


def weave(rng: Generator) -> Array:
    """A 2/2 twill of warp and weft yarns of uneven tone and spacing, with a few slubs (light places)."""
    period, angle = 7.0, rng.normal(0, 0.02)
    u = (_X * np.cos(angle) + _Y * np.sin(angle)) / period + 0.16 * _noise(rng, 5, 5) + rng.uniform(5, 9)
    v = (_Y * np.cos(angle) - _X * np.sin(angle)) / period + 0.16 * _noise(rng, 5, 5) + rng.uniform(5, 9)
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    step = (i + j) % 4
    warp_on_top = step < 2
    across = np.where(warp_on_top, u - i, v - j)
    # A yarn floats over two others: it is highest in the middle of the float and dips at its ends.
    along = np.where(warp_on_top, step + v - j, step - 2 + u - i) / 2
    shade = 0.52 + 0.36 * np.sin(np.pi * across) + 0.16 * np.sin(np.pi * along)
    shade += 0.05 * np.sin(2 * np.pi * (3 * along + 1.5 * across))  # the twist of the yarn
    tone = np.where(warp_on_top, _yarn_tones(rng)[i, j], _yarn_tones(rng)[j, i])
    fuzz = 0.05 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7)
    colour = np.where(warp_on_top[..., None], (151, 146, 134), (183, 177, 163))
    return colour * ((shade + fuzz) * tone)[..., None]


def _yarn_tones(rng: Generator) -> Array:
    """Tone of each yarn (first axis) along its length in periods (second axis)."""
    tone = 1 + 0.07 * rng.normal(size=(64, 1)) + 0.04 * gaussian_filter(rng.normal(size=(64, 64)), (0, 1))
    for _ in range(6):
        yarn, place, length = rng.integers(64), rng.integers(64), rng.uniform(1.5, 4)
        tone[yarn] += 0.22 * np.exp(-(((np.arange(64) - place) / length) ** 2))
    return tone


def wood(rng: Generator) -> Array:
    """Upright grain: rings with dark late wood, fine fibres, and short dark pores."""
    bend = 16 * _noise(rng, 2, 3) + 3 * _noise(rng, 3, 8)
    ring = (_X + bend + 5 * np.sin(_X / 31 + rng.uniform(0, 6))) / 15 + rng.uniform(0, 9)
    late = (ring - np.floor(ring)) ** 3 * (0.75 + 0.25 * np.sin(1.7 * np.floor(ring)))
    fibres = gaussian_filter(rng.normal(size=(SIDE, SIDE)), (14, 0.7)) * 5
    pores = gaussian_filter((rng.random((SIDE, SIDE)) < 0.006).astype(np.float64), (3.5, 0.6)) * 16
    depth = np.clip(0.18 + 0.45 * late + 0.075 * fibres + 0.30 * np.minimum(pores, 1.2), 0, 1)[..., None]
    return (1 - depth) * (214, 178, 132) + depth * (104, 66, 38)


def speckle(rng: Generator) -> Array:
    """Polished granite: grey and rose ground with dark and light grains of several sizes."""
    scales = (1.1, 1.5, 2.2, 4.0)
    dark, light, rose, ground = (gaussian_filter(rng.normal(size=(SIDE, SIDE)), s) * s * 3.5 for s in scales)
    image = 138 + 13 * ground[..., None] + 9 * rose[..., None] * (1.0, 0.6, 0.5)
    for grains, level, colour in ((light, 0.95, (208, 203, 196)), (dark, 1.15, (52, 50, 52))):
        share = np.clip((grains - level) * 4, 0, 1)[..., None]
        image = image + share * (np.array(colour) - image)
    return image


TEXTURES: dict[str, Callable[[Generator], Array]] = {each.__name__: each for each in (weave, wood, speckle)}
"""The textures by name."""


# Defects: each takes the image, a factor on its size and the generator, and gives its coverage (256, 256) in
# 0..1 and what it looks like where it covers, (256, 256, 3).


def tear(image: Array, size: float, rng: Generator) -> tuple[Array, Array]:
    """A short open split with frayed, lifted edges and darkness inside."""
    points = _path(rng, length=size * rng.uniform(38, 62), bend=0.05)
    belly = np.sin(np.pi * np.linspace(0.04, 0.96, len(points))) ** 0.7
    core = gaussian_filter(_stroke(points, size * rng.uniform(9, 14) * belly), 1.0)
    frayed = core + 4 * core * (1 - core) * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.9)
    alpha = np.clip((frayed - 0.5) * 2.5 + 0.5, 0, 1)
    depth = np.clip((gaussian_filter(core, 1.3) - 0.45) * 3, 0, 1)[..., None]
    return alpha, (1 - depth) * (image * 0.7 + 70) + depth * (image * 0.12 + 18)


def stain(image: Array, size: float, rng: Generator) -> tuple[Array, Array]:
    """A blot with a soft, uneven outline that tints or bleaches what is below."""
    x, y = rng.uniform(30, SIDE - 30, 2)
    stretch = np.exp(rng.normal(0, 0.2))
    radius = size * rng.uniform(13, 24)
    distance = np.hypot((_X - x) * stretch, (_Y - y) / stretch) / radius
    outline = 0.2 * _noise(rng, 10, 10) + 0.09 * _noise(rng, 36, 36)
    alpha = np.clip((1 - distance + outline) * radius / 5 + 0.5, 0, 1)
    rim = alpha * (1 - np.clip((1 - distance) * 3, 0, 1))  # a dried drop is strongest at its rim
    if rng.random() < 0.3:
        return alpha, image * 0.4 + np.array((150.0, 150, 148))
    tint = np.array(((0.50, 0.36, 0.22), (0.30, 0.32, 0.36), (0.45, 0.30, 0.28))[rng.integers(3)])
    return alpha, image * (tint + 0.12 - 0.2 * rim[..., None])


def scratch(image: Array, size: float, rng: Generator) -> tuple[Array, Array]:
    """A long, thin, nearly straight groove, light or dark, that fades in and out."""
    points = _path(rng, length=size * rng.uniform(110, 200), bend=0.012)
    taper = np.minimum(1, 6 * np.sin(np.pi * np.linspace(0.02, 0.98, len(points))))
    uneven = 1 + 0.6 * gaussian_filter(rng.normal(size=len(points)), 3)
    alpha = _stroke(points, np.maximum(rng.uniform(2.4, 3.4) * taper * uneven, 0.8))
    tone = 245.0 if rng.random() < 0.5 else 20.0
    return alpha, 0.15 * image + 0.85 * tone * np.ones(3)


def thread(image: Array, size: float, rng: Generator) -> tuple[Array, Array]:
    """A curled fibre of another colour that lies on the surface."""
    points = _path(rng, length=size * rng.uniform(90, 170), bend=rng.uniform(0.04, 0.12))
    alpha = _stroke(points, np.full(len(points), rng.uniform(3.0, 4.4)))
    colours = ((150, 40, 45), (45, 65, 140), (240, 235, 226), (38, 38, 42), (60, 115, 75))
    height = gaussian_filter(alpha, 1.0)
    lit = np.clip(height - 0.5 * np.roll(height, (2, 2), axis=(0, 1)), 0, 1)
    twist = 0.1 * np.sin((_X + _Y) * 1.1)
    return alpha, np.array(colours[rng.integers(len(colours))]) * (0.55 + 0.8 * lit + twist)[..., None]


DEFECTS: dict[str, Callable[[Array, float, Generator], tuple[Array, Array]]] = {
    each.__name__: each for each in (tear, stain, scratch, thread)
}
"""The defects by kind."""


def _noise(rng: Generator, rows: int, columns: int) -> Array:
    """Smooth noise (256, 256) of about unit spread that changes over 256 / rows and 256 / columns pixels."""
    coarse = Image.fromarray(rng.normal(size=(rows + 1, columns + 1)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def _path(rng: Generator, length: float, bend: float) -> Array:
    """Points (n, 2) as x, y, two pixels apart, on a curve whose middle lies well inside the image.

    Args:
        rng: Source of place, direction and turns.
        length: In pixels.
        bend: Spread of the change of direction from one point to the next, in radians.
    """
    start, place = rng.uniform(0, 2 * np.pi), rng.uniform(48, SIDE - 48, 2)
    turns = gaussian_filter(rng.normal(size=max(int(length / 2), 4)), 4) * 4 * bend
    heading = start + np.cumsum(turns)
    points = 2 * np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    return points - points.mean(axis=0) + place


def _stroke(points: Array, widths: Array) -> Array:
    """Opacity (256, 256) of a brush of changing width in pixels that is drawn along the points."""
    canvas = Image.new("L", (SIDE * _SUPERSAMPLE, SIDE * _SUPERSAMPLE))
    draw = ImageDraw.Draw(canvas)
    for begin, end, width in zip(points[:-1], points[1:], widths[1:], strict=True):
        # Several discs a step: a line's ends would leave gaps in a bend.
        for x, y in np.linspace(begin, end, 4) * _SUPERSAMPLE:
            r = width / 2 * _SUPERSAMPLE
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float64) / 255
