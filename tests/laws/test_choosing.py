"""Who does what: by skill, evenly, and the same for every order in which it is asked."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.state.orders import assign
from kapelle.state.skills import AgentCard, choose, fits, is_a
from kapelle.state.task import Revision, Task
from tests.laws.drawn import SKILLS, cards, dags, ordered

skills = st.sampled_from(SKILLS)


@given(skills)
def test_a_skill_is_itself(skill: str) -> None:
    assert is_a(skill, skill)


@given(skills, skills, skills)
def test_is_a_goes_on(a: str, b: str, c: str) -> None:
    assert not (is_a(a, b) and is_a(b, c)) or is_a(a, c)


@given(skills, skills)
def test_two_skills_are_each_other_only_if_they_are_one(a: str, b: str) -> None:
    assert (is_a(a, b) and is_a(b, a)) == (a == b)


def test_the_beginning_of_a_word_is_no_wider_skill() -> None:
    assert is_a("research.web", "research")
    assert not is_a("research.web", "res")
    assert not is_a("researcher", "research")
    assert not is_a("research", "research.web")


@given(dags(), cards)
def test_who_fits_has_all_skills_or_is_the_one_named(
    tasks: tuple[Task, ...], team: list[AgentCard]
) -> None:
    for task in tasks:
        for card in team:
            has_all = all(any(is_a(s, w) for s in card.skills) for w in task.skills)
            assert fits(card, task) == (card.name == task.agent if task.agent else has_all)


@given(dags(), cards, ordered, st.data())
def test_assignment_is_the_same_for_every_order(
    tasks: tuple[Task, ...],
    team: list[AgentCard],
    orders: dict[str, Revision],
    data: st.DataObject,
) -> None:
    shuffled = data.draw(st.permutations(tasks))
    others = data.draw(st.permutations(team))
    assert assign(tasks, team, orders) == assign(shuffled, others, orders)


@given(dags(), cards, ordered)
def test_whoever_gets_a_task_fits_it_and_who_fits_none_is_left_out(
    tasks: tuple[Task, ...], team: list[AgentCard], orders: dict[str, Revision]
) -> None:
    chosen = assign(tasks, team, orders)
    by_name = {card.name: card for card in team}
    for task in tasks:
        if any(fits(card, task) for card in team):
            assert fits(by_name[chosen[task.id]], task)
        else:
            assert task.id not in chosen


@given(st.integers(1, 20), st.integers(1, 5))
def test_equal_agents_share_equally(many: int, agents: int) -> None:
    tasks = [Task(id=str(n), goal="work") for n in range(many)]
    team = [AgentCard(name=f"w{n}") for n in range(agents)]
    load = list(assign(tasks, team, {}).values())
    shares = [load.count(card.name) for card in team]
    assert max(shares) - min(shares) <= 1


def _pair() -> tuple[Task, list[AgentCard]]:
    return Task(id="a", goal="work"), [AgentCard(name="ann"), AgentCard(name="bob")]


def test_the_first_by_name_is_chosen_among_equals() -> None:
    task, team = _pair()
    assert choose(reversed(team), task, {}) == team[0]


def test_who_has_less_to_do_is_chosen() -> None:
    task, team = _pair()
    assert choose(team, task, {"ann": 1}) == team[1]


def test_who_failed_is_chosen_only_if_nobody_else_fits() -> None:
    task, team = _pair()
    assert choose(team, task, {"bob": 9}, avoid=["ann"]) == team[1]
    assert choose(team, task, {}, avoid=["ann", "bob"]) == team[0]


def test_nobody_is_chosen_for_what_nobody_can() -> None:
    _, team = _pair()
    assert choose(team, Task(goal="work", skills=("fly",)), {}) is None


def test_the_more_urgent_task_gets_the_freer_agent() -> None:
    team = [AgentCard(name="ann"), AgentCard(name="bob", skills=("write",))]
    late = Task(id="a", goal="work", priority=-1)
    soon = Task(id="b", goal="work", priority=1)
    assert assign([late, soon], team, {}) == {"b": "ann", "a": "bob"}


@given(dags(), cards)
def test_an_agent_to_avoid_gets_nothing_that_another_can_do(
    tasks: tuple[Task, ...], team: list[AgentCard]
) -> None:
    shunned = team[0].name
    orders = {t.id: Revision(task=t.id, number=1, avoid=(shunned,)) for t in tasks}
    chosen = assign(tasks, team, orders)
    for task in tasks:
        if any(fits(card, task) for card in team[1:]):
            assert chosen[task.id] != shunned
