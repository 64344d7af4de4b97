"""The training loop: evaluation, metrics, failed steps and the Lightning callbacks of a run."""
