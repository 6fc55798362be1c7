"""A figure of the tree of codes: the number of users of each code, and the share of ties inside it."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from graphrec.report.figures import MAX_TITLE_LENGTH, label
from graphrec.tokenizer import STUs, Ties

MAX_FIRST_CODES = 256
"""First codes drawn one by one; with more, those with the lowest shares of ties inside are merged into
one."""

MAX_LABELED_TILES = 64
"""Number of tiles up to which they have labels."""


def code_tree(stus: STUs, ties: Ties, title: str) -> Figure:
    """Draw first codes, and prefixes of two codes: area is the number of users, color the ties inside.

    On the left each first code is a tile, with the highest shares on top. On the right each tile is split
    into its second codes in the same way.

    Args:
        stus: of the users of a graph, with at least two codes.
        ties: of the same graph, such as `Ties.of(graph)` or some of them; ties of users without an STU are
            left out.
        title: of the figure.

    Returns:
        a matplotlib figure.

    Raises:
        ValueError: no user has an STU, or STUs have one code.
    """
    if stus.num_codebooks < 2 or not len(stus):
        raise ValueError(f"a code tree needs a user with an STU, and STUs of at least two codes; got {stus}")
    codes = stus.codes[:, :2].numpy()
    coded = codes[:, 0] >= 0
    src, dst = ties.src.numpy(), ties.dst.numpy()
    kept = coded[src] & coded[dst]
    one, other = codes[np.r_[src[kept], dst[kept]]], codes[np.r_[dst[kept], src[kept]]]

    first, size = np.unique(codes[coded, 0], return_counts=True)
    inside = _share_inside(one[:, 0], other[:, 0], first)
    if len(first) > MAX_FIRST_CODES:
        rest = np.argsort(-inside, kind="stable")[MAX_FIRST_CODES - 1 :]
        last = first[rest[0]]
        merge = np.arange(first.max() + 1)
        merge[first[rest]] = last
        codes[coded, 0], one[:, 0], other[:, 0] = (
            merge[a] for a in (codes[coded, 0], one[:, 0], other[:, 0])
        )
        first, size = np.unique(codes[coded, 0], return_counts=True)
        inside = _share_inside(one[:, 0], other[:, 0], first)

    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    outer = _tiles(size, inside, np.array([0.0, 0.0, 1.0, 1.0]))
    _draw(figure, left, outer, inside, "first code (its number, users, ties inside)")
    if len(first) <= MAX_LABELED_TILES:
        for tile, code, people, share in zip(outer, first, size, inside, strict=True):
            x, y, width, height = tile
            text = f"{code}\n{people:,}" + ("" if np.isnan(share) else f"\n{share:.0%}")
            ink = "white" if share > 0.5 * np.nanmax(inside) else "black"
            left.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=ink, fontsize=6.5)

    radix = stus.codebook_size
    pair, pair_size = np.unique(codes[coded, 0] * radix + codes[coded, 1], return_counts=True)
    pair_inside = _share_inside(one[:, 0] * radix + one[:, 1], other[:, 0] * radix + other[:, 1], pair)
    inner = np.empty((len(pair), 4))
    for code, tile in zip(first, outer, strict=True):
        own = np.flatnonzero(pair // radix == code)
        inner[own] = _tiles(pair_size[own], pair_inside[own], tile)
    _draw(figure, right, inner, pair_inside, "first two codes")
    right.add_collection(
        PatchCollection(
            [Rectangle((x, y), width, height) for x, y, width, height in outer],
            facecolor="none",
            edgecolor="#222222",
            linewidth=0.8,
        )
    )
    figure.suptitle(
        f"{label(title, max_length=MAX_TITLE_LENGTH)}: {len(stus):,} users, {int(kept.sum()):,} ties",
        fontsize=11,
    )
    return figure


def _share_inside(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of the ends of ties with each label [S] whose other end has it too: [S]; NaN without ties."""
    place = np.searchsorted(labels, one)
    ends = np.bincount(place, minlength=len(labels))
    staying = np.bincount(place[one == other], minlength=len(labels))
    return np.where(ends > 0, staying / np.maximum(ends, 1), np.nan)


def _tiles(size: np.ndarray, inside: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Rectangles (x, y, width, height) [S, 4] that fill a frame row by row, highest shares on top."""
    x, y, width, height = frame
    order = np.argsort(-np.nan_to_num(inside, nan=-1.0), kind="stable")
    share = size[order] / size.sum()
    rows = max(1, round(float(np.sqrt(len(size) * height / width))))
    row = np.minimum(((np.cumsum(share) - share / 2) * rows).astype(int), rows - 1)
    _, row = np.unique(row, return_inverse=True)
    tall = np.bincount(row, weights=share)
    wide = share / tall[row]
    before = np.cumsum(wide) - wide
    start = before - before[np.searchsorted(row, row)]
    top = np.cumsum(tall)
    out = np.empty((len(size), 4))
    out[order] = np.stack(
        [x + width * start, y + height * (1.0 - top[row]), width * wide, height * tall[row]], axis=1
    )
    return out


def _draw(figure: Figure, axis: Axes, tiles: np.ndarray, inside: np.ndarray, name: str) -> None:
    """Draw tiles [S, 4], colored by shares [S], with a color bar."""
    patches = PatchCollection(
        [Rectangle((x, y), width, height) for x, y, width, height in tiles],
        cmap=colormaps["YlGnBu"].with_extremes(bad="#dddddd"),
        edgecolor="white",
        linewidth=0.4 if len(tiles) <= MAX_FIRST_CODES else 0.1,
    )
    patches.set_array(np.ma.masked_invalid(inside))
    patches.set_clim(
        0.0, max(float(np.nanquantile(inside, 0.98)) if np.isfinite(inside).any() else 0.0, 0.01)
    )
    axis.add_collection(patches)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_axis_off()
    axis.set_title(f"{name}: {len(tiles):,} in use", fontsize=10)
    bar = figure.colorbar(patches, ax=axis, shrink=0.8, format=PercentFormatter(1.0), extend="max")
    bar.set_label("ties inside (gray: no ties)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
