"""Dashboards: W&B and TensorBoard, and the callback that fills them."""
