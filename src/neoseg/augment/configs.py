"""How strongly training batches are changed; no torch here, so that configurations load fast."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

__all__ = ["AugmentConfig", "Probability"]

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(BaseModel, frozen=True, extra="forbid"):
    """Probability and range of each transform; probability 0 switches one off.

    A probability counts for a sample of the batch; ranges are drawn for each channel where the text says so. The
    defaults follow nnU-Net v2 except for smaller rotations out of the slice plane.

    Attributes:
        rotation_probability: of a rotation about all three axes, in mm, around the patch centre.
        rotation_degrees: largest angle about x, y and z; a 2-D image turns by the last one.
        scaling_probability: of a zoom.
        scaling_range: zoom factor, drawn log-uniformly, equal along all axes; above 1 enlarges.
        flip_probability: of a flip along each of the axes.
        flip_axes: axes that may be flipped; 0 is left-right.
        blur_probability: of a Gaussian blur.
        blur_sigma: its standard deviation in voxels, drawn for each channel.
        low_resolution_probability: of sampling down (nearest) and up again (linear).
        low_resolution_range: factor of the number of voxels along each axis, drawn for each channel.
        channel_probability: share of the channels that blur and low resolution touch when they happen.
        brightness_probability: of a multiplication.
        brightness_range: its factor, drawn for each channel.
        contrast_probability: of a multiplication around the mean, clipped to the range before.
        contrast_range: its factor, drawn for each channel.
        gamma_probability: of a power of the range-normalised image; mean and standard deviation are kept.
        gamma_range: its exponent, drawn log-uniformly for each channel.
        gamma_inverted_share: share of those in which the image is turned upside down for the power.
        noise_probability: of Gaussian noise.
        noise_sd: its standard deviation, drawn uniformly for each channel, in units of the normalised image.
        keep_background: voxels at the fill value in all channels stay at it through the intensity changes, so that
            skull-stripped surroundings stay empty.
    """

    rotation_probability: Probability = 0.2
    rotation_degrees: tuple[float, float, float] = (15.0, 15.0, 30.0)
    scaling_probability: Probability = 0.2
    scaling_range: tuple[float, float] = (0.7, 1.4)
    flip_probability: Probability = 0.5
    flip_axes: tuple[int, ...] = (0, 1, 2)
    blur_probability: Probability = 0.2
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    low_resolution_probability: Probability = 0.25
    low_resolution_range: tuple[float, float] = (0.5, 1.0)
    channel_probability: Probability = 0.5
    brightness_probability: Probability = 0.15
    brightness_range: tuple[float, float] = (0.75, 1.25)
    contrast_probability: Probability = 0.15
    contrast_range: tuple[float, float] = (0.75, 1.25)
    gamma_probability: Probability = 0.3
    gamma_range: tuple[float, float] = (0.7, 1.5)
    gamma_inverted_share: Probability = 0.25
    noise_probability: Probability = 0.1
    noise_sd: tuple[float, float] = (0.0, 0.1)
    keep_background: bool = True
