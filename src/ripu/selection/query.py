"""The query of a round on one image: the unit, its radii and the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ripu.io.errors import ConfigError

DEFAULT_IMAGE_CAP = 4.0


@dataclass(frozen=True)
class Query:
    """The labelling mode of a run (Eq. 2).

    Attributes:
        pixel: True: a pick asks about its own pixel (PA). False: about its whole square (RA).
        radius: k, the radius in pixels of the window N_k at label resolution.
        suppress_radius: Later picks keep more than this Chebyshev distance from a pick.
        budget: RA: share of the label's pixels over all rounds, in (0, 1]. PA: pixels per image over all rounds,
            counted at the training size.
        num_rounds: Rounds that share the budget.
        budget_per: ``image``: every image has the same share of the budget. ``dataset``: the same total goes to the
            best places of all images together.
        image_cap: With ``dataset``, the most that one image gets in a round, in multiples of its share; at least 1.
        grid: PA: the pixels that picks lie on and radii count. ``label``: those of the label; the budget, which counts
            pixels at the training size, is scaled up. ``training``: the pixels of the label that training sees, see
            :class:`ripu.selection.grid.TrainingGrid`.
        whole_image: True: a pick asks about every pixel of an image. The budget is a share of the images, and images
            share it; radii have no effect.
    """

    pixel: bool
    radius: int
    suppress_radius: int
    budget: float
    num_rounds: int
    budget_per: str = "image"
    image_cap: float = DEFAULT_IMAGE_CAP
    grid: str = "label"
    whole_image: bool = False

    def __post_init__(self) -> None:
        if self.whole_image and (self.pixel or self.budget_per != "dataset"):
            raise ConfigError(
                f"mode.whole_image=true with mode.pixel={self.pixel} and mode.budget_per={self.budget_per} is not "
                "defined: whole images compete for one budget; use mode=images"
            )
        if self.budget_per not in ("image", "dataset"):
            raise ConfigError(f"mode.budget_per={self.budget_per} is unknown; use image or dataset")
        if not (math.isfinite(self.image_cap) and self.image_cap >= 1):
            raise ConfigError(
                f"mode.image_cap={self.image_cap} must be 1 or more: the most that one image gets in a round, in "
                "multiples of its share"
            )
        if self.grid not in ("label", "training") or (self.grid == "training" and not self.pixel):
            raise ConfigError(f"protocol.pixel_grid={self.grid} is unknown; use label, or for mode=pa training")
        if self.radius < 0 or self.suppress_radius < 0:
            raise ConfigError(
                f"mode.radius={self.radius} and mode.suppress_radius={self.suppress_radius} are pixels at label "
                "resolution and must be 0 or more"
            )
        if not self.pixel and self.suppress_radius < 2 * self.radius:
            raise ConfigError(
                f"mode.suppress_radius={self.suppress_radius} lets regions of radius {self.radius} overlap, so that "
                f"a pixel would be paid for twice; give {2 * self.radius} or more"
            )
        if self.pixel and (self.budget < 1 or self.budget != int(self.budget)):
            raise ConfigError(
                f"budget={self.budget} is not a number of pixels; mode=pa takes whole pixels per image (the paper: "
                "40), mode=ra a share of the image"
            )
        if self.whole_image and not 0.0 < self.budget <= 1.0:
            raise ConfigError(
                f"budget={self.budget} is not a share of the images; mode=images takes a share in (0, 1] (the paper: "
                "0.05)"
            )
        if not self.pixel and not 0.0 < self.budget <= 1.0:
            raise ConfigError(
                f"budget={self.budget} is not a share of an image; mode=ra takes a share in (0, 1] (the paper: "
                "0.022 or 0.05), mode=pa whole pixels"
            )

    @property
    def reveal_radius(self) -> int:
        """The radius of the square that a pick asks about."""
        return 0 if self.pixel else self.radius

    def picks_per_round(self, label_size: tuple[int, int], train_size: tuple[int, int]) -> int:
        """Return the number of picks per image and round.

        RA: ``ceil(H * W * budget / rounds / (2k+1)^2)``. PA: ``ceil(budget / rounds * (H * W) / (h * w))``: the budget
        counts pixels at the training size (h, w) and is scaled to the label's size (H, W); on the training grid it is
        ``ceil(budget / rounds)``. At least 1. Whole images: 1, the most that an image can have.
        """
        area = label_size[0] * label_size[1]
        if self.whole_image:
            return 1
        if self.grid == "training":
            exact = self.budget / self.num_rounds
        elif self.pixel:
            exact = self.budget / self.num_rounds * area / (train_size[0] * train_size[1])
        else:
            exact = area * self.budget / self.num_rounds / (2 * self.radius + 1) ** 2
        return max(1, math.ceil(round(exact, 9)))  # 9 digits: 0.05 * 100 / 5 is one pick, not two

    def most_picks(self, label_size: tuple[int, int], train_size: tuple[int, int]) -> int:
        """Return the most picks of one image in a round: its share, or the cap if images share the budget."""
        share = self.picks_per_round(label_size, train_size)
        return share if self.budget_per == "image" or self.whole_image else math.ceil(round(self.image_cap * share, 9))

    def images_until(self, num_images: int, round_index: int) -> int:
        """Return the most whole images that may have been queried by the end of a round, of ``num_images``.

        ``ceil(num_images * budget * (round + 1) / rounds)``
        """
        return math.ceil(round(num_images * self.budget * (round_index + 1) / self.num_rounds, 9))

    def pixels_until(self, label_size: tuple[int, int], round_index: int) -> int:
        """Return the most pixels of an image that may have been queried by the end of a round.

        This is the budget of regions of fixed shape, whose sizes differ:
        ``floor(H * W * budget * (round + 1) / rounds)``. The next round may spend what a round has left.
        """
        exact = label_size[0] * label_size[1] * self.budget * (round_index + 1) / self.num_rounds
        return math.floor(round(exact, 9))
