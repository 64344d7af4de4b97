"""Loading: what a training step reads, in an order that depends on seed and position alone."""
