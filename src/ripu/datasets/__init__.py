"""Data sets on disk: one file each, all read into :class:`ripu.datasets.scenes.SceneDataset`."""
