"""A group of settings, and the kinds of number in it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
