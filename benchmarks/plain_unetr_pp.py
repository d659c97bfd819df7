"""UNETR++ written down plainly: each step of the published code as one line, float32, default memory format.

What `neoseg.networks.unetr_pp` is timed against, and checked against at sizes for which there are no reference numbers.
Parameters bear the authors' names, so that their weights load without translation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VARIANTS", "PlainUnetrPP", "Variant"]


class Variant(NamedTuple):
    in_channels: int
    classes: int
    patch: tuple[int, int, int]
    stem: tuple[int, int, int]
    projection: str
    fusion: str
    convs: int
    dropout: float
    dims: tuple[int, ...] = (32, 64, 128, 256)
    depth: int = 3
    slots: tuple[int, ...] = (64, 64, 64, 32)
    decoder_slots: int = 64
    features: int = 16


VARIANTS = {
    "synapse": Variant(1, 14, (64, 128, 128), (2, 4, 4), "shared", "concat", 1, 0.15),
    "acdc": Variant(1, 4, (16, 160, 160), (1, 4, 4), "separate", "concat", 2, 0.1),
    "tumor": Variant(4, 4, (128, 128, 128), (4, 4, 4), "matrix", "sum", 1, 0.1),
    "lung": Variant(1, 2, (32, 192, 192), (1, 4, 4), "separate", "concat", 2, 0.1),
}
HEADS = 4


class Conv(nn.Module):
    def __init__(self, inside: int, outside: int, kernel: int | Sequence[int], *, stride: int | Sequence[int] = 1,
                 padding: int = 0, bias: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv3d(inside, outside, kernel, stride=stride, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    def __init__(self, inside: int, outside: int, step: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(inside, outside, step, stride=step, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResidualBlock(nn.Module):
    def __init__(self, inside: int, outside: int, *, batch: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm3d if batch else nn.InstanceNorm3d
        self.conv1, self.norm1 = Conv(inside, outside, 3, padding=1), norm(outside)
        self.conv2, self.norm2 = Conv(outside, outside, 3, padding=1), norm(outside)
        self.changes = inside != outside
        if self.changes:
            self.conv3, self.norm3 = Conv(inside, outside, 1), norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        y = self.norm2(self.conv2(y))
        y += self.norm3(self.conv3(x)) if self.changes else x
        return functional.leaky_relu(y, 0.01, inplace=True)


class Attention(nn.Module):
    def __init__(self, tokens: int, dim: int, slots: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.temperature, self.temperature2 = (nn.Parameter(torch.ones(HEADS, 1, 1)) for _ in "12")
        self.qkvv = nn.Linear(dim, 4 * dim, bias=False)
        if variant.projection == "matrix":
            self.EF = nn.Parameter(torch.empty(tokens, slots).uniform_(-(slots**-0.5), slots**-0.5))
        else:
            self.E = nn.Linear(tokens, slots)
            self.F = self.E if variant.projection == "shared" else nn.Linear(tokens, slots)
        if variant.fusion == "concat":
            self.out_proj, self.out_proj2 = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        self.drop, self.drop2 = nn.Dropout(variant.dropout), nn.Dropout(variant.dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v_channel, v_spatial = self.qkvv(x).reshape(batch, tokens, 4, HEADS, dim // HEADS).permute(2, 0, 3, 4, 1)
        if self.variant.projection == "matrix":
            k_slots, v_slots = k @ self.EF, v_spatial @ self.EF
        else:
            k_slots, v_slots = self.E(k), self.F(v_spatial)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        channel_map = self.drop((q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1))
        channel = (channel_map @ v_channel).permute(0, 3, 1, 2).reshape(batch, tokens, dim)
        spatial_map = self.drop2((q.transpose(-2, -1) @ k_slots * self.temperature2).softmax(dim=-1))
        spatial = (spatial_map @ v_slots.transpose(-2, -1)).permute(0, 3, 1, 2).reshape(batch, tokens, dim)
        if self.variant.fusion == "sum":
            return channel + spatial
        return torch.cat((self.out_proj(spatial), self.out_proj2(channel)), dim=-1)


class Block(nn.Module):
    def __init__(self, grid: Sequence[int], dim: int, slots: int, variant: Variant) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(grid), dim))
        self.norm = nn.LayerNorm(dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.epa_block = Attention(math.prod(grid), dim, slots, variant)
        self.conv51 = ResidualBlock(dim, dim, batch=True)
        self.conv52 = ResidualBlock(dim, dim, batch=True) if variant.convs == 2 else None
        self.conv8 = nn.Sequential(nn.Dropout3d(0.1), nn.Conv3d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, *grid = x.shape
        tokens = x.reshape(batch, dim, -1).permute(0, 2, 1) + self.pos_embed
        tokens = tokens + self.gamma * self.epa_block(self.norm(tokens))
        volume = tokens.reshape(batch, *grid, dim).permute(0, 4, 1, 2, 3)
        y = self.conv51(volume)
        y = self.conv52(y) if self.conv52 is not None else y
        return volume + self.conv8(y)


class Encoder(nn.Module):
    def __init__(self, variant: Variant, grids: Sequence[Sequence[int]]) -> None:
        super().__init__()
        dims = variant.dims
        self.downsample_layers = nn.ModuleList([
            nn.Sequential(Conv(variant.in_channels, dims[0], variant.stem, stride=variant.stem),
                          nn.GroupNorm(variant.in_channels, dims[0]))
        ])  # fmt: skip
        for a, b in itertools.pairwise(dims):
            self.downsample_layers.append(nn.Sequential(Conv(a, b, 2, stride=2), nn.GroupNorm(a, b)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(grid, dim, slots, variant) for _ in range(variant.depth)))
            for grid, dim, slots in zip(grids, dims, variant.slots, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            skips.append(x)
        return skips


class Decoder(nn.Module):
    def __init__(self, up: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.transp_conv, self.decoder_block = up, nn.ModuleList([block])

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.decoder_block[0](self.transp_conv(x) + skip)


class Head(nn.Module):
    def __init__(self, inside: int, classes: int) -> None:
        super().__init__()
        self.conv = Conv(inside, classes, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PlainUnetrPP(nn.Module):
    """The network of one variant, with four levels; (B, in, z, y, x) to three logits, full size first."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        first = [n // s for n, s in zip(variant.patch, variant.stem, strict=True)]
        grids = [[n // 2**level for n in first] for level in range(4)]
        dims, f = variant.dims, variant.features
        self.unetr_pp_encoder = Encoder(variant, grids)
        self.encoder1 = ResidualBlock(variant.in_channels, f, batch=False)

        def blocks(level: int) -> nn.Module:
            row = (Block(grids[level], dims[level], variant.decoder_slots, variant) for _ in range(variant.depth))
            return nn.Sequential(*row)

        self.decoder5 = Decoder(Up(dims[3], dims[2], (2, 2, 2)), blocks(2))
        self.decoder4 = Decoder(Up(dims[2], dims[1], (2, 2, 2)), blocks(1))
        self.decoder3 = Decoder(Up(dims[1], dims[0], (2, 2, 2)), blocks(0))
        self.decoder2 = Decoder(Up(dims[0], f, variant.stem), ResidualBlock(f, f, batch=False))
        self.out1, self.out2, self.out3 = (Head(c, variant.classes) for c in (f, dims[0], dims[1]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        skips = self.unetr_pp_encoder(x)
        d5 = self.decoder5(skips[3], skips[2])
        d4 = self.decoder4(d5, skips[1])
        d3 = self.decoder3(d4, skips[0])
        d2 = self.decoder2(d3, self.encoder1(x))
        return self.out1(d2), self.out2(d3), self.out3(d4)
