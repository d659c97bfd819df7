"""All steps from the images of one case to the array a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.brain_mask import brain_mask
from ..data.extreme_voxels import extreme_voxels
from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import LoadedImages
from ..data.units import channel_kind
from ..errors import InputError
from ..plan.intensity import NormaliseConfig
from ..register.transforms import Transform
from ..volume import Volume, upright
from .atlas import Atlas
from .bias_field import correct_bias_field
from .configs import ADC, ZADC, PrepareConfig, PrepareSettings, reference_channel
from .normalise import normalise
from .standardise import Registration, Space, Template, register_to, working_space
from .zmap import zmap_with_coverage

__all__ = ["Physical", "Prepared", "physical_maps", "prepared_array"]


@dataclass(frozen=True, eq=False)
class Physical:
    """A case voxel by voxel as scanned, in physical units, after bias correction and with its Z map.

    Attributes:
        image: float32 ``(c, x, y, z)`` in the order of ``channels``, on the scan's lattice set upright (see
            :func:`neoseg.volume.upright`); results go back to the file voxel by voxel.
        channels: channel names.
        mask: the foreground (brain), ``(x, y, z)``: what was given, or what is not 0.
        facts: plain data about what was done: similarities, Jacobian.
        warnings: sentences for the report.
        registration: how the scan lies in the atlas or template, when it was registered.
    """

    image: Volume
    channels: tuple[str, ...]
    mask: NDArray[np.bool_]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    registration: Registration | None

    @property
    def limit(self) -> NDArray[np.bool_] | None:
        """The mask where it was given, outside of which nothing is found; ``None`` where it was told from the image."""
        return self.mask if self.facts["brain_mask"] == "given" else None


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees, and where it lies.

    Attributes:
        image: float32 ``(c, x, y, z)``, normalised, on the grid of ``space``.
        space: where the network works; with the native grid it is the undo record.
        label: classes uint8 ``(x, y, z)`` on the same grid, when a label was given.
        transform: scan world to atlas or template world, when the scan was registered; in template space that of
            ``space``.
        warnings: sentences for the report, besides those of the physical maps.
    """

    image: NDArray[np.float32]
    space: Space
    label: NDArray[np.uint8] | None
    transform: Transform | None
    warnings: tuple[str, ...]


def physical_maps(
    loaded: LoadedImages,
    config: PrepareConfig,
    atlas: Atlas | None,
    *,
    want: tuple[str, ...],
    template: Template | None = None,
) -> Physical:
    """Correct the bias field, register to the atlas or template where one is needed, and add the Z map.

    Args:
        loaded: the channels of the case as read.
        config: the steps.
        atlas: needed when "zadc" is wanted and not among the loaded channels.
        want: channels of the result.
        template: needed in template space; when an atlas is given as well, its own template.

    Raises:
        InputError: the image is empty, or what a step needs is not given.
    """
    if not np.isfinite(loaded.image.array).all():
        raise InputError("the image holds NaN or infinite voxels; set them to a number first.")
    mask = foreground_mask(loaded.image.array) if loaded.mask is None else loaded.mask
    if loaded.image.grid.ndim == 3 and not loaded.image.array.any():  # a picture may be black
        raise InputError("the image holds only zeros; there is nothing to segment.")
    # Everything from here on sees the voxels alone, so that one scan gives one result however it is stored or turned.
    grid = upright(loaded.image.grid)
    maps = {name: loaded.image.array[i] for i, name in enumerate(loaded.channels)}
    facts: dict[str, Any] = {"brain_mask": loaded.origin}
    warnings = list(loaded.notes)
    if config.bias_field is not None:
        for name in maps:
            if channel_kind(name) != "z":
                field = correct_bias_field(Volume(maps[name][None], grid), mask, config.bias_field)
                maps[name] = field.corrected.array[0]
                facts[f"bias_field_sd_{name}"] = float(field.log_field[mask].std())
    makes_zmap = ZADC in want and ZADC not in maps
    if makes_zmap and (atlas is None or ADC not in maps or config.zmap is None):
        raise InputError(
            "a Z map is wanted, but there is no Z image, and no atlas with an ADC channel to make one from; "
            "add a healthy group or leave out [prepare.zmap]."
        )
    registration = None
    if makes_zmap or config.space == "template":
        goal = template or (Template.of_atlas(atlas) if atlas is not None else None)
        if goal is None:
            raise InputError('prepare.space is "template", but there is no template; add a healthy group or give one.')
        reference = reference_channel(config, want)
        if reference not in maps:
            raise InputError(f"the channel {reference!r} is registered, but only {list(maps)} are given.")
        registered = Volume(maps[reference][None], grid)
        registration = register_to(goal, registered, mask, config)
        facts |= registration.facts
        warnings += registration.warnings
        if loaded.origin == "everything" and (told := brain_mask(registered).warning):
            warnings.append(told)
    if makes_zmap and atlas is not None and registration is not None and config.zmap is not None:
        made = zmap_with_coverage(
            Volume(maps[ADC][None], grid),
            mask,
            atlas,
            registration.transform,
            config.zmap,
            deforms=config.ffd is not None,
        )
        maps[ZADC] = made.volume.array[0]
        facts["outside_atlas_share"] = made.uncovered
        warnings += [made.warning] if made.warning else []
    missing = [name for name in want if name not in maps]
    if missing:
        raise InputError(f"the channels {missing} are wanted, but only {list(loaded.channels)} are given.")
    image = np.stack([np.asarray(maps[name], dtype=np.float32) for name in want])
    return Physical(Volume(image, grid), want, mask, facts, tuple(warnings), registration)


def prepared_array(
    physical: Physical,
    config: PrepareConfig,
    settings: PrepareSettings,
    label: Volume | None = None,
    *,
    template: Template | None = None,
) -> Prepared:
    """Crop to the foreground, normalise and bring to where the network works, with one interpolation.

    Args:
        physical: the maps.
        config: space and normalisation.
        settings: spacing and statistics.
        label: classes on the scan's grid.
        template: the one that the maps were registered to, in template space.

    Raises:
        InputError: the image has other axes than those that the plan was made for, or its spacing another unit.
    """
    axes, wanted = physical.image.grid.ndim, len(settings.spacing_mm)
    if axes != wanted:
        raise InputError(
            f"the image has {axes} axes {physical.image.grid.shape}, but the plan was made for images with {wanted}; "
            "leave it out."
        )
    unit = physical.image.grid.unit
    if settings.unit not in (None, unit):
        raise InputError(
            f"the size of its voxels is in {unit}, but the plan was made for images in {settings.unit} (a PNG "
            "does not tell the size of a pixel, an .mha does); save it in a format of the training images."
        )
    start, shape = bounding_box(physical.mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    cropped, mask = physical.image.grid.cropped(start, shape), physical.mask[box]
    channels, extreme = [], []
    for index, name in enumerate(physical.channels):
        rule = config.normalise.get(name, NormaliseConfig())
        native = physical.image.array[index][box]
        # the other rules are not measured on the image itself, or do without its ends
        if settings.rules[name] == "case" and (told := extreme_voxels(native[mask] if mask.any() else native)):
            extreme.append(f"{name}: {told}, so the network sees the others with little contrast; check the image.")
        values = normalise(
            native,
            mask,
            rule,
            rule=settings.rules[name],
            statistics=settings.statistics.get(name),
        )
        channels.append(values)
    space, warnings = working_space(
        cropped,
        settings.spacing_mm,
        template=template if config.space == "template" else None,
        registration=physical.registration,
        mask=mask,
    )
    image = space.image(Volume(np.stack(channels), cropped), mask)
    classes = None
    if label is not None:
        classes = space.label(Volume(label.array[(slice(None), *box)], cropped))
    found = physical.registration.transform if physical.registration is not None else None
    return Prepared(image, space, classes, space.transform or found, (*extreme, *warnings))
