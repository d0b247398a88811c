"""What the charts draw is what the study measured, in the place where a reader looks for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from report_fixture import PLANS, write_study

from trueup.study.charts import Charts, build_charts
from trueup.study.charts_style import VERDICTS, safe
from trueup.study.folder import read_items, read_study
from trueup.study.frontier import paths
from trueup.study.responses import browser
from trueup.study.schema import FrontierPoint, Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder."""
    return write_study(tmp_path_factory.mktemp("study"), prompts=18)


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    """Its numbers."""
    return read_study(folder)


@pytest.fixture(scope="module")
def items(folder: Path) -> pa.Table:
    """Its responses."""
    return read_items(folder)


@pytest.fixture(scope="module")
def charts(study: Study, items: pa.Table) -> Charts:
    """Everything that is drawn of it."""
    return build_charts(study, items)


def traces(figure: Any, **wanted: Any) -> list[Any]:
    """Return the traces of a figure that have these attributes."""
    return [trace for trace in figure.data if all(getattr(trace, key) == value for key, value in wanted.items())]


def test_each_arm_has_its_mean_interval_and_seeds_under_gold_and_under_proxy(study: Study, charts: Charts) -> None:
    figure = charts.scores.figure
    for row, arm in enumerate(study["arms"]):
        for axis, metric in (("x", "gold"), ("x2", "proxy")):
            measured = arm["metrics"][metric]
            panel = [trace for trace in figure.data if (trace.xaxis or "x") == axis]
            (mean,) = [trace for trace in panel if list(trace.y) == [row]]
            (seeds,) = [trace for trace in panel if math.floor(trace.y[0]) == row and trace.y[0] != row]
            assert list(mean.x) == [measured["mean"]]
            assert mean.x[0] + mean.error_x.array[0] == pytest.approx(measured["high"])
            assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(measured["low"])
            assert list(seeds.x) == measured["per_seed"]


def test_published_is_open_and_tuned_is_filled_in_the_colour_of_the_method(study: Study, charts: Charts) -> None:
    for row, arm in enumerate(study["arms"]):
        for trace in (t for t in charts.scores.figure.data if list(t.y) == [row]):
            assert trace.marker.color == f"var(--{arm['method']})"
            assert trace.marker.symbol.endswith("-open") == (arm["setting"] == "published")


def test_contrasts_carry_their_verdict_and_the_band_of_small_effects(study: Study, charts: Charts) -> None:
    assert charts.contrasts is not None
    figure = charts.contrasts.figure
    for verdict, (colour, _) in VERDICTS.items():
        rows = [row for row, contrast in enumerate(study["contrasts"]) if contrast["verdict"] == verdict]
        for trace in traces(figure, name=verdict):
            assert list(trace.y) == rows
            assert trace.marker.color == colour
            assert list(trace.x) == [study["contrasts"][row]["estimate"] for row in rows]
    assert sum(len(trace.y) for trace in figure.data) == len(study["contrasts"])
    (band,) = figure.layout.shapes
    assert (band.x0, band.x1) == (-study["smallest_effect"], study["smallest_effect"])


def test_an_interval_with_a_missing_end_is_not_drawn_to_zero(study: Study, items: pa.Table) -> None:
    contrast = {**study["contrasts"][0], "low": None}
    chart = build_charts({**study, "contrasts": [contrast]}, items).contrasts
    assert chart is not None
    bars = chart.figure.data[0].error_x
    assert list(bars.arrayminus) == [0.0]
    assert bars.array[0] == pytest.approx(contrast["high"] - contrast["estimate"])


def test_rank_bars_cover_all_possible_places(study: Study, charts: Charts) -> None:
    assert charts.ranks is not None
    (bars,) = charts.ranks.figure.data
    for arm, base, length in zip(study["arms"], bars.base, bars.x, strict=True):
        best, worst = study["rank_sets"]["gold"][arm["name"]]
        assert best - 0.5 < base < best
        assert worst < base + length < worst + 0.5


def test_frontier_paths_start_at_the_reference_and_points_lie_at_their_kl(study: Study, charts: Charts) -> None:
    assert charts.frontier is not None
    figure = charts.frontier.figure
    start = [point["gold"] for point in study["frontier"] if point["arm"] == "sft"]
    for line in traces(figure, mode="lines"):
        assert line.x[0] == 0
        assert line.y[0] == pytest.approx(sum(start) / len(start))
        assert list(line.x) == sorted(line.x)
    for arm in study["arms"][1:]:
        measured = [p for p in study["frontier"] if p["arm"] == arm["name"] and p["kl"] is not None]
        (drawn,) = traces(figure, mode="markers", legendgroup=arm["name"])
        assert [x**2 for x in drawn.x] == pytest.approx([point["kl"] for point in measured])
        assert list(drawn.y) == [point["gold"] for point in measured]
        for text, point in zip(drawn.hovertext, measured, strict=True):
            assert f"seed {point['seed']}" in text
            assert (f"step {point['step']}" in text) == (point["step"] is not None)
    axis = figure.layout.xaxis
    assert [place**2 for place in axis.tickvals] == pytest.approx([float(text) for text in axis.ticktext])


def test_parting_shows_proxy_up_and_gold_down_for_the_weakly_regularised_arm(charts: Charts) -> None:
    by_key = {chart.key: chart.figure for chart in charts.partings}
    ppo = by_key["parting-ppo"]
    gold, proxy = (traces(ppo, name=metric)[0] for metric in ("gold", "proxy"))
    assert gold.y[0] == proxy.y[0] == gold.x[0] == 0
    assert gold.y[-1] < -1 < 1 < proxy.y[-1]
    assert (gold.line.dash, proxy.line.dash) == ("solid", "dash")
    assert len({tuple(figure.layout.yaxis.range) for figure in by_key.values()}) == 1


def point(coefficient: float | None, step: int | None, seed: int, kl: float, gold: float) -> FrontierPoint:
    """Return one measured checkpoint."""
    return FrontierPoint(
        arm="a", method="ppo", seed=seed, step=step, coefficient=coefficient, kl=kl, gold=gold, proxy=0.0
    )


def test_seeds_are_averaged_and_steps_joined_in_order() -> None:
    (path,) = paths([point(0.1, 20, 0, 4.0, 2.0), point(0.1, 10, 0, 9.0, 1.0), point(0.1, 20, 1, 6.0, 4.0)])
    assert [(stop.step, stop.kl, stop.gold) for stop in path] == [(10, 9.0, 1.0), (20, 5.0, 3.0)]


def test_a_sweep_of_final_models_is_one_path_by_kl_and_a_sweep_of_runs_is_not() -> None:
    finals = [point(0.4, 50, 0, 1.0, 1.0), point(0.1, 50, 0, 3.0, 2.0), point(0.2, 50, 0, 2.0, 3.0)]
    (path,) = paths(finals)
    assert [stop.coefficient for stop in path] == [0.4, 0.2, 0.1]
    assert len(paths([*finals, point(0.4, 20, 0, 0.5, 1.0)])) == 3


def test_candidates_without_a_step_join_a_sweep_but_no_run() -> None:
    candidates = [point(0.4, None, 0, 1.5, 0.0), point(0.1, None, 0, 7.0, 0.0)]
    (sweep,) = paths([*candidates, point(0.4, 50, 0, 1.4, 0.0)])
    assert [stop.kl for stop in sweep] == [1.4, 1.5, 7.0]
    (run,) = paths([*candidates, point(0.4, 50, 0, 1.4, 0.0), point(0.4, 20, 0, 2.0, 0.0)])
    assert [stop.step for stop in run] == [20, 50]


def test_raw_and_scaled_margins_stand_side_by_side_with_their_units(charts: Charts) -> None:
    (row,) = [row for row in charts.training if row.label == "DPO, tuned"]
    titles = [(chart.title, chart.figure.layout.yaxis.title.text) for chart in row.charts]
    assert titles[:2] == [("Raw margin", "nats per pair"), ("β-scaled margin", "reward (β × nats)")]
    raw, scaled = (max(chart.figure.data[1].y) for chart in row.charts[:2])
    assert scaled == pytest.approx(0.3 * raw, rel=0.15)


def test_arms_of_one_method_share_their_scales_and_fit_into_them(study: Study, charts: Charts) -> None:
    published, tuned = (row for row in charts.training if row.method == "dpo")
    for left, right in zip(published.charts, tuned.charts, strict=True):
        assert left.figure.layout.yaxis.range == right.figure.layout.yaxis.range
        low, high = left.figure.layout.yaxis.range
        assert low < min(*left.figure.data[1].y, *right.figure.data[1].y)
        assert high > max(*left.figure.data[1].y, *right.figure.data[1].y)
    assert [row.label for row in charts.training if row.label == "PPO, tuned"] == []


def test_heat_map_is_the_difference_of_prompt_means(folder: Path, study: Study, charts: Charts) -> None:
    rows = read_items(folder).to_pylist()

    def mean(arm: str, prompt: str) -> float:
        golds = [r["gold"] for r in rows if (r["arm"], r["prompt_id"]) == (arm, prompt) and r["gold"] is not None]
        return sum(golds) / len(golds)

    assert charts.prompts is not None
    (heat,) = charts.prompts.figure.data
    families = {row["prompt_id"]: row["family"] for row in rows}
    columns = list(heat.customdata[0])
    assert [families[prompt] for prompt in columns] == sorted(families.values())
    for values, plan in zip(heat.z, PLANS[1:], strict=True):
        for value, prompt in zip(values, columns, strict=True):
            assert value == pytest.approx(mean(plan.name, prompt) - mean("sft", prompt), abs=1e-3)
    assert heat.zmin == -heat.zmax
    assert heat.zmax >= max(abs(value) for row in heat.z for value in row) - 1e-9


def test_browser_shows_the_first_draw_of_the_first_seed_and_the_mean_of_all(
    folder: Path, study: Study, items: pa.Table
) -> None:
    shown = browser(study, items)
    rows = read_items(folder).to_pylist()
    assert [arm["label"] for arm in shown["arms"]] == [arm["label"] for arm in study["arms"]]
    assert {arm["seed"] for arm in shown["arms"]} == {0}
    prompt = shown["prompts"][5]
    for plan, answer in zip(PLANS, prompt["answers"], strict=True):
        own = [row for row in rows if (row["arm"], row["prompt_id"]) == (plan.name, prompt["id"])]
        (first,) = [row for row in own if (row["seed"], row["draw"]) == (0, 0)]
        assert answer[0] == first["response"]
        assert answer[1] == pytest.approx(first["gold"], abs=1e-3)
        assert answer[6] == pytest.approx(sum(row["gold"] for row in own) / len(own), abs=1e-3)


def test_an_arm_without_responses_leaves_gaps_and_breaks_nothing(study: Study, items: pa.Table) -> None:
    kept = [row for row in items.to_pylist() if row["arm"] != "grpo-tuned"]
    partial = pa.Table.from_pylist(kept, schema=items.schema)
    charts = build_charts(study, partial)
    assert charts.prompts is not None
    assert set(charts.prompts.figure.data[0].z[-1]) == {None}
    assert all(prompt["answers"][-1] is None for prompt in browser(study, partial)["prompts"])


def test_labels_cannot_speak_plotlys_markup() -> None:
    assert safe('<a href="x">&lt;</a>') == '&lt;a href="x"&gt;&amp;lt;&lt;/a&gt;'
