"""Terms of a loss against other implementations, the papers' formulas written out, and shapes worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional

from neoseg.losses.binary_cross_entropy import binary_cross_entropy_loss
from neoseg.losses.boundary import boundary_loss
from neoseg.losses.bounded_power import bounded_log, bounded_power
from neoseg.losses.configs import (
    BinaryCrossEntropyTerm,
    BoundaryTerm,
    FocalTerm,
    FocalTverskyTerm,
    HausdorffTerm,
    JaccardTerm,
    MsSsimTerm,
    SoftDiceConfig,
    TverskyTerm,
)
from neoseg.losses.cross_entropy import cross_entropy_loss
from neoseg.losses.distance import boundary_distance, signed_distance
from neoseg.losses.focal import focal_loss
from neoseg.losses.focal_tversky import focal_tversky_loss
from neoseg.losses.hausdorff import hausdorff_loss
from neoseg.losses.jaccard import jaccard_loss
from neoseg.losses.ms_ssim import EXPONENTS, ms_ssim_loss, usable_scales
from neoseg.losses.soft_dice import soft_dice_loss
from neoseg.losses.tversky import tversky_loss

POOLED = [{"pooling": p, "foreground_only": f, "smoothing": s} for p in ("batch", "sample") for f, s in
          ((True, 1.0), (False, 1.0), (True, 1e-5))]  # fmt: skip


def example(classes: int = 3, size: tuple[int, ...] = (6, 5, 4)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    return 2 * torch.randn(2, classes, *size, dtype=torch.float64, generator=generator), target


def parts(logits: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    p = torch.softmax(logits, 1)
    return p.numpy(), functional.one_hot(target, logits.shape[1]).movedim(-1, 1).double().numpy()


def blobs(classes: int, size: tuple[int, ...], seed: int) -> Tensor:
    coarse = torch.randint(
        0, classes, (2, 1, *(-(-n // 4) for n in size)), generator=torch.Generator().manual_seed(seed)
    )
    fine = functional.interpolate(coarse.double(), scale_factor=4.0, mode="nearest")[:, 0].long()
    return fine[(slice(None), *(slice(n) for n in size))]


def sharp(target: Tensor, classes: int, scale: float = 40.0) -> Tensor:
    return scale * functional.one_hot(target, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_binary_cross_entropy_is_that_of_each_foreground_class(classes: int) -> None:
    logits, target = example(classes)
    p, g = parts(logits, target)
    expected = -(g * np.log(p) + (1 - g) * np.log1p(-p))[:, 1:].mean()
    loss = binary_cross_entropy_loss(logits, target, BinaryCrossEntropyTerm()).item()
    assert loss == pytest.approx(expected)
    if classes == 2:
        assert loss == pytest.approx(cross_entropy_loss(logits, target).item())


def test_binary_cross_entropy_of_a_confident_error_is_its_logit() -> None:
    logits = torch.tensor([0.0, 90.0, -10.0]).view(1, 3, 1, 1)
    for truth, expected in [(0, (90 + 0) / 2), (1, 0), (2, (90 + 100) / 2)]:
        loss = binary_cross_entropy_loss(logits, torch.tensor([[[truth]]]), BinaryCrossEntropyTerm()).item()
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, None), (2.0, None), (3.0, 0.75), (0.5, 0.25)])
def test_focal(gamma: float, alpha: float | None) -> None:
    from monai.losses.focal_loss import FocalLoss

    logits, target = example()
    config = FocalTerm(gamma=gamma, alpha=alpha)
    loss = focal_loss(logits, target, config).item()
    p = np.take_along_axis(parts(logits, target)[0], target[:, None].numpy(), 1)[:, 0]
    factor = 1.0 if alpha is None else np.where(target.numpy() > 0, alpha, 1 - alpha)
    assert loss == pytest.approx((-factor * (1 - p) ** gamma * np.log(p)).mean())
    monai = FocalLoss(to_onehot_y=True, gamma=gamma, alpha=alpha, use_softmax=True)
    assert loss == pytest.approx(3 * monai(logits, target[:, None]).item())
    if gamma == 0 and alpha is None:
        assert loss == pytest.approx(cross_entropy_loss(logits, target).item(), rel=1e-15)


def tversky_by_hand(
    logits: Tensor, target: Tensor, alpha: float, beta: float, *, smoothing: float, pooling: str, foreground_only: bool
) -> np.ndarray:
    """Return the index of Salehi et al. with half the smoothing: |PG| / (|PG| + alpha |P - G| + beta |G - P|)."""
    p, g = parts(logits, target)
    axes = (0, 2, 3, 4) if pooling == "batch" else (2, 3, 4)
    both, only_p, only_g = (x.sum(axes) for x in (p * g, p * (1 - g), (1 - p) * g))
    index = (both + smoothing / 2) / (both + alpha * only_p + beta * only_g + smoothing / 2)
    return index[..., 1:] if foreground_only else index


@pytest.mark.parametrize("fields", POOLED)
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.9, 0.2), (0.5, 0.5)])
def test_tversky_and_focal_tversky(fields: dict[str, object], alpha: float, beta: float) -> None:
    logits, target = example()
    index = tversky_by_hand(logits, target, alpha, beta, **fields)  # type: ignore[arg-type]
    config = TverskyTerm(alpha=alpha, beta=beta, **fields)  # type: ignore[arg-type]
    loss = tversky_loss(logits, target, config).item()
    assert loss == pytest.approx(1 - index.mean())
    for gamma in (4 / 3, 3.0, 0.5, 1.0):
        focal = FocalTverskyTerm(alpha=alpha, beta=beta, gamma=gamma, **fields)  # type: ignore[arg-type]
        assert focal_tversky_loss(logits, target, focal).item() == pytest.approx(((1 - index) ** (1 / gamma)).mean())


@pytest.mark.parametrize("fields", POOLED)
def test_overlaps_are_relatives(fields: dict[str, object]) -> None:
    logits, target = example(2)
    dice = soft_dice_loss(logits, target, SoftDiceConfig(denominator="summed", **fields)).item()  # type: ignore[arg-type]
    half = TverskyTerm(alpha=0.5, beta=0.5, **fields)  # type: ignore[arg-type]
    assert tversky_loss(logits, target, half).item() == pytest.approx(dice, rel=1e-12)
    jaccard = jaccard_loss(logits, target, JaccardTerm(**fields)).item()  # type: ignore[arg-type]
    full = TverskyTerm(alpha=1.0, beta=1.0, **fields)  # type: ignore[arg-type]
    assert jaccard == pytest.approx(tversky_loss(logits, target, full).item(), rel=1e-12)
    if fields["pooling"] == "batch" and fields["foreground_only"]:
        overlap = 1 - dice
        assert 1 - jaccard == pytest.approx(overlap / (2 - overlap), rel=1e-12)


def test_jaccard_of_masks_is_intersection_over_union() -> None:
    truth, prediction = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    truth[:, :4, :4] = 1
    prediction[:, 2:6, :4] = 1
    loss = jaccard_loss(sharp(prediction, 2), truth, JaccardTerm(smoothing=1e-9)).item()
    assert loss == pytest.approx(1 - 8 / 24)


@pytest.mark.parametrize("size", [(70, 64), (50, 48, 49)], ids=str)
def test_ms_ssim_is_monais_on_large_images(size: tuple[int, ...]) -> None:
    from monai.metrics.regression import compute_ms_ssim

    target = blobs(2, size, 0)
    noise = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))
    logits = sharp(target, 2, 1.0).float() + noise
    config = MsSsimTerm(window=3, sigma=0.8)
    exponents = [value / sum(EXPONENTS) for value in EXPONENTS]
    p, g = torch.softmax(logits, 1)[:, 1:], target[:, None].float()
    monai = compute_ms_ssim(p, g, len(size), kernel_size=3, kernel_sigma=0.8, weights=exponents)
    loss = ms_ssim_loss(logits, target, config).item()
    assert 0.1 < loss < 0.9
    assert loss == pytest.approx(1 - monai.mean().item(), rel=1e-4)


@pytest.mark.parametrize("size", [(16, 13), (13, 12, 14)], ids=str)
def test_one_resolution_is_the_ssim_of_skimage(size: tuple[int, ...]) -> None:
    target = blobs(3, size, 2)
    logits = sharp(target, 3, 3.0) + torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    p, g = parts(logits, target)
    each = [
        structural_similarity(
            p[b, k], g[b, k], data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for b, k in itertools.product((0, 1), (1, 2))
    ]
    assert usable_scales(size, MsSsimTerm()) == 1
    assert ms_ssim_loss(logits, target, MsSsimTerm()).item() == pytest.approx(1 - np.mean(each), rel=1e-9)


def test_small_patches_have_fewer_resolutions_and_smaller_windows() -> None:
    sizes = [(176, 200), (175, 200), (64, 64, 32), (22, 22, 22), (21, 64, 64), (8, 4, 2)]
    assert [usable_scales(size, MsSsimTerm()) for size in sizes] == [5, 4, 2, 2, 1, 1]
    assert usable_scales((64, 64, 32), MsSsimTerm(window=5)) == 3
    assert usable_scales((176, 200), MsSsimTerm(scales=2)) == 2
    # On axes of two voxels the window is one: variances vanish, and what is left is the luminance of each voxel.
    p = torch.tensor([[0.9, 0.2], [0.4, 0.6]], dtype=torch.float64)
    g = torch.tensor([[1, 0], [0, 1]])
    logits = torch.stack([(1 - p).log(), p.log()])[None]
    luminance = [(2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4) for a, b in [(0.9, 1), (0.2, 0), (0.4, 0), (0.6, 1)]]
    assert ms_ssim_loss(logits, g[None], MsSsimTerm()).item() == pytest.approx(1 - np.mean(luminance))


def distance_by_hand(mask: np.ndarray) -> np.ndarray:
    """Return for each voxel the distance to the nearest one of the other kind."""
    places = np.indices(mask.shape).reshape(mask.ndim, -1).T
    flat = mask.ravel()
    away = np.linalg.norm(places[:, None] - places[None], axis=-1)
    away[flat[:, None] == flat[None]] = np.inf
    return away.min(1).reshape(mask.shape)


def test_distances() -> None:
    masks = blobs(3, (9, 8, 6), 1)[:, None] == torch.arange(3).view(1, 3, 1, 1, 1)
    found = boundary_distance(masks)
    assert found.dtype == torch.float32
    for b, k in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(found[b, k], distance_by_hand(masks[b, k].numpy()), rtol=1e-6)
    assert torch.equal(signed_distance(masks), torch.where(masks, 0.5 - found, found - 0.5))
    none = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]).bool()
    assert (boundary_distance(none) == 1).all()
    assert (signed_distance(none).flatten(1) == torch.tensor([[0.5], [-0.5]])).all()


@pytest.mark.parametrize("size", [(12, 10), (9, 8, 6)], ids=str)
@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_hausdorff(size: tuple[int, ...], alpha: float) -> None:
    from monai.losses.hausdorff_loss import HausdorffDTLoss, LogHausdorffDTLoss

    target = blobs(3, size, 0)
    logits = sharp(blobs(3, size, 1), 3, 2.0) + torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    p, g = parts(logits, target)
    expected = np.mean([
        ((p[i] - g[i]) ** 2 * (distance_by_hand(p[i] > 0.5) ** alpha + distance_by_hand(g[i] > 0.5) ** alpha)).mean()
        for i in itertools.product((0, 1), (1, 2))
    ])  # fmt: skip
    loss = hausdorff_loss(logits, target, HausdorffTerm(alpha=alpha)).item()
    assert loss == pytest.approx(expected)
    log = hausdorff_loss(logits, target, HausdorffTerm(alpha=alpha, logarithm=True)).item()
    assert log == pytest.approx(math.log(1 + expected))
    for theirs, ours in ((HausdorffDTLoss, loss), (LogHausdorffDTLoss, log)):
        assert ours == pytest.approx(theirs(alpha, to_onehot_y=True, softmax=True)(logits, target[:, None]).item())


@pytest.mark.parametrize("loss", ["hausdorff", "boundary"])
def test_a_false_positive_costs_more_the_further_it_lies(loss: str) -> None:
    target = torch.zeros(1, 24, 9, 3, dtype=torch.int64)
    target[:, 1:4, 3:6, 1] = 1
    costs = []
    for x in (6, 10, 14, 18, 22):
        prediction = target.clone()
        prediction[:, x, 4, 1] = 1
        logits = sharp(prediction, 2)
        one = hausdorff_loss(logits, target, HausdorffTerm()) if loss == "hausdorff" else None
        costs.append((boundary_loss(logits, target, BoundaryTerm()) if one is None else one).item())
    assert costs == sorted(costs)
    # squares of the distance from x = 3, and of 1 from the lone voxel's own boundary; or the distance from x = 3.5
    known = [((x - 3) ** 2 + 1 if loss == "hausdorff" else x - 3.5) / target.numel() for x in (6, 10, 14, 18, 22)]
    assert costs == pytest.approx(known)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [-3, 1, 4])
def test_boundary_loss_of_a_shifted_plane_is_half_the_squared_shift(axis: int, shift: int) -> None:
    place = torch.arange(12).view([12 if i == axis else 1 for i in range(3)]).expand(12, 12, 12)
    target, prediction = ((place < end).long()[None] for end in (6, 6 + shift))
    loss = boundary_loss(sharp(prediction, 2), target, BoundaryTerm()).item()
    assert loss == pytest.approx(shift**2 / 2 / 12)


def test_boundary_loss_has_the_gradient_of_the_printed_one() -> None:
    target = blobs(3, (9, 8, 6), 1)
    logits = torch.randn(2, 3, 9, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given, again = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    boundary_loss(given, target, BoundaryTerm()).backward()
    masks = torch.stack([target == 1, target == 2], 1)
    away = np.stack([[distance_by_hand(m) - 0.5 for m in of_sample] for of_sample in masks.numpy()])
    printed = torch.from_numpy(np.where(masks, -away, away)) * torch.softmax(again, 1)[:, 1:]
    printed.mean().backward()
    torch.testing.assert_close(given.grad, again.grad)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.75, 1.0, 2.5])
def test_a_bounded_power_is_the_power_above_its_floor_and_a_line_below(exponent: float) -> None:
    base = torch.tensor([0.0, 1e-12, 5e-7, 1e-6, 2e-6, 0.5, 1.0], dtype=torch.float64).requires_grad_()
    power = bounded_power(base, exponent)
    plain = base.detach() ** exponent
    assert power[3:].tolist() == pytest.approx(plain[3:].tolist(), rel=1e-12)
    if 0 < exponent < 1:
        assert power[:3].tolist() == pytest.approx([0, 1e-12 * 1e-6 ** (exponent - 1), plain[3].item() / 2], rel=1e-12)
    else:
        assert torch.equal(power, plain)
    power.sum().backward()
    assert torch.isfinite(base.grad).all()


def test_a_bounded_logarithm_goes_on_as_its_tangent() -> None:
    value = torch.tensor([-1.0, 0.0, 0.05, 0.3], dtype=torch.float64).requires_grad_()
    logarithm = bounded_log(value)
    edge = math.log(0.05)
    assert logarithm.tolist() == pytest.approx([edge - 1.05 / 0.05, edge - 1, edge, math.log(0.3)])
    logarithm.sum().backward()
    assert value.grad.tolist() == pytest.approx([20, 20, 20, 1 / 0.3])
