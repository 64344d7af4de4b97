"""Data sets: one file each, all read into :class:`ripu.datasets.scenes.SceneDataset`."""
