"""The schema of a study file: one question, arms, seeds, stages, evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_origin

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from trueup.config.load import leaves
from trueup.config.schema import RECIPES, DecodingSection
from trueup.config.section import Section
from trueup.errors import nearest

OF_THE_STUDY = ("model.", "data.", "run.", "rollout.reward")
"""Settings of a recipe that a study sets itself (beginnings of their dotted keys)."""

Method = Literal["dpo", "ppo", "grpo"]


class TinyModelSection(Section):
    """The one model and tokenizer of all arms, trained from scratch."""

    preset: str = Field(default="seed", description="shape of the model")
    vocabulary: PositiveInt = Field(default=640, description="most tokens of the tokenizer")
    context: PositiveInt = Field(default=128, description="positions")


class PairsSection(Section):
    """Where preference pairs come from: two samples of the SFT model, labelled by the world's annotator."""

    prompts: PositiveInt = Field(default=4000, description="prompts, one pair each")
    validation: PositiveInt = Field(default=600, description="held-out pairs, from validation prompts")
    decoding: DecodingSection = DecodingSection()


class EvaluationSection(Section):
    """The suite, the same for every arm."""

    prompts: PositiveInt = Field(default=300, description="held-out test prompts")
    draws: PositiveInt = Field(default=4, description="responses a prompt")
    decoding: DecodingSection = DecodingSection()


class TuneSection(Section):
    """A setting chosen on validation prompts by mean gold, on the first seed, before the test set is opened."""

    key: str = Field(description="the setting, for instance ppo.kl_coef or rollout.decoding.temperature")
    values: Annotated[list[float], Field(min_length=2)] = Field(description="the values tried")
    prompts: PositiveInt = Field(default=200, description="validation prompts")


class ArmSection(Section):
    """One method with one setting."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="identifier")
    label: str = Field(description="name in the report")
    method: Method
    setting: Literal["published", "tuned"] = Field(description="how the report groups it")
    config: dict[str, Any] = Field(default_factory=dict, description="sections of the recipe (optim, ppo, ...)")
    tune: TuneSection | None = Field(default=None, description="a setting chosen on validation prompts")

    @model_validator(mode="after")
    def _known_setting(self) -> ArmSection:
        if self.tune is None:
            return self
        fields = {k: f for k, f in leaves(RECIPES[self.method]).items() if not k.startswith(OF_THE_STUDY)}
        open_ended = tuple(f"{key}." for key, field in fields.items() if get_origin(field.annotation) is dict)
        key = self.tune.key
        if key not in fields and not key.startswith(open_ended):
            raise ValueError(
                f"arm '{self.name}': tune.key: '{key}' is no setting of {self.method} that a study can choose"
                + nearest(key, fields)
            )
        return self


class StudyConfig(Section):
    """A study: what is asked, what is trained, how it is judged. Frozen and hashed before it runs."""

    name: str
    question: str
    world: str = Field(description="a world's name, or file.py:attribute")
    model: TinyModelSection = TinyModelSection()
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default=[0, 1, 2], description="each is a whole pipeline")
    sft: dict[str, Any] = Field(default_factory=dict, description="settings of the sft recipe")
    pairs: PairsSection = PairsSection()
    reward: dict[str, Any] = Field(default_factory=dict, description="settings of the reward recipe")
    arms: Annotated[list[ArmSection], Field(min_length=1)]
    evaluation: EvaluationSection = EvaluationSection()
    smallest_effect: PositiveFloat = Field(default=0.1, description="smallest difference in gold that matters")

    @model_validator(mode="after")
    def _distinct(self) -> StudyConfig:
        names = ["sft", *(arm.name for arm in self.arms)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arm names must differ; twice: {', '.join(twice)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ: {self.seeds}")
        return self
