"""An atlas from a healthy group: an unbiased template, then voxelwise mean and sd.

The first head in line is only a start: after the affine round the template's pose and size are the group's mean
(matrix logarithms), and after each deformable round the mean of the affine parts and of the displacements is taken out,
so the template ends with the group's mean shape and mean intensity (Joshi et al., NeuroImage 23 (2004) S151-S160, in
its simplest form). The sd is that of heads left out (see :mod:`neoseg.atlas.left_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NeosegError
from ..prepare.atlas import Atlas
from ..prepare.zmap import LEVEL_LIMIT, ZmapConfig, masked_smoothing
from ..progress import Advance, Progress, Silent
from ..register.images import around
from ..register.transforms import Affine, Chain, Ffd, Transform, grid_points
from ..volume import Grid, Volume
from .configs import AtlasConfig
from .heads import HealthyHead, affine_part, cropped, read_at, to_reference, to_scan, to_template
from .left_out import calibrate, left_out_z, residuals_at
from .membership import does_not_lie_on, doubts, other_values, share_astray
from .memory import Found, Remembered, installed_version
from .statistics import centre, spread, vote

__all__ = ["FEWEST_HEADS", "RunEach", "build_atlas", "serially"]

RunEach = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Call a function on each item and give the results in order; the function and the items can be pickled."""

FEWEST_HEADS = 5
ENOUGH_HEADS = 15
"""With fewer, the sd of a voxel is uncertain by 20 % or more (1 / sqrt(2 (n - 1)))."""

FIRSTS = 3
"""Heads that are tried as the first one, to which all are brought, before the best of them is taken."""

LOW_NCC = 0.05
FAR_MEAN, WIDE_SD = 3.0, 2.5
"""A head is told of when its correlation lies so far (and 5 robust sd) below the group's median, or when the mean or
the standard deviation of its left-out Z map is beyond these."""


def serially(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function on each item, one after another, in this process."""
    return [function(item) for item in items]


def build_atlas(
    volumes: Sequence[Volume],
    config: AtlasConfig,
    *,
    names: Sequence[str] | None = None,
    regions: Sequence[Volume | None] | None = None,
    work: Path | None = None,
    run_each: RunEach = serially,
    progress: Progress | None = None,
) -> Atlas:
    """Build the atlas of a healthy group.

    The same volumes in the same order give the same bits, whatever runs them. A head that cannot be used is left out
    and named in ``provenance["failed"]`` with the reason: it cannot be registered, or it lies beside the others after
    registration (Dice of the masks below 0.6). One that lies turned or stands out otherwise is kept and named in
    ``provenance["warnings"]``; the numbers of each head are in ``provenance["heads"]``.

    Args:
        volumes: skull-stripped and bias-corrected scans of healthy heads, one channel each, all in ``config.unit``.
        config: grid, rounds, statistics, registration.
        names: what the report calls the heads; by default their place in line.
        regions: region labels of the heads, whole numbers from 0 (none) to 65535, on the grids of the volumes.
        work: folder for finished registrations; with it, a building that was stopped goes on where it was.
        run_each: runs the heads, serially by default; a pool of processes is faster.
        progress: told of each head and round.

    Raises:
        InputError: fewer than 5 heads are given or can be used.
    """
    _require_enough(len(volumes), {})
    names = names or [f"head {i + 1}" for i in range(len(volumes))]
    with (progress or Silent()).track("atlas", (5 + 2 * config.rounds) * len(volumes)) as advance:
        group = _Group(config, work, run_each, advance)
        group.gather(names, volumes, regions or [None] * len(volumes))
        reference = group.start()
        for turn in range(1, config.rounds + 1):
            group.improve(turn)
        return group.atlas(reference)


@final
class _Group:
    """The heads on their way into one space; a head that fails leaves the group and is remembered by its reason."""

    def __init__(self, config: AtlasConfig, work: Path | None, run_each: RunEach, advance: Advance) -> None:
        self.config, self.work, self.run_each, self.advance = config, work, run_each, advance
        self.heads: list[HealthyHead] = []
        self.failed: dict[str, str] = {}
        self.warnings: list[str] = []
        self.found: list[Found] = []
        self.rivals: dict[str, float] = {}
        self.affines: list[Affine] = []
        self.images: list[Any] = []
        self.grid = Grid((1, 1, 1), np.eye(4))

    def gather(self, names: Sequence[str], volumes: Sequence[Volume], regions: Sequence[Volume | None]) -> None:
        """Crop the heads to their brains."""
        for name, volume, labels in zip(names, volumes, regions, strict=True):
            try:
                head = cropped(name, volume, labels)
            except NeosegError as error:
                self.failed[name] = str(error)
                continue
            self.heads.append(head)
        medians = [float(np.median(head.image.array[0][head.mask])) for head in self.heads]
        usual = float(np.median(medians)) if medians else 0.0
        for head, median in list(zip(self.heads, medians, strict=True)):
            if usual > 0 and not usual / LEVEL_LIMIT <= median <= usual * LEVEL_LIMIT:
                self.failed[head.name] = f"its median is {median:g} and the group's {usual:g}; is it in another unit?"
                self.heads.remove(head)
            elif head.warning:
                self.warnings.append(f"{head.name}: {head.warning}")
        _require_enough(len(self.heads), self.failed)

    def start(self) -> str:
        """Bring all heads to the one of median size, then to the mean pose and size; return that head's name."""
        first, found = self._first()
        facts = {h.name: f.facts for h, f in zip(self.heads, found, strict=True) if h is not first}
        self.rivals = {name: some["affine_rival"] for name, some in facts.items() if "affine_rival" in some}
        apart = {name: why for name, some in facts.items() if (why := does_not_lie_on(some)) is not None}
        self.failed |= apart
        found = [f for h, f in zip(self.heads, found, strict=True) if h.name not in apart]
        self.heads = [h for h in self.heads if h.name not in apart]
        _require_enough(len(self.heads), self.failed)
        self.grid, moves = _mean_pose(first, [affine_part(f.transform) for f in found], self.config)
        self.affines = [affine_part(move) for move in moves]
        self._read(moves, grid_points(self.grid), "average")
        return first.name

    def _first(self) -> tuple[HealthyHead, list[Found]]:
        """Return the head of median size and the registrations of all to it.

        A head whose values are distributed unlike the group's is not chosen. When most of them lie far turned or beside
        the chosen one, that head is the odd one, and the next is tried.
        """
        odd = other_values([head.image.array[0][head.mask] for head in self.heads])
        usual = [head for head, is_odd in zip(self.heads, odd, strict=True) if not is_odd] or self.heads
        tried: list[tuple[float, HealthyHead, dict[str, Found]]] = []
        while True:
            first = _median_head([head for head in usual if all(head is not other for _, other, _ in tried)])
            found = self._register(to_reference, [(first, head, self.config) for head in self.heads], "affine")
            ways = {h.name: f for h, f in zip(self.heads, found, strict=True)}
            astray = share_astray({name: f.facts for name, f in ways.items() if name != first.name})
            tried.append((astray, first, ways))
            if astray <= 0.5 or len(tried) == min(FIRSTS, len(usual)):
                _, first, ways = min(tried, key=lambda one: one[0])
                return first, [ways[head.name] for head in self.heads]

    def improve(self, turn: int) -> None:
        """Register all heads to their mean, then take the mean change of shape out of it."""
        template, mask = self._template()
        jobs = [(template, mask, h, a, self.config) for h, a in zip(self.heads, self.affines, strict=True)]
        self.found = self._register(to_template, jobs, f"deformation, round {turn}")
        transforms = [found.transform for found in self.found]
        size, shape = _mean_affine(transforms), _mean_deformation(transforms)
        back = size.inverse()
        self.affines = [affine_part(Chain([back, affine_part(t)])) for t in transforms]
        places = shape.inverse().points(back.points(grid_points(self.grid)))
        self._read(transforms, places, f"average, round {turn}")

    def atlas(self, reference: str) -> Atlas:
        """Return mean and sd of the heads as they lie now."""
        values = np.stack([image for image, _, _ in self.images])
        known = np.stack([inside for _, inside, _ in self.images])
        inside = known.sum(axis=0) >= self._fewest()
        values, known, places = values[:, inside], known[:, inside], grid_points(self.grid)[inside]
        everyone = np.arange(len(self.heads))
        means = [centre(values[everyone != i], known[everyone != i], self.config) for i in everyone]
        mask = inside.reshape(self.grid.shape)
        found = self._left_out([self._volume(mean, mask) for mean in means], mask)
        compared = [
            (self.heads[i], self._volume(means[i], mask), mask, f.transform, places) for i, f in enumerate(found) if f
        ]
        pairs = self._each(residuals_at, compared, "heads left out: residuals")
        residuals, seen = np.stack([r for r, _ in pairs]), np.stack([k for _, k in pairs])
        counts = np.minimum(known.sum(axis=0), seen.sum(axis=0)).astype(np.uint16)
        enough = counts >= self._fewest()
        final = np.zeros_like(mask)
        final[mask] = enough
        measured = np.array([i for i, f in enumerate(found) if f])
        parts: dict[str, Any] = {"unit": self.config.unit, "channel": self.config.channel}
        parts |= {"mask": Volume(final[None].astype(np.uint8), self.grid)}
        parts |= {"counts": self._volume(counts[enough], final)}

        def without(head: int | None) -> Atlas:
            others = measured != head
            variance = spread(residuals[others][:, enough], seen[others][:, enough], self.config)
            mean = centre(values, known, self.config) if head is None else means[head]
            sd = self._volume(np.sqrt(self._smooth(variance, final)), final)
            return Atlas(self._volume(mean[enough], final), sd, count=int(others.sum()), **parts)

        floor = ZmapConfig().sd_floor
        jobs = [(self.heads[i], without(i), f.transform, floor) for i, f in enumerate(found) if f]
        maps = self._each(left_out_z, jobs, "heads left out: Z")
        calibration, shown = calibrate(maps, self.config, floor)
        whole = without(None)
        records = self._records(found, dict(zip(measured.tolist(), shown, strict=True)))
        self.warnings += _small_group(len(self.heads))
        provenance = {
            "neoseg": installed_version(),
            "heads": records,
            "failed": self.failed,
            "warnings": [*self.warnings, *(f"{name} is left out: {told}" for name, told in self.failed.items())],
            "reference": reference,
            "config": self.config.model_dump(mode="json"),
        }
        return Atlas(
            whole.mean,
            whole.sd,
            count=len(self.heads),
            **parts,
            regions=self._regions(final),
            calibration=calibration,
            provenance=provenance,
        )

    def _each(self, function: Callable[[Any], Any], jobs: Sequence[Any], text: str) -> list[Any]:
        results = []
        for result in self.run_each(function, jobs):
            results.append(result)
            self.advance(1, text)
        return results

    def _register(self, function: Callable[[Any], Found], jobs: Sequence[Any], text: str) -> list[Found]:
        """Run one registration a head; heads without a result leave the group."""
        attempts = self._each(Remembered(function, self.work), jobs, text)
        for head, attempt in zip(self.heads, attempts, strict=True):
            if attempt.found is None:
                self.failed[head.name] = attempt.error
        self.heads = [h for h, attempt in zip(self.heads, attempts, strict=True) if attempt.found is not None]
        _require_enough(len(self.heads), self.failed)
        return [attempt.found for attempt in attempts if attempt.found is not None]

    def _left_out(self, means: Sequence[Volume], mask: NDArray[np.bool_]) -> list[Found | None]:
        """Register the mean of the others to each head; a head for which that fails has no part in the sd."""
        jobs = [
            (head, mean, mask, affine.inverse(), self.config)
            for head, mean, affine in zip(self.heads, means, self.affines, strict=True)
        ]
        attempts = self._each(Remembered(to_scan, self.work), jobs, "heads left out: registration")
        for head, attempt in zip(self.heads, attempts, strict=True):
            if attempt.found is None:
                self.warnings.append(f"{head.name} has no part in the sd: {attempt.error}")
        found = [attempt.found for attempt in attempts]
        _require_enough(sum(f is not None for f in found), self.failed)
        return found

    def _read(self, transforms: Sequence[Transform], places: NDArray[np.float64], text: str) -> None:
        jobs = [(head, move, places) for head, move in zip(self.heads, transforms, strict=True)]
        self.images = self._each(read_at, jobs, text)

    def _template(self) -> tuple[Volume, NDArray[np.bool_]]:
        known = np.stack([inside for _, inside, _ in self.images])
        mask = known.sum(axis=0) >= self._fewest()
        values = np.stack([image for image, _, _ in self.images])[:, mask]
        inside = mask.reshape(self.grid.shape)
        return self._volume(centre(values, known[:, mask], self.config), inside), inside

    def _regions(self, mask: NDArray[np.bool_]) -> Volume | None:
        labels = [regions[mask.ravel()] for _, _, regions in self.images if regions is not None]
        return self._volume(vote(np.stack(labels)), mask) if labels else None

    def _records(self, found: Sequence[Found | None], shown: dict[int, tuple[float, float]]) -> list[dict[str, Any]]:
        """Return what is kept of each head, and add a warning for each that does not look like the others."""
        ncc = np.array([f.ncc if f else np.nan for f in found])
        usual = float(np.nanmedian(ncc)) if np.isfinite(ncc).any() else 0.0
        far = max(LOW_NCC, 5 * 1.4826 * float(np.nanmedian(np.abs(ncc - usual)))) if np.isfinite(ncc).any() else 0.0
        facts = {
            head.name: {**way.facts, **({"affine_rival": self.rivals[head.name]} if head.name in self.rivals else {})}
            for head, way in zip(self.heads, found, strict=True)
            if way
        }
        odd, records = doubts(facts), []
        for i, (head, way) in enumerate(zip(self.heads, found, strict=True)):
            told = [*odd.get(head.name, ())]
            told += [*(self.found[i].warnings if self.found else ()), *(way.warnings if way else ())]
            mean, sd = shown.get(i, (None, None))
            if ncc[i] < usual - far:
                told.append(
                    f"its correlation with the template is {ncc[i]:.2f}, the group's median {usual:.2f}; look at it."
                )
            if mean is not None and sd is not None and (abs(mean) > FAR_MEAN or sd > WIDE_SD):
                told.append(
                    f"left out, its Z map has mean {mean:.1f} and sd {sd:.1f}; is it healthy, in the same unit and "
                    "from a scanner like the others'?"
                )
            records.append(
                {
                    "name": head.name,
                    "ncc": _rounded(ncc[i]),
                    "left_out_mean": _rounded(mean),
                    "left_out_sd": _rounded(sd),
                    **{name: _rounded(value) for name, value in facts.get(head.name, {}).items()},
                    "warnings": told,
                }
            )
            self.warnings += [f"{head.name}: {sentence}" for sentence in told]
        return records

    def _smooth(self, variance: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        image = np.zeros(mask.shape, np.float32)
        image[mask] = variance
        return masked_smoothing(image, mask, self.grid.spacing, self.config.smooth_mm)[mask]

    def _volume(self, values: NDArray[Any], mask: NDArray[np.bool_]) -> Volume:
        image = np.zeros(mask.shape, values.dtype)
        image[mask] = values
        return Volume(image[None], self.grid)

    def _fewest(self) -> float:
        return max(self.config.fewest_heads, self.config.fewest_share * len(self.heads))


def _require_enough(count: int, failed: dict[str, str]) -> None:
    if count >= FEWEST_HEADS:
        return
    first = next(iter(failed.items()), None)
    why = f" ({len(failed)} could not be used; {first[0]}: {first[1].rstrip('.')})" if first else ""
    raise InputError(
        f"An atlas was asked from {count} healthy scans{why}, but it needs {FEWEST_HEADS} or more; add healthy cases "
        "or give a finished atlas."
    )


def _small_group(count: int) -> list[str]:
    if count >= ENOUGH_HEADS:
        return []
    return [
        f"The atlas has {count} heads, so the sd of a voxel is uncertain by {100 / np.sqrt(2 * (count - 1)):.0f} % and "
        f"its mean by {1 / np.sqrt(count):.2f} sd; add healthy scans if there are more."
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def _median_head(heads: Sequence[HealthyHead]) -> HealthyHead:
    """Return the head of median brain volume (of two, the smaller)."""
    return heads[int(np.argsort([head.brain_mm3 for head in heads], kind="stable")[(len(heads) - 1) // 2])]


def _mean_pose(reference: HealthyHead, affines: Sequence[Affine], config: AtlasConfig) -> tuple[Grid, list[Transform]]:
    """Place the template: the mean linear part is taken out, the mean brain's centre becomes the world's origin."""
    mean = _mean_affine(affines).matrix[:3, :3]
    centre_mm = reference.image.grid.to_world(np.argwhere(reference.mask).mean(axis=0))
    to_first = np.eye(4)
    to_first[:3, :3], to_first[:3, 3] = np.linalg.inv(mean), centre_mm
    back = Affine(to_first).inverse()
    moved = Grid(reference.image.grid.shape, back.matrix @ reference.image.grid.affine)
    grid = around(moved, reference.mask, config.spacing_mm, config.margin_mm)
    return grid, [Chain([Affine(to_first), affine]) for affine in affines]


def _mean_affine(transforms: Sequence[Transform]) -> Affine:
    """Return the mean linear part of the affine ends, about the world's origin: the mean of their logarithms."""
    from scipy.linalg import expm, logm

    matrix = np.eye(4)
    matrix[:3, :3] = expm(np.mean([np.real(logm(affine_part(t).matrix[:3, :3])) for t in transforms], axis=0))
    return Affine(matrix)


def _mean_deformation(transforms: Sequence[Transform]) -> Transform:
    """Return the mean of the deformations; heads whose deformation was refused count as undeformed.

    All lattices are the same, so the mean of the coefficients is the mean deformation, and taking it out moves the
    template to where the heads are on average.
    """
    first = [t.transforms[0] for t in transforms if isinstance(t, Chain)]
    deformations = [d for d in first if isinstance(d, Ffd)]
    if not deformations:
        return Affine.identity()
    mean = np.sum([d.coefficients for d in deformations], axis=0) / len(transforms)
    return Ffd(deformations[0].origin, deformations[0].spacing, mean)
