"""Commands that look after something: each group in a room of its own, and what all take."""
