"""Streets, the default data set: generated domains in the layouts of GTAV, SYNTHIA and Cityscapes.

A seeded generator paints street scenes with all 19 classes of Cityscapes in a game-like source style and a camera-like
target style, so that everything runs without a download::

    python -m ripu.datasets.streets --root data/streets --seed 0 --preview streets.png

Classes differ in shape rather than colour, and share colours; source and target differ in palette, light, weather,
lens, sensor, camera height and in how often things occur.
"""

from ripu.datasets.streets.preview import write_preview
from ripu.datasets.streets.write import GENERATOR_VERSION, MANIFEST, generate

__all__ = ["GENERATOR_VERSION", "MANIFEST", "generate", "write_preview"]
