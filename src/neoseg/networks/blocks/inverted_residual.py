"""Inverted residual: channels are widened, convolved one by one, and narrowed again (MobileNetV2, EfficientNet)."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from neoseg.networks.blocks.conv_block import ConvBlock, Form
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.squeeze_excitation import SqueezeExcitation
from neoseg.networks.blocks.tokens import conv_of, dropout_of
from neoseg.networks.configs.light import LightBlock

__all__ = ["InvertedResidual"]


class InvertedResidual(nn.Module):
    """Map (B, inputs, x, y, z) to (B, outputs, x, y, z) divided by the stride.

    A 1x1x1 convolution to `hidden` channels where there are more of them, a depthwise convolution, squeeze and
    excitation where there is one, and a 1x1x1 convolution without activation, the linear bottleneck; the input is added
    where size and channels are the same. Sandler et al., CVPR 2018 (arXiv 1801.04381), section 3.3 and figure 3;
    "MBConv" of Tan & Le, ICML 2019 (arXiv 1905.11946), where squeezed channels are a quarter of the inputs.

    A strided convolution is padded alike at both ends, as the package's others; TensorFlow pads the far end alone.
    EfficientNet's stochastic depth is left out.

    Args:
        size: channels, kernel and stride.
        form: normalisation behind each convolution, and the activation of all but the last.
        axes: 2 for planes, 3 for volumes.
        dropout: share of channels dropped while training, before the input is added.
    """

    def __init__(self, size: LightBlock, form: Form, axes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = size.hidden
        self.expand: nn.Module = nn.Identity()
        if hidden > size.inputs:
            self.expand = ConvBlock(size.inputs, hidden, (1,) * axes, form)
        self.depthwise = ConvBlock(
            hidden, hidden, (size.kernel,) * axes, form, stride=(size.stride,) * axes, groups=hidden
        )
        self.squeeze: nn.Module = nn.Identity()
        if size.squeezed:
            inner: Literal["relu", "silu"] = "silu" if form.activation == "silu" else "relu"
            self.squeeze = SqueezeExcitation(hidden, axes, spatial=False, squeezed=size.squeezed, activation=inner)
        self.project = conv_of(axes)(hidden, size.outputs, 1, bias=form.biased)
        self.norm = form.normalisation(size.outputs, axes)
        self.dropout = dropout_of(axes)(dropout) if dropout else nn.Identity()
        self.residual = size.stride == 1 and size.inputs == size.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, x, y, z) to (B, outputs, x, y, z) divided by the stride."""
        y = convolve(self.project, self.squeeze(self.depthwise(self.expand(x))))
        y = cast(Tensor, self.dropout(self.norm(y)))
        return y.add_(x) if self.residual else y
