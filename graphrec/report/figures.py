"""Figures of results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from graphrec.data.checks import check_count
from graphrec.data.text import printable
from graphrec.evaluate import Row
from graphrec.metrics import calibration_error, reliability, reliability_by_quantile
from graphrec.report.network import NetworkStatistics

SHOWN_SLICES = ("all", "repeat", "reply", "new")
MAX_LABEL_LENGTH, MAX_TITLE_LENGTH = 28, 120
"""Number of characters of a label and of a title."""

COLORS = ("#1b6ca8", "#d1495b", "#edae49", "#3a7d44", "#7b5ea7", "#8d6346", "#5b6770", "#00798c")


def label(text: object, *, max_length: int = MAX_LABEL_LENGTH) -> str:
    """Text as a label of a figure: on one line, cut to a length, and without formulas."""
    shown = printable(str(text))
    shown = shown if len(shown) <= max_length else shown[: max_length - 1] + "…"
    shown = (
        f" {shown}" if shown.startswith("_") else shown
    )  # legends leave out names with an underscore in front
    return shown.replace("$", r"\$")


def _arrange(figure: Figure) -> None:
    """Fit labels, which may be in any script, into the figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.tight_layout()


def score_by_slice(rows: Sequence[Row], title: str) -> Figure:
    """Bars of the MRR of each model on the test slices, with bootstrap intervals, the best on top."""
    rows = [row for row in rows if row["part"] == "test"]
    if not rows:
        raise ValueError("there is no row of the part 'test' to draw")
    slices = [name for name in SHOWN_SLICES if any(row["slice"] == name for row in rows)]
    figure = Figure(figsize=(3.1 * len(slices) + 1.2, 0.32 * len({r["model"] for r in rows}) + 1.6))
    axes = np.atleast_1d(figure.subplots(1, len(slices)))
    for axis, name, color in zip(axes, slices, COLORS, strict=False):
        shown = sorted((row for row in rows if row["slice"] == name), key=lambda row: row["mrr"])
        place = np.arange(len(shown))
        score = np.array([row["mrr"] for row in shown])
        reach = np.array([[row["mrr"] - row["mrr_low"], row["mrr_high"] - row["mrr"]] for row in shown])
        axis.barh(place, score, color=color, alpha=0.85, height=0.7)
        axis.errorbar(score, place, xerr=reach.T.clip(min=0), fmt="none", ecolor="#333333", elinewidth=1)
        axis.set_yticks(place, [label(row["model"]) for row in shown], fontsize=8)
        axis.set_title(f"{name} (n = {shown[0]['n']:,})", fontsize=10)
        axis.set_xlim(left=0)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    figure.supxlabel("MRR on test", fontsize=9)
    _arrange(figure)
    return figure


def two_questions(rows: Sequence[Row], lists: Sequence[Row], title: str, *, k: int = 10) -> Figure:
    """Every model by both questions on test: MRR of the next new contact, and precision of lists.

    Args:
        rows: rows of streaming evaluation with 'kind', 'model', 'part', 'slice' and 'mrr'.
        lists: rows of lists; see `ListResult.rows`.
        title: of the figure.
        k: length of the lists.

    Raises:
        ValueError: no model has both.
    """
    found = {
        row["model"]: row["value"]
        for row in lists
        if (row["part"], row["slice"], row["metric"]) == ("test", "all", f"initiation_precision@{k}")
    }
    shown = [
        row
        for row in rows
        if (row["part"], row["slice"]) == ("test", "new") and row["model"] in found and row["mrr"] is not None
    ]
    if not shown:
        raise ValueError("there is no model with both questions to draw")
    figure = Figure(figsize=(7, 5))
    axis = figure.subplots()
    for kind, color in (("heuristic", "#8a8f94"), ("learned", COLORS[1]), ("oracle", COLORS[3])):
        points = [row for row in shown if row["kind"] == kind]
        if points:
            place = [row["mrr"] for row in points], [found[row["model"]] for row in points]
            axis.scatter(*place, color=color, s=22, label=kind)
            for row, x, y in zip(points, *place, strict=True):
                text = label(row["model"])
                axis.annotate(text, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.set(xlim=(0, None), ylim=(0, None))
    axis.margins(x=0.2)
    axis.set_xlabel("who is next? MRR of new contacts")
    axis.set_ylabel(f"who in the days that follow? precision@{k} of initiations")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure


def reliability_diagram(predicted: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Predicted probabilities against observed shares in ten ranges, and their number of predictions.

    Args:
        predicted: name to probabilities [n] float64 and outcomes [n] bool.
        title: of the figure.
    """
    figure = Figure(figsize=(5, 5))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for (name, (probability, outcome)), color in zip(predicted.items(), COLORS, strict=False):
        mean, happened, number = reliability(probability, outcome)
        spread = 1.96 * np.sqrt(happened * (1 - happened) / number)
        error = calibration_error(probability, outcome)
        top.errorbar(
            mean,
            happened,
            yerr=spread,
            marker="o",
            markersize=4,
            color=color,
            label=f"{label(name)}: {error:.3f}",
        )
        bottom.plot(mean, number, color=color, drawstyle="steps-mid")
    top.set(ylabel="share with a reply", xlim=(0, 1), ylim=(0, 1))
    bottom.set(xlabel="predicted probability", ylabel="initiations", ylim=(0, None))
    top.legend(title="calibration error", fontsize=8, frameon=False)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure


def log_reliability_diagram(predicted: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """Predicted probabilities of rare outcomes against observed shares, both on logarithmic axes.

    One point for each range of `reliability_by_quantile`, with 95 % intervals. Ranges without an outcome have
    no place on the axes.

    Args:
        predicted: name to probabilities [n] float64 and outcomes [n] bool.
        title: of the figure.
    """
    figure = Figure(figsize=(4.5, 4.5))
    axis = figure.subplots()
    points = []
    for (name, (probability, outcome)), color in zip(predicted.items(), COLORS, strict=False):
        mean, happened, number = reliability_by_quantile(probability, outcome)
        shown = happened > 0
        mean, happened, number = mean[shown], happened[shown], number[shown]
        spread = 1.96 * np.sqrt(happened * (1 - happened) / number)
        low = np.minimum(spread, happened * 0.9)  # an interval down to 0 would leave the axes
        axis.errorbar(
            mean, happened, yerr=[low, spread], marker="o", markersize=4, color=color, label=label(name)
        )
        points += [mean, happened]
    if not any(len(part) for part in points):
        raise ValueError("there is no outcome to draw")
    ends = [np.concatenate(points).min() / 2, min(1.0, np.concatenate(points).max() * 2)]
    axis.plot(ends, ends, color="#999999", linewidth=1, zorder=0)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axis.set(xlabel="mean predicted probability", ylabel="observed share")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure


def quality_over_time(curves: Sequence[Row], title: str, *, max_models: int = 6) -> Figure:
    """Lines of the MRR of the best models over validation and test.

    Args:
        curves: 'model', 'time' (seconds) and 'mrr' of each model.
        title: of the figure.
        max_models: number of models drawn, at most.
    """
    max_models = check_count("max_models", max_models)
    if not curves:
        raise ValueError("there is no curve to draw")
    figure = Figure(figsize=(9, 3.6))
    axis = figure.subplots()
    best = sorted(curves, key=lambda curve: -float(np.mean(curve["mrr"])))[:max_models]
    start = min((min(curve["time"]) for curve in curves), default=0)
    for curve, color in zip(best, COLORS, strict=False):
        days = (np.array(curve["time"]) - start) / 86_400
        axis.plot(days, curve["mrr"], marker="o", markersize=3, color=color, label=label(curve["model"]))
    axis.set_xlabel("days since validation began")
    axis.set_ylabel("MRR, all events")
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axis.set_title(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure


def learning_curves(rows: Sequence[Row], title: str) -> Figure:
    """Lines of the training loss and validation MRR of each learned model by epoch."""
    if not rows:
        raise ValueError("there is no epoch to draw")
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    for name, color in zip(dict.fromkeys(row["model"] for row in rows), COLORS, strict=False):
        own = [row for row in rows if row["model"] == name]
        epoch = [row["epoch"] + 1 for row in own]
        left.plot(epoch, [row["loss"] for row in own], color=color, label=label(name))
        right.plot(epoch, [row["val_all"] for row in own], color=color, label=f"{label(name)}: all")
        right.plot(
            epoch, [row["val_new"] for row in own], color=color, linestyle="--", label=f"{label(name)}: new"
        )
    left.set_ylabel("training loss")
    right.set_ylabel("validation MRR")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    figure.suptitle(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure


def degree_and_reciprocity(network: NetworkStatistics, title: str) -> Figure:
    """Distributions of the number of contacts, and of the time to a reply."""
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    degree = np.sort(network.degrees)
    left.loglog(degree, 1.0 - np.arange(len(degree)) / len(degree), color=COLORS[0])
    left.axvline(network.median_degree, color="#999999", linestyle=":", linewidth=1)
    left.set_xlabel(f"contacts (median {network.median_degree:g})")
    left.set_ylabel("share of users with at least as many")
    if len(network.reply_days):
        wait = np.sort(network.reply_days)
        scale = network.reciprocated / (2 - network.reciprocated)  # mutual among unordered pairs
        right.plot(wait, scale * np.arange(1, len(wait) + 1) / len(wait), color=COLORS[1])
        right.axvline(7, color="#999999", linestyle=":", linewidth=1)
    right.set_xscale("symlog", linthresh=0.1)
    right.set_ylim(0, 1)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_xlabel("days after the initiation")
    right.set_ylabel("share replied to by then")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(label(title, max_length=MAX_TITLE_LENGTH), fontsize=11)
    _arrange(figure)
    return figure
