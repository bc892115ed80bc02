"""Settings of the unit tests."""

from hypothesis import settings

# How long an example takes says something of the machine, which may be busy, and not of the code.
settings.register_profile("pinproof", deadline=None)
settings.load_profile("pinproof")
