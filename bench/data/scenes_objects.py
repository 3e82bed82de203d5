"""The things in the scenes: one small drawing for each of the 20 PASCAL VOC classes.

A drawing fills the unit square, faces right and stands on the line y = 0.95. Its parts have canonical colours
(tyres are dark, leaves green, beaks orange); its paint is shared between classes, so colour alone does not give
the class away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from bench.data.scenes_draw import WHITE, Colour, Dice, Pen, dark, light, mix, shade_from_above

# Outlines are lists of points: a line holds as many as fit.
# fmt: off

PAINT: tuple[Colour, ...] = (
    (228, 92, 78), (242, 182, 72), (70, 150, 156), (86, 140, 206), (126, 166, 98), (156, 104, 156), (240, 228, 204),
    (92, 96, 112), (236, 146, 98), (66, 94, 136), (214, 120, 138),
)
WOOD: tuple[Colour, ...] = ((182, 126, 78), (146, 96, 60), (208, 162, 110), (112, 76, 56))
FUR: tuple[Colour, ...] = (
    (224, 152, 82), (154, 150, 148), (238, 222, 194), (134, 92, 64), (78, 70, 72), (246, 242, 234),
)
SKIN: tuple[Colour, ...] = ((250, 214, 184), (236, 188, 150), (200, 146, 106), (150, 102, 74), (108, 74, 58))
HAIR: tuple[Colour, ...] = ((62, 46, 44), (112, 72, 48), (196, 140, 76), (44, 42, 50), (184, 84, 52), (206, 200, 194))
PLUMAGE: tuple[tuple[Colour, Colour], ...] = (
    ((108, 150, 206), (250, 226, 190)), ((146, 104, 76), (232, 116, 78)), ((246, 204, 84), (252, 236, 170)),
    ((244, 244, 240), (255, 255, 250)), ((88, 84, 98), (150, 146, 156)), ((206, 86, 80), (246, 190, 150)),
    ((112, 164, 118), (236, 226, 150)),
)
"""Back and belly."""
COWHIDE: tuple[tuple[Colour, Colour], ...] = (
    ((246, 242, 232), (74, 64, 66)), ((246, 238, 226), (158, 98, 66)), ((176, 116, 78), (246, 236, 220)),
    ((92, 78, 76), (240, 236, 230)), ((224, 178, 128), (248, 238, 220)),
)
"""Coat and spots."""
HORSEHAIR: tuple[tuple[Colour, Colour], ...] = (
    ((160, 98, 62), (70, 50, 48)), ((210, 160, 104), (248, 236, 208)), ((84, 70, 72), (52, 46, 54)),
    ((238, 234, 228), (204, 198, 196)), ((152, 148, 150), (86, 84, 92)), ((126, 78, 58), (236, 214, 176)),
)
"""Coat and mane."""
LEAVES: tuple[Colour, ...] = ((92, 158, 86), (64, 132, 88), (130, 176, 84), (78, 146, 112))
TYRE: Colour = (54, 52, 60)
STEEL: Colour = (176, 182, 192)
GLASS: Colour = (182, 218, 232)
INK: Colour = (56, 48, 58)
CREAM: Colour = (252, 244, 226)
LAMP: Colour = (255, 241, 182)
POLLEN: Colour = (252, 218, 112)
CLAY: Colour = (208, 118, 82)
TAIL_LAMP: Colour = (214, 66, 60)
BARS: tuple[Colour, ...] = (
    (240, 236, 224), (240, 200, 84), (96, 186, 190), (128, 178, 96), (204, 108, 148), (220, 92, 80), (84, 112, 180),
)


def _aeroplane(pen: Pen, dice: Dice) -> None:
    body, accent = dice.near(dice.pick((CREAM, (236, 238, 244), *PAINT[:4]))), dice.near(dice.pick(PAINT))
    if dice.chance(0.3):
        _propeller_plane(pen, dice, body, accent)
        return
    sweep = dice.uniform(-0.04, 0.05)
    pen.fill([(0.50, 0.45), (0.63, 0.45), (0.47 - sweep, 0.24), (0.40 - sweep, 0.24)], dark(STEEL, 0.15))
    pen.blob([(0.03, 0.22), (0.12, 0.22), (0.27, 0.44), (0.20, 0.50), (0.08, 0.47)], accent, 0.2)
    pen.blob([(0.98, 0.53), (0.91, 0.455), (0.76, 0.42), (0.42, 0.42), (0.12, 0.44), (0.03, 0.46), (0.12, 0.53),
        (0.36, 0.60), (0.74, 0.61), (0.92, 0.585)], body, 0.3)
    pen.stroke([(0.10, 0.500), (0.4, 0.545), (0.92, 0.555)], 0.022, accent)
    for k in range(dice.integer(6, 9)):
        pen.disc(0.27 + 0.065 * k, 0.485, 0.016, 0.021, (84, 112, 148))
    pen.blob([(0.86, 0.455), (0.91, 0.47), (0.935, 0.497), (0.87, 0.497)], (70, 96, 132))
    pen.fill([(0.02, 0.45), (0.14, 0.45), (0.09, 0.53), (0.01, 0.53)], dark(accent, 0.15))
    pen.box(0.44, 0.615, 0.60, 0.685, dark(accent, 0.1), 0.035, 0.3)
    pen.fill([(0.44, 0.53), (0.63, 0.54), (0.41 - sweep, 0.82), (0.32 - sweep, 0.82)], STEEL, 0.25)


def _propeller_plane(pen: Pen, dice: Dice, body: Colour, accent: Colour) -> None:
    pen.blob([(0.05, 0.28), (0.13, 0.28), (0.24, 0.47), (0.10, 0.49)], accent, 0.2)
    pen.limb((0.62, 0.60), (0.66, 0.74), 0.02, STEEL)
    pen.disc(0.66, 0.75, 0.045, 0.045, TYRE)
    pen.blob([(0.90, 0.49), (0.86, 0.42), (0.70, 0.40), (0.40, 0.43), (0.06, 0.46), (0.10, 0.51), (0.42, 0.60),
        (0.74, 0.63), (0.88, 0.58)], body, 0.3)
    pen.stroke([(0.12, 0.490), (0.45, 0.53), (0.86, 0.535)], 0.035, accent)
    pen.blob([(0.56, 0.42), (0.62, 0.33), (0.72, 0.33), (0.78, 0.42)], GLASS)
    pen.limb((0.48, 0.34), (0.84, 0.33), 0.055, accent, 0.8, 0.3)
    pen.limb((0.56, 0.35), (0.58, 0.52), 0.014, dark(STEEL))
    pen.limb((0.03, 0.47), (0.17, 0.47), 0.03, dark(accent))
    pen.disc(0.915, 0.50, 0.035, 0.04, TYRE)
    reach = dice.uniform(0.10, 0.19)
    pen.limb((0.93, 0.50 - reach), (0.93, 0.50 + reach), 0.026, WOOD[3])


def _wheel(pen: Pen, x: float, y: float, radius: float, hub: Colour = STEEL) -> None:
    pen.disc(x, y, radius, radius, TYRE)
    pen.disc(x, y, radius * 0.55, radius * 0.55, hub, 0.25)
    pen.disc(x, y, radius * 0.18, radius * 0.18, dark(hub, 0.5))


def _bicycle(pen: Pen, dice: Dice) -> None:
    frame, radius = dice.near(dice.pick(PAINT)), dice.uniform(0.205, 0.225)
    back, front, y = (0.245, 0.95 - radius), (0.755, 0.95 - radius), 0.95 - radius
    turn = dice.uniform(0, math.pi / 3)
    for x, _ in (back, front):
        for k in range(3):
            c, s = radius * math.cos(turn + k * math.pi / 3), radius * math.sin(turn + k * math.pi / 3)
            pen.limb((x - c, y - s), (x + c, y + s), 0.009, (206, 208, 214))
        pen.ring(x, y, radius, 0.042, TYRE)
        pen.ring(x, y, radius - 0.042, 0.012, STEEL)
    crank, seat, head = (0.46, y + 0.02), (0.385, 0.45), (0.675, 0.44)
    for start, end in ((crank, back), (back, seat), (seat, crank), (seat, head), (head, crank)):
        pen.limb(start, end, 0.036, dark(frame, 0.2))
        pen.limb((start[0], start[1] - 0.005), (end[0], end[1] - 0.005), 0.024, frame)
    pen.stroke([head, (0.70, 0.54), (0.715, 0.62), front], 0.034, frame)
    pen.limb(seat, (0.365, 0.37), 0.024, STEEL)
    pen.blob([(0.27, 0.345), (0.35, 0.33), (0.46, 0.352), (0.45, 0.375), (0.35, 0.385), (0.28, 0.375)], WOOD[3], 0.2)
    pen.limb(head, (0.655, 0.34), 0.026, STEEL)
    pen.stroke([(0.57, 0.32), (0.64, 0.325), (0.70, 0.33), (0.755, 0.36), (0.75, 0.40)], 0.03, INK)
    pen.ring(crank[0], crank[1], 0.06, 0.022, dark(STEEL))
    pen.limb(crank, (0.51, y + 0.10), 0.02, INK)
    pen.limb((0.485, y + 0.105), (0.55, y + 0.105), 0.026, INK)
    if dice.chance(0.5):
        basket = dice.near(WOOD[2])
        pen.blob([(0.74, 0.36), (0.95, 0.36), (0.915, 0.52), (0.78, 0.52)], basket, 0.3)
        pen.limb((0.74, 0.37), (0.95, 0.37), 0.026, dark(basket))


def _bird(pen: Pen, dice: Dice) -> None:
    back, belly = dice.pick(PLUMAGE)
    back, orange = dice.near(back, 8), (244, 160, 62)
    flying = dice.chance(0.35)
    if flying:
        pen.blob([(0.36, 0.46), (0.30, 0.20), (0.40, 0.06), (0.50, 0.24), (0.58, 0.46)], dark(back, 0.35))
    else:
        for x in (0.46, 0.55):
            pen.limb((x, 0.76), (x + 0.01, 0.93), 0.024, orange)
            pen.limb((x - 0.01, 0.935), (x + 0.07, 0.94), 0.024, orange)
    pen.blob([(0.32, 0.58), (0.04, 0.62 - 0.2 * flying), (0.02, 0.70 - 0.2 * flying), (0.34, 0.70)],
        dark(back, 0.2), 0.2)
    pen.blob([(0.22, 0.60), (0.40, 0.45), (0.60, 0.38), (0.76, 0.44), (0.78, 0.62), (0.66, 0.77), (0.46, 0.81),
        (0.28, 0.72)], back, 0.25)
    pen.blob([(0.46, 0.76), (0.66, 0.52), (0.77, 0.50), (0.77, 0.63), (0.66, 0.76), (0.54, 0.79)], belly, 0.2)
    pen.fill([(0.86, 0.30), (0.99, 0.355), (0.86, 0.40)], orange, 0.3)
    pen.disc(0.74, 0.34, 0.155, 0.15, back)
    pen.disc(0.79, 0.39, 0.085, 0.07, mix(back, belly, 0.75))
    pen.disc(0.79, 0.31, 0.034, 0.036, WHITE)
    pen.disc(0.797, 0.312, 0.022, 0.024, INK)
    if flying:
        pen.blob([(0.34, 0.60), (0.16, 0.36), (0.16, 0.14), (0.34, 0.28), (0.52, 0.44), (0.60, 0.58)],
            dark(back, 0.12), 0.35)
        pen.stroke([(0.24, 0.28), (0.36, 0.42), (0.50, 0.54)], 0.025, dark(back, 0.35))
    else:
        pen.blob([(0.14, 0.66), (0.30, 0.55), (0.50, 0.48), (0.60, 0.56), (0.54, 0.68), (0.36, 0.72)],
            dark(back, 0.18), 0.35)
        pen.stroke([(0.26, 0.655), (0.40, 0.64), (0.52, 0.57)], 0.02, dark(back, 0.4))


def _boat(pen: Pen, dice: Dice) -> None:
    hull, trim = dice.near(dice.pick(PAINT)), dice.near(dice.pick(PAINT))
    dice.pick((_sails, _sails, _cabin))(pen, dice, trim)
    pen.blob([(0.05, 0.735), (0.30, 0.765), (0.62, 0.765), (0.96, 0.715), (0.93, 0.78), (0.82, 0.93), (0.66, 0.95),
        (0.28, 0.95), (0.14, 0.90)], hull, 0.3)
    pen.stroke([(0.06, 0.755), (0.30, 0.79), (0.62, 0.79), (0.94, 0.745)], 0.03, CREAM)
    pen.fill([(0.15, 0.885), (0.83, 0.885), (0.76, 0.95), (0.24, 0.95)], dark(hull, 0.4))


def _sails(pen: Pen, dice: Dice, trim: Colour) -> None:
    lean = dice.uniform(-0.05, 0.05)
    pen.limb((0.47, 0.80), (0.47 + lean, 0.06), 0.024, WOOD[1])
    sail = dice.near(dice.pick((CREAM, CREAM, (246, 250, 252), trim)))
    pen.fill([(0.49 + lean, 0.11), (0.60, 0.30), (0.74, 0.50), (0.86, 0.70), (0.50, 0.71)], sail, 0.14)
    pen.fill([(0.595, 0.38), (0.655, 0.38), (0.755, 0.53), (0.50, 0.54), (0.50, 0.46)], mix(sail, trim, 0.8))
    pen.blob([(0.45 + lean, 0.17), (0.45, 0.70), (0.24, 0.72), (0.14, 0.69), (0.33, 0.44)], dark(sail, 0.1), 0.14)
    pen.fill([(0.47 + lean, 0.05), (0.61 + lean, 0.085), (0.47 + lean, 0.125)], dice.near(PAINT[0]))


def _cabin(pen: Pen, dice: Dice, trim: Colour) -> None:
    pen.limb((0.70, 0.55), (0.70, 0.22), 0.018, WOOD[3])
    pen.box(0.36, 0.36, 0.46, 0.60, trim, 0.01, 0.3)
    pen.box(0.36, 0.40, 0.46, 0.44, CREAM)
    pen.box(0.24, 0.56, 0.66, 0.76, CREAM, 0.03, 0.2)
    pen.box(0.20, 0.53, 0.69, 0.58, trim, 0.02, 0.2)
    for x in (0.32, 0.45, 0.58):
        pen.disc(x, 0.66, 0.036, 0.036, (84, 126, 164))
    pen.fill([(0.70, 0.22), (0.84, 0.265), (0.70, 0.31)], dice.near(PAINT[0]))


def _bottle(pen: Pen, dice: Dice) -> None:
    glass = dice.near(dice.pick(((96, 150, 96), (150, 96, 60), (140, 190, 206), (70, 120, 120), (196, 84, 76),
        (224, 226, 220))))
    label, w = dice.near(dice.pick((CREAM, *PAINT))), dice.uniform(0.145, 0.19)
    neck, shoulder = dice.uniform(0.055, 0.07), dice.uniform(0.38, 0.50)
    left = [(0.5 - neck, 0.12), (0.5 - neck, shoulder - 0.14), (0.5 - w * 0.9, shoulder - 0.01),
        (0.5 - w, shoulder + 0.10)]
    foot = [(0.5 - w, 0.90), (0.5 - w * 0.9, 0.945), (0.5 + w * 0.9, 0.945), (0.5 + w, 0.90)]
    right = [(1 - x, y) for x, y in reversed(left)]
    pen.fill(left + foot + right, glass, 0.35)
    pen.fill([(0.5 - w * 0.8, shoulder + 0.06), (0.5 + w * 0.8, shoulder + 0.06), (0.5 + w * 0.84, 0.90),
        (0.5 - w * 0.84, 0.90)], dark(glass, 0.14))
    top = shoulder + dice.uniform(0.10, 0.16)
    pen.box(0.5 - w, top, 0.5 + w, 0.82, label, 0.012, 0.15)
    band = dice.near(dice.pick(PAINT))
    match dice.integer(0, 2):
        case 0:
            pen.disc(0.5, (top + 0.82) / 2, w * 0.55, w * 0.55, band)
        case 1:
            pen.box(0.5 - w, top + 0.05, 0.5 + w, top + 0.12, band)
            pen.box(0.5 - w * 0.6, top + 0.17, 0.5 + w * 0.6, top + 0.195, band)
        case _:
            pen.leaf(0.5 - w * 0.2, (top + 0.82) / 2, w * 0.55, w * 0.24, -50, LEAVES[1])
            pen.leaf(0.5 + w * 0.25, (top + 0.82) / 2, w * 0.55, w * 0.24, -120, LEAVES[0])
    pen.limb((0.5 - w * 0.68, shoulder + 0.08), (0.5 - w * 0.68, 0.86), 0.035, light(glass, 0.55))
    pen.limb((0.5 - neck * 0.45, 0.16), (0.5 - neck * 0.45, shoulder - 0.14), 0.024, light(glass, 0.55))
    cap = dice.near(dice.pick((WOOD[2], PAINT[0], (232, 196, 96), STEEL)))
    pen.box(0.5 - neck - 0.012, 0.05, 0.5 + neck + 0.012, 0.135, cap, 0.02, 0.3)
    pen.box(0.5 - neck - 0.012, 0.145, 0.5 + neck + 0.012, 0.175, dark(glass, 0.25), 0.01)


def _bus(pen: Pen, dice: Dice) -> None:
    paint, pane = dice.near(dice.pick(PAINT)), dice.near(GLASS, 8)
    double = dice.chance(0.35)
    top = 0.14 if double else 0.30
    pen.box(0.03, top, 0.97, 0.86, paint, 0.07, 0.3)
    pen.box(0.08, top + 0.012, 0.92, top + 0.045, light(paint, 0.45), 0.016)
    rows = [(0.22, 0.36), (0.45, 0.60)] if double else [(0.40, 0.58)]
    count = dice.integer(4, 5)
    for y1, y2 in rows:
        width = 0.70 / count
        for k in range(count):
            x = 0.07 + k * width
            pen.box(x, y1, x + width - 0.025, y2, pane, 0.018)
            pen.fill([(x + 0.02, y1), (x + 0.07, y1), (x + 0.03, y2), (x, y2), (x, y1 + 0.06)], light(pane, 0.5))
    y1, y2 = rows[-1]
    pen.box(0.875, y1, 0.955, y2 + 0.03, pane, 0.02)
    pen.box(0.785, y1, 0.855, 0.82, dark(pane, 0.25), 0.012)
    pen.box(0.815, y1 + 0.01, 0.824, 0.81, paint)
    if double:
        pen.box(0.875, 0.22, 0.955, 0.36, pane, 0.02)
    pen.box(0.03, 0.655, 0.775, 0.70, CREAM)
    pen.box(0.03, 0.80, 0.97, 0.865, dark(paint, 0.4), 0.03)
    pen.disc(0.945, 0.755, 0.024, 0.028, LAMP)
    pen.box(0.028, 0.735, 0.05, 0.785, TAIL_LAMP, 0.008)
    for x in (0.23, 0.72):
        pen.disc(x, 0.85, 0.115, 0.10, dark(paint, 0.55))
        _wheel(pen, x, 0.86, 0.09)


def _car(pen: Pen, dice: Dice) -> None:
    paint, pane = dice.near(dice.pick(PAINT)), dice.near(GLASS, 8)
    tail, roof = dice.uniform(0.06, 0.22), dice.uniform(0.33, 0.39)
    pen.fill([(tail, 0.60), (tail + 0.07, roof + 0.05), (tail + 0.13, roof), (0.56, roof), (0.63, roof + 0.04),
        (0.78, 0.60)], paint)
    pen.stroke([(tail + 0.10, roof + 0.025), (0.36, roof + 0.012), (0.58, roof + 0.022)], 0.026, light(paint, 0.4))
    pen.fill([(tail + 0.055, 0.585), (tail + 0.115, roof + 0.06), (0.41, roof + 0.06), (0.41, 0.585)], pane)
    pen.fill([(0.45, 0.585), (0.45, roof + 0.06), (0.565, roof + 0.06), (0.71, 0.585)], pane)
    pen.fill([(0.50, roof + 0.06), (0.55, roof + 0.06), (0.52, 0.585), (0.46, 0.585)], light(pane, 0.6))
    pen.blob([(0.03, 0.63), (0.10, 0.57), (0.40, 0.575), (0.76, 0.575), (0.93, 0.62), (0.985, 0.70), (0.97, 0.83),
        (0.80, 0.86), (0.20, 0.86), (0.04, 0.82)], paint, 0.3)
    pen.stroke([(0.09, 0.615), (0.40, 0.60), (0.76, 0.605), (0.90, 0.64)], 0.022, light(paint, 0.4))
    pen.box(0.04, 0.80, 0.975, 0.86, dark(paint, 0.45), 0.03)
    pen.limb((0.43, 0.62), (0.43, 0.79), 0.01, dark(paint, 0.4))
    pen.limb((0.35, 0.655), (0.40, 0.655), 0.018, CREAM)
    pen.leaf(0.935, 0.685, 0.032, 0.042, 20, LAMP)
    pen.box(0.025, 0.66, 0.062, 0.725, TAIL_LAMP, 0.012)
    for x in (0.235, 0.765):
        pen.disc(x, 0.83, 0.135, 0.125, dark(paint, 0.55))
        _wheel(pen, x, 0.845, 0.105)


def _cat(pen: Pen, dice: Dice) -> None:
    fur = dice.near(dice.pick(FUR), 6)
    deep, bib = dark(fur, 0.28), dice.pick((light(fur, 0.6), CREAM, fur))
    wag = dice.uniform(-0.08, 0.06)
    pen.stroke([(0.62, 0.89), (0.84, 0.90), (0.92, 0.74 + wag), (0.84, 0.60 + wag), (0.90, 0.50 + wag)],
        0.085, deep, 0.7)
    pen.blob([(0.42, 0.46), (0.62, 0.48), (0.70, 0.68), (0.74, 0.88), (0.66, 0.95), (0.36, 0.95), (0.28, 0.88),
        (0.32, 0.66)], fur, 0.22)
    pen.blob([(0.42, 0.52), (0.56, 0.52), (0.58, 0.68), (0.49, 0.80), (0.40, 0.68)], bib)
    if dice.chance(0.5):
        for y in (0.66, 0.74, 0.82):
            pen.stroke([(0.73, y + 0.02), (0.67, y), (0.62, y + 0.015)], 0.028, deep, 0.4)
    for x in (0.42, 0.57):
        pen.limb((x, 0.72), (x, 0.915), 0.10, light(fur, 0.08), 0.95)
        pen.disc(x, 0.925, 0.062, 0.032, mix(bib, fur, 0.2), 0.2)
    pen.limb((0.495, 0.76), (0.495, 0.93), 0.012, deep)
    _cat_head(pen, dice, fur, bib)


def _cat_head(pen: Pen, dice: Dice, fur: Colour, bib: Colour) -> None:
    deep, pink = dark(fur, 0.28), (240, 160, 156)
    for side in (-1, 1):
        pen.fill([(0.49 + side * 0.05, 0.20), (0.49 + side * 0.20, 0.04), (0.49 + side * 0.23, 0.32)], fur)
        pen.fill([(0.49 + side * 0.10, 0.19), (0.49 + side * 0.18, 0.10), (0.49 + side * 0.20, 0.26)], pink)
    pen.disc(0.49, 0.34, 0.235, 0.195, fur, 0.2)
    for x in (0.43, 0.49, 0.55):
        pen.limb((x, 0.155), (0.49 + (x - 0.49) * 0.8, 0.22), 0.022, deep, 0.5)
    eye = dice.pick(((130, 178, 86), (226, 182, 66), (104, 160, 200)))
    for x in (0.40, 0.58):
        pen.disc(x, 0.33, 0.047, 0.050, light(eye, 0.3))
        pen.disc(x, 0.335, 0.020, 0.044, INK)
        pen.disc(x + 0.012, 0.315, 0.011, 0.012, WHITE)
    pen.disc(0.455, 0.425, 0.055, 0.042, mix(bib, WHITE, 0.4))
    pen.disc(0.525, 0.425, 0.055, 0.042, mix(bib, WHITE, 0.4))
    pen.fill([(0.462, 0.388), (0.518, 0.388), (0.49, 0.418)], (226, 120, 124))
    for side in (-1, 1):
        for tip in (0.39, 0.45):
            pen.limb((0.49 + side * 0.10, 0.42), (0.49 + side * 0.27, tip), 0.009, light(fur, 0.7))


def _chair(pen: Pen, dice: Dice) -> None:
    wood = dice.near(dice.pick((*WOOD, *PAINT[:6])))
    deep, seat = dark(wood, 0.28), dice.near(dice.pick(PAINT))
    wide = dice.uniform(0.24, 0.30)
    x1, x2 = 0.5 - wide, 0.5 + wide
    for x in (x1 + 0.11, x2 - 0.02):
        pen.limb((x, 0.60), (x, 0.84), 0.045, dark(wood, 0.4))
    for x in (x1 + 0.09, x2 - 0.04):
        pen.limb((x, 0.10), (x, 0.60), 0.055, wood)
    style = dice.integer(0, 2)
    if style == 0:
        for y in (0.14, 0.25, 0.36):
            pen.box(x1 + 0.09, y, x2 - 0.04, y + 0.07, wood, 0.02, 0.3)
    elif style == 1:
        for k in range(4):
            x = x1 + 0.16 + k * (x2 - x1 - 0.27) / 3
            pen.limb((x, 0.16), (x, 0.56), 0.03, dark(wood, 0.12))
        pen.box(x1 + 0.05, 0.08, x2, 0.18, wood, 0.04, 0.3)
    else:
        pen.box(x1 + 0.07, 0.07, x2 - 0.02, 0.50, wood, 0.10, 0.25)
        pen.box(x1 + 0.12, 0.12, x2 - 0.07, 0.45, seat, 0.07, 0.2)
    pen.fill([(x1 + 0.07, 0.56), (x2 - 0.01, 0.56), (x2 + 0.01, 0.68), (x1 - 0.02, 0.68)], light(wood, 0.12))
    if style != 1:
        pen.blob([(x1 + 0.08, 0.54), (x2 - 0.02, 0.54), (x2 - 0.01, 0.65), (x1, 0.65)], seat, 0.25)
    pen.box(x1 - 0.025, 0.66, x2 + 0.015, 0.715, deep, 0.015)
    for x, lean in ((x1 + 0.015, -0.02), (x2 - 0.03, 0.02)):
        pen.limb((x, 0.69), (x + lean, 0.93), 0.055, wood, 0.75)
    pen.limb((x1 + 0.01, 0.83), (x2 - 0.02, 0.83), 0.025, deep)


def _four_legs(
    pen: Pen,
    back: tuple[float, float],
    front: tuple[float, float],
    top: float,
    width: float,
    near: Colour,
    far: Colour,
    hoof: Colour,
    step: float,
) -> None:
    """Far legs, then near legs, each with its hoof; ``step`` moves them apart."""
    for x, colour, shift in (
        (back[1], far, -step),
        (front[0], far, step),
        (back[0], near, step),
        (front[1], near, -step),
    ):
        pen.limb((x, top), (x + shift, 0.925), width, colour, 0.68)
        pen.box(x + shift - width * 0.38, 0.905, x + shift + width * 0.44, 0.95, hoof, 0.012)


def _cow(pen: Pen, dice: Dice) -> None:
    coat, spot = dice.pick(COWHIDE)
    coat, pink = dice.near(coat, 6), (242, 178, 172)
    pen.stroke([(0.10, 0.40), (0.04, 0.52), (0.055, 0.68)], 0.03, dark(coat, 0.2))
    pen.disc(0.055, 0.71, 0.03, 0.05, dark(spot, 0.1))
    _four_legs(pen, (0.17, 0.27), (0.58, 0.67), 0.62, 0.095, coat, dark(coat, 0.25), INK, dice.uniform(-0.02, 0.03))
    pen.disc(0.32, 0.72, 0.075, 0.055, pink, 0.2)
    pen.blob([(0.08, 0.42), (0.16, 0.34), (0.45, 0.35), (0.66, 0.31), (0.78, 0.38), (0.76, 0.58), (0.66, 0.70),
        (0.40, 0.74), (0.16, 0.71), (0.08, 0.60)], coat, 0.22)
    for x, y, size in ((0.22, 0.47, 0.10), (0.46, 0.44, 0.085), (0.58, 0.60, 0.065)):
        if dice.chance(0.8):
            bend = dice.uniform(0.75, 1.2)
            pen.blob([(x - size, y - 0.02), (x - 0.02, y - size * 0.8), (x + size * bend, y - 0.03),
                (x + size * 0.6, y + size * 0.7), (x - size * 0.4, y + size * 0.9)], spot)
    drop = dice.uniform(0.0, 0.12)
    pen.fill([(0.64, 0.36), (0.78, 0.26 + drop), (0.84, 0.44 + drop), (0.72, 0.58)], coat)
    _cow_head(pen, drop, coat, spot, pink)


def _cow_head(pen: Pen, drop: float, coat: Colour, spot: Colour, pink: Colour) -> None:
    pen.leaf(0.675, 0.265 + drop, 0.062, 0.032, -14, dark(coat, 0.2))
    for x, out in ((0.735, 0.715), (0.855, 0.875)):
        pen.stroke([(x, 0.20 + drop), (out, 0.15 + drop), (x, 0.10 + drop)], 0.034, (232, 214, 178), 0.4)
    pen.blob([(0.71, 0.22 + drop), (0.80, 0.17 + drop), (0.89, 0.22 + drop), (0.93, 0.36 + drop), (0.92, 0.44 + drop),
        (0.82, 0.45 + drop), (0.74, 0.36 + drop)], coat, 0.15)
    pen.leaf(0.915, 0.255 + drop, 0.058, 0.030, 16, coat)
    pen.blob([(0.715, 0.23 + drop), (0.79, 0.18 + drop), (0.80, 0.28 + drop), (0.76, 0.35 + drop)], spot)
    pen.disc(0.895, 0.42 + drop, 0.075, 0.052, pink, 0.2)
    pen.disc(0.87, 0.415 + drop, 0.011, 0.014, dark(pink, 0.5))
    pen.disc(0.925, 0.415 + drop, 0.011, 0.014, dark(pink, 0.5))
    pen.disc(0.835, 0.285 + drop, 0.020, 0.024, INK)
    pen.disc(0.841, 0.278 + drop, 0.007, 0.008, WHITE)


def _diningtable(pen: Pen, dice: Dice) -> None:
    wood = dice.near(dice.pick(WOOD))
    cloth = dice.near(dice.pick((CREAM, *PAINT))) if dice.chance(0.6) else None
    top = light(wood, 0.12) if cloth is None else cloth
    dice.pick((_square_table, _round_table))(pen, wood, top, cloth)
    for x in dice.pick(((0.22, 0.78), (0.24, 0.5, 0.76))):
        pen.disc(x, 0.497, 0.095, 0.030, dark(top, 0.25))
        pen.disc(x, 0.49, 0.095, 0.030, (250, 250, 246))
        pen.disc(x, 0.488, 0.058, 0.016, dice.near(dice.pick(PAINT)))
    dice.pick((_fruit, _bouquet, _candles))(pen, dice)


def _square_table(pen: Pen, wood: Colour, top: Colour, cloth: Colour | None) -> None:
    for x, end in ((0.20, 0.18), (0.80, 0.82)):
        pen.limb((x, 0.50), (end, 0.84), 0.05, dark(wood, 0.35))
    for x, end in ((0.10, 0.09), (0.90, 0.91)):
        pen.limb((x, 0.56), (end, 0.925), 0.07, wood, 0.7, 0.2)
    pen.box(0.06, 0.56, 0.94, 0.66, dark(wood, 0.2))
    pen.fill([(0.16, 0.40), (0.84, 0.40), (0.98, 0.57), (0.02, 0.57)], top)
    pen.fill([(0.02, 0.57), (0.98, 0.57), (0.98, 0.60), (0.02, 0.60)], dark(top, 0.2))
    if cloth is not None:
        pen.fill([(0.02, 0.57), (0.98, 0.57), (0.965, 0.72), (0.90, 0.70), (0.5, 0.71), (0.10, 0.70), (0.035, 0.72)],
            dark(cloth, 0.1), 0.15)


def _round_table(pen: Pen, wood: Colour, top: Colour, cloth: Colour | None) -> None:
    pen.blob([(0.45, 0.5), (0.55, 0.5), (0.54, 0.85), (0.46, 0.85)], dark(wood, 0.15))
    for x, end, shade in ((0.46, 0.24, 0.0), (0.54, 0.76, 0.0), (0.50, 0.50, 0.1)):
        pen.limb((x, 0.82), (end, 0.93), 0.05, dark(wood, shade))
    if cloth is not None:
        pen.fill([(0.03, 0.49), (0.97, 0.49), (0.90, 0.70), (0.74, 0.75), (0.5, 0.77), (0.26, 0.75), (0.10, 0.70)],
            dark(cloth, 0.1), 0.15)
    pen.disc(0.5, 0.505, 0.475, 0.105, dark(top, 0.22))
    pen.disc(0.5, 0.49, 0.475, 0.105, top)


def _fruit(pen: Pen, dice: Dice) -> None:
    for x, y, colour in ((0.45, 0.385, (226, 92, 70)), (0.55, 0.385, (240, 176, 70)), (0.50, 0.365, (150, 182, 84))):
        pen.disc(x, y, 0.048, 0.048, colour, 0.2)
    pen.fill([(0.38, 0.39), (0.62, 0.39), (0.57, 0.465), (0.43, 0.465)], dice.near(dice.pick(PAINT)), 0.3)


def _bouquet(pen: Pen, dice: Dice) -> None:
    for angle in (-0.6, -0.18, 0.25, 0.66):
        x, y = 0.5 + 0.16 * math.sin(angle), 0.34 - 0.14 * math.cos(angle)
        pen.limb((0.5, 0.36), (x, y), 0.014, LEAVES[1])
        pen.disc(x, y, 0.042, 0.042, dice.near(dice.pick(PAINT[:6])))
        pen.disc(x, y, 0.016, 0.016, POLLEN)
    pen.blob([(0.45, 0.34), (0.55, 0.34), (0.565, 0.43), (0.53, 0.48), (0.47, 0.48), (0.435, 0.43)], GLASS, 0.25)


def _candles(pen: Pen, dice: Dice) -> None:
    for x in (0.44, 0.56):
        y = dice.uniform(0.25, 0.32)
        pen.box(x - 0.022, y, x + 0.022, 0.46, CREAM, 0.008, 0.1)
        pen.disc(x, 0.465, 0.05, 0.018, dark(STEEL))
        pen.leaf(x, y - 0.035, 0.016, 0.034, 0, (252, 186, 72))


def _dog(pen: Pen, dice: Dice) -> None:
    fur = dice.near(dice.pick(FUR), 6)
    deep, chest = dark(fur, 0.3), dice.pick((light(fur, 0.55), fur, CREAM))
    lift = dice.uniform(-0.06, 0.06)
    pen.stroke([(0.16, 0.54), (0.08, 0.44 + lift), (0.07, 0.32 + lift), (0.12, 0.26 + lift)], 0.07, fur, 0.45)
    step = dice.uniform(-0.02, 0.04)
    _four_legs(pen, (0.20, 0.29), (0.51, 0.60), 0.64, 0.105, fur, deep, mix(chest, WHITE, 0.2), step)
    pen.blob([(0.12, 0.56), (0.20, 0.48), (0.42, 0.50), (0.60, 0.44), (0.68, 0.54), (0.65, 0.70), (0.54, 0.755),
        (0.36, 0.715), (0.20, 0.74), (0.13, 0.67)], fur, 0.22)
    pen.blob([(0.60, 0.55), (0.68, 0.54), (0.66, 0.68), (0.57, 0.745), (0.55, 0.66)], chest)
    if dice.chance(0.4):
        pen.blob([(0.24, 0.49), (0.42, 0.505), (0.44, 0.60), (0.32, 0.66), (0.23, 0.59)], deep)
    pen.blob([(0.54, 0.52), (0.56, 0.36), (0.72, 0.36), (0.72, 0.54), (0.62, 0.60)], fur)
    pen.stroke([(0.545, 0.50), (0.63, 0.535), (0.71, 0.515)], 0.042, dice.near(dice.pick(PAINT)))
    pen.disc(0.655, 0.555, 0.024, 0.026, (242, 200, 84))
    pen.blob([(0.54, 0.28), (0.62, 0.17), (0.74, 0.17), (0.82, 0.26), (0.80, 0.40), (0.68, 0.46), (0.57, 0.41)],
        fur, 0.15)
    pen.blob([(0.76, 0.30), (0.88, 0.29), (0.965, 0.33), (0.95, 0.41), (0.84, 0.445), (0.74, 0.43)],
        mix(fur, chest, 0.7), 0.2)
    pen.disc(0.945, 0.325, 0.036, 0.030, INK)
    pen.stroke([(0.92, 0.405), (0.86, 0.415), (0.82, 0.40)], 0.012, INK)
    if dice.chance(0.4):
        pen.blob([(0.86, 0.415), (0.905, 0.41), (0.905, 0.485), (0.87, 0.49)], (236, 124, 124))
    pen.disc(0.745, 0.275, 0.026, 0.030, INK)
    pen.disc(0.753, 0.265, 0.009, 0.010, WHITE)
    if dice.chance(0.7):
        pen.blob([(0.57, 0.19), (0.65, 0.20), (0.66, 0.34), (0.60, 0.45), (0.52, 0.41), (0.52, 0.28)], deep, 0.2)
    else:
        pen.fill([(0.57, 0.26), (0.56, 0.05), (0.70, 0.19)], deep)


def _horse(pen: Pen, dice: Dice) -> None:
    coat, mane = dice.pick(HORSEHAIR)
    coat, nod = dice.near(coat, 8), dice.uniform(-0.02, 0.10)
    deep = dark(coat, 0.28)
    pen.stroke([(0.12, 0.44), (0.045, 0.48), (0.03, 0.62), (0.07, 0.76)], 0.085, mane, 0.35)
    step = dice.uniform(-0.03, 0.045)
    _four_legs(pen, (0.16, 0.245), (0.515, 0.595), 0.58, 0.088, coat, deep, INK, step)
    pen.blob([(0.09, 0.46), (0.18, 0.385), (0.36, 0.42), (0.54, 0.37), (0.66, 0.44), (0.645, 0.60), (0.52, 0.665),
        (0.34, 0.64), (0.20, 0.675), (0.10, 0.60)], coat, 0.22)
    x, y = 0.74, 0.13 + nod
    pen.fill([(0.50, 0.42), (0.58, 0.30), (x - 0.09, y + 0.02), (x + 0.05, y + 0.05), (x, y + 0.20), (0.665, 0.50)],
        coat)
    pen.fill([(x - 0.05, y + 0.02), (x - 0.035, y - 0.10), (x + 0.025, y)], deep)
    pen.blob([(x - 0.075, y + 0.03), (x, y - 0.015), (x + 0.07, y + 0.05), (x + 0.20, y + 0.19),
        (x + 0.195, y + 0.25), (x + 0.12, y + 0.265), (x + 0.01, y + 0.18)], coat, 0.18)
    pen.blob([(x + 0.13, y + 0.15), (x + 0.205, y + 0.195), (x + 0.195, y + 0.25), (x + 0.12, y + 0.262)],
        mix(coat, mane, 0.35))
    pen.disc(x + 0.175, y + 0.212, 0.011, 0.012, INK)
    pen.disc(x + 0.03, y + 0.075, 0.019, 0.021, INK)
    if dice.chance(0.5):
        pen.stroke([(x + 0.055, y + 0.045), (x + 0.10, y + 0.10), (x + 0.14, y + 0.145)], 0.024, CREAM, 0.5)
    pen.stroke([(x + 0.02, y - 0.02), (x - 0.08, y + 0.01), (0.60, 0.27 + nod * 0.5), (0.54, 0.38), (0.47, 0.44)],
        0.088, mane, 0.6)
    if dice.chance(0.35):
        saddle = dice.near(dice.pick(PAINT))
        pen.blob([(0.28, 0.40), (0.36, 0.405), (0.46, 0.39), (0.47, 0.54), (0.38, 0.57), (0.29, 0.54)], saddle, 0.25)
        pen.blob([(0.29, 0.38), (0.36, 0.40), (0.47, 0.36), (0.46, 0.43), (0.37, 0.45), (0.30, 0.43)], WOOD[3])


def _motorbike(pen: Pen, dice: Dice) -> None:
    paint, radius = dice.near(dice.pick(PAINT)), dice.uniform(0.165, 0.185)
    y, back, front = 0.95 - radius, 0.21, 0.79
    for x in (back, front):
        pen.ring(x, y, radius, 0.065, TYRE)
        pen.ring(x, y, radius - 0.065, 0.02, STEEL)
        for angle in (0.4, 1.45, 2.5):
            c, s = (radius - 0.07) * math.cos(angle), (radius - 0.07) * math.sin(angle)
            pen.limb((x - c, y - s), (x + c, y + s), 0.014, STEEL)
        pen.disc(x, y, 0.035, 0.035, dark(STEEL, 0.4))
    pen.limb((back, y), (0.46, 0.74), 0.045, dark(STEEL, 0.45))
    pen.blob([(0.34, 0.62), (0.62, 0.60), (0.64, 0.78), (0.55, 0.86), (0.40, 0.86), (0.34, 0.76)], (92, 94, 106), 0.3)
    for k in range(3):
        pen.limb((0.42, 0.68 + 0.05 * k), (0.57, 0.67 + 0.05 * k), 0.020, STEEL)
    pen.stroke([(0.50, 0.84), (0.38, 0.86), (0.22, 0.865), (0.06, 0.83)], 0.045, (206, 210, 218), 1.4)
    pen.limb((0.655, 0.40), (front, y), 0.042, STEEL)
    pen.stroke([(front - radius * 0.95, y - radius * 0.55), (front - 0.03, y - radius * 1.08),
        (front + radius * 0.9, y - radius * 0.6)], 0.045, paint)
    pen.blob([(0.05, 0.56), (0.10, 0.51), (0.24, 0.56), (0.40, 0.60), (0.36, 0.67), (0.22, 0.66), (0.10, 0.62)],
        paint, 0.3)
    pen.blob([(0.10, 0.50), (0.20, 0.51), (0.34, 0.545), (0.46, 0.52), (0.45, 0.595), (0.30, 0.61), (0.16, 0.57)],
        (70, 54, 54), 0.2)
    pen.blob([(0.42, 0.50), (0.50, 0.43), (0.64, 0.42), (0.69, 0.50), (0.62, 0.60), (0.46, 0.61)], paint, 0.3)
    pen.stroke([(0.48, 0.485), (0.55, 0.455), (0.63, 0.455)], 0.026, light(paint, 0.55))
    pen.stroke([(0.54, 0.335), (0.60, 0.33), (0.66, 0.35), (0.67, 0.42)], 0.034, INK)
    pen.disc(0.715, 0.44, 0.062, 0.060, dark(paint, 0.3))
    pen.disc(0.737, 0.44, 0.042, 0.050, LAMP)
    pen.box(0.045, 0.56, 0.075, 0.61, TAIL_LAMP, 0.01)
    if dice.chance(0.4):
        pen.blob([(0.70, 0.40), (0.66, 0.24), (0.70, 0.23), (0.77, 0.36)], GLASS)


def _person(pen: Pen, dice: Dice) -> None:
    skin, hair = dice.pick(SKIN), dice.near(dice.pick(HAIR), 6)
    shirt, cloth = dice.near(dice.pick(PAINT)), dice.near(dice.pick((PAINT[9], PAINT[7], *PAINT)))
    stride, skirt, long_hair = dice.uniform(0.0, 0.075), dice.chance(0.35), dice.chance(0.45)
    if long_hair:
        pen.blob([(0.385, 0.15), (0.5, 0.05), (0.615, 0.15), (0.64, 0.33), (0.5, 0.37), (0.36, 0.33)], dark(hair, 0.15))
    for side, shade in ((-1, 0.16), (1, 0.0)):
        foot = 0.5 + side * (0.055 + stride)
        leg = dark(skin if skirt else cloth, shade)
        pen.limb((0.5 + side * 0.05, 0.60), (foot, 0.90), 0.085, leg, 0.8)
        pen.box(foot - 0.05, 0.895, foot + 0.075, 0.95, dark(WOOD[3], 0.2 + shade), 0.025)
    swing = dice.pick((0.0, 0.0, 0.10, 0.22))
    pen.limb((0.60, 0.375), (0.685 + swing * 0.3, 0.56 - swing * 2.0), 0.072, dark(shirt, 0.18), 0.85)
    pen.disc(0.690 + swing * 0.3, 0.585 - swing * 2.15, 0.034, 0.036, skin)
    if skirt:
        pen.fill([(0.41, 0.55), (0.59, 0.55), (0.68, 0.75), (0.58, 0.77), (0.42, 0.77), (0.32, 0.75)], cloth, 0.2)
    else:
        pen.box(0.405, 0.54, 0.595, 0.64, cloth, 0.02)
    pen.blob([(0.40, 0.34), (0.5, 0.31), (0.60, 0.34), (0.625, 0.42), (0.595, 0.58), (0.405, 0.58), (0.375, 0.42)],
        shirt, 0.2)
    match dice.integer(0, 3):
        case 0:
            for y in (0.40, 0.47, 0.54):
                pen.box(0.40, y, 0.60, y + 0.03, light(shirt, 0.6))
        case 1:
            pen.box(0.49, 0.34, 0.51, 0.58, dark(shirt, 0.35))
    pen.limb((0.405, 0.375), (0.325, 0.56), 0.076, light(shirt, 0.06), 0.85)
    pen.disc(0.318, 0.588, 0.036, 0.038, skin)
    pen.box(0.46, 0.27, 0.54, 0.345, dark(skin, 0.18), 0.03)
    pen.disc(0.5, 0.195, 0.098, 0.115, skin, 0.14)
    pen.blob([(0.395, 0.20), (0.40, 0.10), (0.5, 0.045), (0.60, 0.10), (0.605, 0.20), (0.57, 0.135), (0.49, 0.125),
        (0.42, 0.145)], hair)
    for x in (0.462, 0.54):
        pen.disc(x, 0.20, 0.013, 0.016, INK)
    pen.stroke([(0.468, 0.248), (0.502, 0.264), (0.536, 0.248)], 0.014, (176, 74, 72))
    if dice.chance(0.3):
        hat = dice.near(dice.pick(PAINT))
        pen.blob([(0.39, 0.135), (0.42, 0.04), (0.5, 0.015), (0.58, 0.04), (0.61, 0.135)], hat, 0.2)
        pen.limb((0.375, 0.135), (0.655, 0.135), 0.032, dark(hat, 0.25))


def _pottedplant(pen: Pen, dice: Dice) -> None:
    pot, green = dice.near(dice.pick((CLAY, CLAY, *PAINT))), dice.near(dice.pick(LEAVES), 8)
    dice.pick((_rubber_plant, _aloe, _cactus, _flowers))(pen, dice, green)
    pen.fill([(0.32, 0.68), (0.68, 0.68), (0.62, 0.95), (0.38, 0.95)], pot, 0.25)
    pen.box(0.29, 0.635, 0.71, 0.72, light(pot, 0.1), 0.02, 0.3)
    if dice.chance(0.4):
        pen.fill([(0.335, 0.79), (0.665, 0.79), (0.655, 0.84), (0.345, 0.84)], light(pot, 0.55))


def _rubber_plant(pen: Pen, dice: Dice, green: Colour) -> None:
    for degrees in (-68, 68, -44, 44, -20, 22, 0):
        turn, reach = math.radians(degrees + dice.uniform(-8, 8)), dice.uniform(0.17, 0.24)
        x, y = 0.5 + reach * math.sin(turn), 0.60 - reach * 1.25 * math.cos(turn)
        pen.stroke([(0.5, 0.66), ((0.5 + x) / 2, (0.60 + y) / 2), (x, y)], 0.02, dark(green))
        pen.leaf(x, y, 0.072, 0.155, math.degrees(turn), dark(green, abs(degrees) / 360), 0.25)


def _aloe(pen: Pen, dice: Dice, green: Colour) -> None:
    for k in range(-3, 4):
        root, middle = 0.5 + 0.022 * k, 0.5 + 0.06 * k
        tip = (0.5 + 0.115 * k, 0.12 + 0.085 * abs(k) + dice.uniform(0, 0.05))
        pen.blob([(root - 0.045, 0.68), (middle - 0.055, 0.42), tip, (middle + 0.055, 0.44), (root + 0.045, 0.68)],
            dark(green, 0.22 * (k % 2)), 0.15)


def _cactus(pen: Pen, dice: Dice, green: Colour) -> None:
    pen.limb((0.5, 0.70), (0.5, 0.25), 0.20, green, 0.9, 0.2)
    for side, y in ((-1, dice.uniform(0.40, 0.48)), (1, dice.uniform(0.34, 0.42))):
        pen.stroke([(0.5 + 0.06 * side, y + 0.10), (0.5 + 0.19 * side, y + 0.08), (0.5 + 0.20 * side, y - 0.08)],
            0.095, green)
    for x in (0.455, 0.5, 0.545):
        pen.limb((x, 0.22), (x, 0.66), 0.012, light(green, 0.4))
    pen.disc(0.5, 0.155, 0.055, 0.045, dice.near(dice.pick(PAINT[:6])), 0.2)


def _flowers(pen: Pen, dice: Dice, green: Colour) -> None:
    bloom = dice.near(dice.pick(PAINT[:6]))
    for x, high in ((0.30, 0.31), (0.70, 0.31), (0.42, 0.24), (0.59, 0.24)):
        y, turn = high + dice.uniform(-0.04, 0.04), dice.uniform()
        pen.stroke([(0.5, 0.68), (0.3 + 0.4 * x, 0.50), (x, y)], 0.024, dark(green, 0.15))
        for k in range(5):
            angle = turn + k * math.tau / 5
            pen.disc(x + 0.050 * math.cos(angle), y + 0.050 * math.sin(angle), 0.042, 0.042, bloom)
        pen.disc(x, y, 0.032, 0.032, POLLEN)
    for x, y, degrees in ((0.385, 0.57, -60), (0.615, 0.57, 62), (0.44, 0.55, -28), (0.565, 0.55, 30)):
        pen.leaf(x, y, 0.042, 0.11, degrees, green, 0.2)


def _sheep(pen: Pen, dice: Dice) -> None:
    wool = dice.near(dice.pick(((248, 244, 234), (248, 244, 234), (232, 222, 204), (150, 132, 122))), 6)
    face = dice.near(dice.pick(((78, 68, 72), (78, 68, 72), (240, 214, 188), (128, 96, 80))), 6)
    _four_legs(pen, (0.24, 0.34), (0.54, 0.64), 0.68, 0.075, face, dark(face, 0.3), INK, dice.uniform(-0.015, 0.02))
    tufts = dice.integer(11, 14)
    turns = [math.tau * k / tufts for k in range(tufts)]
    ring = [(0.44 + 0.285 * math.cos(turn), 0.53 + 0.185 * math.sin(turn)) for turn in turns]
    for x, y in ring:
        pen.disc(x, y + 0.012, 0.092, 0.088, dark(wool, 0.2))
    for x, y in ring:
        pen.disc(x, y, 0.088, 0.082, wool)
    pen.disc(0.44, 0.525, 0.31, 0.215, wool)
    for x, y in ((0.26, 0.56), (0.37, 0.46), (0.50, 0.60), (0.38, 0.64), (0.58, 0.48)):
        pen.stroke([(x - 0.05, y - 0.012), (x, y + 0.026), (x + 0.05, y - 0.012)], 0.020, dark(wool, 0.13))
    drop = dice.uniform(-0.04, 0.10)
    pen.leaf(0.685, 0.385 + drop, 0.066, 0.032, -22, dark(face, 0.15))
    pen.blob([(0.72, 0.36 + drop), (0.80, 0.31 + drop), (0.88, 0.37 + drop), (0.915, 0.50 + drop),
        (0.86, 0.58 + drop), (0.77, 0.54 + drop)], face, 0.15)
    pen.leaf(0.905, 0.40 + drop, 0.060, 0.030, 24, face)
    for x, y in ((0.74, 0.34), (0.80, 0.30), (0.86, 0.345)):
        pen.disc(x, y + drop, 0.054, 0.046, wool)
    pen.disc(0.825, 0.435 + drop, 0.024, 0.026, WHITE)
    pen.disc(0.832, 0.438 + drop, 0.014, 0.016, INK)
    pen.disc(0.885, 0.535 + drop, 0.018, 0.012, mix(face, (226, 130, 130), 0.6))


def _sofa(pen: Pen, dice: Dice) -> None:
    cloth = dice.near(dice.pick(PAINT))
    deep, seats = dark(cloth, 0.2), dice.integer(2, 3)
    top = dice.uniform(0.34, 0.42)
    for x in (0.12, 0.88):
        pen.limb((x, 0.86), (x, 0.93), 0.045, WOOD[3])
    pen.box(0.07, top, 0.93, 0.80, deep, 0.09, 0.2)
    width = 0.76 / seats
    for k in range(seats):
        x = 0.12 + k * width
        pen.box(x + 0.006, top + 0.03, x + width - 0.006, 0.66, cloth, 0.05, 0.2)
    for k in range(seats):
        x = 0.12 + k * width
        pen.box(x + 0.004, 0.615, x + width - 0.004, 0.735, light(cloth, 0.14), 0.045, 0.28)
    pen.box(0.08, 0.72, 0.92, 0.875, cloth, 0.03, 0.25)
    for x in (0.02, 0.85):
        pen.box(x, 0.53, x + 0.13, 0.885, light(cloth, 0.06), 0.06, 0.28)
    for x, angle in ((0.24, -14), (0.74, 12)):
        if dice.chance(0.65):
            pillow = dice.near(dice.pick((CREAM, *PAINT)))
            c, s = 0.105 * math.cos(math.radians(angle)), 0.105 * math.sin(math.radians(angle))
            y = 0.555
            pen.fill([(x - c + s, y - s - c), (x + c + s, y + s - c), (x + c - s, y + s + c), (x - c - s, y - s + c)],
                pillow, 0.2)
            pen.limb((x - c * 0.7, y - s * 0.7), (x + c * 0.7, y + s * 0.7), 0.024, light(pillow, 0.45))


def _train(pen: Pen, dice: Dice) -> None:
    paint, trim = dice.near(dice.pick(PAINT)), dice.near(dice.pick((PAINT[0], PAINT[1], CREAM, PAINT[3])))
    if dice.chance(0.55):
        _steam_engine(pen, dice, paint, trim)
        return
    pane = dice.near(GLASS, 8)
    pen.limb((0.30, 0.30), (0.22, 0.19), 0.016, INK)
    pen.limb((0.22, 0.19), (0.32, 0.11), 0.016, INK)
    pen.limb((0.22, 0.105), (0.42, 0.105), 0.020, INK)
    pen.blob([(0.0, 0.30), (0.30, 0.29), (0.64, 0.30), (0.80, 0.38), (0.94, 0.58), (0.99, 0.74), (0.95, 0.83),
        (0.5, 0.84), (0.0, 0.83)], paint, 0.3)
    pen.box(0.0, 0.29, 0.06, 0.835, paint)
    pen.stroke([(0.02, 0.315), (0.30, 0.31), (0.64, 0.325), (0.76, 0.38)], 0.026, light(paint, 0.5))
    for k in range(3):
        x = 0.05 + 0.155 * k
        pen.box(x, 0.41, x + 0.12, 0.555, pane, 0.022)
        pen.fill([(x + 0.02, 0.41), (x + 0.07, 0.41), (x + 0.03, 0.555), (x, 0.555), (x, 0.46)], light(pane, 0.5))
    pen.box(0.525, 0.40, 0.605, 0.77, dark(paint, 0.2), 0.015)
    pen.box(0.54, 0.42, 0.59, 0.56, pane, 0.012)
    pen.blob([(0.68, 0.40), (0.77, 0.40), (0.90, 0.565), (0.70, 0.57)], dark(pane, 0.25))
    pen.box(0.0, 0.63, 0.50, 0.69, trim)
    pen.fill([(0.63, 0.63), (0.945, 0.63), (0.965, 0.69), (0.63, 0.69)], trim)
    pen.disc(0.935, 0.745, 0.028, 0.026, LAMP)
    pen.box(0.02, 0.80, 0.94, 0.865, (84, 84, 96), 0.02)
    for x in (0.12, 0.26, 0.66, 0.80):
        _wheel(pen, x, 0.885, 0.065)


def _steam_engine(pen: Pen, dice: Dice, paint: Colour, trim: Colour) -> None:
    smoke = dice.uniform(-0.03, 0.03)
    for x, y, size in ((0.60, 0.07, 0.055), (0.68, 0.10 + smoke, 0.05), (0.75, 0.145, 0.04)):
        pen.disc(x, y, size * 1.25, size, (238, 236, 240), 0.1)
    pen.fill([(0.75, 0.40), (0.74, 0.26), (0.71, 0.21), (0.87, 0.21), (0.84, 0.26), (0.83, 0.40)], INK)
    pen.box(0.70, 0.185, 0.88, 0.225, trim, 0.012)
    pen.blob([(0.52, 0.42), (0.53, 0.34), (0.60, 0.31), (0.67, 0.34), (0.68, 0.42)], (232, 190, 84), 0.25)
    pen.box(0.30, 0.385, 0.93, 0.66, paint, 0.07, 0.3)
    pen.limb((0.42, 0.415), (0.88, 0.415), 0.024, light(paint, 0.5))
    for x in (0.50, 0.68, 0.86):
        pen.box(x, 0.385, x + 0.025, 0.655, trim)
    pen.disc(0.93, 0.52, 0.035, 0.125, dark(paint, 0.5))
    pen.disc(0.955, 0.41, 0.032, 0.032, LAMP)
    pen.box(0.06, 0.27, 0.37, 0.72, paint, 0.02, 0.2)
    pen.box(0.11, 0.345, 0.31, 0.52, GLASS, 0.025)
    pen.fill([(0.16, 0.345), (0.22, 0.345), (0.16, 0.52), (0.11, 0.52), (0.11, 0.48)], light(GLASS, 0.6))
    pen.box(0.02, 0.22, 0.41, 0.285, trim, 0.03, 0.3)
    pen.box(0.03, 0.67, 0.95, 0.745, dark(paint, 0.45), 0.01)
    pen.fill([(0.88, 0.74), (0.95, 0.74), (1.0, 0.92), (0.86, 0.92)], trim, 0.3)
    for x, radius in ((0.20, 0.135), (0.46, 0.135), (0.68, 0.092), (0.83, 0.092)):
        y = 0.95 - radius
        pen.disc(x, y, radius, radius, TYRE)
        pen.disc(x, y, radius * 0.74, radius * 0.74, dark(trim, 0.1))
        for angle in (0.5, 1.55, 2.6):
            c, s = radius * 0.7 * math.cos(angle), radius * 0.7 * math.sin(angle)
            pen.limb((x - c, y - s), (x + c, y + s), 0.016, TYRE)
        pen.disc(x, y, radius * 0.25, radius * 0.25, STEEL)
    pen.limb((0.20, 0.845), (0.60, 0.845), 0.032, STEEL)


def _tvmonitor(pen: Pen, dice: Dice) -> None:
    frame = dice.near(dice.pick(((66, 66, 76), (66, 66, 76), (206, 208, 214), WOOD[1], PAINT[6], PAINT[2])))
    if dice.chance(0.35):
        _old_set(pen, dice, frame)
        return
    pen.fill([(0.45, 0.78), (0.55, 0.78), (0.57, 0.92), (0.43, 0.92)], dark(frame, 0.3))
    pen.box(0.28, 0.90, 0.72, 0.95, dark(frame, 0.1), 0.02, 0.3)
    pen.box(0.03, 0.20, 0.97, 0.80, frame, 0.03, 0.3)
    _screen(pen, dice, 0.06, 0.23, 0.94, 0.755)
    pen.disc(0.5, 0.778, 0.010, 0.010, TAIL_LAMP)


def _old_set(pen: Pen, dice: Dice, frame: Colour) -> None:
    for x in (dice.uniform(0.18, 0.32), dice.uniform(0.68, 0.82)):
        pen.limb((0.5, 0.36), (x, 0.09), 0.020, STEEL)
        pen.disc(x, 0.085, 0.022, 0.022, STEEL)
    for x, end in ((0.22, 0.20), (0.78, 0.80)):
        pen.limb((x, 0.86), (end, 0.93), 0.045, dark(frame, 0.4))
    pen.box(0.10, 0.34, 0.90, 0.88, frame, 0.08, 0.3)
    _screen(pen, dice, 0.155, 0.395, 0.70, 0.825)
    for y in (0.46, 0.58):
        pen.disc(0.80, y, 0.040, 0.040, light(frame, 0.5), 0.3)
    for y in (0.68, 0.72, 0.76):
        pen.limb((0.765, y), (0.84, y), 0.014, dark(frame, 0.5))


def _screen(pen: Pen, dice: Dice, x1: float, y1: float, x2: float, y2: float) -> None:
    """What is on: a landscape, a ball game, bars, or nothing."""
    w, h = x2 - x1, y2 - y1
    match dice.integer(0, 3):
        case 0:
            pen.box(x1, y1, x2, y2, dice.near((150, 206, 232)), 0.02)
            pen.disc(x1 + w * 0.75, y1 + h * 0.28, h * 0.13, h * 0.13, (255, 226, 132))
            pen.fill([(x1, y2), (x1, y1 + h * 0.62), (x1 + w * 0.3, y1 + h * 0.36), (x1 + w * 0.62, y1 + h * 0.74),
                (x2, y1 + h * 0.56), (x2, y2)], dice.near((110, 164, 124)))
        case 1:
            pen.box(x1, y1, x2, y2, dice.near((106, 168, 104)), 0.02)
            pen.ring(x1 + w / 2, y1 + h / 2, h * 0.2, 0.014, CREAM)
            pen.box(x1 + w / 2 - 0.007, y1, x1 + w / 2 + 0.007, y2, CREAM)
            for _ in range(3):
                px, py = x1 + w * dice.uniform(0.1, 0.9), y1 + h * dice.uniform(0.2, 0.8)
                pen.disc(px, py, 0.02, 0.03, dice.pick(PAINT[:4]))
        case 2:
            pen.box(x1, y1, x2, y2, INK, 0.02)
            for k, colour in enumerate(BARS):
                pen.box(x1 + w * k / 7, y1, x1 + w * (k + 1) / 7, y2 - h * 0.12, colour)
        case _:
            pen.box(x1, y1, x2, y2, dice.near((62, 78, 104)), 0.02)
    pen.fill([(x1 + w * 0.08, y1), (x1 + w * 0.26, y1), (x1 + w * 0.10, y2), (x1, y2), (x1, y1 + h * 0.3)],
        dice.pick(((206, 226, 236), (150, 178, 200))))


DRAWINGS: dict[str, tuple[Callable[[Pen, Dice], None], float]] = {
    "aeroplane": (_aeroplane, 10), "bicycle": (_bicycle, 5), "bird": (_bird, 10), "boat": (_boat, 7),
    "bottle": (_bottle, 8), "bus": (_bus, 3), "car": (_car, 4), "cat": (_cat, 6), "chair": (_chair, 4),
    "cow": (_cow, 4), "diningtable": (_diningtable, 2), "dog": (_dog, 6), "horse": (_horse, 6),
    "motorbike": (_motorbike, 6), "person": (_person, 6), "pottedplant": (_pottedplant, 4), "sheep": (_sheep, 5),
    "sofa": (_sofa, 2), "train": (_train, 2), "tvmonitor": (_tvmonitor, 3),
}
"""Class name -> (drawing, largest tilt in degrees), in the order of the labels."""

CLASSES: tuple[str, ...] = tuple(DRAWINGS)


SCALE = 0.9
"""The size of a drawing in its sprite: the margin keeps what leans inside."""
FOOT = 0.5 + (0.95 - 0.5) * SCALE
"""Height of the line that an upright object stands on, in its sprite."""


def draw(label: int, seed: int, side: int) -> np.ndarray:
    """An object of the class, lit from above: premultiplied RGBA, uint8 (side, side, 4). See :func:`sprite`."""
    dice = Dice(seed, label)
    drawing, tilt = DRAWINGS[CLASSES[label]]
    canvas = np.zeros((side, side, 4), np.uint8)
    lean = tilt * (dice.uniform(-1, 1) + dice.uniform(-1, 1)) / 2
    pen = Pen(canvas, dice.chance(0.5), lean, SCALE * dice.uniform(0.92, 1.0), SCALE)
    drawing(pen, dice)
    shade_from_above(canvas)
    return canvas


def sprite(label: int, seed: int, side: int) -> np.ndarray:
    """One object alone on nothing.

    Args:
        label: class index, 0 to 19.
        seed: gives its paint, pose, tilt and direction; the same at every side.
        side: pixels.

    Returns:
        RGBA, uint8 (side, side, 4), alpha not premultiplied.
    """
    fine = draw(label, seed, 2 * side)
    small = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA).astype(np.int32)
    alpha = small[..., 3:]
    small[..., :3] = np.minimum(255, (small[..., :3] * 255 + alpha // 2) // np.maximum(alpha, 1))
    return small.astype(np.uint8)
