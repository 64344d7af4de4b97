"""The frame of a run: its folder, its parts, its trainer, and what is left when it is over."""
