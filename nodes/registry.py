"""Agents that can be found at run time: of this process, and of installed packages.

A package offers agents as entry points of the group `kapelle.agents`, each under its card's name.
They are loaded when somebody first looks for agents.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from kapelle.nodes.agent import Agent
from kapelle.nodes.in_memory import MemoryRegistry
from kapelle.nodes.pattern import must_be_agent
from kapelle.state.errors import Misbuilt
from kapelle.state.skills import PLAIN, Ontology, fits
from kapelle.state.task import Task

GROUP = "kapelle.agents"

log = logging.getLogger("kapelle")


class InstalledRegistry(MemoryRegistry):
    """Agents of this process, then those of installed packages; the former keep their names."""

    def find(self, task: Task, ontology: Ontology = PLAIN) -> Sequence[Agent]:
        """Those whose card fits, by name."""
        own = set(self._agents)
        more = [
            a for a in self.installed if a.card.name not in own and fits(a.card, task, ontology)
        ]
        return sorted([*super().find(task, ontology), *more], key=lambda a: a.card.name)

    @cached_property
    def installed(self) -> Sequence[Agent]:
        """The agents of installed packages."""
        return installed_agents()


def installed_agents() -> list[Agent]:
    """The agents that installed packages offer, by name; what is no such agent is logged.

    A name that two packages claim is nobody's, and no card may say another name than its entry.
    """
    offered = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    claims = Counter(entry.name for entry in offered)
    found = []
    for entry in offered:
        try:
            found.append(_loaded(entry, claims[entry.name]))
        except Exception as error:  # noqa: BLE001  another's module may raise anything
            log.warning("entry point %s = %s is left out: %s", entry.name, entry.value, error)
    return found


def _loaded(entry: EntryPoint, claims: int) -> Agent:
    if claims > 1:
        raise Misbuilt(f"{claims} packages claim the name {entry.name!r}")
    agent = must_be_agent(entry.load())
    if agent.card.name != entry.name:
        raise Misbuilt(f"its card claims the name {agent.card.name!r}")
    return agent
