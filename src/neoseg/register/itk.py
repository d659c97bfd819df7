"""The one place where RAS meets ITK's LPS: volumes to SimpleITK images, transforms to SimpleITK's and back, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing
from ..errors import GeometryError, InputError, MachineError
from ..volume import Grid, Volume
from .transforms import Affine, Chain, Ffd, Transform

__all__ = [
    "ITK_ENDINGS",
    "affine_from_itk",
    "affine_to_itk",
    "bspline_from_itk",
    "bspline_to_itk",
    "image_to_itk",
    "lps",
    "read_itk",
    "transform_from_itk",
    "transform_to_itk",
    "write_itk",
]

FLIP = np.diag([-1.0, -1.0, 1.0])
"""RAS to LPS and back: x and y change their sign."""

ITK_ENDINGS = (".tfm", ".txt", ".h5", ".hdf5")
"""Files of transforms that SimpleITK reads and writes."""

FADE = 3
"""Rows of zeros around a lattice, so that ITK's valid region holds the whole support of the spline."""


def lps(points: NDArray[Any]) -> NDArray[np.float64]:
    """Turn RAS points or vectors ``(..., 3)`` into LPS, or LPS into RAS (the same operation)."""
    return np.asarray(np.asarray(points) @ FLIP, dtype=np.float64)


def image_to_itk(volume: Volume) -> Any:
    """Return a one-channel 3-D volume as a SimpleITK image that lies at the same place in the world.

    Raises:
        GeometryError: not three axes or not one channel.
    """
    import SimpleITK as sitk  # noqa: N813

    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"Expected one channel on a 3-D grid, but the array has shape {volume.array.shape}.")
    array = volume.array[0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    place(image, volume.grid)
    return image


def place(image: Any, grid: Grid) -> None:
    """Give a SimpleITK image the geometry of a grid."""
    image.SetSpacing(grid.spacing)
    image.SetOrigin(lps(grid.affine[:3, 3]).tolist())
    image.SetDirection((FLIP @ grid.directions).ravel().tolist())


def affine_from_itk(transform: Any) -> Affine:
    """Return any linear SimpleITK transform (translation, Euler, similarity, affine) as ours, LPS turned into RAS."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(unit))) - origin for unit in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3] = FLIP @ np.stack(columns, axis=1) @ FLIP
    matrix[:3, 3] = lps(origin)
    return Affine(matrix)


def affine_to_itk(transform: Affine, centre: NDArray[Any]) -> Any:
    """Return an affine as a SimpleITK AffineTransform about a centre (RAS mm), RAS turned into LPS."""
    import SimpleITK as sitk  # noqa: N813

    result = sitk.AffineTransform(3)
    result.SetCenter(lps(centre).tolist())
    result.SetMatrix((FLIP @ transform.matrix[:3, :3] @ FLIP).ravel().tolist())
    moved = transform.points(np.asarray(centre, dtype=np.float64)[None])[0]
    result.SetTranslation(lps(moved - np.asarray(centre)).tolist())
    return result


def bspline_to_itk(ffd: Ffd, margin: int = FADE) -> Any:
    """Return a free-form deformation as a SimpleITK BSplineTransform of order 3.

    ITK moves nothing outside its valid region, which ends one cell inside of the outermost control points.

    Args:
        ffd: the deformation.
        margin: rows of zeros added on every side; 3 make both equal everywhere, with 0 they are equal in the valid
            region.
    """
    import SimpleITK as sitk  # noqa: N813

    coefficients = np.pad(ffd.coefficients, ((0, 0), *[(margin, margin)] * 3))
    counts = np.asarray(coefficients.shape[1:])
    result = sitk.BSplineTransform(3, 3)
    result.SetTransformDomainMeshSize((counts - 3).tolist())
    result.SetTransformDomainOrigin(lps(ffd.origin + (1 - margin) * ffd.spacing).tolist())
    result.SetTransformDomainDirection(FLIP.ravel().tolist())
    result.SetTransformDomainPhysicalDimensions(((counts - 3) * ffd.spacing).tolist())
    result.SetParameters((FLIP @ coefficients.transpose(0, 3, 2, 1).reshape(3, -1)).ravel().tolist())
    return result


def bspline_from_itk(transform: Any) -> Transform:
    """Return a SimpleITK BSplineTransform of order 3 as ours: equal in its valid region, beyond it ours fades out.

    A lattice that is turned against the world becomes a chain of a rotation, a deformation and the rotation back.

    Raises:
        InputError: another order.
    """
    if transform.GetOrder() != 3 or transform.GetDimension() != 3:
        raise InputError(
            f"A B-spline transform of order {transform.GetOrder()} in {transform.GetDimension()} dimensions was "
            "given, but only cubic ones in 3 dimensions can be used."
        )
    lattice = transform.GetCoefficientImages()[0]
    values = np.asarray(transform.GetParameters()).reshape(3, *lattice.GetSize()[::-1]).transpose(0, 3, 2, 1)
    turn = FLIP @ np.asarray(lattice.GetDirection()).reshape(3, 3)
    coefficients = np.tensordot(turn.T @ FLIP, values, axes=1)
    ffd = Ffd(turn.T @ lps(np.asarray(lattice.GetOrigin())), np.asarray(lattice.GetSpacing()), coefficients)
    if np.array_equal(turn, np.eye(3)):
        return ffd
    back = np.eye(4)
    back[:3, :3] = turn
    there = np.eye(4)
    there[:3, :3] = np.linalg.inv(turn)
    return Chain([Affine(there), ffd, Affine(back)])


def transform_to_itk(transform: Transform) -> Any:
    """Return a transform in ITK's form; one of several steps becomes a CompositeTransform.

    Raises:
        InputError: a step is the numerical inverse of a deformation, which ITK cannot express exactly.
    """
    import SimpleITK as sitk  # noqa: N813

    steps = [_step_to_itk(step) for step in (transform.transforms if isinstance(transform, Chain) else (transform,))]
    if len(steps) == 1:
        return steps[0]
    composite = sitk.CompositeTransform(3)
    for step in reversed(steps):  # ITK applies the transform that was added last first
        composite.AddTransform(step)
    return composite


def _step_to_itk(step: Transform) -> Any:
    if isinstance(step, Affine):
        return affine_to_itk(step, np.zeros(3))
    if isinstance(step, Ffd):
        return bspline_to_itk(step)
    raise InputError(
        "The numerical inverse of a deformation has no form in ITK; write the transform itself and let the program "
        "that reads it take the inverse."
    )


def transform_from_itk(transform: Any) -> Transform:
    """Return a SimpleITK transform as ours: linear ones, cubic B-splines and composites of them.

    Raises:
        InputError: another kind.
    """
    exact = transform.Downcast()
    if exact.GetName() == "CompositeTransform":
        count = exact.GetNumberOfTransforms()
        return Chain(transform_from_itk(exact.GetNthTransform(i)) for i in reversed(range(count)))
    if exact.GetName() == "BSplineTransform":
        return bspline_from_itk(exact)
    if exact.GetDimension() == 3 and exact.IsLinear():
        return affine_from_itk(exact)
    raise InputError(
        f"A transform of the kind {exact.GetName()} was given, but only linear transforms, cubic B-splines and "
        "composites of them in 3 dimensions can be used."
    )


def write_itk(transform: Transform, path: Path) -> None:
    """Write a transform as an ITK file (.tfm, .txt, .h5, .hdf5), fixed to moving points in LPS as ITK resamples.

    Raises:
        InputError: another ending, a step without a form in ITK, or a folder that cannot be written.
        MachineError: the disk does not take the file.
    """
    import SimpleITK as sitk  # noqa: N813

    _require_ending(path)
    made = transform_to_itk(transform)
    with replacing(path) as temporary:
        temporary.touch()  # a folder that takes no file says so itself
        try:
            sitk.WriteTransform(made, str(temporary))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise MachineError(
                f"{path}: the disk did not take the whole file ({reason}); free some space, or look after the disk: "
                "nothing half-written was left."
            ) from error


def read_itk(path: Path) -> Transform:
    """Read an ITK transform file.

    Raises:
        InputError: the file cannot be read or holds a kind that has no form here.
    """
    import SimpleITK as sitk  # noqa: N813

    _require_ending(path)
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: this transform cannot be read ({reason}); write it again.") from error
    return transform_from_itk(transform)


def _require_ending(path: Path) -> None:
    if path.suffix not in ITK_ENDINGS:
        raise InputError(f"{path}: an ITK transform file ends in {', '.join(ITK_ENDINGS)}; choose one of these.")
