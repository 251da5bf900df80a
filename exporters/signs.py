# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26", "pillow>=10.3"]
# ///
"""Renders the 43 classes of the German Traffic Sign Recognition Benchmark as small colour pictures.

Every sign is drawn here from polygons, discs and strokes, then placed before an invented background and
photographed badly: perspective, shadow, blur, exposure, noise, compression. One picture depends on
(seed, split, index) only, so pictures can be made in any order and by any number of processes.

    python exporters/signs.py --out models/demo             one picture a class, and labels.csv
    python exporters/signs.py --sheet sheet.png             all classes on one sheet, to look at
"""

import argparse
import csv
import functools
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

GTSRB_LABELS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "priority at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "general caution",
    "curve to the left",
    "curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic signals",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)
SPLITS = {"train": 0, "heldout": 1, "demo": 2}
SIZE = 48

# Milder than the held-out split, so that the demo has pictures that pass the confidence threshold.
DEMO_STRENGTH = 0.5

Point = tuple[float, float]
Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

WHITE, BLACK, GREY = (245, 245, 245), (22, 22, 24), (130, 132, 135)
RED, BLUE, YELLOW, GREEN = (190, 22, 36), (22, 84, 160), (250, 190, 20), (20, 140, 70)

_TEMPLATE = 192  # pixels of a finished template
_DRAWN = 4 * _TEMPLATE  # pixels it is drawn at; reducing it smooths the edges
_SPAN = 1.08  # a template shows -_SPAN.._SPAN; signs reach -1..1, y points down


# Primitives, all in sign units.


def _pixels(points: Sequence[Point]) -> list[Point]:
    scale = _DRAWN / (2 * _SPAN)
    return [((x + _SPAN) * scale, (y + _SPAN) * scale) for x, y in points]


def polygon(d: Draw, points: Sequence[Point], colour: Colour) -> None:
    d.polygon(_pixels(points), fill=colour)


def ellipse(d: Draw, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
    d.ellipse(_pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill=colour)


def disc(d: Draw, x: float, y: float, r: float, colour: Colour) -> None:
    ellipse(d, x, y, r, r, colour)


def box(d: Draw, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    polygon(d, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)


def stroke(d: Draw, points: Sequence[Point], width: float, colour: Colour) -> None:
    """A line of round ends and joints through `points`."""
    d.line(_pixels(points), fill=colour, width=round(width * _DRAWN / (2 * _SPAN)))
    for x, y in points:
        disc(d, x, y, width / 2, colour)


def rounded(d: Draw, points: Sequence[Point], radius: float, colour: Colour) -> None:
    """A polygon grown by `radius`, which rounds its corners."""
    polygon(d, points, colour)
    stroke(d, [*points, points[0]], 2 * radius, colour)


def arrow(d: Draw, points: Sequence[Point], width: float, head: float, colour: Colour) -> None:
    """A stroke of flat ends whose last segment carries a head `head` wide; the last point is the tip."""
    (x0, y0), (x1, y1) = points[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    neck = (x1 - ux * head * 0.7, y1 - uy * head * 0.7)
    sides = [(neck[0] - uy * s * head / 2, neck[1] + ux * s * head / 2) for s in (-1, 1)]
    stem = [*points[:-1], (neck[0] + ux * 0.01, neck[1] + uy * 0.01)]
    d.line(_pixels(stem), fill=colour, width=round(width * _DRAWN / (2 * _SPAN)))
    for x, y in points[1:-1]:
        disc(d, x, y, width / 2, colour)
    polygon(d, [*sides, (x1, y1)], colour)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, count: int = 25) -> list[Point]:
    """Points of an ellipse from `start` to `stop` degrees; 0 is right and 90 is down."""
    angles = np.radians(np.linspace(start, stop, count))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def moved(points: Sequence[Point], dx: float, dy: float, scale: float = 1, mirror: bool = False) -> list[Point]:
    side = -scale if mirror else scale
    return [(dx + side * x, dy + scale * y) for x, y in points]


# Digits and letters: strokes in a box 0.6 wide and 1 high around the origin.

_BOWL = [*arc(0, -0.16, 0.25, 0.26, 180, 360), *arc(0, 0.16, 0.25, 0.26, 0, 180), (-0.25, -0.16)]
_GLYPHS: dict[str, list[list[Point]]] = {
    "0": [_BOWL],
    "1": [[(-0.17, -0.22), (0.05, -0.42), (0.05, 0.42)]],
    "2": [[*arc(0, -0.17, 0.25, 0.25, 180, 395), (-0.26, 0.42), (0.27, 0.42)]],
    "3": [[*arc(-0.02, -0.21, 0.24, 0.21, 195, 440), (-0.08, 0.0), *arc(-0.02, 0.2, 0.27, 0.22, 280, 525)]],
    "5": [[(0.22, -0.42), (-0.2, -0.42), (-0.23, -0.03), *arc(-0.01, 0.16, 0.26, 0.26, 222, 515)]],
    "6": [arc(0, 0.17, 0.26, 0.25, 0, 360), [(0.14, -0.42), (-0.06, -0.22), (-0.2, -0.02), (-0.26, 0.17)]],
    "7": [[(-0.26, -0.42), (0.26, -0.42), (-0.08, 0.42)]],
    "8": [arc(0, -0.21, 0.21, 0.21, 0, 360), arc(0, 0.2, 0.26, 0.22, 0, 360)],
    "S": [[*arc(0, -0.21, 0.24, 0.21, -25, -270), *arc(0, 0.21, 0.25, 0.21, -90, 155)]],
    "T": [[(-0.27, -0.42), (0.27, -0.42)], [(0, -0.42), (0, 0.42)]],
    "O": [_BOWL],
    "P": [[(-0.21, 0.42), (-0.21, -0.42), (0, -0.42), *arc(0, -0.18, 0.24, 0.24, -90, 90), (-0.21, 0.06)]],
}


def text(d: Draw, string: str, height: float, narrow: float, weight: float, colour: Colour) -> None:
    """`string` centred on the sign; `narrow` squeezes the letters, `weight` is the stroke's width."""
    advance = 0.76 * height * narrow
    for i, letter in enumerate(string):
        x = (i - (len(string) - 1) / 2) * advance
        for line in _GLYPHS[letter]:
            stroke(d, [(x + px * height * narrow, py * height) for px, py in line], weight, colour)


# Plates.


def ring(d: Draw) -> None:
    disc(d, 0, 0, 1, WHITE)
    disc(d, 0, 0, 0.97, RED)
    disc(d, 0, 0, 0.73, WHITE)


def blue(d: Draw) -> None:
    disc(d, 0, 0, 1, WHITE)
    disc(d, 0, 0, 0.94, BLUE)


def lifted(d: Draw) -> None:
    """The plate of signs that end a limit, without its stripes."""
    disc(d, 0, 0, 1, BLACK)
    disc(d, 0, 0, 0.96, WHITE)


def stripes(d: Draw) -> None:
    for offset in (-0.2, -0.1, 0, 0.1, 0.2):
        c = offset * math.sqrt(2)
        reach = (math.sqrt(2 * 0.94**2 - c * c) - 0.06) / 2  # ends on the plate's edge
        stroke(d, [(-reach + c / 2, reach + c / 2), (reach + c / 2, -reach + c / 2)], 0.055, BLACK)


_WARNING = [(0, -0.82), (0.9, 0.74), (-0.9, 0.74)]


def warning(d: Draw) -> None:
    rounded(d, _WARNING, 0.1, WHITE)
    rounded(d, _WARNING, 0.07, RED)
    rounded(d, moved(_WARNING, 0, 0.076, 0.66), 0.04, WHITE)


# Figures: each draws around a centre (x, y) with a scale.


def car(d: Draw, x: float, y: float, scale: float, colour: Colour) -> None:
    """A car from behind, 1 wide and 0.8 high."""
    at = functools.partial(moved, dx=x, dy=y, scale=scale)
    polygon(d, at([(-0.34, -0.4), (0.34, -0.4), (0.44, 0.02), (-0.44, 0.02)]), colour)
    polygon(d, at([(-0.24, -0.29), (0.24, -0.29), (0.3, -0.04), (-0.3, -0.04)]), WHITE)
    polygon(d, at([(-0.5, 0), (0.5, 0), (0.5, 0.28), (-0.5, 0.28)]), colour)
    for side in (-1, 1):
        polygon(d, at([(side * 0.46, 0.26), (side * 0.46, 0.44), (side * 0.26, 0.44), (side * 0.26, 0.26)]), colour)
        disc(d, x + side * 0.33 * scale, y + 0.12 * scale, 0.075 * scale, WHITE)


def lorry_behind(d: Draw, x: float, y: float, scale: float, colour: Colour) -> None:
    """A lorry from behind: a tall box on wheels."""
    at = functools.partial(moved, dx=x, dy=y, scale=scale)
    polygon(d, at([(-0.5, -0.78), (0.5, -0.78), (0.5, 0.2), (-0.5, 0.2)]), colour)
    polygon(d, at([(-0.4, 0.2), (0.4, 0.2), (0.4, 0.32), (-0.4, 0.32)]), colour)
    for side in (-1, 1):
        polygon(d, at([(side * 0.46, 0.2), (side * 0.46, 0.48), (side * 0.2, 0.48), (side * 0.2, 0.2)]), colour)


def lorry(d: Draw, colour: Colour) -> None:
    """A lorry from the side, driving left."""
    box(d, -0.16, -0.36, 0.56, 0.2, colour)
    polygon(d, [(-0.56, 0.2), (-0.56, -0.02), (-0.44, -0.24), (-0.21, -0.24), (-0.21, 0.2)], colour)
    polygon(d, [(-0.49, -0.02), (-0.41, -0.17), (-0.28, -0.17), (-0.28, -0.02)], WHITE)
    for x in (-0.38, 0.14, 0.4):
        disc(d, x, 0.24, 0.14, WHITE)
        disc(d, x, 0.24, 0.11, colour)


def person(d: Draw, x: float, y: float, scale: float, limbs: Sequence[Sequence[Point]], lean: float = 0.0) -> None:
    """A head, a body and limbs; about 1 high around (x, y)."""
    disc(d, x + (lean * 0.34) * scale, y - 0.4 * scale, 0.115 * scale, BLACK)
    stroke(d, moved([(lean * 0.2, -0.2), (0, 0.08)], x, y, scale), 0.2 * scale, BLACK)
    for limb in limbs:
        stroke(d, moved(limb, x, y, scale), 0.095 * scale, BLACK)


_RUNNING = (
    [(0.02, 0.1), (0.2, 0.24), (0.16, 0.46)],
    [(-0.02, 0.1), (-0.14, 0.3), (-0.36, 0.36)],
    [(0.04, -0.22), (0.22, -0.08), (0.36, -0.18)],
    [(0.0, -0.22), (-0.2, -0.16), (-0.26, 0.02)],
)


# Symbols.


def speed(d: Draw, number: str, colour: Colour = BLACK) -> None:
    if len(number) == 2:
        text(d, number, 0.82, 0.92, 0.15, colour)
    else:
        text(d, number, 0.74, 0.74, 0.12, colour)


def two_vehicles(d: Draw, left: Callable[..., None], left_colour: Colour, right_colour: Colour) -> None:
    left(d, -0.305, 0.04, 0.55, left_colour)
    car(d, 0.305, 0.04, 0.55, right_colour)


def crossing_priority(d: Draw) -> None:
    box(d, -0.085, 0.0, 0.085, 0.7, BLACK)
    polygon(d, [(-0.18, 0.03), (0, -0.36), (0.18, 0.03)], BLACK)
    box(d, -0.34, 0.28, 0.34, 0.4, BLACK)


def priority_road(d: Draw) -> None:
    diamond = [(0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0)]
    rounded(d, diamond, 0.09, BLACK)
    rounded(d, diamond, 0.07, WHITE)
    rounded(d, moved(diamond, 0, 0, 0.64), 0.05, YELLOW)


def give_way(d: Draw) -> None:
    triangle = [(x, -y) for x, y in _WARNING]
    rounded(d, triangle, 0.1, WHITE)
    rounded(d, triangle, 0.07, RED)
    rounded(d, moved(triangle, 0, -0.076, 0.62), 0.04, WHITE)


def stop(d: Draw) -> None:
    for radius, colour in ((1.0, WHITE), (0.95, RED)):
        polygon(d, arc(0, 0, radius, radius, 22.5, 337.5, 8), colour)
    text(d, "STOP", 0.62, 0.9, 0.105, WHITE)


def no_entry(d: Draw) -> None:
    disc(d, 0, 0, 1, WHITE)
    disc(d, 0, 0, 0.97, RED)
    box(d, -0.72, -0.17, 0.72, 0.17, WHITE)


def caution(d: Draw) -> None:
    polygon(d, [(-0.1, -0.42), (0.1, -0.42), (0.055, 0.32), (-0.055, 0.32)], BLACK)
    disc(d, 0, 0.51, 0.1, BLACK)


def curve(d: Draw, mirror: bool) -> None:
    path = [(0.17, 0.68), *arc(-0.13, 0.32, 0.3, 0.3, 0, -50, 9), (-0.25, -0.16)]
    arrow(d, moved(path, 0, 0, 1, mirror), 0.135, 0.34, BLACK)


def double_curve(d: Draw) -> None:
    path = [(0.16, 0.7), (0.16, 0.52), (-0.16, 0.28), (0.1, 0.04), (0.1, -0.34)]
    arrow(d, path, 0.12, 0.3, BLACK)


def bumps(d: Draw) -> None:
    box(d, -0.52, 0.5, 0.52, 0.64, BLACK)
    for x in (-0.23, 0.23):
        polygon(d, arc(x, 0.52, 0.2, 0.24, 180, 360), BLACK)


def slippery(d: Draw) -> None:
    at = functools.partial(moved, dx=0.0, dy=0.02, scale=0.46)
    polygon(d, at([(-0.3, -0.62), (0.3, -0.44), (0.5, -0.02), (-0.42, -0.28)]), BLACK)
    polygon(d, at([(-0.2, -0.47), (0.22, -0.34), (0.31, -0.15), (-0.28, -0.32)]), WHITE)
    polygon(d, at([(-0.52, -0.32), (0.54, -0.02), (0.46, 0.3), (-0.6, 0.0)]), BLACK)
    polygon(d, at([(-0.55, 0.0), (-0.33, 0.06), (-0.38, 0.24), (-0.6, 0.18)]), BLACK)
    polygon(d, at([(0.22, 0.24), (0.44, 0.3), (0.39, 0.48), (0.17, 0.42)]), BLACK)
    for x in (-0.2, 0.2):
        wave = [(x + 0.09 * math.sin(2 * math.pi * t), 0.28 + 0.4 * t) for t in np.linspace(0, 1, 25)]
        stroke(d, wave, 0.075, BLACK)


def narrows_right(d: Draw) -> None:
    stroke(d, [(-0.2, 0.66), (-0.2, -0.12)], 0.12, BLACK)
    stroke(d, [(0.3, 0.66), (0.3, 0.42), (0.07, 0.14), (0.07, -0.2)], 0.12, BLACK)


def works(d: Draw) -> None:
    limbs = (
        [(0.02, 0.08), (0.12, 0.28), (0.14, 0.5)],
        [(-0.02, 0.08), (-0.14, 0.28), (-0.24, 0.5)],
        [(0.14, -0.2), (0.28, -0.02), (0.44, 0.08)],
    )
    person(d, -0.14, 0.26, 0.8, limbs, lean=0.7)
    stroke(d, [(-0.08, 0.16), (0.36, 0.46)], 0.05, BLACK)
    polygon(d, arc(0.36, 0.67, 0.23, 0.24, 180, 360), BLACK)


def signals(d: Draw) -> None:
    rounded(d, [(-0.11, -0.24), (0.11, -0.24), (0.11, 0.62), (-0.11, 0.62)], 0.06, BLACK)
    for y, colour in ((-0.13, RED), (0.19, YELLOW), (0.51, GREEN)):
        disc(d, 0, y, 0.125, colour)


def pedestrian(d: Draw) -> None:
    limbs = (
        [(0.0, 0.08), (0.16, 0.3), (0.2, 0.56)],
        [(0.0, 0.08), (-0.08, 0.32), (-0.26, 0.54)],
        [(0.02, -0.22), (0.2, -0.04), (0.24, 0.1)],
        [(-0.02, -0.22), (-0.18, -0.04), (-0.2, 0.12)],
    )
    person(d, 0.0, 0.14, 0.78, limbs, lean=0.1)
    for x in (-0.48, -0.24, 0.0, 0.24, 0.48):
        polygon(d, [(x - 0.07, 0.69), (x + 0.07, 0.69), (x * 0.86 + 0.05, 0.59), (x * 0.86 - 0.05, 0.59)], BLACK)


def children(d: Draw) -> None:
    person(d, -0.18, 0.24, 0.78, _RUNNING, lean=0.25)
    person(d, 0.27, 0.37, 0.58, _RUNNING, lean=0.25)


def bicycle(d: Draw) -> None:
    for x in (-0.32, 0.32):
        disc(d, x, 0.44, 0.23, BLACK)
        disc(d, x, 0.44, 0.165, WHITE)
    for line in (
        [(-0.32, 0.44), (-0.14, 0.12), (0.18, 0.12), (-0.02, 0.44), (-0.32, 0.44)],
        [(-0.02, 0.44), (-0.18, 0.02)],
        [(0.32, 0.44), (0.14, -0.02), (0.28, -0.08)],
        [(-0.27, 0.02), (-0.09, 0.02)],
    ):
        stroke(d, line, 0.06, BLACK)


def snowflake(d: Draw) -> None:
    for angle in range(0, 360, 60):
        a = math.radians(angle + 90)
        ux, uy = math.cos(a), math.sin(a)
        stroke(d, [(0, 0.24), (0.44 * ux, 0.24 + 0.44 * uy)], 0.065, BLACK)
        for turn in (-0.8, 0.8):
            bx, by = 0.18 * math.cos(a + turn), 0.18 * math.sin(a + turn)
            fork = (0.24 * ux, 0.24 + 0.24 * uy)
            stroke(d, [fork, (fork[0] + bx, fork[1] + by)], 0.055, BLACK)


def deer(d: Draw) -> None:
    polygon(
        d, [(-0.36, 0.34), (-0.3, 0.18), (0.0, 0.14), (0.22, 0.06), (0.26, 0.22), (0.08, 0.38), (-0.26, 0.44)], BLACK
    )
    polygon(d, [(0.08, 0.16), (0.2, -0.2), (0.31, -0.14), (0.27, 0.2)], BLACK)
    polygon(d, [(0.18, -0.22), (0.29, -0.26), (0.46, -0.1), (0.42, -0.05), (0.26, -0.08)], BLACK)
    for line in (
        [(0.22, -0.22), (0.1, -0.34), (0.14, -0.46)],
        [(0.13, -0.31), (0.02, -0.34)],
        [(0.14, 0.32), (0.36, 0.4), (0.32, 0.6)],
        [(0.18, 0.26), (0.44, 0.28), (0.52, 0.44)],
        [(-0.3, 0.36), (-0.44, 0.48), (-0.52, 0.66)],
        [(-0.22, 0.4), (-0.3, 0.54), (-0.34, 0.68)],
        [(-0.34, 0.24), (-0.42, 0.2)],
    ):
        stroke(d, line, 0.06, BLACK)


def turn_ahead(d: Draw, mirror: bool) -> None:
    path = [(-0.3, 0.66), (-0.3, 0.02), (-0.22, -0.12), (-0.06, -0.18), (0.64, -0.18)]
    arrow(d, moved(path, 0, 0, 1, mirror), 0.26, 0.66, WHITE)


def ahead(d: Draw) -> None:
    arrow(d, [(0, 0.7), (0, -0.74)], 0.26, 0.72, WHITE)


def ahead_or(d: Draw, mirror: bool) -> None:
    arrow(d, moved([(-0.2, 0.7), (-0.2, -0.76)], 0, 0, 1, mirror), 0.22, 0.58, WHITE)
    arrow(d, moved([(-0.2, 0.44), (-0.12, 0.24), (0.06, 0.16), (0.68, 0.16)], 0, 0, 1, mirror), 0.22, 0.56, WHITE)


def keep(d: Draw, mirror: bool) -> None:
    arrow(d, moved([(-0.5, -0.5), (0.54, 0.54)], 0, 0, 1, mirror), 0.27, 0.72, WHITE)


def roundabout(d: Draw) -> None:
    for start in (150, 270, 390):
        path = arc(0, 0, 0.5, 0.5, start, start - 78, 12)
        x, y = path[-1]
        a = math.radians(start - 78)
        tip = (x + 0.26 * math.sin(a) - 0.02 * math.cos(a), y - 0.26 * math.cos(a) - 0.02 * math.sin(a))
        arrow(d, [*path, tip], 0.19, 0.46, WHITE)


def _then(*steps: Callable[[Draw], None]) -> Callable[[Draw], None]:
    def draw(d: Draw) -> None:
        for step in steps:
            step(d)

    return draw


def _signs() -> list[Callable[[Draw], None]]:
    """The drawing of each class, in the order of GTSRB_LABELS."""
    bind = functools.partial

    def limit(number: str) -> Callable[[Draw], None]:
        return _then(ring, bind(speed, number=number))

    def pair(left: Callable[..., None], left_colour: Colour, right_colour: Colour) -> Callable[[Draw], None]:
        return bind(two_vehicles, left=left, left_colour=left_colour, right_colour=right_colour)

    warnings = (
        caution,
        bind(curve, mirror=False),
        bind(curve, mirror=True),
        double_curve,
        bumps,
        slippery,
        narrows_right,
        works,
        signals,
        pedestrian,
        children,
        bicycle,
        snowflake,
        deer,
    )
    orders = (
        bind(turn_ahead, mirror=False),
        bind(turn_ahead, mirror=True),
        ahead,
        bind(ahead_or, mirror=False),
        bind(ahead_or, mirror=True),
        bind(keep, mirror=False),
        bind(keep, mirror=True),
        roundabout,
    )
    return [
        *(limit(number) for number in ("20", "30", "50", "60", "70", "80")),
        _then(lifted, bind(speed, number="80", colour=GREY), stripes),
        *(limit(number) for number in ("100", "120")),
        _then(ring, pair(car, RED, BLACK)),
        _then(ring, pair(lorry_behind, RED, BLACK)),
        _then(warning, crossing_priority),
        priority_road,
        give_way,
        stop,
        ring,
        _then(ring, bind(lorry, colour=BLACK)),
        no_entry,
        *(_then(warning, symbol) for symbol in warnings),
        _then(lifted, stripes),
        *(_then(blue, order) for order in orders),
        _then(lifted, pair(car, GREY, GREY), stripes),
        _then(lifted, pair(lorry_behind, GREY, GREY), stripes),
    ]


@functools.cache
def template(label: int) -> Image.Image:
    """The clean sign of a class, straight on: RGBA, transparent around it."""
    image = Image.new("RGBA", (_DRAWN, _DRAWN))
    _signs()[label](ImageDraw.Draw(image))
    return image.resize((_TEMPLATE, _TEMPLATE), Image.Resampling.BOX)


# Photography.

_SKY = [(150, 180, 215), (200, 208, 215)]
_PLANTS = [(70, 95, 45), (45, 65, 35), (120, 125, 70)]
_BUILT = [(110, 75, 55), (120, 118, 115), (75, 75, 78), (165, 150, 130), (35, 38, 40), (225, 225, 220)]
_SCENERY = np.array([*_SKY, *_PLANTS, *_BUILT], dtype=np.float32)


def _resized(values: np.ndarray, side: int) -> np.ndarray:
    """A coarse (n, n, 3) grid blown up smoothly to (side, side, 3)."""
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """Scenery that never was: two or three colours that run into each other, texture, and hard-edged shapes."""
    palette = _SCENERY[rng.integers(len(_SCENERY), size=3)]
    cells = int(rng.integers(2, 7))
    scene = _resized(palette[rng.integers(3, size=(cells, cells))] + rng.normal(0, 12, (cells, cells, 3)), side)
    grain = int(rng.integers(8, 33))
    texture = rng.normal(0, 1, (grain, grain, 1)) * np.ones(3) * rng.uniform(0, 30)
    image = Image.fromarray(np.clip(scene + _resized(128 + texture, side) - 128, 0, 255).astype(np.uint8))
    d = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        colour = _SCENERY[rng.integers(len(_SCENERY))] * rng.uniform(0.6, 1.1)
        fill = tuple(int(v) for v in np.clip(colour, 0, 255))
        x, y = rng.uniform(-0.2, 1.2, 2) * side
        w, h = rng.uniform(0.03, 0.5, 2) * side
        if rng.random() < 0.5:
            d.ellipse((x - w, y - h, x + w, y + h), fill=fill)
        else:
            lean = rng.uniform(-0.3, 0.3) * h
            d.polygon([(x - w, y - h), (x + w, y - h), (x + w + lean, y + h), (x - w + lean, y + h)], fill=fill)
    if rng.random() < 0.6:  # the post
        x, w, level = side * rng.uniform(0.4, 0.6), side * rng.uniform(0.02, 0.05), int(rng.integers(60, 190))
        d.rectangle((x - w, side / 2, x + w, side), fill=(level, level, level))
    return image


def _placed(sign: Image.Image, rng: np.random.Generator, side: int, strength: float) -> Image.Image:
    """The template turned, tilted and shifted into a frame of `side` pixels."""
    turn = math.radians(rng.uniform(-9, 9)) * strength
    half = side / 2 * _SPAN * rng.uniform(0.9 - 0.16 * strength, 0.95)
    squeeze = 1 - strength * rng.uniform(0, 0.16, 2) * (rng.random(2) < 0.5)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float) * half * squeeze
    rotation = np.array([(math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))])
    corners = corners @ rotation.T + rng.uniform(-0.05, 0.05, (4, 2)) * side * strength
    target = corners + side / 2 + rng.uniform(-0.06, 0.06, 2) * side * strength
    source = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float) * _TEMPLATE
    # The eight numbers of the map from frame to template, as Image.transform wants them.
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    coefficients = np.linalg.solve(np.array(rows), source.ravel())
    fit = (side, side)
    return sign.transform(fit, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BILINEAR)


def _weathered(sign: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Faded and tinted paint."""
    pixels = np.array(sign, dtype=np.float32)
    fade = strength * rng.uniform(0, 0.35)
    tint = 1 + strength * rng.uniform(-0.14, 0.14, 3)
    pixels[..., :3] = (pixels[..., :3] * (1 - fade) + fade * rng.uniform(90, 160)) * tint
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _blurred(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    kind, zoom = rng.random(), image.width / (2 * SIZE)
    if kind < 0.45:
        return image.filter(ImageFilter.GaussianBlur(strength * zoom * rng.uniform(0.3, 2.2)))
    if kind < 0.7:  # moved while the shutter was open
        angle = rng.uniform(0, math.pi)
        y, x = np.mgrid[-2:3, -2:3]
        away = np.abs(x * math.sin(angle) - y * math.cos(angle))
        along = np.abs(x * math.cos(angle) + y * math.sin(angle))
        kernel = np.clip(1 - away, 0, 1) * (along <= 2.2 * strength)
        return image.filter(ImageFilter.Kernel((5, 5), [float(k) for k in kernel.ravel()]))
    return image


def _lit(pixels: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Shadow, exposure, contrast, colour cast and sensor noise on (h, w, 3) pixels in 0..255."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width] / max(height, width) - 0.5
    angle, edge, soft = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4), rng.uniform(0.01, 0.3)
    across = x * math.cos(angle) + y * math.sin(angle)
    depth = strength * rng.uniform(0, 0.6) * (rng.random() < 0.4)
    shade = 1 - depth / (1 + np.exp(-np.clip((across - edge) / soft, -50, 50)))
    gain = math.exp(rng.uniform(-0.9, 0.35) * strength)
    cast = 1 + strength * rng.uniform(-0.14, 0.14, 3)
    lit = pixels * (shade * gain)[..., None] * cast
    contrast = 1 - strength * rng.uniform(0, 0.4)
    level = rng.uniform(30, 150)
    lit = lit * contrast + level * (1 - contrast)
    return lit + rng.normal(0, strength * rng.uniform(0, 9), pixels.shape)


def _compressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(40, 95)))
    return Image.open(buffer).convert("RGB")


def sample(seed: int, split: str, index: int, *, size: int = SIZE, strength: float = 1.0) -> tuple[np.ndarray, int]:
    """Picture `index` of a split: uint8 RGB (size, size, 3), and its class, index modulo 43.

    `strength` 0..1 scales tilt, fading, blur, exposure and noise; the background is always there.
    """
    label = index % len(GTSRB_LABELS)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SPLITS[split], index))))
    image = _background(rng, 2 * size)
    sign = _weathered(_placed(template(label), rng, 2 * size, strength), rng, strength)
    image.paste(sign, mask=sign)
    image = _blurred(image, rng, strength)
    far = int(rng.uniform(max(0.5, 1 - 0.9 * strength), 1.0) * size)  # seen from afar: fewer pixels, blown up
    image = image.resize((far, far), Image.Resampling.BOX).resize((size, size), Image.Resampling.BILINEAR)
    image = Image.fromarray(np.clip(_lit(np.asarray(image, np.float32), rng, strength), 0, 255).astype(np.uint8))
    if rng.random() < 0.4 * strength:
        image = _compressed(image, rng)
    return np.asarray(image), label


def block(seed: int, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures start..stop-1 of a split: uint8 (n, 48, 48, 3) and int64 (n,)."""
    pairs = [sample(seed, split, index) for index in range(start, stop)]
    return np.stack([pixels for pixels, _ in pairs]), np.array([label for _, label in pairs], dtype=np.int64)


def file_name(label: int) -> str:
    """The demo picture of a class, such as 07_speed_limit_100.png."""
    return f"{label:02d}_{GTSRB_LABELS[label].replace(' ', '_')}.png"


def write_demo(out: Path, seed: int) -> None:
    """One picture of every class, 40..96 pixels wide, and labels.csv. Pictures are not chosen: index = class."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, name in enumerate(GTSRB_LABELS):
        size = 40 + 4 * (label * 4 % 15)  # visits 40, 44, ..., 96 evenly
        pixels, _ = sample(seed, "demo", label, size=size, strength=DEMO_STRENGTH)
        Image.fromarray(pixels).save(out / file_name(label))
        rows.append((file_name(label), name))
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows([("file", "label"), *rows])


def write_sheet(path: Path, seed: int, split: str, strength: float, zoom: int) -> None:
    """A sheet of all classes: four classes a row, each the clean sign and four pictures of it."""
    columns, shown = 4, 4
    cell = SIZE * zoom
    rows = -(-len(GTSRB_LABELS) // columns)
    sheet = Image.new("RGB", (columns * (shown + 1) * cell, rows * cell), (90, 110, 90))
    for label in range(len(GTSRB_LABELS)):
        x, y = label % columns * (shown + 1) * cell, label // columns * cell
        clean = template(label).resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(clean, (x, y), clean)
        for i in range(shown):
            pixels, _ = sample(seed, split, label + i * len(GTSRB_LABELS), strength=strength)
            picture = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(picture, (x + (i + 1) * cell, y))
    sheet.save(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render the demo pictures, or a sheet of all classes to look at.")
    parser.add_argument("--out", type=Path, help="folder for 43 pictures and labels.csv")
    parser.add_argument("--sheet", type=Path, help="PNG file for a sheet of all classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=sorted(SPLITS), default="heldout", help="what the sheet shows")
    parser.add_argument("--strength", type=float, default=1.0, help="of the sheet's disturbances, 0..1")
    parser.add_argument("--zoom", type=int, default=2, help="of the sheet")
    given = parser.parse_args(argv)
    if given.out is None and given.sheet is None:
        parser.error("give --out FOLDER, --sheet FILE or both")
    if given.seed < 0:
        parser.error(f"--seed must be 0 or more, not {given.seed}")
    if given.out is not None:
        write_demo(given.out, given.seed)
    if given.sheet is not None:
        write_sheet(given.sheet, given.seed, given.split, given.strength, given.zoom)
    return 0


if __name__ == "__main__":
    sys.exit(main())
