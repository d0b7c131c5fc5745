"""When a budget ends before the work does: what is missing, what it would cost, who adds to it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from kapelle.state.approval import Approval, Ask, Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.task import Failure, Result, Revision

_BECAUSE = "; "

Amount = dict[str, Any]
"""How much, by unit: `tokens`, `calls`, `usd`, `seconds`."""


def cut_short(results: Iterable[Result]) -> Failure | None:
    """What the budget left no room for, and what that would have cost at most; None if nothing.

    What could not begin because it needs something the budget left no room for is counted in.
    """
    failures = [each.failure for each in results if each.failure is not None]
    short = [each for each in failures if each.kind == "budget"]
    if not short:
        return None
    behind = [each for each in failures if each.kind == "blocked" and each.wanted is not None]
    wanted = sum((each.wanted for each in (*short, *behind) if each.wanted), Usage())
    lost = sum(each.parts for each in (*short, *behind))
    what = "1 part" if lost == 1 else f"{lost} parts"
    cause = short[0].message.rpartition(_BECAUSE)[2]
    why = f"the budget left no room for {what}, at most {told(wanted)}{_BECAUSE}{cause}"
    accounts = dict.fromkeys(account for each in short for account in each.accounts)
    return Failure(kind="budget", message=why, wanted=wanted, accounts=tuple(accounts), parts=lost)


def told(usage: Usage) -> str:
    """An amount in words.

    >>> told(Usage(input_tokens=1200, calls=2, micro_usd=None))
    '1200 tokens, 2 calls, $?'
    """
    money = "$?" if usage.micro_usd is None else f"${usage.micro_usd / 1_000_000:g}"
    priced = [] if usage.micro_usd == 0 else [money]
    return ", ".join([f"{usage.tokens} tokens", f"{usage.calls} calls", *priced])


def ask_for_more(task: str, goal: str, short: Failure, missing: Iterable[str]) -> Escalation:
    """What a person is asked when the budget is exhausted: approved, what is missing is added."""
    wanted = short.wanted or Usage()
    add: dict[str, JsonValue] = {"tokens": wanted.tokens, "calls": wanted.calls}
    if wanted.micro_usd:
        add["usd"] = wanted.micro_usd / 1_000_000
    to: list[JsonValue] = [*short.accounts]
    lacking: list[JsonValue] = [*sorted(missing)]
    return Escalation(
        question=f"The budget for {goal!r} is exhausted. Add to it and go on?",
        reason=short.message,
        evidence={"add": add, "to": to, "missing": lacking},
        about="budget",
        task=task,
        offers=("approve", "edit", "reject"),
    )


def once_funded(results: Mapping[str, Result]) -> dict[str, Revision]:
    """The orders that follow when a person has added to the budget: what it left no room for."""
    return {
        name: Revision(task=name, number=result.revision + 1)
        for name, result in sorted(results.items())
        if result.failure is not None
        and result.failure.kind == "budget"
        and result.status == "failed"
    }


def added(asked: Escalation, answer: Approval) -> tuple[Budget, tuple[str, ...]]:
    """What a person adds, and to which accounts; their own figures count, if they give some."""
    shown = asked.evidence if isinstance(asked.evidence, dict) else {}
    given = answer.value if isinstance(answer.value, dict) else shown
    more = Budget.model_validate(given.get("add", given))
    to = shown.get("to")
    return more, tuple(map(str, to)) if isinstance(to, list) and to else ("",)


def goes_on(answer: Approval) -> bool:
    """Whether a person who was asked for more gave it."""
    return answer.decision in ("approve", "edit")


# -- several graphs of a run, each within another, whose budget is the same


def alike(one: Ask, other: Ask) -> bool:
    """Whether both ask for more in the same accounts of one run: a person answers them as one."""
    same = (one.thread, _account(one)) == (other.thread, _account(other))
    return one.about == other.about == "budget" and same


def together(asks: Iterable[Ask]) -> list[Ask]:
    """Asks as people see them: those that are alike as one, under the first one's id."""
    groups: dict[object, list[Ask]] = {}
    for place, ask in enumerate(asks):
        mine = (ask.thread, _account(ask)) if ask.about == "budget" else place
        groups.setdefault(mine, []).append(ask)
    return [group[0] if len(group) == 1 else _as_one(group) for group in groups.values()]


def shared(answer: Approval, asks: Sequence[Ask]) -> list[Approval]:
    """One answer as each of these asks, which are alike, is given it.

    Of a person's own figure each gets what it asks for, as long as there is some; the first what is
    left of it.
    """
    if not goes_on(answer) or not isinstance(answer.value, dict):
        return [answer for _ in asks]
    left: Amount = Budget.model_validate(answer.value.get("add", answer.value)).model_dump()
    parts: list[Amount] = []
    for ask in asks:
        wanted: Amount = _evidence(ask, "add", {})
        parts.append({unit: min(left.get(unit) or 0, most) for unit, most in wanted.items()})
        left |= {unit: (left.get(unit) or 0) - some for unit, some in parts[-1].items()}
    parts[0] |= {unit: parts[0].get(unit, 0) + more for unit, more in left.items() if more}
    return [answer.model_copy(update={"value": {"add": part}}) for part in parts]


def _as_one(asks: Sequence[Ask]) -> Ask:
    add: Amount = {}
    for ask in asks:
        for unit, more in _evidence(ask, "add", {}).items():
            add[unit] = add.get(unit, 0) + more
    lacking: list[JsonValue] = [
        f"{ask.task}/{name}" if name != ask.task else name
        for ask in asks
        for name in _evidence(ask, "missing", [])
    ]
    where = f"{len(asks)} graphs of the run"
    evidence: Any = {"add": add, "to": [*_account(asks[0])], "missing": lacking}
    return asks[0].model_copy(
        update={
            "question": f"The budget for {where} is exhausted. Add to it and go on?",
            "reason": _BECAUSE.join(dict.fromkeys(ask.reason for ask in asks)),
            "evidence": evidence,
        }
    )


def _account(ask: Ask) -> tuple[str, ...]:
    return tuple(map(str, _evidence(ask, "to", [])))


def _evidence(ask: Ask, name: str, default: Any) -> Any:
    shown = ask.evidence if isinstance(ask.evidence, dict) else {}
    return shown.get(name) or default
