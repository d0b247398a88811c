"""Training curves in small multiples: one row per arm, the same scales for all arms of a method."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from trueup.study.charts_style import Chart, colour, hover, safe, style
from trueup.study.schema import Arm, CurvePoint, Study


@dataclass(frozen=True)
class Panel:
    """A metric to draw: its key, its heading and its unit."""

    metric: str
    title: str
    unit: str


@dataclass(frozen=True)
class ArmCurves:
    """An arm's charts, in the order of its method's panels."""

    label: str
    method: str
    charts: list[Chart]


_PAIRS = (
    Panel("margin/raw", "Raw margin", "nats per pair"),
    Panel("rewards/margins", "β-scaled margin", "reward (β × nats)"),
    Panel("margin/raw_per_token", "Raw margin per token", "nats per token"),
    Panel("rewards/accuracies", "Accuracy", "share of pairs"),
    Panel("loss", "Loss", "nats per pair"),
)
_ONLINE = (
    Panel("reward", "Reward (proxy)", "score"),
    Panel("kl/policy_reference_k3", "KL to the reference (k3)", "nats per token"),
    Panel("completions/mean_length", "Length", "tokens"),
    Panel("entropy", "Entropy", "nats per token"),
)
_PANELS = {
    "sft": (Panel("loss", "Loss", "nats per token"),),
    **dict.fromkeys(("dpo", "kto", "orpo"), _PAIRS),
    **dict.fromkeys(("ppo", "grpo", "rloo"), _ONLINE),
}


def training(study: Study) -> list[ArmCurves]:
    """Return the curves of every arm that has any."""
    rows = []
    for arm in study["arms"]:
        panels = [panel for panel in _panels(study, arm) if study["curves"].get(arm["name"], {}).get(panel.metric)]
        if panels:
            rows.append(ArmCurves(arm["label"], arm["method"], [_chart(study, arm, panel) for panel in panels]))
    return rows


def _panels(study: Study, arm: Arm) -> tuple[Panel, ...]:
    """A method that the table does not know shows all it logged."""
    logged = study["curves"].get(arm["name"], {})
    return _PANELS.get(arm["method"]) or tuple(Panel(metric, metric, "") for metric in logged)


def _chart(study: Study, arm: Arm, panel: Panel) -> Chart:
    points = study["curves"][arm["name"]][panel.metric]
    figure = go.Figure([_band(arm, points), _mean(arm, panel, points)])
    style(figure, height=190, margin={"l": 4, "r": 6, "t": 6, "b": 4})
    figure.update_xaxes(
        title_text="step", nticks=6, tickangle=0, title_font_size=11, tickfont_size=10, title_standoff=4
    )
    figure.update_yaxes(title_text=safe(panel.unit), title_font_size=11, tickfont_size=10, nticks=5, title_standoff=4)
    figure.update_yaxes(range=_shared_range(study, arm["method"], panel.metric))
    return Chart(f"curve-{arm['name']}-{panel.metric}", panel.title, "", figure)


def _mean(arm: Arm, panel: Panel, points: list[CurvePoint]) -> go.Scatter:
    lines = (f"step %{{x}}: %{{y:.3g}} {safe(panel.unit)}", "seeds from %{customdata[0]:.3g} to %{customdata[1]:.3g}")
    return go.Scatter(
        x=[point[0] for point in points],
        y=[point[1] for point in points],
        customdata=[point[2:] for point in points],
        mode="lines",
        line={"color": colour(arm["method"]), "width": 2},
        hovertemplate=hover(safe(panel.title), *lines) + "<extra></extra>",
    )


def _band(arm: Arm, points: list[CurvePoint]) -> go.Scatter:
    complete = [point for point in points if None not in point]
    steps = [point[0] for point in complete]
    return go.Scatter(
        x=steps + steps[::-1],
        y=[point[3] for point in complete] + [point[2] for point in complete][::-1],
        fill="toself",
        fillcolor=colour(arm["method"]),
        opacity=0.22,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )


def _shared_range(study: Study, method: str, metric: str) -> list[float] | None:
    """Cover every seed of every arm of the method, so that heights can be compared between settings."""
    names = [arm["name"] for arm in study["arms"] if arm["method"] == method]
    points = [point for name in names for point in study["curves"].get(name, {}).get(metric, [])]
    values = [value for point in points for value in point[1:] if value is not None]
    if not values:
        return None
    pad = 0.06 * (max(values) - min(values)) or 0.5
    return [min(values) - pad, max(values) + pad]
