"""What all nouns share: frozen, keyword-only, strict about unknown fields."""

from pydantic import BaseModel, ConfigDict


class Noun(BaseModel):
    """A frozen value. Two nouns with equal fields are equal."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )
