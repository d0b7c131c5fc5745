"""The planner: one task per module and concern, and a summary that needs the module's others."""

from examples.audit.modules import Module, modules_in, root_of
from kapelle import Plan, Task, agent

CONCERNS = {
    "security": "Find what is dangerous in {}.",
    "complexity": "Find what is hard to follow in {}.",
    "documentation": "Find what is not explained in {}.",
}


@agent(output=Plan)
def plan(task: Task) -> Plan:
    """Four tasks for each module below `inputs["path"]`; by default the standard library."""
    return Plan(tasks=tuple(t for module in modules_in(root_of(task)) for t in tasks_for(module)))


def tasks_for(module: Module) -> list[Task]:
    """The concerns of a module and its summary.

    The larger the module, the earlier: a large one started last would keep everyone waiting.
    """
    concerns = [_task(module, concern, goal) for concern, goal in CONCERNS.items()]
    summary = _task(module, "summary", "Say in a sentence how {} is.")
    return [*concerns, summary.model_copy(update={"needs": tuple(t.id for t in concerns)})]


def _task(module: Module, concern: str, goal: str) -> Task:
    return Task(
        id=f"{module.name}.{concern}",
        goal=goal.format(module.name),
        inputs={"module": module.name, "path": str(module.path)},
        skills=(f"audit.{concern}",),
        priority=module.size,
    )
