"""When a budget ends before the work does: what is missing, what it would cost, who adds to it."""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from kapelle.state.approval import Approval, Escalation
from kapelle.state.budget import Budget, Usage
from kapelle.state.task import Failure, Result, Revision

_BECAUSE = "; "


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
