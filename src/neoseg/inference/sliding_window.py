"""Predict a volume of any size with a network of fixed patch size.

Windows are spaced evenly and each result is weighted by a Gaussian around the window's centre (sigma = patch / 8). What
is averaged over windows and mirrorings are the probabilities after softmax (of regions: sigmoid), or with ``average =
"logits"`` the logits, whose softmax is taken at the end. Sums are kept only for the planes that the windows at work
reach; planes that no later window touches are finished and given away at once, so the size of a volume does not decide
the memory.

A window whose logits are not finite is computed again in float32, where the precision was lower (float16 ends at
65,504), and what is not finite then is refused: every comparison with NaN is false, so it would become background.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.patches import clamped_start, cut
from ..errors import GeometryError, InputError, StateError
from ..targets import Targets
from .configs import WindowConfig
from .precision import autocast, resolve_precision

__all__ = [
    "Answer",
    "Call",
    "Unrefused",
    "answer_of",
    "finite_logits",
    "gaussian_weights",
    "has_content",
    "predict_probabilities",
    "window_grid",
    "window_starts",
    "windowed_planes",
    "zero_level",
]

Call = Callable[[Tensor], Sequence[Tensor]]
"""``(b, c, x, y, z)`` -> finite logits, full size ``(b, channels, x, y, z)`` first; any network of this package is
one."""

Answer = Callable[[Tensor], Tensor]
"""``(b, c, x, y, z)`` -> float32 ``(b, channels, x, y, z)`` of what is averaged, see :func:`answer_of`."""


def predict_probabilities(
    call: Call,
    image: NDArray[Any] | Tensor,
    *,
    patch: Sequence[int],
    targets: Targets,
    config: WindowConfig | None = None,
    device: torch.device | str = "cpu",
    fill: float = 0.0,
) -> Tensor:
    """Return the probabilities of a whole volume.

    A volume that fits into the patch along every axis is padded to it and predicted in one pass.

    Args:
        call: network in evaluation mode, or :func:`neoseg.inference.ensemble.mean_of`.
        image: ``(c, x, y, z)`` or ``(c, x, y)``.
        patch: voxels along each axis.
        targets: what the channels of the network's answer stand for.
        config: windows, mirroring, averaging and precision; default :class:`WindowConfig`.
        device: where the network is, and where the result will be.
        fill: image value of the padding.

    Returns:
        ``(channels, x, y, z)`` float32 on the device, 0..1; of classes the sum over them is 1.

    Raises:
        GeometryError: the patch does not have one whole number above 0 for each axis of the image.
        StateError, InputError: as :func:`finite_logits`; InputError too where the image is not finite.
    """
    config = config or WindowConfig()
    values = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if len(patch) != values.ndim - 1 or not all(int(n) == n and n > 0 for n in patch):
        raise GeometryError(
            f"A patch {tuple(patch)} was given for an image of shape {values.shape}: give one whole number of voxels "
            "for each axis after that of the channels."
        )
    answer, logits = answer_of(call, config, targets), config.average == "logits"
    result = torch.empty((targets.channels, *values.shape[1:]), device=device)
    outside = targets.background(logits=logits)
    for first, planes in windowed_planes(
        answer, values, patch=patch, outside=outside, config=config, device=device, fill=fill
    ):
        result[:, first : first + planes.shape[1]] = targets.probabilities(planes, 0) if logits else planes
    return result


def windowed_planes(
    answer: Answer,
    image: NDArray[Any],
    *,
    patch: Sequence[int],
    outside: Sequence[float],
    config: WindowConfig,
    device: torch.device | str = "cpu",
    fill: float = 0.0,
) -> Iterator[tuple[int, Tensor]]:
    """Give the weighted mean of the answers of all windows, plane by plane along the first axis, each plane once.

    Windows in which a volume is 0 throughout (but for rounding) are not computed with ``config.skip_background``. A
    voxel that lies in computed windows only is not changed by that, so nothing changes where the image is not 0; a
    voxel that lies in both kinds is the mean of the computed ones, and one that lies in none has the value ``outside``.

    Args:
        answer: see :func:`answer_of`.
        image: ``(c, x, y, z)`` or ``(c, x, y)``, in memory or mapped from a file; only windows of it are copied.
        patch: voxels along each axis.
        outside: value of each channel of the answer where no window is computed.
        config: windows.
        device: where the network is.
        fill: image value outside the image, for axes shorter than the patch.

    Returns:
        Pairs (first plane, float32 ``(channels, planes, y, z)`` on the device); an array is the reader's own.
    """
    device = torch.device(device)
    patch = tuple(int(p) for p in patch)
    shape = tuple(int(n) for n in image.shape[1:])
    border = torch.tensor(list(outside), dtype=torch.float32, device=device).reshape(-1, *[1] * len(shape))
    starts = window_grid(shape, patch, config.overlap)
    level = zero_level(image)
    skips = config.skip_background and len(shape) == 3  # the black of a picture is a grey level like others
    wanted = [s for s in starts if not skips or has_content(image, s, patch, level)]
    single = len(starts) == 1
    weights = torch.ones(patch, device=device) if single else gaussian_weights(patch).to(device)
    dtype = resolve_precision(config.precision, device)
    depth = min(patch[0], shape[0])
    total = torch.zeros((len(border), depth, *shape[1:]), device=device)
    norm = torch.zeros((depth, *shape[1:]), device=device)
    base = 0
    for group in _groups(wanted, config.windows_at_once(patch)):
        batch = torch.from_numpy(np.stack([cut(image, start, patch, fill) for start in group]).astype(np.float32))
        with torch.inference_mode(), autocast(dtype, device):
            results = answer(batch.to(device))
        for start, result in zip(group, results.clone(), strict=True):
            if start[0] > base:
                yield from _finished(total, norm, border, base, min(start[0], shape[0]))
                base = start[0]
            here, there = _overlap(start, patch, shape)
            here = (slice(here[0].start - base, here[0].stop - base), *here[1:])
            inner = result[(slice(None), *there)]
            total[(slice(None), *here)] += inner if single else inner * weights[there]
            norm[here] += weights[there]
    yield from _finished(total, norm, border, base, shape[0])


def _finished(total: Tensor, norm: Tensor, border: Tensor, base: int, end: int) -> Iterator[tuple[int, Tensor]]:
    """Give the planes from ``base`` to ``end`` and move the sums on by as many; what lies beyond them is empty."""
    depth = norm.shape[0]
    count = min(depth, end - base)
    planes, sums = total[:, :count], norm[:count]
    yield base, torch.where(sums > 0, planes / sums, border)
    keep = depth - count
    # through a copy: source and target overlap
    total[:, :keep], norm[:keep] = total[:, count:].clone(), norm[count:].clone()
    total[:, keep:], norm[keep:] = 0, 0
    # a gap may be nearly the whole volume, so it comes in parts too
    for start in range(base + count, end, depth):
        gap = (len(border), min(depth, end - start), *norm.shape[1:])
        yield start, border.expand(gap).clone()


def answer_of(call: Call, config: WindowConfig, targets: Targets, *, name: str = "The network") -> Answer:
    """Return the probabilities or logits of a network, averaged over every combination of the mirror axes.

    Args:
        call: the network.
        config: which axes, and what is averaged.
        targets: what the channels of its answer stand for.
        name: what to call it in an error.
    """
    flips = [
        [axis + 2 for axis in chosen]
        for count in range(len(config.mirror_axes) + 1)
        for chosen in itertools.combinations(config.mirror_axes, count)
    ]

    def answer(batch: Tensor) -> Tensor:
        total: Tensor | None = None
        for axes in flips:
            seen = torch.flip(batch, axes) if axes else batch
            logits = finite_logits(call, seen, name=name)
            found = targets.probabilities(logits, 1) if config.average == "softmax" else logits
            found = torch.flip(found, axes) if axes else found
            total = found if total is None else total + found
        assert total is not None
        return total / len(flips)

    return answer


@dataclass(frozen=True)
class Unrefused:
    """A network whose answer is passed on where it is not finite in float32 either.

    A training may come through such a state and recover.
    """

    call: Call

    def __call__(self, batch: Tensor) -> Sequence[Tensor]:
        """Ask the network."""
        return self.call(batch)


def finite_logits(call: Call, batch: Tensor, *, name: str = "The network") -> Tensor:
    """Return the full-size logits of a network, those of a window in float32 where a lower precision overflowed.

    Args:
        call: the network; one that is :class:`Unrefused` may give what is not finite.
        batch: ``(b, c, x, y, z)``.
        name: what to call the network in an error.

    Returns:
        float32 ``(b, channels, x, y, z)``.

    Raises:
        StateError: the weights of the network are not finite.
        InputError: its answer is not, although its weights are.
    """
    logits = call(batch)[0].float()
    if _all_finite(logits):
        return logits
    kind = batch.device.type
    if torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            for i in (~logits.isfinite().flatten(1).all(dim=1)).nonzero().flatten():
                # one at a time: they may take twice the memory
                logits = logits.index_copy(0, i[None], call(batch[i : i + 1])[0].float())
    if not isinstance(call, Unrefused) and not _all_finite(logits):
        _refuse(call, batch, name)
    return logits


def _all_finite(values: Tensor) -> bool:
    # a sum costs a tenth of looking at each value; it may overflow where each of them is finite
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _refuse(call: Call, batch: Tensor, name: str) -> NoReturn:
    """Say whether the weights or the image are to blame."""
    weights = call.state_dict() if isinstance(call, nn.Module) else {}
    wrong = next((key for key, v in weights.items() if v.is_floating_point() and not bool(v.isfinite().all())), None)
    if wrong is not None:
        raise StateError(
            f"{name} has weights that are not finite ({wrong}), so it has no answer; copy the run folder again, or "
            "train this fold again."
        )
    low, high = (float(end) for end in batch.aminmax())
    raise InputError(
        f"{name} gives an answer that is not finite, in float32 too, for a part of the image whose prepared values "
        f"reach from {low:.3g} to {high:.3g}; look for extreme values in the image, or for another unit."
    )


def zero_level(image: NDArray[Any]) -> float:
    """Return up to which magnitude a value counts as 0: the rounding of the largest value (1.2e-7 of it).

    Resampling by splines leaves ripples around what was 0.

    Raises:
        InputError: the image holds NaN or infinity.
    """
    # both ends, since the magnitude of the least integer is none of its type
    ends = [float(end) for channel in image for plane in channel if plane.size for end in (plane.min(), plane.max())]
    largest = float(np.max(np.abs(ends), initial=0.0))
    if not np.isfinite(largest):
        raise InputError("The image holds NaN or infinite voxels; set them to a number first.")
    return largest * float(np.finfo(np.float32).eps)


def has_content(image: NDArray[Any], start: Sequence[int], patch: Sequence[int], level: float) -> bool:
    """Tell whether a window of an image ``(c, x, y, z)`` holds a value above :func:`zero_level` in magnitude."""
    place = tuple(slice(max(0, s), max(0, s + p)) for s, p in zip(start, patch, strict=True))
    return any(bool(((window > level) | (window < -level)).any()) for window in (channel[place] for channel in image))


def window_grid(shape: Sequence[int], patch: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """Return the start of every window, first axis slowest; negative along an axis that is shorter than the patch."""
    before = [min(0, s) for s in clamped_start([0] * len(shape), shape, patch)]
    starts = window_starts(shape, patch, overlap)
    return list(itertools.product(*([s + b for s in line] for line, b in zip(starts, before, strict=True))))


def window_starts(shape: Sequence[int], patch: Sequence[int], overlap: float) -> list[list[int]]:
    """Return the starts along each axis: the fewest evenly spaced ones with a stride of at most (1 - overlap) patch.

    Along an axis on which the volume is not larger than the patch there is one, 0.
    """
    result = []
    for n, p in zip(shape, patch, strict=True):
        free = max(0, n - p)
        count = math.ceil(free / max(1, int(p * (1 - overlap)))) + 1
        result.append([round(free * i / max(1, count - 1)) for i in range(count)])
    return result


def gaussian_weights(patch: Sequence[int]) -> Tensor:
    """Return the weight of each voxel of a window: a Gaussian around its centre, sigma = patch / 8 along each axis.

    Its largest value is near 1; where float32 rounds it to zero the smallest positive value stands.
    """
    weights = torch.ones(())
    for p in patch:
        distance = torch.arange(p, dtype=torch.float64) - (p - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (distance / (p / 8)) ** 2)
    weights = weights.to(torch.float32)
    return weights.clamp_min(float(weights[weights > 0].min()))


def _overlap(
    start: Sequence[int], patch: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a window meets the volume: in the volume, and in the window."""
    low = [max(s, 0) for s in start]
    high = [min(s + p, n) for s, p, n in zip(start, patch, shape, strict=True)]
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return here, tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))


def _groups(starts: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]
