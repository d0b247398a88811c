"""Settings of the methods that learn from their own samples: PPO, GRPO and its relatives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from trueup.config.section import NonNegative, Section, Share


class PpoSection(Section):
    """Proximal policy optimisation."""

    kl_coef: NonNegative = Field(default=0.05, description="weight of the KL penalty")
    kl_placement: Literal["reward", "loss"] = Field(
        default="reward", description="reward: every token pays k1; loss: a term of its own"
    )
    kl_estimator: Literal["k2", "k3"] | None = Field(
        default=None, description="of kl_placement loss: k2 or k3 (docs/losses.md); default: k3"
    )
    kl_target: PositiveFloat | None = Field(
        default=None, description="nats per response that kl_coef is moved to keep, from rollout to rollout"
    )
    gamma: Share = Field(default=1.0, description="discount per token")
    lam: Share = Field(default=0.95, description="GAE lambda")
    clip: PositiveFloat = Field(default=0.2, description="ratio clipped to 1 +- this")
    value_clip: PositiveFloat | None = Field(
        default=0.2, description="value moves at most this far from the rollout's value; null: as far as it likes"
    )
    vf_coef: NonNegative = Field(default=0.1, description="weight of the value loss")
    whiten_rewards: bool = Field(default=False, description="scale a rollout's token rewards to deviation 1")
    whiten_advantages: bool = Field(default=True, description="scale a rollout's advantages to mean 0, deviation 1")
    critic: Literal["separate", "shared"] = Field(
        default="separate", description="a backbone of its own, or the policy's"
    )

    @model_validator(mode="after")
    def _nothing_idle(self) -> PpoSection:
        if self.kl_estimator is not None and self.kl_placement == "reward":
            raise ValueError("ppo.kl_estimator does nothing without ppo.kl_placement: loss; the reward takes k1")
        if self.kl_coef == 0 and (self.kl_target is not None or self.kl_placement == "loss"):
            raise ValueError("ppo.kl_target and ppo.kl_placement: loss do nothing with ppo.kl_coef 0")
        return self


class GrpoSection(Section):
    """Group-relative policy optimisation and its relatives. What is left out is the variant's own (docs/losses.md)."""

    variant: Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "rloo", "reinforce++"] = Field(
        default="grpo", description="grpo, dr_grpo, dapo, bnpo, gspo, cispo, rloo or reinforce++ (docs/losses.md)"
    )
    group_size: PositiveInt = Field(default=8, description="responses sampled for each prompt")
    baseline: Literal["group", "leave_one_out", "none"] | None = Field(
        default=None, description="what a response's reward is compared with: its group's mean, the others', nothing"
    )
    scale_rewards: Literal["group", "batch", "whiten", "none"] | None = Field(
        default=None, description="what the difference is divided by: a standard deviation, or nothing"
    )
    importance: Literal["token", "sequence", "product"] | None = Field(
        default=None, description="what the ratio is of: a token, a response per token (GSPO), a whole response"
    )
    clip: Literal["surrogate", "weight", "none"] | None = Field(
        default=None, description="surrogate: PPO's; weight: CISPO's, which keeps every gradient; none"
    )
    clip_low: PositiveFloat | None = Field(default=None, description="ratio clipped below at 1 - this")
    clip_high: PositiveFloat | None = Field(default=None, description="ratio clipped above at 1 + this")
    delta: PositiveFloat | None = Field(
        default=None, description="largest ratio that counts where the advantage is negative; default: no bound"
    )
    unit: Literal["sequence", "token", "max_length"] | None = Field(
        default=None, description="mean over responses of token means; over the step's tokens; sum over a constant"
    )
    kl_coef: NonNegative | None = Field(default=None, description="weight of the KL penalty")
    kl_placement: Literal["loss", "reward"] | None = Field(
        default=None, description="loss: a term of its own; reward: taken off the reward"
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        default=None, description="k1 in the reward; in the loss k2, k3, or k1 with kl_corrected"
    )
    kl_corrected: bool | None = Field(default=None, description="multiply a KL term of the loss by the ratio")
    kl_share: Share | None = Field(
        default=None, description="prompts whose KL is measured with kl_coef 0: a share of all; default 0.25; 0: none"
    )


class RlooSection(Section):
    """REINFORCE with a leave-one-out baseline: the variant rloo of GRPO's table."""

    group_size: PositiveInt = Field(default=4, ge=2, description="responses sampled for each prompt")
    kl_coef: NonNegative = Field(default=0.05, description="weight of the k1 KL penalty in the reward")
    kl_share: Share | None = Field(
        default=None, description="prompts whose KL is measured with kl_coef 0: a share of all; default 0.25; 0: none"
    )
    clip_low: PositiveFloat = Field(default=0.2, description="ratio of a whole response clipped below at 1 - this")
    clip_high: PositiveFloat = Field(default=0.2, description="ratio of a whole response clipped above at 1 + this")
    scale_rewards: Literal["none", "batch"] = Field(
        default="none", description="batch: divide by the standard deviation of the rollout's rewards"
    )
