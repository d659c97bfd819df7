"""Soft Dice, cross-entropy, their sum and deep supervision against numbers worked by hand, and their behaviour."""

import math

import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import GeometryError, InputError
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig, SoftDiceConfig
from neoseg.losses.cross_entropy import cross_entropy_loss
from neoseg.losses.deep_supervision import head_weights, resample_target, steps_of, supervise
from neoseg.losses.soft_dice import soft_dice_loss
from neoseg.networks.build import build_network
from neoseg.networks.configs import UNetConfig

# Two samples of two voxels: probability of class 1, and the truth. The second sample is empty.
P = torch.tensor([[0.8, 0.4], [0.1, 0.3]], dtype=torch.float64)
G = torch.tensor([[1, 0], [0, 0]])
LOGITS = torch.stack([(1 - P).log(), P.log()], dim=1)

CONFIGS = [
    SoftDiceConfig(denominator=denominator, pooling=pooling, smoothing=smoothing, foreground_only=foreground)
    for denominator in ("squared", "summed")
    for pooling in ("batch", "sample")
    for smoothing in (1e-5, 1.0)
    for foreground in (True, False)
]


def dice(numerator: float, denominator: float, smoothing: float) -> float:
    return (2 * numerator + smoothing) / (denominator + smoothing)


@pytest.mark.parametrize("s", [1e-5, 1.0])
def test_soft_dice_by_hand(s: float) -> None:
    def loss(**fields: object) -> float:
        return soft_dice_loss(LOGITS, G, SoftDiceConfig.model_validate({"smoothing": s, **fields})).item()

    squares = (0.64 + 0.16, 0.01 + 0.09)
    assert loss() == pytest.approx(1 - dice(0.8, sum(squares) + 1, s))
    assert loss(denominator="summed") == pytest.approx(1 - dice(0.8, 1.6 + 1, s))
    each = dice(0.8, squares[0] + 1, s) + dice(0, squares[1], s)
    assert loss(pooling="sample") == pytest.approx(1 - each / 2)
    background = dice(0.6 + 0.9 + 0.7, 0.04 + 0.36 + 0.81 + 0.49 + 3, s)
    assert loss(foreground_only=False) == pytest.approx(1 - (dice(0.8, sum(squares) + 1, s) + background) / 2)


def test_cross_entropy_by_hand() -> None:
    expected = -(math.log(0.8) + math.log(0.6) + math.log(0.9) + math.log(0.7)) / 4
    assert cross_entropy_loss(LOGITS, G).item() == pytest.approx(expected)


def test_the_sum_has_its_weights() -> None:
    config = LossConfig(dice_weight=2.0, cross_entropy_weight=0.5)
    expected = 2 * soft_dice_loss(LOGITS, G, config.dice) + 0.5 * cross_entropy_loss(LOGITS, G)
    assert build_loss(config)((LOGITS,), G).item() == pytest.approx(expected.item())
    only = build_loss(LossConfig(cross_entropy_weight=0.0))((LOGITS,), G)
    assert only.item() == pytest.approx(soft_dice_loss(LOGITS, G, SoftDiceConfig()).item())
    with pytest.raises(pydantic.ValidationError, match="both 0"):
        LossConfig(dice_weight=0, cross_entropy_weight=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients_are_right(config: SoftDiceConfig) -> None:
    logits = torch.randn(2, 3, 2, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 1, 0, 0, 1, 0]).view(2, 2, 2, 1)
    loss = build_loss(LossConfig(dice=config))
    assert torch.autograd.gradcheck(lambda x: loss((x,), target), (logits.requires_grad_(),))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_truth_itself_costs_nothing(config: SoftDiceConfig) -> None:
    target = torch.randint(0, 3, (2, 4, 4, 2), generator=torch.Generator().manual_seed(1))
    perfect = 50.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    loss = build_loss(LossConfig(dice=config))
    best = loss((perfect,), target).item()
    assert best == pytest.approx(0, abs=1e-6)
    rough = perfect + torch.randn(perfect.shape, generator=torch.Generator().manual_seed(2)) * 30
    assert loss((rough,), target).item() > best
    assert loss((-perfect,), target).item() > 1


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("terms", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_an_empty_sample_lowers_false_positives(config: SoftDiceConfig, terms: tuple[float, float]) -> None:
    logits = torch.randn(2, 2, 4, 4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.zeros(2, 4, 4, 2, dtype=torch.int64)
    loss = build_loss(LossConfig(dice=config, dice_weight=terms[0], cross_entropy_weight=terms[1]))
    value = loss((logits,), target)
    value.backward()
    assert torch.isfinite(value)
    assert (logits.grad[:, 1] > 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from(CONFIGS))
def test_soft_dice_lies_between_zero_and_one(seed: int, classes: int, config: SoftDiceConfig) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 3, 2, generator=generator) * 20
    target = torch.randint(0, classes, (2, 3, 3, 2), generator=generator)
    loss = soft_dice_loss(logits, target, config).item()
    assert -1e-6 <= loss <= 1 + 1e-6
    order = torch.randperm(18, generator=generator)
    shuffled = soft_dice_loss(logits.flatten(2)[:, :, order], target.flatten(1)[:, order], config)
    assert shuffled.item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_in_float32_under_autocast(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 64, 64, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    target = (torch.rand(1, 64, 64, 32, generator=torch.Generator().manual_seed(1)) < 0.01).long()
    loss = build_loss(LossConfig())
    with torch.autocast("cpu", dtype):
        rough = loss((logits,), target)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(loss((logits.double(),), target).item(), rel=1e-5)


def test_head_weights() -> None:
    assert head_weights(1) == (1.0,)
    assert head_weights(3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert sum(head_weights(5)) == pytest.approx(1)


def test_targets_are_sampled_at_voxel_centres() -> None:
    target = torch.arange(8).view(1, 8, 1, 1).expand(2, 8, 4, 3)
    assert resample_target(target, (4, 2, 3))[1, :, 0, 0].tolist() == [1, 3, 5, 7]
    assert resample_target(target, (2, 4, 3))[0, :, 0, 0].tolist() == [2, 6]
    assert resample_target(target, (8, 4, 3)) is target
    assert resample_target(torch.arange(9)[None], (3,)).tolist() == [[1, 4, 7]]


@pytest.mark.parametrize("size", [33, 34, 36, 41, 47, 48, 63])
def test_lower_heads_of_a_padded_image_meet_the_truth_at_their_voxels(size: int) -> None:
    config = UNetConfig(widths=(2,) * 6, strides=((1, 1),) + ((2, 2),) * 5, spatial_dims=2)
    network = build_network(config, in_channels=1, classes=2, patch=(64, 64))
    truth = torch.arange(size)[None, :, None].expand(1, size, 64)
    sizes = [tuple(logits.shape[2:]) for logits in network(torch.zeros(1, 1, size, 64))]
    for level, (own, steps) in enumerate(zip(sizes, steps_of(sizes), strict=True)):
        found = resample_target(truth, own, steps)[0, :, 0]
        centres = torch.arange(len(found)) * 2**level + 2**level // 2
        assert torch.equal(found, centres.clamp(max=size - 1)), level


@pytest.mark.parametrize("shape", [(1, 12, 16, 8), (1, 32, 32, 16), (1, 8, 16, 16), (1, 1, 16, 16, 8), (2, 16, 16, 8)])
def test_a_target_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    logits = (torch.zeros(1, 2, 16, 16, 8), torch.zeros(1, 2, 8, 8, 4))
    with pytest.raises(GeometryError, match=r"but \(1, 16, 16, 8\) is wanted"):
        build_loss(LossConfig())(logits, torch.zeros(shape, dtype=torch.int64))


def test_masks_may_be_of_any_whole_number_type() -> None:
    logits, masks = (torch.randn(1, 3, 8, 8),), torch.randint(0, 3, (1, 8, 8))
    loss = build_loss(LossConfig())
    assert loss(logits, masks.to(torch.uint8)) == loss(logits, masks)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.complex64])
def test_a_target_of_fractions_is_refused(kind: torch.dtype) -> None:
    with pytest.raises(InputError, match="one whole number, its class, is wanted"):
        build_loss(LossConfig())((torch.zeros(1, 2, 8, 8),), torch.zeros(1, 8, 8).to(kind))


def test_each_head_meets_its_own_target() -> None:
    target = torch.randint(0, 2, (1, 8, 8, 4), generator=torch.Generator().manual_seed(0))
    heads = [torch.zeros(1, 2, *size) for size in ((8, 8, 4), (4, 4, 4), (2, 2, 2))]
    seen = []

    def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(truth.shape))
        return torch.tensor(float(len(seen)))

    assert supervise(loss, heads, target).item() == pytest.approx((4 * 1 + 2 * 2 + 1 * 3) / 7)
    assert seen == [tuple(head[0, :1].shape) for head in heads]
    assert torch.equal(supervise(lambda a, b: b.sum(), heads[:1], target), target.sum())
