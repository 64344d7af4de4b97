"""Configuration: from a command line to one checked, frozen description of a run."""

from ripu.config import resolvers  # noqa: F401  conf/ calls them as ${ripu.NAME:...}
