"""What all nouns share: frozen, keyword-only, strict about unknown fields."""

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import from_json, to_json


class Noun(BaseModel):
    """A frozen value. Two nouns with equal fields are equal."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

    def document(self) -> dict[str, JsonValue]:
        """The noun as plain JSON that every reader takes: NaN and infinity stand in it as text."""
        made: dict[str, JsonValue] = standard(self.model_dump(mode="json"))
        return made


def standard(value: object) -> Any:
    """A value as JSON by the standard, which knows neither NaN nor infinity: they become text.

    >>> standard({"x": [1.5, float("nan")]})
    {'x': [1.5, 'NaN']}
    """
    return from_json(to_json(value, inf_nan_mode="strings"))
