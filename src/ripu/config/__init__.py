"""Configuration: from a command line to one checked, frozen description of a run."""
