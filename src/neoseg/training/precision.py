"""Which number format a training computes in, and where bfloat16 must not be used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..inference.precision import autocast, resolve_precision
from .configs import TrainingConfig
from .data import TrainingData

__all__ = ["training_precision", "wrong_in_bfloat16"]


def training_precision(
    network: nn.Module, data: TrainingData, config: TrainingConfig, device: torch.device
) -> tuple[torch.dtype, str]:
    """Return the number format, and a sentence when "auto" had to avoid bfloat16 (else an empty text).

    Raises:
        ConfigError: bfloat16 was asked for, and would give wrong gradients.
    """
    dtype = resolve_precision(config.precision, device)
    if config.precision == "auto" and device.type == "cuda" and dtype == torch.float32:
        # tensor cores of Volta and Turing multiply in float16 only
        return (torch.float16, "") if torch.cuda.get_device_capability(device) >= (7, 0) else (torch.float32, "")
    if dtype != torch.bfloat16 or device.type != "cpu" or len(data.patch) != 3:
        return dtype, ""
    sizes = dict.fromkeys((data.patch, *data.patches))
    found = [name for size in sizes for name in wrong_in_bfloat16(network, torch.zeros(1, data.channels, *size))]
    layers = list(dict.fromkeys(found))
    if not layers:
        return dtype, ""
    reason = (
        f"on this CPU bfloat16 gives wrong gradients for {len(layers)} convolutions that see fewer voxels along x than "
        f"their kernel has ({layers[0]}, ...)"
    )
    if config.precision == "auto":
        return torch.float32, f"The training computes in float32: {reason}."
    raise ConfigError(
        f'training.precision = "bfloat16": {reason}; use "auto" or "float32", or a patch that is longer along x.'
    )


def wrong_in_bfloat16(network: nn.Module, example: Tensor) -> list[str]:
    """Return the 3-D convolutions whose bfloat16 weight gradient cannot be trusted on a CPU.

    oneDNN (as in torch 2.13, AVX512-BF16) computes the weight gradient of a padded 3-D convolution from memory that was
    never written when the first spatial axis is shorter than the kernel: values up to 1e33, other ones in each run.
    The other two axes do not matter, nor do depthwise convolutions; with a stride longer inputs are affected too.

    Args:
        network: on the CPU.
        example: one input ``(1, c, x, y, z)``; the sizes that each layer sees are taken from a forward pass.
    """
    found: list[str] = []

    def watch(name: str) -> object:
        def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Conv3d)
            kernel, stride = module.kernel_size[0], module.stride[0]
            least = kernel if stride == 1 else kernel * stride
            if torch.is_autocast_enabled("cpu") and kernel > 1 and inputs[0].shape[2] < least:
                found.append(name)

        return check

    handles = [
        module.register_forward_pre_hook(watch(name))  # type: ignore[arg-type]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and (module.groups == 1 or module.groups < module.in_channels)
    ]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), autocast(torch.bfloat16, torch.device("cpu")):
            network(example)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return found
