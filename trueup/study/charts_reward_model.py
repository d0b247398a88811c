"""Can the reward model's confidence be believed?"""

from __future__ import annotations

import plotly.graph_objects as go

from trueup.study.charts_style import AXIS, Chart, hover, style
from trueup.study.format import fixed, whole
from trueup.study.schema import Study


def reliability(study: Study) -> Chart | None:
    """How often the reward model is right, against how sure it is; marker areas grow with the number of pairs."""
    bins = [b for b in study["reward_model"]["reliability"] if None not in (b["confidence"], b["accuracy"], b["count"])]
    bins = [b for b in bins if b["count"]]
    if not bins:
        return None
    most = max(b["count"] or 0.0 for b in bins)
    sizes = [6 + 22 * ((b["count"] or 0.0) / most) ** 0.5 for b in bins]
    texts = [
        hover(f"{whole(b['count'])} pairs", f"sure to {fixed(b['confidence'])}, right in {fixed(b['accuracy'])}")
        for b in bins
    ]
    figure = go.Figure(
        [
            go.Scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", line={"color": AXIS, "dash": "dot"}, hoverinfo="skip"),
            go.Scatter(
                x=[b["confidence"] for b in bins],
                y=[b["accuracy"] for b in bins],
                mode="lines+markers",
                line={"color": "var(--reward)", "width": 2},
                marker={"color": "var(--reward)", "size": sizes, "line": {"width": 0}},
                hovertext=texts,
                hoverinfo="text",
            ),
        ]
    )
    style(figure, height=360)
    lowest = min(0.5, *(b["accuracy"] or 0.0 for b in bins))
    figure.update_xaxes(title_text="confidence in the preferred response", range=[0.48, 1.02], zeroline=False)
    figure.update_yaxes(title_text="share that is right", range=[lowest - 0.05, 1.03], zeroline=False)
    caption = (
        "On the dotted line the reward model is exactly as sure as it is right; below it, it is over-confident. "
        "Marker areas show how many held-out pairs stand behind a point."
    )
    return Chart("reliability", "Confidence of the reward model", caption, figure)
