"""Tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from tabulate import tabulate, tabulate_formats

from graphrec.data import Part
from graphrec.data.checks import check_choice
from graphrec.data.text import printable
from graphrec.evaluate import SLICES, Row
from graphrec.report.html import Html

FORMATS = tuple(name for name in tabulate_formats if name != "unsafehtml")
"""Formats of tabulate, without the one that does not escape."""


def slice_table(rows: Sequence[Row], part: str, *, fmt: str = "simple") -> str:
    """MRR of each model on each slice of a part; the best of each slice has a star.

    Args:
        rows: as in a results file.
        part: 'val' or 'test'.
        fmt: a format of tabulate, such as 'simple', 'github' or 'html', which gives `Html`.

    Raises:
        ValueError: the part or the format is unknown.
    """
    check_choice("part", part, get_args(Part))
    rows = [row for row in rows if row["part"] == part]
    slices = [name for name in SLICES if any(row["slice"] == name for row in rows)]
    models = list(dict.fromkeys(row["model"] for row in rows))
    cell = {(row["model"], row["slice"]): row["mrr"] for row in rows}
    sizes = {row["slice"]: row["n"] for row in rows}
    best = {name: max(cell[model, name] for model in models) for name in slices}

    def show(model: str, name: str) -> str:
        star = "*" if cell[model, name] == best[name] else " "
        return f"{cell[model, name]:.3f}{star}"

    body = [[model, *(show(model, name) for name in slices)] for model in models]
    header = ["MRR", *(f"{name}\nn={sizes[name]:,}" for name in slices)]
    if fmt in ("github", "html"):
        header = [title.replace("\n", " ") for title in header]
    return _table(body, header, fmt)


def list_table(
    rows: Sequence[Row], ratios: Sequence[Row], part: str, *, k: int = 10, fmt: str = "simple"
) -> str:
    """Precision and recall of lists for both outcomes, with their ratios to the best rule, and their spread.

    Args:
        rows: the `lists` of a results file.
        ratios: the `list_ratios` of a results file.
        part: 'val' or 'test'.
        k: the length of the lists.
        fmt: as in `slice_table`.

    Raises:
        ValueError: the part or the format is unknown.
    """
    check_choice("part", part, get_args(Part))
    rows = [row for row in rows if row["part"] == part and row["slice"] == "all"]
    cell = {(row["model"], row["metric"]): row for row in rows}
    ratio = {(row["model"], row["metric"]): row for row in ratios if row["part"] == part}

    def show(model: str, metric: str, digits: int = 3) -> str:
        return _decimals(cell.get((model, metric), {}).get("value"), digits)

    def show_ratio(model: str, metric: str) -> str:
        row = ratio.get((model, metric))
        return "" if row is None else f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

    body = []
    for model in dict.fromkeys(row["model"] for row in rows):
        numbers = []
        for outcome in ("initiation", "tie"):
            precision = f"{outcome}_precision@{k}"
            numbers += [show(model, precision, 5), show_ratio(model, precision)]
            numbers.append(show(model, f"{outcome}_recall@{k}"))
        body.append([model, *numbers, show(model, "gini"), show(model, "sameness")])
    outcomes = [
        f"{outcome} {name}"
        for outcome in ("initiation", "tie")
        for name in (f"P@{k}", "to best rule", f"recall@{k}")
    ]
    return _table(body, ["lists", *outcomes, "Gini", "sameness"], fmt)


def mutual_table(rows: Sequence[Row], *, fmt: str = "simple") -> str:
    """Mutual MRR of each model; reciprocated precision and exposure where rows have the slice `snapshot`.

    Args:
        rows: as in a results file.
        fmt: as in `slice_table`.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    cell = {(row["model"], row["slice"]): row for row in rows}
    with_snapshot = any(row["slice"] == "snapshot" for row in rows)
    body = []
    for model in models:
        mutual, answered, snapshot = (cell.get((model, n), {}) for n in ("mutual", "answered", "snapshot"))
        numbers = [
            _decimals(mutual.get("mutual_mrr")),
            _decimals(mutual.get("mutual_hits@10")),
            _decimals(answered.get("mutual_mrr")),
        ]
        if with_snapshot:
            numbers.append(_decimals(snapshot.get("reciprocated_precision@10"), 5))
            numbers += [_decimals(snapshot.get(name)) for name in ("exposure_gini", "never_suggested")]
        body.append([model, *numbers])
    header = ["both sides", "mutual MRR", "mutual Hits@10", "answered MRR"]
    if with_snapshot:
        header += ["reciprocated P@10", "exposure Gini", "never suggested"]
    return _table(body, header, fmt)


def timing_table(rows: Sequence[Row], *, fmt: str = "simple") -> str:
    """Seconds to fit, queries per second and number of parameters of each model.

    Args:
        rows: as in a results file.
        fmt: as in `slice_table`.
    """
    body = [
        [row["model"], f"{row['fit_s']:.2f}", f"{row['queries_per_s']:,.0f}", f"{row['parameters']:,}"]
        for row in rows
    ]
    header = ["cost", "fit s", "queries/s", "parameters"]
    return _table(body, header, fmt)


def _decimals(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(body: list[list[str]], header: list[str], fmt: str) -> str:
    check_choice("fmt", fmt, FORMATS)
    shown = [[printable(cell) for cell in row] for row in body]
    if fmt in ("github", "pipe"):
        shown = [[cell.replace("|", "\\|") for cell in row] for row in shown]
    table = str(tabulate(shown, headers=header, tablefmt=fmt, stralign="right", disable_numparse=True))
    return Html(table) if fmt == "html" else table
