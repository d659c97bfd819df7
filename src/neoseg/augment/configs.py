"""How strongly training batches are changed; no torch here, so that configurations load fast."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from ..errors import ConfigError

__all__ = ["LARGEST_MOVE", "AugmentConfig", "Probability"]

Probability = Annotated[float, Field(ge=0, le=1)]

LARGEST_MOVE = 0.4
"""Largest displacement of a control point along an axis, in control spacings, that cannot fold the image.

Source: Choi and Lee, Graphical Models 62 (2000): cubic B-splines are one to one below 0.4033 spacings in 3-D, 0.4886 in
2-D.
"""


class AugmentConfig(BaseModel, frozen=True, extra="forbid"):
    """Probability and range of each transform; probability 0 switches one off.

    A probability counts for a sample of the batch; ranges are drawn for each channel where the text says so. The
    defaults follow nnU-Net v2 but for these: rotations out of the slice plane are smaller, and 2-D images and thick
    slices turn by up to 30 degrees in place of 180; gamma has one probability, a quarter of it for the inverted image,
    and is drawn log-uniformly. Elastic deformation, anisotropy, ghosting, bias field, colour and dropped modality are
    off by default: whether they help depends on how the scans were made.

    Where slices are more than three times as thick as the finest voxel side, rotation, zoom, deformation, blur and
    low resolution stay in their plane.

    Attributes:
        rotation_probability: of a rotation about all three axes, in mm, around the patch centre; with thick slices,
            about the axis across them only.
        rotation_degrees: largest angle about x, y and z; a 2-D image turns by the last one.
        scaling_probability: of a zoom.
        scaling_range: zoom factor, drawn log-uniformly, equal along all axes, but for the one across thick slices,
            which keeps its size; above 1 enlarges.
        elastic_probability: of a smooth deformation, by a grid of control points that move at random.
        elastic_spacing_mm: distance of the control points.
        elastic_displacement_mm: most that a control point moves along an axis, drawn for the sample; at most 0.4 of
            ``elastic_spacing_mm``, so that the image cannot fold. Nothing moves across thick slices.
        flip_probability: of a flip along each of the axes.
        flip_axes: axes that may be flipped; 0 is left-right. A 2-D image has no axis 2. Leave 0 out where classes are
            of one side each.
        blur_probability: of a Gaussian blur.
        blur_sigma: its standard deviation in voxels, drawn for each channel.
        low_resolution_probability: of sampling down (nearest) and up again (linear).
        low_resolution_range: factor of the number of voxels along each axis but the one across thick slices, drawn for
            each channel.
        anisotropy_probability: of thicker slices: averages along one axis, the one with the thickest voxels or,
            among equals, a drawn one, sampled up again (linear).
        anisotropy_range: thickness of a slice in voxels, at least 1, drawn for each channel.
        ghosting_probability: of motion ghosts: along the phase-encoding axis a weak copy is added on one side and
            taken away on the other.
        ghosting_axes: axes that may be the phase-encoding one; 0 is left-right, 1 back-front. A 2-D image has no
            axis 2. The axis across thick slices is left out where others are named: slices are excited one by one.
        ghosting_period: of the disturbance in lines of k-space, at least 2; the copies lie one period-th of the patch
            away. 2 is the ghost of echo-planar images, one copy half a patch away.
        ghosting_strength: of a copy as a share of the image, 0 to 1, drawn for each channel, with either sign.
        channel_probability: share of the channels that blur, low resolution, anisotropy and ghosting touch when they
            happen.
        bias_field_probability: of a smooth factor, as from the sensitivity of a coil. It cancels in an ADC map, which
            is a ratio of images, so leave it off there.
        bias_field_ratio: of its largest to its smallest value inside the image, at least 1, drawn log-uniformly for
            each channel; the geometric mean is 1.
        bias_field_order: degree of the polynomial that is its logarithm.
        colour_probability: of colours mixed anew: each channel becomes a weighted mean of all, as another stain or
            camera would give. For the colours of a picture; channels of different sequences cannot be mixed. A grey
            picture stays as it is, and nothing happens to an image of one channel.
        colour_range: share of the mixture in the new channel, 0 to 1, drawn for the sample; its weights are drawn
            uniformly among those that add up to 1, for half of the samples once for all channels: they become paler,
            and grey with a share of 1.
        brightness_probability: of a multiplication.
        brightness_range: its factor, drawn for each channel.
        contrast_probability: of a multiplication around the mean, clipped to the range before.
        contrast_range: its factor, drawn for each channel.
        gamma_probability: of a power of the range-normalised image; mean and standard deviation are kept.
        gamma_range: its exponent, drawn log-uniformly for each channel.
        gamma_inverted_share: share of those in which the image is turned upside down for the power.
        noise_probability: of Gaussian noise.
        noise_sd: its standard deviation, drawn uniformly for each channel, in units of the normalised image. Under the
            rule "none" that is the unit of the map, in which 0.1 may be nothing or everything: set it by its values.
        dropped_modality_probability: that one channel of a sample is set to the fill value, as if it had not been
            taken; nothing happens to an image of one channel.
        keep_background: voxels at the fill value in all channels, but for the ripples of resampling, are at it after
            the intensity changes, so that skull-stripped surroundings stay empty. Unless it is set, it is off
            where black is a grey level at that value: in pictures with a channel under "percentile", "range" or "none",
            and in volumes all of whose channels are under the first, which cuts dark lesions off there.
    """

    rotation_probability: Probability = 0.2
    rotation_degrees: tuple[float, float, float] = (15.0, 15.0, 30.0)
    scaling_probability: Probability = 0.2
    scaling_range: tuple[float, float] = (0.7, 1.4)
    elastic_probability: Probability = 0.0
    elastic_spacing_mm: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    elastic_displacement_mm: tuple[float, float] = (2.0, 8.0)
    flip_probability: Probability = 0.5
    flip_axes: tuple[int, ...] = (0, 1, 2)
    blur_probability: Probability = 0.2
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    low_resolution_probability: Probability = 0.25
    low_resolution_range: tuple[float, float] = (0.5, 1.0)
    anisotropy_probability: Probability = 0.0
    anisotropy_range: tuple[float, float] = (1.5, 4.0)
    ghosting_probability: Probability = 0.0
    ghosting_axes: tuple[int, ...] = (0, 1)
    ghosting_period: tuple[int, int] = (2, 6)
    ghosting_strength: tuple[float, float] = (0.05, 0.25)
    channel_probability: Probability = 0.5
    bias_field_probability: Probability = 0.0
    bias_field_ratio: tuple[float, float] = (1.1, 1.8)
    bias_field_order: int = Field(default=3, ge=1, le=6)
    colour_probability: Probability = 0.0
    colour_range: tuple[float, float] = (0.2, 1.0)
    brightness_probability: Probability = 0.15
    brightness_range: tuple[float, float] = (0.75, 1.25)
    contrast_probability: Probability = 0.15
    contrast_range: tuple[float, float] = (0.75, 1.25)
    gamma_probability: Probability = 0.3
    gamma_range: tuple[float, float] = (0.7, 1.5)
    gamma_inverted_share: Probability = 0.25
    noise_probability: Probability = 0.1
    noise_sd: tuple[float, float] = (0.0, 0.1)
    dropped_modality_probability: Probability = 0.0
    keep_background: bool = True

    @model_validator(mode="after")
    def _ranges_that_can_be_drawn_from(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def require_axes(self, axes: int) -> None:
        """Refuse flips and ghosts along axes none of which the images have.

        Args:
            axes: spatial axes of the images, 2 or 3.

        Raises:
            ConfigError: naming the key.
        """
        for name in ("flip", "ghosting"):
            given = getattr(self, f"{name}_axes")
            if getattr(self, f"{name}_probability") > 0 and given and min(given) >= axes:
                raise ConfigError(
                    f"augment.{name}_axes = {list(given)}: the images have {axes} axes, counted from 0 to {axes - 1}, "
                    f"so that none of these is left; name others, or set augment.{name}_probability to 0."
                )

    def require_room(self, patch: Sequence[int], spacing_mm: Sequence[float]) -> None:
        """Refuse deformations that may move all of a patch out of it.

        Args:
            patch: voxels on each axis.
            spacing_mm: of a voxel.

        Raises:
            ConfigError: the largest displacement is more than half of the patch's second largest side.
        """
        room = sorted(n * side for n, side in zip(patch, spacing_mm, strict=True))[-2] / 2
        if self.elastic_probability > 0 and self.elastic_displacement_mm[1] > room:
            raise ConfigError(
                f"augment.elastic_displacement_mm ends at {self.elastic_displacement_mm[1]:g}, but half of the patch "
                f"is {room:.3g} mm: lower it and elastic_spacing_mm to the size of what is seen, or set "
                "augment.elastic_probability to 0."
            )

    def for_images(self, axes: int, rules: Collection[str]) -> AugmentConfig:
        """Return the configuration for images of so many axes, normalised by these rules; see ``keep_background``."""
        # "percentile" puts what is below its range at the fill value, dark lesions too; the black of a picture lies
        # there under the rules that keep its level
        black = set(rules) <= {"percentile"} if axes == 3 else not {"percentile", "range", "none"}.isdisjoint(rules)
        if not black or "keep_background" in self.model_fields_set:
            return self
        return self.model_copy(update={"keep_background": False})

    def _problems(self) -> Iterator[str]:
        least = {
            "blur_sigma": (0.0, "0 voxels: it is a width"),
            "noise_sd": (0.0, "0: it is a spread"),
            "elastic_displacement_mm": (0.0, "0 mm: it is a length"),
            "anisotropy_range": (1.0, "1 voxel: a slice cannot become thinner"),
            "ghosting_period": (2.0, "2 lines, the fastest change there is"),
            "ghosting_strength": (0.0, "0: the sign is drawn"),
            "colour_range": (0.0, "0: it is a share"),
            "bias_field_ratio": (1.0, "1: it is the largest value over the smallest"),
        }
        above = {
            "scaling_range": "its logarithm is drawn",
            "gamma_range": "its logarithm is drawn",
            "low_resolution_range": "some voxels have to be left",
            "brightness_range": "a factor of 0 leaves nothing of the image",
            "contrast_range": "a factor of 0 leaves nothing of the image",
        }
        for name in (*least, *above):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high)):
                yield f"{name} has to be two finite numbers, but it is {low:g}, {high:g}"
            if low > high:
                yield f"{name} has to run from the smaller to the larger number, but it is {low:g}, {high:g}"
            if name in above and low <= 0:
                yield f"{name} has to lie above 0: {above[name]}; but it begins at {low:g}"
            if name in least and low < least[name][0]:
                yield f"{name} has to be at least {least[name][1]}; but it begins at {low:g}"
        if not all(math.isfinite(angle) for angle in self.rotation_degrees):
            yield f"rotation_degrees has to be three finite numbers, but it is {_listed(self.rotation_degrees)}"
        if self.low_resolution_range[1] > 1:
            yield (
                f"low_resolution_range ends at {self.low_resolution_range[1]:g}, but the voxels that there are, 1, are "
                "the most that can be sampled"
            )
        if self.ghosting_strength[1] > 1:
            yield (
                f"ghosting_strength ends at {self.ghosting_strength[1]:g}, but a ghost is at most as strong as the "
                "image, 1"
            )
        if self.colour_range[1] > 1:
            yield f"colour_range ends at {self.colour_range[1]:g}, but a share is at most the whole, 1"
        for name in ("flip_axes", "ghosting_axes"):
            if wrong := [axis for axis in getattr(self, name) if axis not in (0, 1, 2)]:
                yield f"{name} holds {wrong[0]}, but the axes are 0, 1 and 2"
        if self.ghosting_probability > 0 and not self.ghosting_axes:
            yield "ghosting_axes is empty, but ghosting_probability is above 0: name at least one axis"
        largest = LARGEST_MOVE * self.elastic_spacing_mm
        if self.elastic_displacement_mm[1] > largest:
            yield (
                f"elastic_displacement_mm ends at {self.elastic_displacement_mm[1]:g}, but beyond {LARGEST_MOVE:g} of "
                f"elastic_spacing_mm, here {largest:g}, the image may fold: lower the one or raise the other"
            )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
