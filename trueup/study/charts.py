"""All charts of a report, by the key under which the page asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from trueup.study.charts_contrasts import contrasts, rank_sets
from trueup.study.charts_frontier import frontier, partings
from trueup.study.charts_responses import heat_map, lengths
from trueup.study.charts_reward_model import reliability
from trueup.study.charts_scores import families, scores
from trueup.study.charts_style import Chart
from trueup.study.charts_training import ArmCurves, training
from trueup.study.schema import Study


@dataclass(frozen=True)
class Charts:
    """The charts of a report; None or an empty list where the study recorded nothing to draw."""

    scores: Chart
    ranks: Chart | None
    contrasts: Chart | None
    frontier: Chart | None
    partings: list[Chart]
    families: Chart | None
    prompts: Chart | None
    lengths: list[Chart]
    reliability: Chart | None
    training: list[ArmCurves]

    def all(self) -> list[Chart]:
        """Return every chart once."""
        single = [self.scores, self.ranks, self.contrasts, self.frontier, self.families, self.prompts, self.reliability]
        curves = [chart for arm in self.training for chart in arm.charts]
        return [chart for chart in single if chart is not None] + self.partings + self.lengths + curves


def build_charts(study: Study, items: pa.Table) -> Charts:
    """Draw everything that the study folder has numbers for."""
    return Charts(
        scores=scores(study),
        ranks=rank_sets(study),
        contrasts=contrasts(study),
        frontier=frontier(study),
        partings=partings(study),
        families=families(study),
        prompts=heat_map(study, items),
        lengths=lengths(study, items),
        reliability=reliability(study),
        training=training(study),
    )
