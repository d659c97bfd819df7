"""What the registrations can be asked to do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

__all__ = ["AffineConfig", "FfdConfig"]

Millimetres = Annotated[float, Field(gt=0, le=200)]


class AffineConfig(BaseModel, frozen=True, extra="forbid"):
    """Affine registration by Mattes mutual information: moments, then rigid, then affine.

    Attributes:
        levels_mm: voxel side of the isotropic images of each level in mm, coarse to fine.
        bins: bins of the joint histogram, 8 to 128.
        samples: most voxels of the mask that are read at each level; more are thinned at random.
        iterations: most iterations of each stage at each level.
        turn_degrees: the rigid search also starts from turns by this much about each axis, both ways; 0: it does not.
        orientations: so many orientations, spread evenly over all turns, are tried beside the header's; 0: the header's
            orientation is trusted.
        mask_margin_mm: the fixed mask is dilated by this much, so that the outline of a skull-stripped brain counts.
        seed: seed of the sampling.
    """

    levels_mm: tuple[Millimetres, ...] = Field(default=(6.0, 2.5), min_length=1, max_length=5)
    bins: int = Field(default=32, ge=8, le=128)
    samples: int = Field(default=50_000, ge=1000)
    iterations: int = Field(default=60, ge=1, le=2000)
    turn_degrees: float = Field(default=25.0, ge=0, le=90)
    orientations: int = Field(default=400, ge=0, le=20_000)
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
        method: "lbfgs" and "torch": our own; "itk_lbfgsb" and "gradient_descent": SimpleITK's B-spline.
        similarity: correlation over the whole mask ("global") or the mean of that in windows ("local"); SimpleITK's
            methods always measure it over the whole mask.
        window_voxels: side of the windows of the local similarity in voxels of each level, odd.
        grid_mm: distance of the control points of each level in mm, coarse to fine.
        image_mm: voxel side of the isotropic images of each level in mm, as many as ``grid_mm``.
        iterations: most iterations of each level.
        bending: weight in mm2 of the mean squared second derivative of the displacement; SimpleITK's methods have none.
        stiffer: a deformation that is refused is sought again with a four times larger bending weight, this often.
        mask_margin_mm: the similarity is measured in the mask dilated by this much.
        smallest_jacobian: a deformation whose Jacobian determinant falls below this anywhere is refused.
        sampling: share (0 to 1) of the voxels of the mask that SimpleITK's methods read.
        device: where the method "torch" computes: "cpu", "cuda", "cuda:1", "mps".
    """

    method: Literal["lbfgs", "itk_lbfgsb", "gradient_descent", "torch"] = "lbfgs"
    similarity: Literal["global", "local"] = "local"
    window_voxels: int = Field(default=3, ge=3, le=31)
    grid_mm: tuple[Millimetres, ...] = Field(default=(20.0, 10.0), min_length=1, max_length=5)
    image_mm: tuple[Millimetres, ...] = Field(default=(4.0, 2.0), min_length=1, max_length=5)
    iterations: int = Field(default=15, ge=1, le=2000)
    bending: float = Field(default=60.0, ge=0)
    stiffer: int = Field(default=2, ge=0, le=10)
    mask_margin_mm: float = Field(default=4.0, ge=0, le=100)
    smallest_jacobian: float = Field(default=0.1, ge=0, lt=1)
    sampling: float = Field(default=0.2, gt=0, le=1)
    device: str = "cpu"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.grid_mm) != len(self.image_mm):
            raise ValueError(f"grid_mm and image_mm need as many levels, but are {self.grid_mm} and {self.image_mm}")
        if self.window_voxels % 2 == 0:
            raise ValueError(f"window_voxels has to be odd, but is {self.window_voxels}")
        if self.device != "cpu" and self.method != "torch":
            raise ValueError(f"the method {self.method!r} runs on the cpu; device = {self.device!r} needs 'torch'")
        return self
