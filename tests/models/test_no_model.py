"""There is no hidden default model: without one, the error says which variables to set."""

from collections.abc import Callable

import pytest

from kapelle.nodes.model import ModelAgent
from kapelle.state.errors import NoModel
from kapelle.state.task import Brief, Task

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize("model", [None, ""])
def test_no_model_is_an_error_that_says_how_to_name_one(model: str | None) -> None:
    with pytest.raises(NoModel, match=r"openai:NAME .*OPENAI_API_KEY.*OPENAI_BASE_URL"):
        ModelAgent("writer", model)


def test_no_key_is_an_error_that_says_which_variable_to_set() -> None:
    with pytest.raises(NoModel, match=r"openai:small has no key: set OPENAI_API_KEY"):
        ModelAgent("writer", "openai:small")


@pytest.mark.parametrize("model", ["small", ":small", "openai:"])
def test_a_model_without_a_provider_is_an_error_that_says_how_to_write_it(model: str) -> None:
    with pytest.raises(NoModel, match="write provider:name"):
        ModelAgent("writer", model)


def test_another_provider_needs_packages_that_the_error_names() -> None:
    with pytest.raises(NoModel, match="pip install langchain langchain-anthropic"):
        ModelAgent("writer", "anthropic:small")


async def test_key_and_server_are_taken_from_the_environment(
    scripted: Callable, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scripted(["ok"])
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    reply = await ModelAgent("writer", "openai:small").act(task, Brief())
    (request,) = server.requests
    assert reply.output == "ok"
    assert request.body["model"] == "small"
    assert request.headers["authorization"] == "Bearer a-key"


def test_the_key_shows_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    agent = ModelAgent("writer", "openai:small")
    assert "secret-key" not in f"{agent!r} {agent.card!r} {agent.model!r} {vars(agent)}"
