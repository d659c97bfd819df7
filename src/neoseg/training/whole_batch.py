"""Layers whose result depends on the whole batch, computed by processes that each hold a share of it.

Batch norms take mean and variance over all shares; an instance norm looks at one sample and needs no other. Dropout
draws the mask of the whole batch, which every process can since their generators are equal, and keeps its own rows. So
several processes compute what one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from .ranks import Ranks

__all__ = ["WholeBatch"]

_CHANNEL_DROPOUT = (functional.dropout1d, functional.dropout2d, functional.dropout3d)

_REFUSED = (
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    functional.gumbel_softmax,
    functional.rrelu,
    torch.bernoulli,
    torch.multinomial,
    torch.normal,
    torch.rand,
    torch.rand_like,
    torch.randint,
    torch.randn,
    torch.randn_like,
    torch.randperm,
    Tensor.bernoulli_,
    Tensor.normal_,
    Tensor.uniform_,
)


class WholeBatch(TorchFunctionMode):
    """The context in which a network sees its rows of the batch as part of the whole; for training passes.

    Raises:
        ConfigError: the network draws random numbers in a way that cannot be shared, or keeps running means of an
            instance norm.
    """

    def __init__(self, ranks: Ranks) -> None:
        """Know the other processes."""
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the calls that need the other rows."""
        named = kwargs or {}
        if func is functional.batch_norm:
            return self._batch_norm(*args, **named)
        if func is functional.dropout:
            return self._dropout(functional.dropout, *args, **named)
        if func in _CHANNEL_DROPOUT:
            return self._dropout(func, *args, **named)
        if func is functional.scaled_dot_product_attention:
            share = args[4] if len(args) > 4 else named.get("dropout_p", 0.0)
            return self._attention(*args, **named) if share > 0 else func(*args, **named)
        if func is functional.instance_norm and named.get("running_mean") is not None:
            _refuse("an instance norm with running means")
        if func in _REFUSED:
            _refuse(f"{getattr(func, '__name__', func)} in its forward pass")
        return func(*args, **named)

    def _batch_norm(  # noqa: PLR0913 - torch's own signature
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        result, mean, variance = _BatchNorm.apply(x, weight, bias, eps, self._ranks)  # type: ignore[no-untyped-call]
        if running_mean is not None and running_var is not None:
            count = self._ranks.world * x.numel() // x.shape[1]
            running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            running_var.mul_(1 - momentum).add_(variance, alpha=momentum * count / (count - 1))
        assert isinstance(result, Tensor)
        return result

    def _dropout(
        self, drop: Callable[..., Tensor], x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        shape = list(x.shape)
        if drop is not functional.dropout:
            shape[2:] = [1] * (x.ndim - 2)
        rows = self._ranks.rows(self._ranks.world * shape[0])
        shape[0] *= self._ranks.world
        # masks are drawn in the order of memory, so the whole batch must lie there as one process would hold it
        order = sorted(range(x.ndim), key=lambda axis: (-x.stride()[axis], axis))
        order = order if drop is functional.dropout else list(range(x.ndim))
        ones = torch.ones([shape[axis] for axis in order], dtype=x.dtype, device=x.device)
        mask = drop(ones.permute([order.index(axis) for axis in range(x.ndim)]), p, True)[rows]
        return x.mul_(mask) if inplace else x * mask

    def _attention(  # noqa: PLR0913 - torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is not None or is_causal or enable_gqa:
            _refuse("masked attention with dropout")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        shares = torch.softmax((query * scale) @ key.transpose(-2, -1), dim=-1)
        return self._dropout(functional.dropout, shares, dropout_p) @ value


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation with the mean and variance over the shares of all ranks, in float32 or wider.

    The gradients of weight and bias are those of the own share; they are added up with all others.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variances, means = zip(
            *(part.unbind() for part in ranks.gather(torch.stack(torch.var_mean(wide, _rest(x), correction=0)))),
            strict=True,
        )
        # all shares have the same size, so the mean of their means is the mean of all
        mean = torch.stack(means).mean(0)
        variance = torch.stack(variances).mean(0) + torch.stack(means).var(0, correction=0)
        inverse = torch.rsqrt(variance + eps)
        normal = (wide - _spread(mean, x)) * _spread(inverse, x)
        ctx.save_for_backward(normal, inverse, weight)
        ctx.ranks, ctx.format = ranks, x.dtype
        result = normal if weight is None else normal * _spread(weight, x)
        result = result if bias is None else result + _spread(bias, x)
        ctx.mark_non_differentiable(mean, variance)
        return result.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normal, inverse, weight = ctx.saved_tensors
        wide = gradients[0].to(normal.dtype)
        own = torch.stack([wide.sum(_rest(wide)), (wide * normal).sum(_rest(wide))])
        plain, along = ctx.ranks.total(own) / (ctx.ranks.world * wide.numel() / wide.shape[1])
        given = wide - _spread(plain, wide) - normal * _spread(along, wide)
        factor = inverse if weight is None else inverse * weight
        given = (given * _spread(factor, wide)).to(ctx.format)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return given, own[1] if needs_weight else None, own[0] if needs_bias else None, None, None


def _rest(x: Tensor) -> tuple[int, ...]:
    """Return every axis but that of the channels."""
    return (0, *range(2, x.ndim))


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a channel in a shape that fits x."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _refuse(what: str) -> None:
    raise ConfigError(
        f"network: this one has {what}, which several processes cannot share so that they compute what one would; "
        "train it in one process, without torchrun."
    )
