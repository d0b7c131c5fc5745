"""What a model costs: as its user says, else by the table of genai-prices; never nothing."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from langchain_core.language_models import BaseChatModel

from kapelle.state.price import Price


def name_of(model: BaseChatModel) -> str:
    """A model as `provider:name`, which prices and limits know it by; empty if it has no name."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    if not isinstance(name, str):
        return ""
    *_, last = type(model).get_lc_namespace()
    first = type(model).__module__.split(".")[0].removeprefix("langchain_")
    return f"{first if last == 'chat_models' else last}:{name.removeprefix('models/')}"


def cost(name: str, price: Price | None, told: Mapping[str, Any]) -> int | None:
    """Millionths of a US dollar for what LangChain's `usage_metadata` tells; None: nobody knows."""
    read, wrote = int(told["input_tokens"]), int(told["output_tokens"])
    details = told.get("input_token_details") or {}
    cached = min(read, int(details.get("cache_read") or 0))
    if price is not None:
        return price.of(read, wrote, cached)
    if not _is_known(name):
        return None
    return _listed(name, read, wrote, cached)


@cache
def _is_known(name: str) -> bool:
    try:
        _listed(name, 1, 1, 0)
    except LookupError:
        return False
    return True


def _listed(name: str, read: int, wrote: int, cached: int) -> int:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - a large table; without models not needed

    provider, _, model = name.partition(":")
    used = Usage(input_tokens=read, output_tokens=wrote, cache_read_tokens=cached)
    return math.ceil(calc_price(used, model, provider_id=provider or None).total_price * 1_000_000)
