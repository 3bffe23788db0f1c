"""Draws the two rates that matter as an SVG that is readable on white and on dark. Pure: figures in, text out.

The scale is logarithmic: between the slowest and the fastest there is a factor of some hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.figures import Figures
from bench.report import name

WIDTH = 760
LEFT = 130  # where the bars begin
ROOM = 480  # for the longest bar
BAR = 20
STEP = 30
HEAD = 58  # above the bars of a panel
FOOT = 34  # below them
COLOURS = {"nginx": "#8b949e", "gateway": "#2f81f7"}
OTHER = "#d29922"
STEPS = "32 clients"
STYLE = """\
  <style>
    text { font: 14px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600 }
    .faint { font-size: 12px; fill: #59636e }
    line { stroke: #59636e; stroke-opacity: .3 }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .faint { fill: #9198a1 } line { stroke: #9198a1 } }
  </style>"""


def chart(figures: Figures) -> str:
    """The chart; without bars where nothing was measured."""
    panels = [
        ("Whole answers: requests a second", bars("whole", figures)),
        ("Streams of 200 words: events a second", bars("burst", figures)),
    ]
    drawn: list[str] = []
    top = 0
    for title, rates in panels:
        if rates:
            drawn += panel(title, rates, top)
            top += HEAD + STEP * len(rates) + FOOT
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
                'role="img" aria-label="Requests and events a second of nginx, the gateway and its peers">'
            ),
            STYLE,
            *drawn,
            "</svg>\n",
        ]
    )


def bars(case: str, figures: Figures) -> list[tuple[str, float]]:
    """The rates at 32 clients of everybody who stands between client and upstream."""
    rate = figures.requests_per_second if case == "whole" else figures.events_per_second
    found = [(target, rate(case, STEPS, target)) for target in figures.targets(case) if target != "direct"]
    return [(target, value) for target, value in found if value]


def panel(title: str, rates: Sequence[tuple[str, float]], top: int) -> list[str]:
    """A title, a grid of powers of ten, and a bar for each rate."""
    lowest = math.floor(math.log10(min(rate for _, rate in rates))) - 0.3  # the shortest bar is to be seen
    highest = math.log10(max(rate for _, rate in rates))
    bottom = top + HEAD + STEP * len(rates)

    def length(rate: float) -> float:
        return round((math.log10(rate) - lowest) / (highest - lowest) * ROOM, 1)

    drawn = [
        f'  <text x="8" y="{top + 24}" class="title">{title}</text>',
        f'  <text x="8" y="{top + 42}" class="faint">32 clients, one core for the server, logarithmic scale</text>',
    ]
    for power in range(math.ceil(lowest), math.floor(highest) + 1):
        x = LEFT + length(10**power)
        drawn.append(f'  <line x1="{x}" y1="{top + HEAD - 8}" x2="{x}" y2="{bottom}"/>')
        drawn.append(f'  <text x="{x}" y="{bottom + 16}" class="faint" text-anchor="middle">{10**power:,}</text>')
    for place, (target, rate) in enumerate(rates):
        y = top + HEAD + STEP * place
        colour = COLOURS.get(target, OTHER)
        drawn.append(f'  <text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{name(target)}</text>')
        drawn.append(
            f'  <rect x="{LEFT}" y="{y}" width="{length(rate)}" height="{BAR}" rx="3" fill="{colour}">'
            f"<title>{name(target)}: {rate:,.0f}</title></rect>"
        )
        drawn.append(f'  <text x="{LEFT + length(rate) + 8}" y="{y + 15}">{rate:,.0f}</text>')
    return drawn
