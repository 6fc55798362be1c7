"""The drawings of the README and the tour: `python docs/drawings/draw.py [FOLDER] [--format svg|png]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

BLUE, RED, GREEN, AMBER, GRAY, PALE = "#1b6ca8", "#d1495b", "#3a7d44", "#d98e04", "#5b6470", "#eef2f6"
COLORS = (BLUE, RED, GREEN, AMBER)
Point = tuple[float, float]


def box(
    axes: Axes, at: Point, text: str, size: Point = (1.6, 0.7), color: str = GRAY, fill: str = PALE
) -> None:
    """A box around a center, its first line bold."""
    (x, y), (width, height) = at, size
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.03,rounding_size=0.08", fc=fill, ec=color)
    )
    head, _, rest = text.partition("\n")
    lines = rest.count("\n") + 1 if rest else 0
    axes.text(x, y + 0.11 * lines, head, ha="center", va="center", fontsize=9, weight="bold", color="#1f2933")
    axes.text(x, y - 0.12, rest, ha="center", va="center", fontsize=7.5, color="#39424e", linespacing=1.25)


def arrow(
    axes: Axes, start: Point, end: Point, color: str = GRAY, width: float = 1.2, bend: float = 0
) -> None:
    """An arrow between two points."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=10, lw=width, color=color, connectionstyle=style
        )
    )


def dot(axes: Axes, at: Point, color: str, size: float = 60, text: str = "", edge: str = "white") -> None:
    """A user."""
    axes.scatter(*at, s=size, color=color, edgecolor=edge, linewidth=1, zorder=3)
    if text:
        axes.text(at[0], at[1] - 0.02, text, ha="center", va="center", fontsize=6.5, color="white", zorder=4)


def note(axes: Axes, at: Point, text: str, color: str = GRAY, size: float = 8, align: str = "center") -> None:
    """Text without a box."""
    axes.text(*at, text, ha=align, va="center", fontsize=size, color=color, linespacing=1.3)


def pipeline(axes: Axes) -> None:
    """From the event log to suggestions."""
    axes.set(xlim=(0, 11.2), ylim=(0, 3.5))
    box(axes, (1.0, 1.75), "event log\nsrc, dst, time, action", (1.75, 0.8))
    box(axes, (3.15, 1.75), "FriendGraph\nPyG HeteroData,\ntimed edges", (1.6, 0.95))
    box(axes, (5.25, 1.75), "strictly-past index\nwhat was known\nbefore time t", (1.75, 0.95), BLUE)
    box(axes, (7.5, 2.85), "tokenizer\ngraph neural network,\nresidual codes: STUs", (1.9, 0.95), GREEN)
    box(axes, (7.5, 1.75), "neighborhood\ncontacts, two-hop paths,\nusers seen lately", (1.9, 0.95), BLUE)
    box(axes, (7.5, 0.65), "history\nencoder of the\nuser's timeline", (1.9, 0.95), BLUE)
    box(axes, (10.05, 1.75), "recommender\nheuristics\ntwo-tower\nSTU generation\nclusters", (1.6, 1.5), RED)
    for start, end in (((1.9, 1.75), (2.3, 1.75)), ((4.0, 1.75), (4.33, 1.75))):
        arrow(axes, start, end)
    for y in (2.85, 1.75, 0.65):
        arrow(axes, (6.18, 1.75 + 0.25 * np.sign(y - 1.75)), (6.5, y))
        arrow(axes, (8.5, y), (9.2, 1.75 + 0.4 * np.sign(y - 1.75)))
    note(
        axes,
        (10.05, 0.55),
        "lists of suggestions and reasons,\nevaluated on what happened later,\nserved from a bundle",
        size=7.5,
    )


def towers(axes: Axes) -> None:
    """The two-tower and the sources that it is mixed with."""
    axes.set(xlim=(0, 10), ylim=(0, 4.6))
    note(axes, (1.55, 4.35), "user 578's timeline, strictly before t", GRAY, 8)
    for number, (text, color) in enumerate(
        (("sms to 69", BLUE), ("sms from 69", AMBER), ("call to 151", BLUE), ("call from 97", AMBER))
    ):
        box(axes, (0.5 + 0.72 * number, 3.85), "", (0.6, 0.42), color)
        note(
            axes,
            (0.5 + 0.72 * number, 3.85),
            text.replace(" to ", "\nto ").replace(" from ", "\nfrom "),
            size=6.5,
        )
        arrow(axes, (0.5 + 0.72 * number, 3.58), (1.1 + 0.32 * number, 3.22))
    box(axes, (1.55, 2.85), "history encoder\ncausal transformer", (2.2, 0.62), BLUE)
    box(axes, (1.55, 1.8), "user tower\nhistory, user, action -> query vector", (2.7, 0.62), BLUE)
    box(axes, (1.55, 0.75), "target tower\none vector for each user", (2.7, 0.62), RED)
    arrow(axes, (1.55, 2.5), (1.55, 2.17))
    box(axes, (4.35, 1.28), "dot product\nscore of every user", (1.7, 0.62), GRAY)
    arrow(axes, (2.95, 1.75), (3.45, 1.42))
    arrow(axes, (2.95, 0.8), (3.45, 1.12))
    sources = (
        ("pointer\ncontacts: 69, 151, 97", 4.05),
        ("paths\ncontacts of contacts: 333, 752", 3.15),
        ("union\nboth, and users seen lately", 2.25),
    )
    for text, y in sources:
        box(axes, (4.75, y), text, (2.55, 0.62), GREEN)
        arrow(axes, (6.08, y), (7.0, 2.55 + 0.18 * (y - 2.55)), GREEN)
    arrow(axes, (5.25, 1.28), (7.0, 2.25))
    box(axes, (7.75, 2.45), "gate\na weight for\neach source", (1.3, 0.95), AMBER)
    arrow(axes, (8.45, 2.45), (8.8, 2.45))
    note(axes, (9.4, 3.25), "P(next user)", "#1f2933", 8.5)
    for rank, (user, share) in enumerate((("333", 0.95), ("752", 0.75), ("69", 0.5), ("...", 0.25))):
        y = 2.9 - 0.3 * rank
        axes.barh(y, share * 0.75, height=0.2, left=9.15, color=BLUE if rank < 2 else "#a9b8c6")
        note(axes, (9.08, y), user, size=7, align="right")


COMMUNITIES = ((0.85, 2.75), (2.25, 2.95), (1.5, 1.3))


def codes(axes: Axes) -> None:
    """From the graph to codes: vectors, then the nearest codebook entry level by level."""
    axes.set(xlim=(0, 11), ylim=(0, 4.2))
    draws = np.random.default_rng(4)
    points = [np.array(c) + 0.38 * draws.standard_normal((7, 2)).clip(-1.2, 1.2) for c in COMMUNITIES]
    for group in points:
        for i in range(7):
            for j in range(i):
                if draws.random() < 0.42:
                    axes.plot(*zip(group[i], group[j], strict=True), color="#c3ccd5", lw=0.8, zorder=1)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        axes.plot(*zip(points[first][0], points[second][3], strict=True), color="#c3ccd5", lw=0.8, zorder=1)
    for group, color in zip(points, COLORS, strict=False):
        for point in group:
            dot(axes, (float(point[0]), float(point[1])), color, 48)
    note(axes, (1.55, 0.25), "1. the graph before time t")
    arrow(axes, (3.15, 2.1), (3.75, 2.1))
    note(axes, (3.45, 2.4), "GNN", "#1f2933")
    centers = np.array([[4.5, 2.9], [6.0, 3.1], [5.3, 1.4]])
    for number, (center, color) in enumerate(zip(centers, COLORS, strict=False)):
        cloud = center + 0.3 * draws.standard_normal((7, 2)).clip(-1.3, 1.3)
        for point in cloud:
            dot(axes, (float(point[0]), float(point[1])), color, 34)
        axes.scatter(*center, marker="X", s=110, color="#1f2933", edgecolor="white", zorder=4)
        below = -0.72 if number == 2 else 0.62
        note(axes, (float(center[0]), float(center[1]) + below), f"first code {(12, 7, 25)[number]}", color)
    own = centers[0] + np.array([0.52, -0.5])
    dot(axes, (float(own[0]), float(own[1])), BLUE, 60, edge="#1f2933")
    start = (float(centers[0][0]), float(centers[0][1]))
    arrow(axes, start, (float(own[0]) - 0.05, float(own[1]) + 0.06), "#1f2933")
    note(axes, (5.2, 2.35), "what is left (the residual)\nis coded at the next level", size=7, align="left")
    note(axes, (5.25, 0.25), "2. vectors, and the nearest\nof 32 codebook entries")
    arrow(axes, (6.75, 2.1), (7.3, 2.1))
    rows = (("user 578", (12, 4, 30), BLUE), ("user 333", (12, 4, 9), BLUE), ("user 752", (12, 19, 2), BLUE))
    rows += (("user 69", (7, 22, 14), RED), ("user 151", (25, 0, 17), GREEN))
    for column, text in enumerate(("level 1", "level 2", "level 3")):
        note(axes, (8.65 + 0.75 * column, 3.7), text)
    for row, (user, code, color) in enumerate(rows):
        y = 3.25 - 0.5 * row
        note(axes, (8.15, y), user, "#1f2933", align="right")
        for level, value in enumerate(code):
            shade = (*mpl.colors.to_rgb(color), (1.0, 0.65, 0.4)[level])
            x = 8.65 + 0.75 * level
            axes.add_patch(
                FancyBboxPatch((x - 0.25, y - 0.14), 0.5, 0.28, "round,pad=0.02", fc=shade, ec="none")
            )
            axes.text(
                x,
                y - 0.01,
                str(value),
                ha="center",
                va="center",
                fontsize=8,
                color="#1f2933" if level == 2 else "white",
            )
    note(axes, (9.0, 0.25), "3. STUs: alike users share\na prefix; each STU is unique")


def beam(axes: Axes) -> None:
    """A beam of two down the tree of STUs."""
    axes.set(xlim=(0, 11), ylim=(0, 4.4))
    root = (5.3, 4.0)
    box(axes, root, "query vector", (1.5, 0.4), BLUE)
    first = {7: (1.6, 2.9, 0.12), 12: (5.3, 2.9, 0.6), 25: (9.0, 2.9, 0.09)}
    second = {(7, 22): (1.6, 1.75, 0.12), (12, 4): (4.2, 1.75, 0.45), (12, 19): (6.4, 1.75, 0.14)}
    second |= {(25, 0): (8.4, 1.75, 0.06), (25, 9): (9.8, 1.75, 0.03)}
    kept_first, kept_second = {7: True, 12: True}, {(12, 4), (12, 19)}
    for code, (x, y, p) in first.items():
        kept = code in kept_first
        arrow(axes, (root[0], root[1] - 0.22), (x, y + 0.2), BLUE if kept else "#c3ccd5", 2 if kept else 1)
        box(axes, (x, y), "", (0.9, 0.34), BLUE if kept else "#c3ccd5", "#d8e7f3" if kept else PALE)
        note(axes, (x, y), f"{code}   P = {p:.2f}", "#1f2933" if kept else GRAY, 7.5)
    for (parent, code), (x, y, p) in second.items():
        if parent == 25:
            axes.plot([first[parent][0], x], [first[parent][1] - 0.2, y + 0.2], color="#d9dfe5", lw=1)
            note(axes, (x, y), f"25 . {code}", "#a9b3bd", 7.5)
            continue
        kept = (parent, code) in kept_second
        start = (first[parent][0], first[parent][1] - 0.2)
        arrow(axes, start, (x, y + 0.2), BLUE if kept else "#c3ccd5", 2 if kept else 1)
        box(axes, (x, y), "", (1.25, 0.34), BLUE if kept else "#c3ccd5", "#d8e7f3" if kept else PALE)
        note(axes, (x, y), f"{parent} . {code}   P = {p:.2f}", "#1f2933" if kept else GRAY, 7.5)
    leaves = ((4, 9, 3.2, "user 333", 0.24, True), (4, 30, 5.0, "user 578, excluded", 0, False))
    leaves += ((19, 2, 6.6, "user 752", 0.11, True),)
    for middle, code, x, user, p, kept in leaves:
        parent_x, parent_y, _ = second[12, middle]
        arrow(axes, (parent_x, parent_y - 0.2), (x, 0.85), BLUE if kept else "#c3ccd5", 2 if kept else 1)
        box(axes, (x, 0.55), "", (1.35, 0.5), GREEN if kept else "#c3ccd5", "#dff0e2" if kept else PALE)
        text = f"12 . {middle} . {code}\n{user}" + (f"  P = {p:.2f}" if kept else "")
        note(axes, (x, 0.55), text, "#1f2933" if kept else GRAY, 7.5)
    for y, text in ((2.9, "level 1"), (1.75, "level 2"), (0.55, "level 3")):
        note(axes, (0.1, y), text, align="left")
    note(
        axes,
        (9.1, 0.6),
        "blue: the two best prefixes, kept\nat each level (a beam of 2)\ngray: dropped or excluded",
        size=7.5,
    )


def clusters(axes: Axes) -> None:
    """The next cluster first, then exact scores of its members."""
    axes.set(xlim=(0, 11), ylim=(0, 4.0))
    draws = np.random.default_rng(1)
    centers = ((3.6, 3.0), (5.2, 2.6), (3.2, 1.4), (4.8, 1.0), (6.4, 1.3), (6.6, 3.1))
    shares = (0.52, 0.06, 0.27, 0.04, 0.03, 0.08)
    box(axes, (1.0, 2.2), "query\nuser 578\nat time t", (1.2, 0.95), BLUE)
    for (x, y), share in zip(centers, shares, strict=True):
        searched = share > 0.2
        fill, edge = ("#d8e7f3", BLUE) if searched else (PALE, "#c3ccd5")
        axes.add_patch(Circle((x, y), 0.62, fc=fill, ec=edge))
        for point in np.array((x, y)) + 0.3 * draws.standard_normal((9, 2)).clip(-1.3, 1.3):
            dot(axes, (float(point[0]), float(point[1])), BLUE if searched else "#a9b8c6", 26)
        note(axes, (x, y + 0.74), f"P(cluster) = {share:.2f}", BLUE if searched else GRAY, 7)
        if searched:
            arrow(axes, (1.65, 2.2), (x - 0.63, y), BLUE, 1.8, -0.12 if y > 2.2 else 0.12)
    note(axes, (2.0, 0.3), "1. a softmax over clusters:\nonly the likeliest are searched", size=8)
    note(axes, (5.6, 0.15), "gray: never scored", size=8)
    arrow(axes, (7.3, 2.2), (7.9, 2.2))
    box(axes, (9.4, 2.35), "", (2.7, 2.0), GREEN)
    note(axes, (9.4, 3.1), "exact scores of", "#1f2933", 8.5)
    note(
        axes,
        (9.4, 2.5),
        "members of the searched clusters\n+ users around (contacts, two hops)\n+ unassigned users",
        size=7.5,
    )
    note(axes, (9.4, 1.75), "P(user) = P(cluster) P(user | cluster)", BLUE, 7.5)
    note(axes, (9.4, 0.85), "2. the best of them are the list", size=8)


DRAWINGS: dict[str, tuple[Callable[[Axes], None], Point]] = {
    "pipeline": (pipeline, (9.6, 3.0)),
    "towers": (towers, (9.0, 4.1)),
    "codes": (codes, (9.4, 3.6)),
    "beam": (beam, (9.4, 3.8)),
    "clusters": (clusters, (9.4, 3.4)),
}


def main() -> None:
    """Write every drawing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    parser.add_argument("--format", choices=["svg", "png"], default="svg")
    options = parser.parse_args()
    mpl.rcParams |= {"svg.hashsalt": "graphrec", "font.family": "DejaVu Sans", "text.parse_math": False}
    for name, (draw, size) in DRAWINGS.items():
        figure = Figure(figsize=size)
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        axes.axis("off")
        draw(axes)
        metadata = {"Date": None} if options.format == "svg" else {}
        path = options.folder / f"{name}.{options.format}"
        figure.savefig(path, dpi=110, metadata=metadata, facecolor="white")


if __name__ == "__main__":
    main()
