"""What comes from data is shown as text: in HTML, in pictures and in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from graphrec.data.text import printable
from graphrec.report import (
    Html,
    learning_curves,
    mutual_table,
    quality_over_time,
    score_by_slice,
    slice_table,
    timing_table,
    write_report,
)

EVIL = "<img src=x onerror=alert(1)>"
NAMES = [
    EVIL,
    "$x_{$",
    "$\\frac{$ $",
    "_hidden",
    "a\x1b[31mred\nline",
    "a" * 5000,
    "友達",
    "a|b",
    "\u202eevil",
]


def rows(name: str) -> list[dict[str, object]]:
    scores = {"mrr": 0.5, "mrr_low": 0.4, "mrr_high": 0.6, "n": 3}
    parts = [("test", "all"), ("test", "new"), ("val", "all")]
    return [{"model": name, "part": part, "slice": of, **scores} for part, of in parts]


def timing(name: str) -> list[dict[str, object]]:
    return [{"model": name, "fit_s": 1.0, "queries_per_s": 2.0, "parameters": 3}]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_reaches_the_report_as_anything_but_text(name: str, tmp_path: Path) -> None:
    curve = {"model": name, "time": [0, 1], "mrr": [0.1, 0.2]}
    learned = [{"model": name, "epoch": 0, "loss": 1.0, "val_all": 0.1, "val_new": 0.1}]
    pictures = [
        score_by_slice(rows(name), name),
        quality_over_time([curve], name),
        learning_curves(learned, name),
    ]
    tables = [
        slice_table(rows(name), "test", fmt="html"),
        mutual_table([{"model": name, "slice": "mutual", "mutual_mrr": 0.1}], fmt="html"),
        timing_table(timing(name), fmt="html"),
    ]
    assert all(isinstance(table, Html) for table in tables)
    path = tmp_path / "report.html"
    write_report(path, name, [(name, name, content) for content in (*pictures, *tables, f"  {name}: nobody")])
    text = path.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert text.count("<img ") == len(pictures)
    if name == EVIL:
        assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 13


@pytest.mark.parametrize("fmt", ["simple", "github", "plain"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_steers_a_terminal_or_breaks_a_table(name: str, fmt: str) -> None:
    plain = slice_table(rows("model"), "test", fmt=fmt)
    for table, lines in (
        (slice_table(rows(name), "test", fmt=fmt), plain.count("\n")),
        (timing_table(timing(name), fmt=fmt), timing_table(timing("model"), fmt=fmt).count("\n")),
    ):
        assert table.count("\n") == lines
        assert all(character.isprintable() or character == "\n" for character in table)
    if fmt == "github" and name == "a|b":
        assert "a\\|b" in slice_table(rows(name), "test", fmt=fmt)


def test_text_is_not_taken_for_html(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "t", [("a", "", EVIL), ("b", "", Html("<b>bold</b>"))])
    text = (tmp_path / "r.html").read_text()
    assert "<pre>&lt;img" in text
    assert "<b>bold</b>" in text
    with pytest.raises(TypeError, match="section 'a'"):
        write_report(tmp_path / "r.html", "t", [("a", "", 3)])  # type: ignore[list-item]


def test_a_table_that_does_not_escape_is_refused() -> None:
    for fmt in ("unsafehtml", "nothing", None):
        with pytest.raises(ValueError, match="unknown fmt"):
            slice_table(rows("model"), "test", fmt=fmt)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown part 'train'"):
        slice_table(rows("model"), "train")


def test_pictures_of_nothing_say_so() -> None:
    for draw in (score_by_slice, quality_over_time, learning_curves):
        with pytest.raises(ValueError, match="there is no"):
            draw([], "title")
    assert isinstance(score_by_slice(rows("model"), "t"), Figure)


def test_printable_text_is_left_as_it_is() -> None:
    assert printable("Grüße 友達 a b") == "Grüße 友達 a b"
    assert printable("a\tb\r\n\x1b\u202e\x00") == "a\\tb\\r\\n\\x1b\\u202e\\x00"
