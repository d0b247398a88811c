"""The schema of every recipe. A field's description is its help text; unknown keys are refused.

Torch is never imported here: a wrong key is reported before anything slow happens.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_own_defaults(cls, values: Any) -> Any:
        """Lay what is given over the recipe's own defaults of a section, not over the section's general ones.

        DPO's learning rate is lower than that of ``OptimSection``; giving ``optim.steps`` alone must not raise it.
        """
        if not isinstance(values, dict):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        own = {name: d.model_dump(exclude_unset=True) for name, d in defaults.items() if isinstance(d, BaseModel)}
        return {k: {**own[k], **v} if k in own and isinstance(v, dict) else v for k, v in values.items()}


class ModelSection(Section):
    """Which model is trained, and how it is run."""

    path: str | None = Field(default=None, description="model folder or .gguf file to start from")
    preset: str | None = Field(default=None, description="train from scratch: seed (2x128) or small (4x256)")
    tokenizer: str | None = Field(default=None, description="tokenizer folder; default: the model's own")
    context: PositiveInt = Field(default=512, description="positions of a model made from a preset")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="dtype of the weights")
    layout: Literal["auto", "shared", "plain"] = Field(
        default="auto", description="store a prompt once for its responses; auto proves it equal on the first batch"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.path is None) == (self.preset is None):
            raise ValueError("give either model.path (a folder or .gguf file) or model.preset with model.tokenizer")
        if self.preset is not None and self.tokenizer is None:
            raise ValueError("model.preset needs model.tokenizer, the tokenizer to build the vocabulary from")
        return self


class DataSection(Section):
    """What is trained on."""

    path: str = Field(description="data file: .jsonl .json .csv .parquet .arrow (.gz)")
    validation: str | None = Field(
        default=None, description="held-out file of the same kind, evaluated as the run goes"
    )
    limit: PositiveInt | None = Field(default=None, description="use only the first rows of the file")
    max_length: PositiveInt | None = Field(
        default=None, description="drop rows (prompt and response) over this many tokens; default: the model's context"
    )


class OptimSection(Section):
    """The update: AdamW, its schedule, how much and how long."""

    learning_rate: PositiveFloat = Field(default=1e-5, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="linear", description="decay after warm-up")
    warmup: Share = Field(default=0.1, description="share of the steps that warm up")
    weight_decay: NonNegative = Field(default=0.0, description="decoupled weight decay of matrices")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="AdamW betas")
    max_grad_norm: PositiveFloat = Field(default=1.0, description="gradient norm is clipped to this")
    batch_size: PositiveInt = Field(default=16, description="examples (pairs, prompts) of one optimiser step")
    micro_batch_tokens: PositiveInt = Field(
        default=4096, description="most tokens of one forward pass; cannot change results"
    )
    steps: PositiveInt | None = Field(default=None, description="optimiser steps; default: one pass over the data")


class RunSection(Section):
    """Where a run lives and how it is kept."""

    out: str = Field(description="run folder; must not exist unless resuming")
    seed: int = Field(default=0, description="seed of everything random")
    threads: PositiveInt | None = Field(default=None, description="CPU threads; default: torch's choice")
    device: str = Field(default="auto", description="auto, cpu, cuda")
    save_every: PositiveInt | None = Field(
        default=None, description="steps between checkpoints; default: only when stopped"
    )
    eval_every: PositiveInt = Field(default=50, description="steps between evaluations on data.validation")
    resume: bool = Field(default=False, description="go on from the last checkpoint in run.out")


class DecodingSection(Section):
    """How responses are sampled."""

    temperature: NonNegative = Field(default=1.0, description="divides the logits; 0 = greedy")
    top_k: Annotated[int, Field(ge=0)] = Field(default=0, description="keep the k most probable tokens; 0 = all")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="nucleus; 1 = all")
    max_new_tokens: PositiveInt = Field(default=64, description="cap of a response, its terminator included")


class RecipeConfig(Section):
    """What every recipe has."""

    model: ModelSection
    data: DataSection
    optim: OptimSection = OptimSection()
    run: RunSection


class SftConfig(RecipeConfig):
    """Supervised fine-tuning on prompts and responses; the loss is the mean over response tokens."""

    optim: OptimSection = OptimSection(learning_rate=2e-5)


class RewardSection(Section):
    """Reward modelling."""

    backbone: Literal["causal", "encoder"] = Field(default="causal", description="with model.preset: what to build")
    centring: NonNegative = Field(
        default=0.01, description="weight of (sum of the two scores)^2, which fixes their origin"
    )


class RewardConfig(RecipeConfig):
    """A Bradley-Terry reward model on preference pairs."""

    optim: OptimSection = OptimSection(learning_rate=1e-4)
    reward: RewardSection = RewardSection()


class PreferenceSection(Section):
    """Direct preference optimisation."""

    loss: str = Field(default="sigmoid", description="a name of the loss catalog (docs/losses.md)")
    beta: PositiveFloat | None = Field(
        default=None, description="higher keeps the policy nearer the reference; default: the loss's own (sigmoid 0.1)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0, description="assumed share of flipped labels"
    )
    options: dict[str, float] = Field(default={}, description="further options of the loss, for instance {gamma: 1.0}")
    rejected: Literal["file", "reference"] = Field(
        default="file", description="rejected responses: from the file, or sampled on the fly from the reference"
    )
    reference: str | None = Field(default=None, description="reference model; default: the policy as it starts")


class DpoConfig(RecipeConfig):
    """DPO and its relatives on pairs of chosen and rejected responses."""

    optim: OptimSection = OptimSection(learning_rate=1e-6)
    preference: PreferenceSection = PreferenceSection()
    decoding: DecodingSection = DecodingSection(temperature=0.9, top_k=50)


class RolloutSection(Section):
    """What the policy writes during online training, and who judges it."""

    reward: str = Field(description="folder of a reward model (trueup reward)")
    decoding: DecodingSection = DecodingSection()
    prompts_per_rollout: PositiveInt = Field(default=64, description="prompts sampled at a time")
    epochs: PositiveInt = Field(default=2, description="passes over each rollout")
    mini_batches: PositiveInt = Field(default=2, description="optimiser steps of one pass over a rollout")
    reference: str | None = Field(default=None, description="reference model; default: the policy as it starts")
    missing_eos_penalty: NonNegative = Field(
        default=1.0, description="taken from the reward of a response cut off at the cap"
    )


class PpoSection(Section):
    """Proximal policy optimisation."""

    kl_coef: NonNegative = Field(default=0.05, description="weight of the k1 KL penalty in every token's reward")
    gamma: Share = Field(default=1.0, description="discount per token")
    lam: Share = Field(default=0.95, description="GAE lambda")
    clip: PositiveFloat = Field(default=0.2, description="ratio clipped to 1 +- this")
    value_clip: PositiveFloat = Field(default=0.2, description="value moves at most this far from the rollout's value")
    vf_coef: NonNegative = Field(default=0.1, description="weight of the value loss")
    critic: Literal["separate", "shared"] = Field(
        default="separate", description="a backbone of its own, or the policy's"
    )


class PpoConfig(RecipeConfig):
    """PPO against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=3e-6, steps=200)
    rollout: RolloutSection
    ppo: PpoSection = PpoSection()


class GrpoSection(Section):
    """Group-relative policy optimisation."""

    group_size: Annotated[int, Field(ge=2)] = Field(default=8, description="responses sampled for each prompt")
    kl_coef: NonNegative = Field(default=0.04, description="weight of the k3 KL penalty in the loss")
    clip_low: PositiveFloat = Field(default=0.2, description="ratio clipped below at 1 - this")
    clip_high: PositiveFloat = Field(default=0.2, description="ratio clipped above at 1 + this")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="what centred rewards are divided by"
    )


class GrpoConfig(RecipeConfig):
    """GRPO against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=1e-6, steps=200)
    rollout: RolloutSection
    grpo: GrpoSection = GrpoSection()


RECIPES: dict[str, type[RecipeConfig]] = {
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "ppo": PpoConfig,
    "grpo": GrpoConfig,
}
"""The schema of each training verb."""
