"""All steps from the images of one case to the array a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import LoadedImages
from ..errors import InputError
from ..plan.intensity import NormaliseConfig
from ..register.affine import register_affine
from ..register.ffd import register_ffd
from ..register.transforms import Transform
from ..volume import Grid, Volume, upright
from .atlas import Atlas
from .bias_field import correct_bias_field
from .configs import ADC, ZADC, PrepareConfig, PrepareSettings
from .normalise import normalise
from .resample import resample_image, resample_label
from .zmap import zmap_with_coverage

__all__ = ["Physical", "Prepared", "physical_maps", "prepared_array"]


@dataclass(frozen=True, eq=False)
class Physical:
    """A case voxel by voxel as scanned, in physical units, after bias correction and with its Z map.

    Attributes:
        image: float32 ``(c, x, y, z)`` in the order of ``channels``, on the scan's lattice set upright (see
            :func:`neoseg.volume.upright`); results go back to the file voxel by voxel.
        channels: channel names.
        mask: the foreground (brain), ``(x, y, z)``.
        facts: plain data about what was done: similarities, seconds, Jacobian.
        warnings: sentences for the report.
    """

    image: Volume
    channels: tuple[str, ...]
    mask: NDArray[np.bool_]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees, and where it lies.

    Attributes:
        image: float32 ``(c, x, y, z)``, normalised, on ``grid``.
        grid: the cropped and resampled grid; with the native grid it is the undo record.
        label: classes uint8 ``(x, y, z)`` on the same grid, when a label was given.
    """

    image: NDArray[np.float32]
    grid: Grid
    label: NDArray[np.uint8] | None


def physical_maps(
    loaded: LoadedImages, config: PrepareConfig, atlas: Atlas | None, *, want: tuple[str, ...]
) -> Physical:
    """Correct the bias field, register to the atlas and add the Z map.

    Args:
        loaded: the channels of the case as read.
        config: the steps.
        atlas: needed when "zadc" is wanted and not among the loaded channels.
        want: channels of the result.

    Raises:
        InputError: the image is empty, or a Z map is wanted without an atlas or an ADC channel.
    """
    if not np.isfinite(loaded.image.array).all():
        raise InputError("the image holds NaN or infinite voxels; set them to a number first.")
    mask = foreground_mask(loaded.image.array)
    if not mask.any():
        raise InputError("the image holds only zeros; there is nothing to segment.")
    # Everything from here on sees the voxels alone, so that one scan gives one result however it is stored or turned.
    grid = upright(loaded.image.grid)
    maps = {name: loaded.image.array[i] for i, name in enumerate(loaded.channels)}
    facts: dict[str, Any] = {}
    warnings = list(loaded.notes)
    if config.bias_field is not None:
        for name in maps:
            if name != ZADC:
                field = correct_bias_field(Volume(maps[name][None], grid), mask, config.bias_field)
                maps[name] = field.corrected.array[0]
                facts[f"bias_field_sd_{name}"] = float(field.log_field[mask].std())
    if ZADC in want and ZADC not in maps:
        if atlas is None or ADC not in maps or config.zmap is None:
            raise InputError(
                "a Z map is wanted, but there is no Z image, and no atlas with an ADC channel to make one from; "
                "add a healthy group or leave out [prepare.zmap]."
            )
        adc = Volume(maps[ADC][None], grid)
        transform = _to_atlas(adc, mask, atlas, config, facts, warnings)
        made = zmap_with_coverage(adc, mask, atlas, transform, config.zmap)
        maps[ZADC] = made.volume.array[0]
        facts["outside_atlas_share"] = made.uncovered
        warnings += [made.warning] if made.warning else []
    missing = [name for name in want if name not in maps]
    if missing:
        raise InputError(f"the channels {missing} are wanted, but only {list(loaded.channels)} are given.")
    image = np.stack([np.asarray(maps[name], dtype=np.float32) for name in want])
    return Physical(Volume(image, grid), want, mask, facts, tuple(warnings))


def prepared_array(
    physical: Physical, config: PrepareConfig, settings: PrepareSettings, label: Volume | None = None
) -> Prepared:
    """Crop to the foreground, normalise and resample to the plan's spacing."""
    start, shape = bounding_box(physical.mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    native = physical.image.grid
    cropped, mask = native.cropped(start, shape), physical.mask[box]
    channels = []
    for index, name in enumerate(physical.channels):
        rule = config.normalise.get(name, NormaliseConfig())
        values = normalise(
            physical.image.array[index][box],
            mask,
            rule,
            rule=settings.rules[name],
            statistics=settings.statistics.get(name),
        )
        channels.append(values)
    grid = cropped.with_spacing(settings.spacing_mm)
    image = resample_image(Volume(np.stack(channels), cropped), grid, order=3)
    classes = None
    if label is not None:
        classes = resample_label(Volume(label.array[(slice(None), *box)], cropped), grid).array[0]
    return Prepared(image.array, grid, classes)


def _to_atlas(
    adc: Volume,
    mask: NDArray[np.bool_],
    atlas: Atlas,
    config: PrepareConfig,
    facts: dict[str, Any],
    warnings: list[str],
) -> Transform:
    affine = register_affine(
        adc, atlas.mean, config=config.affine, fixed_mask=mask, moving_mask=atlas.mask.array[0].astype(bool)
    )
    facts["affine_similarity"] = affine.similarity
    if config.ffd is None:
        return affine.transform
    ffd = register_ffd(adc, atlas.mean, affine.transform, config=config.ffd, fixed_mask=mask)
    facts |= {"ncc_affine": ffd.ncc_before, "ncc_ffd": ffd.ncc_after, "smallest_jacobian": ffd.smallest_jacobian}
    if ffd.warning:
        warnings.append(ffd.warning)
    return ffd.transform
