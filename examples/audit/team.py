"""The audit team, drawn: `kapelle run audit`, or `kapelle.run(audit, "Audit my code")`.

Inputs of the task, all optional: `path`, the folder to audit (the standard library); `report`, the
file to leave (`report.md`).
"""

from examples.audit.complexity import complexity
from examples.audit.documentation import documentation
from examples.audit.judge import judge
from examples.audit.plan import plan
from examples.audit.publish import publish
from examples.audit.report import synthesize
from examples.audit.security import security
from examples.audit.summary import summary
from kapelle import Policy, as_agent
from kapelle.graphs import manager_worker, pipeline

team = manager_worker(
    plan=plan,
    workers=[security, complexity, documentation, summary],
    synthesize=synthesize,
    judge=judge,
    policy=Policy(timeout=120, rounds=1, reviews=0),
)
"""Looks, adds up, has the thin parts looked at again, and shows a person what is severe."""

audit = pipeline([as_agent(team, name="team"), publish])
"""Publishes what the team found, once it may."""
