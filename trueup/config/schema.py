"""The schema of every recipe. A field's description is its help text; unknown keys are refused.

Torch is never imported here: a wrong key is reported before anything slow happens.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from trueup.config.policy import GrpoSection, PpoSection, RlooSection
from trueup.config.preference import OnlineDpoSection, PreferenceSection
from trueup.config.rewards import reward_parts
from trueup.config.section import Decay, NonNegative, Section, Share


class ModelSection(Section):
    """Which model is trained, and how it is run."""

    path: str | None = Field(default=None, description="model folder or .gguf file to start from")
    preset: str | None = Field(default=None, description="train from scratch: seed (2x128) or small (4x256)")
    tokenizer: str | None = Field(default=None, description="tokenizer folder; default: the model's own")
    context: PositiveInt = Field(default=512, description="positions of a model made from a preset")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="dtype of the weights")
    layout: Literal["auto", "flat", "shared", "plain"] = Field(
        default="auto",
        description="how prompts and responses share rows (docs/design.md); auto: the leanest that it proves equal",
    )

    attention: Literal["auto", "flex"] = Field(
        default="auto", description="auto: tree by tree; flex: FlexAttention with a block mask, on CUDA only"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations again in backward: less memory, about a third more time"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.path is None) == (self.preset is None):
            raise ValueError("give either model.path (a folder or .gguf file) or model.preset with model.tokenizer")
        if self.preset is not None and self.tokenizer is None:
            raise ValueError("model.preset needs model.tokenizer, the tokenizer to build the vocabulary from")
        return self


class LoraSection(Section):
    """Low-rank adapters (PEFT) in place of tuning all weights; the base model itself is then the reference."""

    rank: PositiveInt | None = Field(default=None, description="rank of the adapters; default: tune all weights")
    alpha: PositiveFloat | None = Field(default=None, description="scale of the adapters; default: twice the rank")
    dropout: Decay = Field(default=0.0, description="dropout before the adapters")
    targets: tuple[str, ...] = Field(default=(), description="names of adapted layers; default: every linear layer")

    @model_validator(mode="after")
    def _needs_a_rank(self) -> LoraSection:
        if self.rank is None and (self.alpha is not None or self.dropout or self.targets):
            raise ValueError("lora.alpha, lora.dropout and lora.targets do nothing without lora.rank")
        return self


class DataSection(Section):
    """What is trained on."""

    path: str = Field(description="file (.jsonl .json .csv .parquet .arrow), folder, or data set")
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
        default=2048, description="most tokens of one forward pass; cannot change results"
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
    on_fatal: Literal["stop", "continue"] = Field(
        default="stop",
        description="what a fatal finding does (docs/diagnoses.md); stop: end at a checkpoint, exit code 3",
    )
    preflight: Literal["full", "quick", "off"] = Field(
        default="quick", description="checks before the first step: full, quick (without the dear ones) or off"
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = Field(
        default=(), description="copies of the journal: tensorboard, wandb, trackio, mlflow (docs/trackers.md)"
    )
    project: str = Field(default="trueup", description="project or experiment that trackers keep the run under")
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
    lora: LoraSection = LoraSection()


class RewardSection(Section):
    """Reward modelling."""

    backbone: Literal["causal", "encoder"] = Field(default="causal", description="with model.preset: what to build")
    centring: NonNegative = Field(
        default=0.01, description="weight of (sum of the two scores)^2, which fixes their origin"
    )
    margin: NonNegative = Field(
        default=0.0, description="times a pair's margin in the data is what its chosen score must lead by; 0: not used"
    )
    label_ceiling: Share | None = Field(
        default=None, description="share of held-out labels that a perfect judge would agree with, if known"
    )


class RewardConfig(RecipeConfig):
    """A Bradley-Terry reward model on preference pairs."""

    optim: OptimSection = OptimSection(learning_rate=1e-4)
    lora: LoraSection = LoraSection()
    reward: RewardSection = RewardSection()


class DpoConfig(RecipeConfig):
    """DPO and its relatives on pairs of chosen and rejected responses."""

    optim: OptimSection = OptimSection(learning_rate=1e-6)
    lora: LoraSection = LoraSection()
    preference: PreferenceSection = PreferenceSection()
    decoding: DecodingSection = DecodingSection(temperature=0.9, top_k=50)

    @model_validator(mode="after")
    def _nothing_idle(self) -> DpoConfig:
        if self.preference.rejected == "file" and self.decoding != type(self).model_fields["decoding"].default:
            raise ValueError("decoding does nothing without preference.rejected: reference, which samples")
        if self.preference.sync_every is not None and self.lora.rank is not None:
            raise ValueError("preference.sync_every mixes weights, and adapters cannot be mixed: leave out lora.rank")
        return self


class OrpoSection(Section):
    """Odds-ratio preference optimisation."""

    beta: PositiveFloat = Field(default=0.1, description="weight of the odds-ratio term (the paper's lambda)")


class OrpoConfig(RecipeConfig):
    """ORPO: fine-tuning and preference in one stage, on pairs, without a reference."""

    optim: OptimSection = OptimSection(learning_rate=8e-6)
    lora: LoraSection = LoraSection()
    orpo: OrpoSection = OrpoSection()


class KtoSection(Section):
    """Preference optimisation on single responses with a label."""

    loss: Literal["kto", "bco"] = Field(default="kto", description="a loss of single responses (docs/losses.md)")
    beta: PositiveFloat | None = Field(
        default=None, description="higher keeps the policy nearer the reference; default: the loss's own (0.1)"
    )
    desirable_weight: PositiveFloat | None = Field(
        default=None, description="weight of wanted responses; kto only, default: 1"
    )
    undesirable_weight: PositiveFloat | None = Field(
        default=None, description="weight of unwanted responses; kto only, default: 1"
    )
    reference: str | None = Field(default=None, description="reference model; default: the policy as it starts")
    store: str | None = Field(
        default=None, description="folder of stores of reference log-probabilities; default: the user's cache"
    )


class KtoConfig(RecipeConfig):
    """KTO and BCO on responses that are marked wanted or unwanted (label: true or false)."""

    optim: OptimSection = OptimSection(learning_rate=1e-6)
    lora: LoraSection = LoraSection()
    kto: KtoSection = KtoSection()


def _checked_reward(value: Any) -> Any:
    """The value as given, if it has one of the forms that a reward may have; a folder may be called 2024."""
    parts = reward_parts(value)
    return parts[0].target if parts[0].kind == "text" and isinstance(value, str | int) else value


RewardSetting = Annotated[str | dict[str, Any] | list[Any], BeforeValidator(_checked_reward)]


class RolloutSection(Section):
    """What the policy writes during online training, and who judges it."""

    reward: RewardSetting = Field(
        description="reward model (folder), file.py:function, rule, judge, or weighted parts (docs/rewards.md)"
    )
    decoding: DecodingSection = DecodingSection()
    prompts_per_rollout: PositiveInt = Field(default=64, description="prompts sampled at a time")
    epochs: PositiveInt = Field(default=2, description="passes over each rollout")
    mini_batches: PositiveInt = Field(default=2, description="optimiser steps of one pass over a rollout")
    reference: str | None = Field(default=None, description="reference model; default: the policy as it starts")
    missing_eos_penalty: NonNegative = Field(
        default=1.0, description="taken from the reward of a response cut off at the cap"
    )
    overlong_buffer: PositiveInt | None = Field(
        default=None, description="tokens before the cap in which up to 1 is taken from the reward (DAPO)"
    )
    mask_truncated: bool = Field(default=False, description="do not train on responses cut off at the cap")
    resample_zero_spread: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="leave out groups of equal rewards; at most this many more rollouts replace them"
    )

    @model_validator(mode="after")
    def _buffer_fits(self) -> RolloutSection:
        cap = self.decoding.max_new_tokens
        if self.overlong_buffer is not None and self.overlong_buffer > cap:
            raise ValueError(f"rollout.overlong_buffer is above rollout.decoding.max_new_tokens, which is {cap}")
        return self


_Config = TypeVar("_Config", bound=RecipeConfig)


def _without_held_out(config: _Config, method: str) -> _Config:
    """Refuse settings of held-out evaluation where a method learns from its own samples: there is none as it runs."""
    remedy = f"does nothing for {method}: evaluate the finished run with trueup eval"
    if config.data.validation is not None:
        raise ValueError(f"data.validation {remedy}")
    if config.run.eval_every != RunSection.model_fields["eval_every"].default:
        raise ValueError(f"run.eval_every {remedy}")
    return config


class OnlineDpoConfig(RecipeConfig):
    """Online DPO: pairs are the best and the worst of the policy's own responses; `data` holds prompts."""

    optim: OptimSection = OptimSection(learning_rate=5e-7, steps=200)
    rollout: RolloutSection
    preference: OnlineDpoSection = OnlineDpoSection()

    @model_validator(mode="after")
    def _nothing_idle(self) -> OnlineDpoConfig:
        if self.rollout.mask_truncated:
            raise ValueError("rollout.mask_truncated: a pair is trained on as a whole; leave it out for online DPO")
        return _without_held_out(self, "online DPO")


class PpoConfig(RecipeConfig):
    """PPO against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=3e-6, steps=200)
    rollout: RolloutSection
    ppo: PpoSection = PpoSection()

    @model_validator(mode="after")
    def _no_groups(self) -> PpoConfig:
        if self.rollout.resample_zero_spread is not None:
            raise ValueError("rollout.resample_zero_spread compares the responses of a group, and PPO has no groups")
        return _without_held_out(self, "PPO")


class GrpoConfig(RecipeConfig):
    """GRPO and its relatives against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=1e-6, steps=200)
    rollout: RolloutSection
    grpo: GrpoSection = GrpoSection()

    @model_validator(mode="after")
    def _nothing_idle(self) -> GrpoConfig:
        return _without_held_out(self, "GRPO")


class RlooConfig(RecipeConfig):
    """RLOO against a reward model: `data` holds prompts, `optim.steps` counts updates."""

    optim: OptimSection = OptimSection(learning_rate=1e-6, steps=200)
    rollout: RolloutSection
    rloo: RlooSection = RlooSection()

    @model_validator(mode="after")
    def _nothing_idle(self) -> RlooConfig:
        return _without_held_out(self, "RLOO")


RECIPES: dict[str, type[RecipeConfig]] = {
    "sft": SftConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "kto": KtoConfig,
    "orpo": OrpoConfig,
    "online-dpo": OnlineDpoConfig,
    "ppo": PpoConfig,
    "grpo": GrpoConfig,
    "rloo": RlooConfig,
}
"""The schema of each training verb."""
