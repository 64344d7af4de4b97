"""Training: metrics, step failures and the Lightning callbacks of a run."""
