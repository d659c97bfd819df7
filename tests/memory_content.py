"""What memory holds before it is used: code that reads what nobody wrote gives other results each time."""

import torch

SIZES = (16, 27, 64, 128, 432, 512, 1024, 1728, 3456, 4096, 6912, 13824, 27648)
"""Numbers of values for which space was seen to be used again by the gradients of small convolutions."""


def leave_in_memory(content: float) -> None:
    """Fill memory with a value and give it back."""
    _ = [
        torch.full((size,), content, dtype=dtype)
        for size in SIZES
        for dtype in (torch.float32, torch.bfloat16)
        for _ in range(3)
    ]
