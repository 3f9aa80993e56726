"""The table as a picture: a bar chart in SVG, for the README, readable on a light page and on a dark one."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_WIDTH, _BAR, _GAP, _LEFT = 720, 18, 30, 150
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.b{fill:#8c959f}.o{fill:#0969da}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.b{fill:#6e7681}.o{fill:#4493f8}}"
)


def draw(table: pd.DataFrame, figures: dict[str, str], ours: str) -> str:
    """One group of bars for each of `figures` (column: title), one bar for each contender, `ours` in colour."""
    parts, y = [], 0
    for column, title in figures.items():
        values = table[column].dropna()
        parts.append(f'<text class="t" x="0" y="{y + 14}">{escape(title)}</text>')
        y += 22
        most = values.max() or 1
        for name, value in values.items():
            length = max(1, round((_WIDTH - _LEFT - 80) * value / most))
            kind = "o" if name == ours else "b"
            parts.append(f'<text x="0" y="{y + 14}">{escape(str(name))}</text>')
            parts.append(f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length}" height="{_BAR}" rx="3"/>')
            parts.append(f'<text x="{_LEFT + length + 6}" y="{y + 14}">{value:,.4g}</text>')
            y += _BAR + 4
        y += _GAP - 12
    title = "The benchmark's medians"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<title>{title}</title><style>{_STYLE}</style>", *parts, "</svg>", ""])
