"""The report's curves, drawn by matplotlib in one fixed style, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from darkroom.report.inline import svg_uri

INK, MUTED, RULE, ACCENT = "#23201d", "#7a736b", "#ded8cf", "#b3271e"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.bottom": False,
    "ytick.left": False,
    "svg.hashsalt": "darkroom",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

# On a dark page: colour of the style -> colour there. Inside <img> a drawing is asked too.
_DARK = {INK: "#ece7df", MUTED: "#a39a8f", RULE: "#38332d", ACCENT: "#ef7a6d"}
_ON_DARK = (
    "@media (prefers-color-scheme: dark) {"
    + "".join(
        f'[style*="{what}: {light}"] {{{what}: {dark} !important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    + "}"
)


def loss_chart(steps: np.ndarray, losses: np.ndarray, validation: np.ndarray | None = None) -> str:
    """The loss of every step and its running mean over 2 % of the run: a data URI.

    validation: the loss on held-out pictures, NaN after steps where it was not measured.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        mean = running_mean(losses, _window(len(steps)))
        axes.plot(steps, losses, color=ACCENT, alpha=0.18, linewidth=0.8)
        axes.plot(steps, mean, color=ACCENT, linewidth=1.9)
        last = mean[np.isfinite(mean)][-1]
        ends, shown = [float(last)], losses
        if validation is not None:
            measured = np.isfinite(validation)
            axes.plot(
                steps[measured], validation[measured], color=INK, linewidth=1.5, marker="o", markersize=3
            )
            ends.append(float(validation[measured][-1]))
            shown = np.concatenate([losses, validation])
        _frame(axes, steps, shown, mean)
        for index, place in _apart(ends, axes):
            _note(axes, float(steps[-1]), place, f"{ends[index]:.3f}", (ACCENT, INK)[index])
        return _svg(figure)


def bins_chart(steps: np.ndarray, bins: Sequence[np.ndarray]) -> str:
    """Running means of the loss by tenth of the timestep, t from 0 (clean) to 1 (noise): a data URI."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        colors = matplotlib.colormaps["plasma"](np.linspace(0.3, 0.88, len(bins)))
        ends, means = [], []
        for values, color in zip(bins, colors, strict=True):
            mean = running_mean(values, _window(len(steps)))
            means.append(mean)
            axes.plot(steps, mean, color=color, linewidth=1.5)
            finite = mean[np.isfinite(mean)]
            ends.append(float(finite[-1]) if len(finite) else np.nan)
        _frame(axes, steps, np.concatenate(means), np.concatenate(means))
        for index, place in _apart(ends, axes):
            _note(axes, float(steps[-1]), place, f"{index / len(bins):.1f}", colors[index])
        axes.text(1.015, 1.03, "from t", transform=axes.transAxes, color=MUTED, fontsize=9.5, va="bottom")
        return _svg(figure)


def steps_chart(
    steps: np.ndarray, values: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None, best: int
) -> str:
    """A score at the judged steps, with its intervals where it has some, and the best step marked: a data URI."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        if bounds is not None:
            axes.fill_between(steps, *bounds, color=ACCENT, alpha=0.15, linewidth=0)
        axes.plot(steps, values, color=ACCENT, linewidth=1.9, marker="o", markersize=4)
        place = int(np.flatnonzero(steps == best)[0])
        axes.plot(
            best,
            values[place],
            color=INK,
            marker="o",
            markersize=8,
            fillstyle="none",
            linestyle="",
            clip_on=False,
        )
        axes.set_xlim(0, float(steps[-1]))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and those before it, `window` at most; NaN is passed over."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    number = np.concatenate([[0], np.cumsum(known)])
    start = np.maximum(np.arange(len(values)) - window + 1, 0)
    end = np.arange(len(values)) + 1
    counted = number[end] - number[start]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counted > 0, (total[end] - total[start]) / counted, np.nan)


def _figure() -> tuple[Figure, Axes]:
    """A figure outside pyplot, whose state is global."""
    figure = Figure(figsize=(5.4, 3.3))
    return figure, figure.add_subplot()


def _window(num_steps: int) -> int:
    return max(1, num_steps // 50)


def _frame(axes: Axes, steps: np.ndarray, values: np.ndarray, mean: np.ndarray) -> None:
    """Axes that show the run, not the spikes of its first steps."""
    finite, smooth = values[np.isfinite(values)], mean[np.isfinite(mean)]
    low, high = float(finite.min()), float(max(np.quantile(finite, 0.995), np.quantile(smooth, 0.99)))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9)
    axes.set_xlim(0, float(steps[-1]) or 1.0)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _apart(ends: list[float], axes: Axes) -> list[tuple[int, float]]:
    """(index, height) of the labels at the curves' ends, moved so that none covers another."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.066
    order = sorted((i for i, end in enumerate(ends) if np.isfinite(end)), key=lambda i: ends[i])
    places = np.array([ends[i] for i in order])
    for _ in range(200):
        short = np.maximum(least - np.diff(places), 0) / 2
        places[:-1] -= short
        places[1:] += short
    places += max(0.0, low + least / 2 - float(places.min(initial=high)))
    return list(zip(order, places.tolist(), strict=True))


def _note(axes: Axes, x: float, y: float, text: str, color: object) -> None:
    axes.annotate(
        text, (x, y), xytext=(5, 0), textcoords="offset points", color=color, fontsize=9.5, va="center",
        annotation_clip=False,
    )  # fmt: skip


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})
    return svg_uri(buffer.getvalue().replace(b"<defs>", f"<style>{_ON_DARK}</style><defs>".encode(), 1))
