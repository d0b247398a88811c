"""The schema of every recipe. A field's description is its help text; unknown keys are refused.

Torch is never imported here: a wrong key is reported before anything slow happens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Which model is trained, and how it is run."""

    path: str | None = Field(None, description="model folder or .gguf file to start from")
    preset: str | None = Field(None, description="train from scratch: seed (2x128) or small (4x256)")
    tokenizer: str | None = Field(None, description="tokenizer folder; default: the model's own")
    context: PositiveInt = Field(512, description="positions of a model made from a preset")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the weights")
    layout: Literal["auto", "shared", "plain"] = Field(
        "auto", description="store a prompt once for its responses; auto proves it equal on the first batch"
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
    validation: str | None = Field(None, description="held-out file of the same kind, evaluated as the run goes")
    limit: PositiveInt | None = Field(None, description="use only the first rows of the file")
    max_length: PositiveInt | None = Field(
        None, description="drop rows (prompt and response) over this many tokens; default: the model's context"
    )


class OptimSection(Section):
    """The update: AdamW, its schedule, how much and how long."""

    learning_rate: PositiveFloat = Field(1e-5, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="decay after warm-up")
    warmup: Share = Field(0.1, description="share of the steps that warm up")
    weight_decay: NonNegative = Field(0.0, description="decoupled weight decay of matrices")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW betas")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradient norm is clipped to this")
    batch_size: PositiveInt = Field(16, description="examples (pairs, prompts) of one optimiser step")
    micro_batch_tokens: PositiveInt = Field(4096, description="most tokens of one forward pass; cannot change results")
    steps: PositiveInt | None = Field(None, description="optimiser steps; default: one pass over the data")


class RunSection(Section):
    """Where a run lives and how it is kept."""

    out: str = Field(description="run folder; must not exist unless resuming")
    seed: int = Field(0, description="seed of everything random")
    threads: PositiveInt | None = Field(None, description="CPU threads; default: torch's choice")
    device: str = Field("auto", description="auto, cpu, cuda")
    save_every: PositiveInt | None = Field(None, description="steps between checkpoints; default: only when stopped")
    eval_every: PositiveInt = Field(50, description="steps between evaluations on data.validation")
    resume: bool = Field(False, description="go on from the last checkpoint in run.out")


class DecodingSection(Section):
    """How responses are sampled."""

    temperature: NonNegative = Field(1.0, description="divides the logits; 0 = greedy")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="keep the k most probable tokens; 0 = all")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus; 1 = all")
    max_new_tokens: PositiveInt = Field(64, description="cap of a response, its terminator included")


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

    backbone: Literal["causal", "encoder"] = Field("causal", description="with model.preset: what to build")
    centring: NonNegative = Field(0.01, description="weight of (sum of the two scores)^2, which fixes their origin")


class RewardConfig(RecipeConfig):
    """A Bradley-Terry reward model on preference pairs."""

    optim: OptimSection = OptimSection(learning_rate=1e-4)
    reward: RewardSection = RewardSection()


class PreferenceSection(Section):
    """Direct preference optimisation."""

    loss: str = Field("sigmoid", description="a name of the loss catalog (docs/losses.md)")
    beta: PositiveFloat | None = Field(
        None, description="higher keeps the policy nearer the reference; default: the loss's own (sigmoid 0.1)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(0.0, description="assumed share of flipped labels")
    options: dict[str, float] = Field({}, description="further options of the loss, for instance {gamma: 1.0}")
    rejected: Literal["file", "reference"] = Field(
        "file", description="rejected responses: from the file, or sampled on the fly from the reference"
    )
    reference: str | None = Field(None, description="reference model; default: the policy as it starts")


class DpoConfig(RecipeConfig):
    """DPO and its relatives on pairs of chosen and rejected responses."""

    optim: OptimSection = OptimSection(learning_rate=1e-6)
    preference: PreferenceSection = PreferenceSection()
    decoding: DecodingSection = DecodingSection(temperature=0.9, top_k=50)


class RolloutSection(Section):
    """What the policy writes during online training, and who judges it."""

    reward: str = Field(description="folder of a reward model (trueup reward)")
    decoding: DecodingSection = DecodingSection()
    prompts_per_rollout: PositiveInt = Field(64, description="prompts sampled at a time")
    epochs: PositiveInt = Field(2, description="passes over each rollout")
    mini_batches: PositiveInt = Field(2, description="optimiser steps of one pass over a rollout")
    reference: str | None = Field(None, description="reference model; default: the policy as it starts")
    missing_eos_penalty: NonNegative = Field(1.0, description="taken from the reward of a response cut off at the cap")


class PpoSection(Section):
    """Proximal policy optimisation."""

    kl_coef: NonNegative = Field(0.05, description="weight of the k1 KL penalty in every token's reward")
    gamma: Share = Field(1.0, description="discount per token")
    lam: Share = Field(0.95, description="GAE lambda")
    clip: PositiveFloat = Field(0.2, description="ratio clipped to 1 +- this")
    value_clip: PositiveFloat = Field(0.2, description="value moves at most this far from the rollout's value")
    vf_coef: NonNegative = Field(0.1, description="weight of the value loss")
    critic: Literal["separate", "shared"] = Field("separate", description="a backbone of its own, or the policy's")


class PpoConfig(RecipeConfig):
    """PPO against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=3e-6, steps=200)
    rollout: RolloutSection
    ppo: PpoSection = PpoSection()


class GrpoSection(Section):
    """Group-relative policy optimisation."""

    group_size: Annotated[int, Field(ge=2)] = Field(8, description="responses sampled for each prompt")
    kl_coef: NonNegative = Field(0.04, description="weight of the k3 KL penalty in the loss")
    clip_low: PositiveFloat = Field(0.2, description="ratio clipped below at 1 - this")
    clip_high: PositiveFloat = Field(0.2, description="ratio clipped above at 1 + this")
    scale_rewards: Literal["group", "batch", "none"] = Field("group", description="what centred rewards are divided by")


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
