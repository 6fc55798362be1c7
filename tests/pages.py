"""Output of pages, compared up to what differs from machine to machine."""

import re


def form(text: str) -> list[str]:
    """Lines without figures, intervals, widths and warnings, which may differ from machine to machine."""
    lines = [line for line in text.splitlines() if "WARNING" not in line]
    plain = [" ".join(re.sub(r"-?\d[\d,.]*%?|unknown|-+", "#", line).split()) for line in lines]
    plain = [re.sub(r"# \[#,? #\]", "#", line) for line in plain]
    return [re.sub(r"#(,? #)+", "#", line) for line in plain]
