"""What networks check of their input, and images of sizes that they cannot divide evenly: padded, and cut again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.networks.configs import times

__all__ = ["check_channels", "check_image", "on_padded", "require_batch"]


def check_channels(in_channels: int, classes: int) -> None:
    """Refuse a network without channels or classes.

    Raises:
        ConfigError: one of them is below 1.
    """
    if in_channels < 1 or classes < 1:
        raise ConfigError(
            f"A network of {in_channels} input channels and {classes} classes was asked for: give at least one of each."
        )


def require_batch(x: Tensor) -> None:
    """Refuse a batch without samples, and one of whole numbers.

    Raises:
        InputError: it is no tensor of floating-point numbers.
        GeometryError: it has no sample.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given, remedy = (x.dtype, "x.float()") if isinstance(x, Tensor) else (type(x).__name__, "torch.as_tensor(x)")
        raise InputError(f"The network takes a tensor of float32 and was given {given}: convert it, as by {remedy}.")
    if len(x) == 0:
        raise GeometryError("The batch holds no sample: give the network at least one.")


def check_image(x: Tensor, in_channels: int, patch: Sequence[int]) -> None:
    """Refuse images of other channels or axes than a network of any size was built for.

    Raises:
        GeometryError: another number of channels or axes, or an axis without voxels.
    """
    require_batch(x)
    if x.ndim != len(patch) + 2 or x.shape[1] != in_channels or min(x.shape[2:]) < 1:
        raise GeometryError(
            f"The network was built for {in_channels} channels and {len(patch)} axes of at least one voxel and was "
            f"given a tensor of shape {times(x.shape)}: give it (batch, {in_channels}, "
            f"{', '.join(str(size) for size in patch)}), or other sizes."
        )


def _padded_to(multiple: Sequence[int], x: Tensor) -> Tensor:
    """Return (B, C, x, y, z) with zeros at the end of each axis up to the next multiple, or x itself if it has them."""
    # not -size % m, which torch.compile (2.13) fails to trace for a size that changes
    missing = [(m - size % m) % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    return functional.pad(x, [n for size in reversed(missing) for n in (0, size)]) if any(missing) else x


def _cut(output: Tensor, given: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Return the part of an output, at full or a lower size, that the given voxels of a padded input cover."""
    for axis, (wanted, there) in enumerate(zip(given, padded, strict=True), start=2):
        size = output.shape[axis]
        output = output.narrow(axis, 0, -(-wanted * size // there))
    return output


def on_padded(
    network: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, multiple: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return the outputs of a network for an image (B, c, ...) of any size, cut to what the image covers.

    Args:
        network: takes images whose axes are multiples, and returns outputs at full or lower sizes.
        x: the image.
        multiple: what each axis is padded to a multiple of.
    """
    padded = _padded_to(multiple, x)
    outputs = network(padded)
    return outputs if padded is x else tuple(_cut(output, x.shape[2:], padded.shape[2:]) for output in outputs)
