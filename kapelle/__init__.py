"""Kapelle conducts many AI agents toward one goal, as LangGraph graphs kept in SQL."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for real each is imported when it is used: LangGraph alone takes a second
    from kapelle.checkpoints.database import Database
    from kapelle.execution import Run
    from kapelle.nodes.agent import agent, as_agent
    from kapelle.nodes.effect import effect
    from kapelle.nodes.estimating import estimate
    from kapelle.nodes.model import ModelAgent
    from kapelle.nodes.tiers import Tiers
    from kapelle.nodes.toolbox import consequential
    from kapelle.runs import Runs, arun, run
    from kapelle.state.approval import Approval, Escalation
    from kapelle.state.budget import Budget
    from kapelle.state.policy import Policy
    from kapelle.state.task import Brief, Plan, Reply, Task
    from kapelle.state.verdict import Verdict

__all__ = [
    "Approval",
    "Brief",
    "Budget",
    "Database",
    "Escalation",
    "ModelAgent",
    "Plan",
    "Policy",
    "Reply",
    "Run",
    "Runs",
    "Task",
    "Tiers",
    "Verdict",
    "agent",
    "arun",
    "as_agent",
    "consequential",
    "effect",
    "estimate",
    "run",
]

_HOMES = {
    "checkpoints.database": ("Database",),
    "nodes.agent": ("agent", "as_agent"),
    "nodes.effect": ("effect",),
    "nodes.estimating": ("estimate",),
    "nodes.model": ("ModelAgent",),
    "nodes.tiers": ("Tiers",),
    "nodes.toolbox": ("consequential",),
    "runs": ("Runs", "arun", "run"),
    "execution": ("Run",),
    "state.approval": ("Approval", "Escalation"),
    "state.budget": ("Budget",),
    "state.policy": ("Policy",),
    "state.task": ("Brief", "Plan", "Reply", "Task"),
    "state.verdict": ("Verdict",),
}

if not TYPE_CHECKING:  # or type checkers would take any name for a public one

    def __getattr__(name: str) -> object:
        """A public name, imported when it is first used."""
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(f"kapelle.{home}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
