"""What the registrations can be asked to do."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

__all__ = ["AffineConfig", "FfdConfig"]

Millimetres = Annotated[float, Field(gt=0, le=200)]


class AffineConfig(BaseModel, frozen=True, extra="forbid"):
    """Affine registration by Mattes mutual information: moments, then rigid, then affine.

    Attributes:
        levels_mm: voxel side of the isotropic images of each level in mm, coarse to fine.
        bins: bins of the joint histogram, 8 to 128.
        sampling: share of the voxels of the mask that are read at each level, 0 to 1.
        iterations: most iterations of each stage at each level.
        turn_degrees: the rigid search also starts from turns by this much about each axis, both ways; 0: it does not.
        mask_margin_mm: the fixed mask is dilated by this much, so that the outline of a skull-stripped brain counts.
        seed: seed of the sampling.
    """

    levels_mm: tuple[Millimetres, ...] = Field(default=(6.0, 2.5), min_length=1, max_length=5)
    bins: int = Field(default=32, ge=8, le=128)
    sampling: float = Field(default=1.0, gt=0, le=1)
    iterations: int = Field(default=60, ge=1, le=2000)
    turn_degrees: float = Field(default=25.0, ge=0, le=90)
    mask_margin_mm: float = Field(default=6.0, ge=0, le=100)
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _coarse_to_fine(self) -> Self:
        if list(self.levels_mm) != sorted(self.levels_mm, reverse=True):
            raise ValueError(f"levels_mm has to run from coarse to fine, but it is {self.levels_mm}")
        return self


class FfdConfig(BaseModel, frozen=True, extra="forbid"):
    """Free-form deformation: a cubic B-spline grid moved by normalised cross-correlation and a bending penalty.

    Attributes:
        grid_mm: distance of the control points of each level in mm, coarse to fine.
        image_mm: voxel side of the isotropic images of each level in mm, as many as ``grid_mm``.
        iterations: most iterations of each level.
        bending: weight in mm2 of the mean squared second derivative of the displacement.
        stiffer: a deformation that is refused is sought again with a four times larger bending weight, this often.
        mask_margin_mm: the similarity is measured in the mask dilated by this much.
        smallest_jacobian: a deformation whose Jacobian determinant falls below this anywhere is refused.
    """

    grid_mm: tuple[Millimetres, ...] = Field(default=(24.0, 12.0), min_length=1, max_length=5)
    image_mm: tuple[Millimetres, ...] = Field(default=(4.0, 2.5), min_length=1, max_length=5)
    iterations: int = Field(default=25, ge=1, le=2000)
    bending: float = Field(default=60.0, ge=0)
    stiffer: int = Field(default=2, ge=0, le=10)
    mask_margin_mm: float = Field(default=4.0, ge=0, le=100)
    smallest_jacobian: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_image_a_grid(self) -> Self:
        if len(self.grid_mm) != len(self.image_mm):
            raise ValueError(f"grid_mm and image_mm need as many levels, but are {self.grid_mm} and {self.image_mm}")
        return self
