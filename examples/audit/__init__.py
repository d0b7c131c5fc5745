"""An audit team: reads a body of Python code and leaves a report that a person has approved.

    plan ── per module ─┬─ security ──────┐
                        ├─ complexity ────┼─ summary ── synthesize ── judge ──> a person ──> publish
                        └─ documentation ─┘                 ^          │
                                                            └─ again ──┘

No model is needed: bandit, lizard and the `ast` do the looking. Start with `team.py`, which is the
drawing in code; each agent is a function in the file of its name.
"""
