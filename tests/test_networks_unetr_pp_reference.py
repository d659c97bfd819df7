"""UNETR++ against numbers computed with the authors' code (tests/references/README.md says how)."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from neoseg.inference.heap import kept_heap
from neoseg.networks.blocks.paired_attention import PairedAttention, TokenShape
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.unetr_pp import published
from neoseg.networks.weights import load_published, published_name

REFERENCES = Path(__file__).parent / "references"
PARAMETERS = {"synapse": 42_952_850, "acdc": 66_796_404, "tumor": 42_647_604, "lung": 121_174_798}
UNIT = {"dim": 16, "grid": (3, 4, 5), "slots": 6}


def noise(name: str, count: int) -> np.ndarray:
    """Return count values in [-1, 1) on a grid of 2^-23, a SplitMix64 stream seeded by the name."""
    seed = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], dtype="<u8")[0]
    with np.errstate(over="ignore"):
        z = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the fixture's float32 weight of one of the authors' names."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    v = noise(name, math.prod(shape))
    parent, _, leaf = f".{name}".rpartition(".")
    if leaf == "running_mean":
        v = 0.1 * v
    elif leaf == "running_var":
        v = 1 + 0.5 * v
    elif leaf in ("temperature", "temperature2"):
        v = 2 + v
    elif leaf in ("gamma", "pos_embed", "EF") or (leaf == "weight" and parent.endswith((".E", ".F"))):
        v = 0.25 * v
    elif leaf == "weight" and len(shape) == 1:
        v = 1 + 0.1 * v
    elif leaf == "bias":
        v = 0.1 * v
    else:
        v = v * math.sqrt(3 / (shape[0] if "transp_conv" in name else math.prod(shape) / shape[0]))
    return torch.from_numpy(v.reshape(shape).astype(np.float32))


def fixture_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {published_name(name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return {name: value(name, shape) for name, shape in names.items()}


def fill(module: torch.nn.Module, prefix: str, cut: str) -> torch.nn.Module:
    """Fill a part of a network: its names are completed by `prefix`, and `cut` is taken off the authors' names."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(value(published_name(prefix + name).removeprefix(cut), tuple(tensor.shape)))
    return module.double().eval()


def unit_config(variant: str, **fields: object) -> UnetrPPConfig:
    return UnetrPPConfig.model_validate({**PUBLISHED[variant].config.model_dump(), **fields})


def unit_attention(variant: str, **fields: object) -> torch.nn.Module:
    attention = PairedAttention(TokenShape(60, UNIT["dim"], UNIT["slots"]), unit_config(variant, **fields))
    return fill(attention, "encoder.0.0.attention.", "unetr_pp_encoder.stages.0.0.epa_block.")


def close(ours: torch.Tensor, reference: np.ndarray, tolerance: float = 1e-10) -> None:
    """Assert a difference of at most `tolerance` of the reference's largest magnitude."""
    assert ours.shape == reference.shape
    assert np.abs(ours.detach().numpy() - reference).max() <= tolerance * np.abs(reference).max()


def relative_rms(ours: np.ndarray, reference: np.ndarray) -> float:
    return math.sqrt(((ours - reference) ** 2).mean() / (reference**2).mean())


def close_statistics(rows: torch.Tensor, reference: np.ndarray, kind: str) -> None:
    """Assert mean, spread, least, largest and sum of magnitudes of each row.

    A mean is a small difference of large sums, so it is held against the spread beside it; float32 has single voxels
    that are off by more than their mean square is.
    """
    flat = rows.double()
    columns = flat.mean(1), flat.std(1, correction=0), flat.amin(1), flat.amax(1), flat.abs().sum(1)
    error = np.abs(torch.stack(columns, dim=1).numpy() - reference)
    scale = np.abs(reference)
    scale[:, 0] = np.maximum(scale[:, 0], scale[:, 1])
    scale[:, 2:4] = scale[:, 2:4].max(axis=1, keepdims=True)
    assert (error / scale).max() <= (1e-10 if kind == "f64" else 1e-4), (error / scale).max(axis=0)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCES / f"unetrpp_fixture_{name}.npz", allow_pickle=False) as file:
        return dict(file)


def test_noise_is_the_fixtures() -> None:
    np.testing.assert_allclose(noise("input", 4), [-0.7422545, 0.50816774, -0.15859997, -0.21227598], atol=1e-7)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_and_names_are_the_authors(variant: str) -> None:
    network = published(variant)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[variant]
    rows = [line.split("\t") for line in (REFERENCES / f"unetrpp_{variant}_keys.txt").read_text().splitlines()]
    names = {published_name(name): str(tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    assert names == {name: shape for name, shape, _, kind in rows if kind != "alias"}
    assert [tuple(head.weight.shape[:2]) for head in network.heads] == [
        (PUBLISHED[variant].classes, width) for width in (16, 32, 64)
    ]


@pytest.mark.parametrize("variant", PUBLISHED)
def test_attention_equals_the_authors(variant: str) -> None:
    expected = load("unit")
    attention = unit_attention(variant)
    x = torch.from_numpy(noise("unit.epa.x", 1920)).reshape(2, 60, 16).requires_grad_()
    y = attention(x)
    y.backward(torch.from_numpy(noise("unit.epa.g", 1920)).reshape(2, 60, 16))
    close(y, expected[f"{variant}.epa.y"])
    close(x.grad, expected[f"{variant}.epa.dx"])
    close(attention.temperature_spatial.grad.flatten(), expected[f"{variant}.epa.dtemp2"])


@pytest.mark.parametrize("variant", PUBLISHED)
def test_aligned_attention_equals_an_independent_implementation(variant: str) -> None:
    expected = load("unit")
    x = torch.from_numpy(noise("unit.epa.x", 1920)).reshape(2, 60, 16)
    aligned = unit_attention(variant, layout="aligned")(x)
    close(aligned, expected[f"{variant}.epa_aligned.y"])
    difference = aligned.detach().numpy() - expected[f"{variant}.epa.y"]
    assert np.sqrt((difference**2).mean() / (expected[f"{variant}.epa.y"] ** 2).mean()) > 0.3


@pytest.mark.parametrize("variant", PUBLISHED)
def test_block_equals_the_authors(variant: str) -> None:
    expected = load("unit")
    block = PairedAttentionBlock(UNIT["dim"], UNIT["grid"], UNIT["slots"], unit_config(variant))
    fill(block, "encoder.0.0.", "unetr_pp_encoder.stages.0.0.")
    x = torch.from_numpy(noise("unit.block.x", 1920)).reshape(2, 16, 3, 4, 5).requires_grad_()
    y = block(x)
    y.backward(torch.from_numpy(noise("unit.block.g", 1920)).reshape(2, 16, 3, 4, 5))
    close(y, expected[f"{variant}.block.y"])
    close(x.grad, expected[f"{variant}.block.dx"])


def by_slices(x: torch.Tensor, weight: torch.Tensor, *more: Any) -> torch.Tensor:
    """Convolve slice by slice: in float64 torch unfolds the image, and gigabytes at once take three times as long."""
    bias, stride, padding, dilation, groups = more
    if weight.shape[2:] != (3, 3, 3) or (stride, padding, dilation) != ((1,) * 3,) * 3 or x.shape[2] < 32:
        return torch.conv3d(x, weight, *more)
    padded = functional.pad(x, (0, 0, 0, 0, 1, 1))
    slices = (torch.conv3d(padded[:, :, i : i + 3], weight, bias, 1, (0, 1, 1), 1, groups) for i in range(x.shape[2]))
    return torch.cat(list(slices), dim=2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("variant", ["synapse", "tumor"])
def test_whole_network_equals_the_authors(variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(variant)
    network = published(variant)
    load_published(network, fixture_weights(network))
    network = network.to(dtype).eval()
    shape = tuple(expected["input.shape"])
    image = noise("input", math.prod(shape)).astype(np.float32)
    np.testing.assert_array_equal(image[:8], expected["input.first8"])
    taps: dict[str, torch.Tensor] = {}

    def tap(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: taps.__setitem__(name, output))

    tap("stem", network.stem)
    tap("enc_stage0_block0_epa", network.encoder[0][0].attention)
    tap("enc_stage0_block0", network.encoder[0][0])
    for level in range(4):
        tap(f"enc_stage{level}", network.encoder[level][-1])
    for level in range(3):
        tap(f"decoder{level + 3}", network.decoder[level][-1])
    tap("encoder1", network.full_skip)
    tap("decoder2", network.full_fuse)
    if dtype == torch.float64:
        monkeypatch.setattr(functional, "conv3d", by_slices)
    # the system would otherwise hand out gigabytes page by page
    with torch.inference_mode(), kept_heap():
        outputs = network(torch.from_numpy(image).reshape(shape).to(dtype))
    kind = "f64" if dtype == torch.float64 else "f32"
    assert set(taps) == {name.removesuffix(".idx") for name in expected if name.endswith(".idx")}
    for name, tensor in taps.items():
        reference = expected[f"{name}.val.{kind}"]
        ours = tensor.flatten()[torch.from_numpy(expected[f"{name}.idx"])].double().numpy()
        assert tuple(tensor.shape) == tuple(expected[f"{name}.shape"]), name
        error = relative_rms(ours, reference)
        assert error <= (1e-10 if kind == "f64" else 1e-4), f"{name}: {error:.1e}"
        close_statistics(tensor.flatten()[None], expected[f"{name}.stats.{kind}"][None], kind)
    for index, output in enumerate(outputs, start=1):
        reference = expected[f"out{index}.slice.{kind}"].astype(np.float64)
        s = expected[f"out{index}.stride"]
        ours = output[:, :, :: s[0], :: s[1], :: s[2]].double().numpy()
        assert ours.shape == reference.shape
        error, rms = np.abs(ours - reference).max(), relative_rms(ours, reference)
        # The slices are stored in float32: half a unit in the last place of the largest, up to 350, is 1.5e-5.
        assert error <= (2e-5 if kind == "f64" else 1e-2)
        assert rms <= (1e-7 if kind == "f64" else 1e-4)
        close_statistics(output[0].flatten(1), expected[f"out{index}.chan_stats.{kind}"], kind)
    if kind == "f64":
        counts = np.bincount(outputs[0].argmax(1).flatten().numpy(), minlength=outputs[0].shape[1])
        np.testing.assert_array_equal(counts, expected["argmax_hist.f64"])
