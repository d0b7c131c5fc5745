"""Laws are tested with drawn values: always the same ones, so that what failed once fails again."""

from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("laws")
