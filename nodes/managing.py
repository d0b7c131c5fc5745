"""The boxes of a manager in a tree: it opens its branch, sends its children to work, has it merged.

A child finds its items in the state of its manager's graph, so that nothing is sent but its name.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeGuard

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from kapelle.nodes.agent import Agent
from kapelle.nodes.board import close_boards
from kapelle.nodes.branching import after_failure, anew, answered, message
from kapelle.nodes.call import call
from kapelle.nodes.ending import tell_end
from kapelle.nodes.here import Here, here
from kapelle.nodes.services import Services
from kapelle.nodes.starting import begin
from kapelle.nodes.validating import plain
from kapelle.state.ladder import weighed
from kapelle.state.leaving import NOBODY_ASKED
from kapelle.state.manager import (
    ask_of_tree,
    asking,
    due,
    gone_on_with,
    good_ones,
    held,
    left_held,
    left_tree,
    lost_children,
    may_be_held,
    once_answered,
    refused_tree,
)
from kapelle.state.policy import Policy
from kapelle.state.task import Brief, Failure, Result, Revision, Task
from kapelle.state.tree import (
    MANAGE,
    MERGE,
    Branching,
    Costs,
    Tree,
    children_of,
    goals_from,
    leaves_of,
    levels_of,
    managers_of,
    others_of,
    tree_flaw,
    width_of,
)

Merge = Agent | Callable[[Any], object]
"""Who merges: an agent, told the results; or a plain function of the list of outputs."""

SAMPLE = 20
"""Items a manager is shown of those in its branch."""


class Box(Protocol):
    """A node of a manager."""

    async def __call__(self, state: Tree, *, runtime: Runtime[Services]) -> dict[str, Any]:
        """What happened, as an update."""
        ...


def open_root(
    teams: Sequence[str],
    branching: Branching | Costs,
    manager: Agent | None,
    policy: Policy,
    graphs: Collection[str],
) -> Box:
    """The node that opens a tree: it counts the items and chooses the branching.

    Of `graphs`, each may turn to a person before it has a result.
    """
    staff: Any = {"managed": manager is not None, "graphs": graphs}

    async def open_tree(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, place = state["task"], here(runtime)
        await begin(place, task, policy)
        if teams:
            return await _opened(task, list(teams), place, policy, **staff)
        flaw, items = tree_flaw(task, policy), len(leaves_of(task) or [])
        width = width_of(branching, items, policy)
        if flaw or not items:
            left = refused_tree(task, flaw) if flaw else Result(task=task.id, status="done")
            return await _opened(task, [], place, policy, **staff) | {"result": left}
        managers = managers_of(items, width)
        why = f"{items} items, {width} to a manager: {managers} managers"
        place.tell("choice", "branched", task=task.id, why=why, data={"managers": managers})
        children = children_of(0, items, width)
        laid_out: Any = {"at": 0, "branching": width}
        return await _opened(task, children, place, policy, **laid_out, **staff)

    return open_tree


def open_branch(manager: Agent | None, policy: Policy, graphs: Collection[str]) -> Box:
    """The node that opens a branch of a tree."""
    staff: Any = {"managed": manager is not None, "graphs": graphs}

    async def open_tree(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, at, width = state["task"], state["at"], state["branching"]
        children = children_of(at, len(leaves_of(task) or []), width)
        laid_out: Any = {"at": at, "branching": width}
        before: Any = {"kept": state["results"], "capped": state["capped"]}
        return await _opened(task, children, here(runtime), policy, **laid_out, **before, **staff)

    return open_tree


async def _opened(  # noqa: PLR0913 - each is a part of the state
    task: Task,
    children: list[str],
    place: Here,
    policy: Policy,
    *,
    at: int | None = None,
    branching: int = 0,
    kept: dict[str, Result] | None = None,
    capped: bool = False,
    managed: bool,
    graphs: Collection[str],
) -> dict[str, Any]:
    fresh: Tree = {
        "task": task,
        "at": at or 0,
        "levels": 0 if at is None else levels_of(len(leaves_of(task) or []), branching),
        "branching": branching,
        "children": children,
        "context": await place.context(task, policy),
        "goals": {},
        "results": kept or {},
        "revisions": gone_on_with((kept or {}).values(), {}),
        "capped": capped,
        "result": None,
        "held": False,
    }
    if MANAGE in fresh["results"]:
        fresh["goals"] = _goals(fresh["results"][MANAGE], fresh)
    fresh["sent"] = _sent(fresh, place, policy, managed=managed) if children else []
    fresh["held"] = may_be_held(fresh, graphs)
    results, orders = Overwrite(fresh["results"]), Overwrite(fresh["revisions"])
    return {**fresh, **NOBODY_ASKED, "results": results, "revisions": orders}


def managing(manager: Agent, policy: Policy) -> Box:
    """The node in which a manager says what its children are to do."""

    async def manage(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, place, children = state["task"], here(runtime), state["children"]
        others = {k: v for k, v in task.inputs.items() if k not in ("items", "item", "results")}
        items = leaves_of(task) or []
        shown: dict[str, Any] = {
            "children": children,
            "count": len(items),
            "sample": items[:SAMPLE],
        }
        given = shown if state["levels"] else {"children": children}
        mine = task.model_copy(update={"id": MANAGE, "inputs": {**others, **given}})

        def flaws(output: Any) -> list[str]:
            try:
                goals_from(output, children)
            except ValueError as error:
                return [str(error)]
            return []

        result = await _by_itself(manager, mine, {}, state, place, policy, flaws)
        return {"results": {MANAGE: result}, "sent": []}

    return manage


def is_agent(merge: Merge) -> TypeGuard[Agent]:
    """Whether merging takes a node of its own."""
    return hasattr(merge, "card")


def merging(merge: Merge, policy: Policy) -> Box:
    """The node in which what the children made becomes one."""

    async def merge_them(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        task, good = state["task"], good_ones(state)
        if not is_agent(merge):
            made = anew(_merged(merge, state, policy), state["results"].get(MERGE))
            return {"results": {MERGE: made}, "sent": []}
        mine = task.model_copy(update={"id": MERGE, "inputs": others_of(task)})
        result = await _by_itself(merge, mine, good, state, here(runtime), policy, None)
        return {"results": {MERGE: result}, "sent": []}

    return merge_them


async def _by_itself(
    agent: Agent,
    task: Task,
    given: dict[str, Result],
    state: Tree,
    place: Here,
    policy: Policy,
    check: Any,
) -> Result:
    order, last = state["revisions"].get(task.id), state["results"].get(task.id)
    brief = Brief(
        results=given,
        context=await place.context(task, policy),
        feedback=order.feedback if order else (),
        missing={} if task.id == MANAGE else lost_children(state),
    )
    result = await call(agent, task, brief, here=place, policy=policy, check=check)
    return anew(weighed(result, policy), last)


def gathering(manager: Agent | None, policy: Policy, graphs: Collection[str], *, root: bool) -> Box:
    """The node every child returns to: it redoes what failed, asks, has it merged, or leaves.

    What is claimed in a whole tree is reconciled once, at its root.
    """
    managed = manager is not None

    async def gather(state: Tree, runtime: Runtime[Services]) -> dict[str, Any]:
        if root:  # its board is everybody's
            close_boards(runtime)
        place, answer = here(runtime), state["answer"]
        if not state["held"]:  # else each part told its own
            results = state["results"]
            answered(place, state["task"], {n: results[n] for n in state["sent"] if n in results})
        heard = once_answered(state, answer) if answer is not None else {}
        results, orders = _after_failures(state, place, policy)
        orders = {**orders, **heard.pop("revisions", {})}
        now = _folded(state, results, orders)
        now["capped"] = heard.get("capped", state["capped"])
        if managed and not state["goals"] and (said := now["results"].get(MANAGE)):
            now["goals"] = _goals(said, state)
        sent = _sent(now, place, policy, managed=managed)
        update: dict[str, Any] = {**heard, "results": results, "revisions": orders, "sent": sent}
        if sent or asking(now):
            now["sent"], context = sent, await place.context(state["task"], policy)
            apart = may_be_held(now, graphs)
            return update | {"goals": now["goals"], "context": context, "held": apart}
        if root and held(now, policy):
            ask = ask_of_tree(now)
            place.tell("escalation", "asked", task=ask.task, why=ask.reason, mark="budget")
            return update | {"goals": now["goals"], "escalation": ask}
        left = left_held(now) if held(now, policy) else left_tree(now)
        why = left.failure.message if left.failure else ""
        if root:
            tell_end(place, state, left, why)
        else:
            place.tell("run", left.status, task=left.task, why=why)
        return update | {"result": left}

    return gather


def _folded(state: Tree, results: dict[str, Result], orders: dict[str, Revision]) -> Tree:
    now: Tree = {**state, "results": {**state["results"], **results}}
    now["revisions"] = {**state["revisions"], **orders}
    return now


def _after_failures(
    state: Tree, place: Here, policy: Policy
) -> tuple[dict[str, Result], dict[str, Revision]]:
    """What is to be done about what failed, in this graph."""
    results: dict[str, Result] = {}
    orders: dict[str, Revision] = {}
    for name, result in state["results"].items():
        order = state["revisions"].get(name)
        now, again = after_failure(result, order, state["task"], place, policy)
        results |= {name: now} if now is not result else {}
        orders |= {name: again} if again else {}
    return results, orders


def _merged(merge: Any, state: Tree, policy: Policy) -> Result:
    good = good_ones(state)
    outputs: Any = {name: result.output for name, result in good.items()}
    if state["levels"]:
        outputs = [*outputs.values()]
    try:
        made = plain(merge(outputs), policy)
    except Exception as error:  # noqa: BLE001  a stranger's function may raise anything
        why = f"merging raised {type(error).__name__}: {error}"
        return Result(task=MERGE, status="failed", failure=Failure(kind="raised", message=why))
    return Result(task=MERGE, status="done", output=made)


def _goals(said: Result, state: Tree) -> dict[str, str]:
    try:
        return goals_from(said.output, state["children"]) if said.status == "done" else {}
    except ValueError:  # a person's own words
        return dict.fromkeys(state["children"], str(said.output))


def _sent(state: Tree, place: Here, policy: Policy, *, managed: bool) -> list[str]:
    """What goes to work now; the children among it are told so."""
    names = due(state, managed=managed, merging=not held(state, policy))
    if names not in ([], [MANAGE], [MERGE]):
        message(place, "request", state["task"], names)
    return names
