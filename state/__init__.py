"""Nouns and laws: what Kapelle speaks of, and the pure rules that fold and decide it."""
