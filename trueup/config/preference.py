"""Settings of the losses on pairs, and of where the pairs come from: a file, or the policy itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from trueup.config.section import Section


class PairLossSection(Section):
    """The loss of a pair."""

    loss: str | dict[str, PositiveFloat] = Field(
        default="sigmoid", description="a loss of docs/losses.md, mpo or rpo, or a sum: {sigmoid: 0.8, sft: 1}"
    )
    beta: PositiveFloat | None = Field(
        default=None, description="higher keeps the policy nearer the reference; default: the loss's own (sigmoid 0.1)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = Field(
        default=None, description="assumed share of flipped labels; default: the loss's own"
    )
    options: dict[str, float | dict[str, float]] = Field(
        default={}, description="further options: {gamma: 1.0}; of a sum by part: {simpo: {gamma: 1.0}}"
    )
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = Field(
        default="reverse_kl", description="what the distance to the reference is measured by"
    )
    divergence_alpha: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of divergence alpha, towards forward_kl; default: 0.5"
    )
    weighting: Literal["none", "wpo"] = Field(
        default="none", description="wpo: pairs that the policy would write itself weigh more"
    )

    @model_validator(mode="after")
    def _alpha_of_its_divergence(self) -> PairLossSection:
        if self.divergence_alpha is not None and self.divergence != "alpha":
            raise ValueError("preference.divergence_alpha does nothing without preference.divergence: alpha")
        return self


class PreferenceSection(PairLossSection):
    """Direct preference optimisation on the pairs of a file."""

    rejected: Literal["file", "reference"] = Field(
        default="file", description="rejected responses: from the file, or sampled on the fly from the reference"
    )
    reference: str | None = Field(default=None, description="reference model; default: the policy as it starts")
    store: str | None = Field(
        default=None, description="folder of stores of reference log-probabilities; default: the user's cache"
    )
    sync_every: PositiveInt | None = Field(
        default=None, description="steps after which the reference moves to the policy; default: it stays"
    )
    sync_mixup: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="how far it then moves, 1 = all the way; default: 0.6"
    )

    @model_validator(mode="after")
    def _nothing_idle(self) -> PreferenceSection:
        if self.sync_mixup is not None and self.sync_every is None:
            raise ValueError("preference.sync_mixup does nothing without preference.sync_every")
        if self.store is not None and (self.sync_every is not None or self.rejected == "reference"):
            what = "preference.sync_every" if self.rejected == "file" else "preference.rejected: reference"
            raise ValueError(f"preference.store does nothing with {what}: the reference then computes as the run goes")
        return self


class OnlineDpoSection(PairLossSection):
    """Direct preference optimisation on pairs of the policy's own responses."""

    group_size: PositiveInt = Field(
        default=2, ge=2, description="responses sampled for each prompt; the best and the worst make a pair"
    )
