"""The block of the paper's equations, each against a literal transcription in numpy; and the parts of the ablations."""

import numpy as np
import pytest
import torch

from neoseg.networks.blocks.paired_attention import PairedAttention
from neoseg.networks.blocks.printed_attention import PrintedAttention, PrintedBlock
from neoseg.networks.blocks.token_grid import TokenShape
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.unetr_pp import UnetrPP

N, C, P, GRID = 60, 16, 6, (3, 4, 5)
PRINTED = {"as_printed": True, "heads": 1, "fusion": "sum", "norm": "instance"}


def config_of(**fields: object) -> UnetrPPConfig:
    return UnetrPPConfig.model_validate({**PRINTED, "stem": (2, 2, 1), **fields})


def attention_of(**fields: object) -> PrintedAttention:
    torch.manual_seed(0)
    return PrintedAttention(TokenShape(N, C, P, GRID), config_of(**fields)).double().eval()


def tokens() -> torch.Tensor:
    return torch.randn(2, N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def softmax(a: np.ndarray) -> np.ndarray:
    a = np.exp(a - a.max(axis=-1, keepdims=True))
    return a / a.sum(axis=-1, keepdims=True)


def images(attention: PrintedAttention, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return Q, K and the two V of tokens, (B, N, C)."""
    weight = attention.qkvv.weight.detach().numpy().reshape(-1, C, C)
    return {name: x.numpy() @ w.T for name, w in zip(attention.images, weight, strict=True)}


def projections(attention: PrintedAttention) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return E, F (p, N) and their biases (p, 1)."""
    if attention.project_matrix is not None:
        matrix = attention.project_matrix.detach().numpy().T
        return matrix, matrix, np.zeros((P, 1)), np.zeros((P, 1))
    e, f = attention.project_keys, attention.project_values or attention.project_keys
    return tuple(a.detach().numpy() for a in (e.weight, f.weight, e.bias[:, None], f.bias[:, None]))  # type: ignore[return-value]


def spatial(attention: PrintedAttention, x: torch.Tensor) -> np.ndarray:
    part, (e, f, e_bias, f_bias) = images(attention, x), projections(attention)
    result = []
    for q, k, v in zip(part["q"], part["k"], part["u"], strict=True):
        k_proj, v_proj = e @ k + e_bias, f @ v + f_bias
        result.append(softmax(q @ k_proj.T / np.sqrt(C)) @ v_proj)
    return np.stack(result)


def channel(attention: PrintedAttention, x: torch.Tensor) -> np.ndarray:
    part = images(attention, x)
    return np.stack([
        v @ softmax(q.T @ k / np.sqrt(C)) for q, k, v in zip(part["q"], part["k"], part["v"], strict=True)
    ])  # fmt: skip


def close(ours: torch.Tensor, literal: np.ndarray) -> None:
    assert np.abs(ours.detach().numpy() - literal).max() <= 1e-12 * np.abs(literal).max()


@pytest.mark.parametrize("projection", ["shared", "separate", "matrix"])
def test_spatial_equation(projection: str) -> None:
    attention = attention_of(branches="spatial", token_projection=projection)
    close(attention(tokens()), spatial(attention, tokens()))


def test_channel_equation() -> None:
    attention = attention_of(branches="channel")
    close(attention(tokens()), channel(attention, tokens()))


def test_fusion_equation() -> None:
    attention = attention_of()
    close(attention(tokens()), spatial(attention, tokens()) + channel(attention, tokens()))


def test_block_equation() -> None:
    torch.manual_seed(0)
    block = PrintedBlock(C, GRID, P, config_of()).double().eval()
    with torch.no_grad():
        block.conv_norm.weight.uniform_(0.5, 1.5)
        block.conv_norm.bias.uniform_(-1, 1)
    x = torch.randn(2, C, *GRID, dtype=torch.float64)
    flat = x.numpy().reshape(2, C, N).transpose(0, 2, 1)
    mean, var = flat.mean(axis=-1, keepdims=True), flat.var(axis=-1, keepdims=True)
    normed = torch.from_numpy((flat - mean) / np.sqrt(var + 1e-5))
    fused = spatial(block.attention, normed) + channel(block.attention, normed)
    volume = fused.transpose(0, 2, 1).reshape(x.shape)
    padded = np.pad(volume, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    kernel = block.conv3.weight.detach().numpy()
    y = sum(
        np.einsum("oc,bcxyz->boxyz", kernel[:, :, i, j, k], padded[:, :, i : i + 3, j : j + 4, k : k + 5])
        for i in range(3) for j in range(3) for k in range(3)
    )  # fmt: skip
    mean, var = y.mean(axis=(2, 3, 4), keepdims=True), y.var(axis=(2, 3, 4), keepdims=True)
    scale, shift = (a.detach().numpy().reshape(1, C, 1, 1, 1) for a in (block.conv_norm.weight, block.conv_norm.bias))
    y = (y - mean) / np.sqrt(var + 1e-5) * scale + shift
    y = np.where(y > 0, y, 0.01 * y)
    mixed = np.einsum("oc,bcxyz->boxyz", block.conv1.weight.detach().numpy()[:, :, 0, 0, 0], y)
    close(block(x), x.numpy() + mixed + block.conv1.bias.detach().numpy().reshape(1, C, 1, 1, 1))


def test_printed_networks_train() -> None:
    config = config_of(dims=(8, 16, 32), depths=(1, 1, 1), proj=(8, 8, 4), decoder_proj=8, feature_size=8)
    network = UnetrPP(config, in_channels=1, classes=2, patch=(16, 16, 8))
    outputs = network(torch.randn(2, 1, 16, 16, 8))
    sum(output.square().mean() for output in outputs).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in network.parameters())


def attention_by(**fields: object) -> PairedAttention:
    torch.manual_seed(0)
    config = UnetrPPConfig.model_validate({"stem": (2, 2, 1), **fields})
    return PairedAttention(TokenShape(N, C, P, GRID), config).double().eval()


@pytest.mark.parametrize("only", ["spatial", "channel"])
def test_a_single_branch_is_that_branch_of_both(only: str) -> None:
    both, single = attention_by(fusion="sum"), attention_by(fusion="sum", branches=only)
    q, k, v, u = both.qkvv.weight.detach().chunk(4)
    with torch.no_grad():
        single.qkvv.weight.copy_(torch.cat([q, k, u if only == "spatial" else v]))
        if only == "spatial":
            single.project_keys.load_state_dict(both.project_keys.state_dict())
        kept = both.qkvv.weight.clone()
        other = attention_by(fusion="sum", branches="channel" if only == "spatial" else "spatial")
        other.qkvv.weight.copy_(torch.cat([q, k, v if only == "spatial" else u]))
        if only == "channel":
            other.project_keys.load_state_dict(both.project_keys.state_dict())
        assert torch.equal(kept, both.qkvv.weight)
        torch.testing.assert_close(single(tokens()) + other(tokens()), both(tokens()))


def test_single_branches_have_no_parameters_of_the_other() -> None:
    names = {only: set(dict(attention_by(branches=only).named_parameters())) for only in ("spatial", "channel")}
    assert names["spatial"] == {
        "temperature_spatial", "qkvv.weight", "project_keys.weight", "project_keys.bias", "out_spatial.weight",
        "out_spatial.bias",
    }  # fmt: skip
    assert names["channel"] == {"temperature_channel", "qkvv.weight", "out_channel.weight", "out_channel.bias"}
    assert attention_by(branches="spatial").out_spatial.out_features == C


def test_own_queries_and_keys_of_the_spatial_branch() -> None:
    shared, own = attention_by(), attention_by(shared_queries_keys=False)
    for name in ("project_keys", "out_spatial", "out_channel"):
        getattr(own, name).load_state_dict(getattr(shared, name).state_dict())
    with torch.no_grad():
        q, k, *_ = shared.qkvv.weight.chunk(4)
        own.qkvv.weight.copy_(torch.cat([shared.qkvv.weight, q, k]))
        torch.testing.assert_close(own(tokens()), shared(tokens()))
        before = own(tokens())
        own.qkvv.weight[4 * C :].mul_(2.0).add_(0.1)
        after = own(tokens())
    assert torch.equal(before[..., C // 2 :], after[..., C // 2 :])  # the channel half
    assert not torch.allclose(before[..., : C // 2], after[..., : C // 2])


@pytest.mark.parametrize("variant", ["synapse", "lung"])
def test_sharing_saves_two_matrices_a_block(variant: str) -> None:
    preset = PUBLISHED[variant]
    counts = []
    for shared in (True, False):
        config = UnetrPPConfig.model_validate({**preset.config.model_dump(), "shared_queries_keys": shared})
        with torch.device("meta"):
            network = UnetrPP(config, in_channels=1, classes=preset.classes, patch=preset.patch)
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
    assert counts[1] - counts[0] == 651_264 == 2 * (6 * 32**2 + 6 * 64**2 + 6 * 128**2 + 3 * 256**2)
