"""The picture of a run, from its document: a panel a workload, a bar a contender."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from benchmarks import plan, trial
from benchmarks.results import Results, Spread, spread

PANELS = {
    "ints": "Small integers, streamed (chunks a second)",
    "dicts": "Small dicts, streamed (chunks a second)",
    "blocks-64k": "64 KiB blocks, streamed (bytes a second)",
    "calls": "Calls, one after the other (a second)",
    "calls-100": "Calls, 100 in flight (a second)",
}
_OURS, _THEIRS = "#2563eb", "#b6bcc6"
_INK = "#374151"
_SMALL = 8
_LINE_CHARS = 130
"""So many small letters are as wide as the picture."""


def _short(value: float, unit: str) -> str:
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {name}{unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def _bars(results: Results, workload: str, peers: list[str]) -> list[tuple[str, Spread]]:
    names = [plan.our_name(loop) for loop in ("asyncio", "uvloop", "trio")] + peers
    found = [(name, spread(results.rate(name, workload))) for name in names]
    return [(name, values) for name, values in found if values is not None]


def draw(document: dict[str, Any], target: Path) -> None:
    """Write the SVG. The same document gives the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    results = Results(document["trials"])
    panels = {name: _bars(results, name, document["peers"]) for name in PANELS}
    panels = {name: bars for name, bars in panels.items() if bars}
    if not panels:
        return
    caveats = [
        line
        for caveat in document["caveats"]
        for line in textwrap.wrap(caveat, _LINE_CHARS, initial_indent="• ")
    ]
    style = {
        "svg.hashsalt": "kkrpc_py",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": "#d1d5db",
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with mpl.rc_context(style):
        figure, axes = plt.subplots(
            len(panels),
            1,
            figsize=(
                8.5,
                0.6 * len(panels) + 0.24 * sum(map(len, panels.values())) + 0.14 * len(caveats) + 0.5,
            ),
            height_ratios=[len(bars) + 1 for bars in panels.values()],
            layout="constrained",
            squeeze=False,
        )
        for axis, (workload, bars) in zip(axes[:, 0], panels.items(), strict=True):
            _panel(axis, workload, bars)
        machine, run = document["machine"], document["run"]
        figure.suptitle(
            "\n".join(caveats), fontsize=_SMALL, x=0.01, horizontalalignment="left", linespacing=1.25
        )
        figure.supxlabel(
            "Longer is faster; logarithmic, each line is ten times the one before. Thin lines: lowest to "
            f"highest of {run['rounds']} rounds.\n"
            f"{machine['cpu']}, {machine['cores']} cores, {machine['python']}",
            fontsize=_SMALL,
        )
        figure.savefig(target, format="svg", metadata={"Date": None})
        plt.close(figure)
    # What matplotlib writes ends some lines in spaces.
    text = "\n".join(line.rstrip() for line in target.read_text(encoding="utf-8").splitlines()) + "\n"
    target.write_text(text, encoding="utf-8")


def _panel(axis: Any, workload: str, bars: list[tuple[str, Spread]]) -> None:
    size = trial.VALUE_BYTES.get(workload, 1)
    unit = "B/s" if size > 1 else ""
    bars = [(name, Spread(*(value * size for value in values))) for name, values in reversed(bars)]
    middles = [values.median for _, values in bars]
    axis.barh(
        range(len(bars)),
        middles,
        height=0.72,
        color=[_OURS if name.startswith(plan.OURS) else _THEIRS for name, _ in bars],
        xerr=[
            [values.median - values.lowest for _, values in bars],
            [values.highest - values.median for _, values in bars],
        ],
        error_kw={"elinewidth": 0.8, "ecolor": _INK},
    )
    axis.set_xscale("log")
    axis.set_xlim(min(middles) / 4, max(values.highest for _, values in bars) * 4)
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    for position, (_, values) in enumerate(bars):
        axis.annotate(
            _short(values.median, unit),
            (values.highest, position),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.xaxis.set_major_formatter(lambda value, _: _short(value, unit))
    axis.set_title(PANELS[workload], loc="left", fontsize=10, fontweight="bold")
    axis.grid(axis="x", color="#eef0f3")
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    axis.minorticks_off()
    axis.spines[["top", "right", "left"]].set_visible(False)
