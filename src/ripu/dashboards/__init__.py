"""Dashboards: W&B and TensorBoard, filled while a run trains."""
