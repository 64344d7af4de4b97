"""Input and output: files, locks, errors, the console and signals. Everything else may import this package."""
