"""The numbers that the docs claim, each measured by one name: `nox -s bench -- [NAME...]`."""
