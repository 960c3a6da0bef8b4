"""Settings that every test shares."""

from hypothesis import settings

# Compiling and loading take time that a deadline would blame on the test; a fixed order makes every run the same run.
settings.register_profile("minids", deadline=None, derandomize=True)
settings.load_profile("minids")
