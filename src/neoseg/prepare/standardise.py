"""Into a template's space and back: the template, the registration of a scan to it, and where the network works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..atomic import DAMAGED_NPZ, replacing
from ..data.field_of_view import unlikely_size
from ..data.foreground import bounding_box, foreground_mask
from ..errors import GeometryError, InputError
from ..io import read_volume
from ..register.affine import register_affine
from ..register.ffd import register_ffd
from ..register.moments import start_from_moments
from ..register.plausible import implausible
from ..register.transforms import Affine, Transform, grid_points, sample
from ..volume import Grid, Volume, upright
from .atlas import Atlas
from .configs import PrepareConfig
from .resample import resample_image, resample_label

__all__ = ["Registration", "Space", "Template", "register_to", "working_space"]

MARGIN_MM = 8.0
"""Room around the template's brain in the network's grid: individual brains reach beyond the mean one."""

OUTSIDE_LIMIT = 0.02
"""Share of a brain outside the network's grid above which the report says so."""


@dataclass(frozen=True, eq=False)
class Template:
    """The brain whose space scans are brought to.

    Attributes:
        image: float32, one channel, on a grid along the world axes.
        mask: the brain, ``(x, y, z)``.
    """

    image: Volume
    mask: NDArray[np.bool_]

    @staticmethod
    def of_atlas(atlas: Atlas) -> Template:
        """Return the mean of an atlas as a template."""
        return Template(atlas.mean, atlas.inside)

    @staticmethod
    def read(path: Path) -> Template:
        """Read a template from an image file: skull-stripped, its first channel.

        Raises:
            InputError: the file cannot be read, is not 3-D, empty or has voxels that are not numbers.
            GeometryError: it has a size that no scan has.
        """
        volume = read_volume(path)
        image = volume.array[:1].astype(np.float32)
        if volume.grid.ndim != 3 or not np.isfinite(image).all() or not image.any():
            raise InputError(f"{path}: a template has to be a 3-D image of finite numbers that are not all 0.")
        if (told := unlikely_size(volume.grid)) is not None:
            raise GeometryError(f"{path}: {told}")
        return Template(Volume(image, upright(volume.grid)), foreground_mask(image))

    def grid(self, spacing_mm: tuple[float, ...]) -> Grid:
        """Return the grid of a spacing over the brain with a margin: the network's grid for every case.

        Raises:
            GeometryError: the spacing has not three axes.
        """
        if len(spacing_mm) != 3:
            raise GeometryError(f"A template has 3 axes, but the spacing {spacing_mm} has {len(spacing_mm)}.")
        start, shape = bounding_box(self.mask)
        margin = [int(np.ceil(MARGIN_MM / s)) for s in self.image.spacing]
        around = self.image.grid.cropped(
            tuple(a - m for a, m in zip(start, margin, strict=True)),
            tuple(n + 2 * m for n, m in zip(shape, margin, strict=True)),
        )
        return around.with_spacing(spacing_mm)

    def save(self, folder: Path) -> None:
        """Write ``template.npz`` into a folder."""
        with replacing(folder / "template.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                image=self.image.array[0].astype(np.float32),
                mask=self.mask.astype(np.uint8),
                affine=self.image.grid.affine,
            )

    @staticmethod
    def load(folder: Path) -> Template:
        """Read a template that :meth:`save` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            with (folder / "template.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                image, mask, affine = (arrays[name] for name in ("image", "mask", "affine"))
            return Template(Volume(image[None], Grid(image.shape, affine)), mask.astype(bool))
        except (*DAMAGED_NPZ, KeyError) as error:
            raise InputError(f"{folder}: the template cannot be read ({error}); copy the run folder again.") from None


@dataclass(frozen=True, eq=False)
class Registration:
    """How a scan lies in a template or atlas.

    Attributes:
        transform: scan world to template world, the whole chain.
        affine: its affine part.
        facts: similarities and the smallest Jacobian determinant, plain numbers.
        warnings: sentences for the report.
    """

    transform: Transform
    affine: Affine
    facts: Mapping[str, float]
    warnings: tuple[str, ...]


def register_to(template: Template, image: Volume, mask: NDArray[np.bool_], config: PrepareConfig) -> Registration:
    """Register a scan to a template by the steps that are switched on.

    Without the affine step the centres of both brains are laid on each other and nothing else is moved.

    Args:
        template: of the same contrast when the free-form step is on.
        image: one channel, 3-D, on the scan's lattice set upright.
        mask: the brain, ``(x, y, z)``.
        config: which steps, and how.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: a constant image or too few voxels.
    """
    facts: dict[str, float] = {}
    if config.affine is None:
        affine = start_from_moments(image, template.image, fixed_mask=mask, moving_mask=template.mask)
    else:
        found = register_affine(image, template.image, config=config.affine, fixed_mask=mask, moving_mask=template.mask)
        affine = found.transform
        facts |= found.facts()
    warnings = implausible(facts)
    if config.ffd is None:
        return Registration(affine, affine, facts, warnings)
    ffd = register_ffd(image, template.image, affine, config=config.ffd, fixed_mask=mask)
    facts |= {"ncc_affine": ffd.ncc_before, "ncc_ffd": ffd.ncc_after, "smallest_jacobian": ffd.smallest_jacobian}
    return Registration(ffd.transform, affine, facts, (*warnings, *([ffd.warning] if ffd.warning else [])))


@dataclass(frozen=True, eq=False)
class Space:
    """Where the network works for one case; preparation brings the case there, and restoring reads it to come back.

    Attributes:
        grid: the grid of the network's array.
        transform: scan world to the world of ``grid``; ``None`` when that is the scan's own.
    """

    grid: Grid
    transform: Transform | None = None

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """The point of the scan's world for every voxel of the grid, ``(n, 3)`` in the order of the flattened array.

        Raises:
            GeometryError: the deformation folds somewhere on the grid, so that it has no inverse there.
        """
        return grid_points(self.grid) if self.transform is None else self.transform.inverse().on_grid(self.grid)

    def image(self, volume: Volume, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Interpolate every channel once, by cubic splines.

        Args:
            volume: the scan or a part of it.
            mask: its foreground; where a template reaches beyond the scan stands the median of what lies outside.

        Returns:
            float32 ``(c, x, y, z)`` on the grid.
        """
        if self.transform is None:
            return resample_image(volume, self.grid, order=3).array
        outside = ~mask
        beyond = np.median(volume.array[:, outside], axis=1) if outside.any() else np.zeros(len(volume.array))
        shifted = volume.with_array((volume.array - beyond[:, None, None, None]).astype(np.float32))
        values = sample(shifted, self.points, order=3) + beyond[:, None]
        return np.asarray(values.reshape(len(values), *self.grid.shape), dtype=np.float32)

    def label(self, label: Volume) -> NDArray[np.uint8]:
        """Interpolate each class linearly as a 0/1 image and take the largest; beyond the scan is class 0.

        Args:
            label: classes 0..n, uint8, one channel.

        Returns:
            ``(x, y, z)`` on the grid.
        """
        if self.transform is None:
            return np.asarray(resample_label(label, self.grid).array[0])
        best = np.zeros(len(self.points), dtype=np.float32)
        result = np.zeros(len(self.points), dtype=np.uint8)
        for index in np.unique(label.array):
            # Beyond the scan no class has a share, and the result stays 0.
            share = sample(label.with_array((label.array == index).astype(np.float32)), self.points)[0]
            larger = share > best
            best[larger], result[larger] = share[larger], index
        return result.reshape(self.grid.shape)


def working_space(
    scan: Grid,
    spacing_mm: tuple[float, ...],
    *,
    template: Template | None,
    registration: Registration | None,
    mask: NDArray[np.bool_],
) -> tuple[Space, tuple[str, ...]]:
    """Return where the network works, and sentences for the report.

    Args:
        scan: the part of the scan's grid around its foreground.
        spacing_mm: of the network's grid.
        template: the template whose space is used; ``None``: the scan's own space.
        registration: of the scan to that template.
        mask: the foreground on ``scan``.
    """
    if template is None or registration is None:
        return Space(scan.with_spacing(spacing_mm)), ()
    warnings = []
    space = Space(template.grid(spacing_mm), registration.transform)
    try:
        _ = space.points
    except GeometryError:
        space = Space(space.grid, registration.affine)
        warnings.append(
            "The free-form deformation folds outside the brain and cannot be undone there, so the scan is brought to "
            "the template by the affine alignment alone."
        )
    index = space.grid.to_index(registration.transform.points(scan.to_world(np.argwhere(mask))))
    outside = float(((index < -0.5) | (index > np.asarray(space.grid.shape) - 0.5)).any(axis=1).mean())
    if outside > OUTSIDE_LIMIT:
        warnings.append(
            f"{100 * outside:.0f} % of the brain lies outside the template and cannot be segmented; check the "
            "alignment with the template and that it is of this age, or work in native space."
        )
    return space, tuple(warnings)
