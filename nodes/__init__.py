"""Verbs: what a box in a graph does, and the ports it needs."""
