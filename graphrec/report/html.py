"""A self-contained HTML file of results."""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto }
h1, h2 { font-weight: 600 } img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd } th { border-bottom: 2px solid #888 }
p.note { color: #555; font-size: 13px }
"""


class Html(str):
    """Text that is HTML, with text from data escaped; `write_report` escapes any other text."""

    __slots__ = ()


def write_report(
    path: str | os.PathLike[str], title: str, sections: Sequence[tuple[str, str, str | Figure]]
) -> None:
    """Write sections of (heading, note, content) to one file that loads no other.

    Args:
        path: of the file.
        title: plain text.
        sections: heading and note are plain text. Content is a figure, `Html` such as a table of
            `slice_table(rows, part, fmt="html")`, or plain text, which is shown as it is.
    """
    for heading, _, content in sections:
        if not isinstance(content, (str, Figure)):
            raise TypeError(f"section {heading!r}: content must be text or a figure, got {type(content)}")
    name = html.escape(title)
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style></head><body><h1>{name}</h1>"
    ]
    for heading, note, content in sections:
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if note:
            parts.append(f'<p class="note">{html.escape(note)}</p>')
        if isinstance(content, Figure):
            parts.append(_image(content, heading))
        else:
            parts.append(content if isinstance(content, Html) else f"<pre>{html.escape(content)}</pre>")
    parts.append("</body></html>\n")
    Path(path).write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names may be in any script
        figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
