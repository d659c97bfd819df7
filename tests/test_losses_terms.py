"""What every term of a loss has to do, whatever it measures: the contract of the registry."""

from __future__ import annotations

import itertools
import re
import tomllib
import typing
from pathlib import Path

import pydantic
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig, LossTerm
from neoseg.losses.deep_supervision import head_weights, resample_target
from neoseg.losses.registry import TERMS

BATCHES = [((1, 12, 9), 4), ((2, 9, 8, 5), 2)]
"""Shape of the truth, and number of classes."""

TRUTHS = ["every class", "no foreground", "one class missing", "foreground only"]
VARIANTS: dict[str, list[dict[str, object]]] = {
    "focal": [{"alpha": 0.75}, {"gamma": 0.5}, {"gamma": 0.0}],
    "tversky": [{"pooling": "sample"}, {"foreground_only": False, "smoothing": 1e-5}, {"alpha": 1.0, "beta": 0.5}],
    "focal_tversky": [{"pooling": "sample"}, {"gamma": 3.0, "smoothing": 1e-5}, {"gamma": 0.5}],
    "jaccard": [{"pooling": "sample"}, {"foreground_only": False, "smoothing": 1e-5}],
    "ms_ssim": [{"window": 3}, {"window": 3, "scales": 2, "sigma": 0.5}],
    "hausdorff": [{"logarithm": True}, {"alpha": 0.5}],
}
EVERY = [(kind, fields) for kind in TERMS for fields in [{}, *VARIANTS.get(kind, [])]]
every = pytest.mark.parametrize(("kind", "fields"), EVERY, ids=str)


def term(kind: str, fields: dict[str, object]) -> typing.Callable[[Tensor, Tensor], Tensor]:
    config = TERMS[kind].config.model_validate({"kind": kind, **fields})
    return lambda logits, target: TERMS[kind].function(logits, target, config)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(name: str, shape: tuple[int, ...], classes: int) -> Tensor:
    """Return blocks of classes, so that there is an inside and an outside."""
    coarse = torch.randint(0, classes, (shape[0], 1, *((n + 2) // 3 for n in shape[1:])), generator=random(3))
    target = functional.interpolate(coarse.double(), scale_factor=3.0, mode="nearest")[:, 0].long()
    target = target[tuple(slice(n) for n in shape)]
    match name:
        case "no foreground":
            return torch.zeros_like(target)
        case "one class missing":
            return target.where(target < classes - 1, 0)
        case "foreground only":
            return target.clamp_min(1)
    return target


def perfect(target: Tensor, classes: int) -> Tensor:
    return functional.one_hot(target, classes).movedim(-1, 1).float()


def test_the_registry_holds_every_kind_of_the_config() -> None:
    union = typing.get_args(typing.get_args(LossTerm)[0])
    assert {entry.config for entry in TERMS.values()} == set(union)
    for kind, entry in TERMS.items():
        assert entry.config.model_fields["kind"].default == kind
        assert entry.title
        assert entry.paper


@every
def test_a_term_falls_to_nothing_towards_the_truth(kind: str, fields: dict[str, object]) -> None:
    loss = term(kind, fields)
    for (shape, classes), name in itertools.product(BATCHES, TRUTHS):
        target = truth(name, shape, classes)
        right = perfect(target, classes).double()
        wrong, *path = [loss(scale * right, target).item() for scale in (-3.0, 0.0, 1.0, 3.0, 9.0, 60.0)]
        assert wrong > path[0], (shape, name)
        assert path == sorted(path, reverse=True), (shape, name)
        assert path[0] > path[1] > 1e-3, (shape, name)
        assert path[-1] == pytest.approx(0, abs=1e-6), (shape, name)


@every
def test_value_and_gradient_are_finite(kind: str, fields: dict[str, object]) -> None:
    loss = term(kind, fields)
    for (shape, classes), name in itertools.product(BATCHES, TRUTHS):
        target = truth(name, shape, classes)
        right = perfect(target, classes)
        noise = torch.randn(right.shape, generator=random(1))
        for logits in (noise, 100 * right, -100 * right, 100 * noise, torch.zeros_like(right)):
            given = logits.clone().requires_grad_()
            value = loss(given, target)
            value.backward()
            assert value.shape == ()
            assert torch.isfinite(value)
            assert torch.isfinite(given.grad).all()


@every
@pytest.mark.parametrize("size", [(4, 5), (5, 4, 3)], ids=str)
def test_gradients_are_right(kind: str, fields: dict[str, object], size: tuple[int, ...]) -> None:
    loss = term(kind, fields)
    for name in TRUTHS:
        target = truth(name, (2, *size), 3)
        logits = torch.randn(2, 3, *size, dtype=torch.float64, generator=random(2)).requires_grad_()
        assert loss(logits, target).dtype == torch.float64
        assert torch.autograd.gradcheck(lambda x, target=target: loss(x, target), (logits,), fast_mode=True)


@every
def test_false_positives_in_an_empty_batch_are_lowered(kind: str, fields: dict[str, object]) -> None:
    target = torch.zeros(2, 9, 8, 5, dtype=torch.int64)
    logits = torch.randn(2, 2, 9, 8, 5, dtype=torch.float64, generator=random(0))
    loss = term(kind, fields)
    foreground = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1)
    # The last prediction is foreground everywhere, without a boundary. It is even, since in a rough one MS-SSIM minds
    # the roughness more than the level.
    for raised in (logits - 4 * foreground, logits, 6 * foreground.expand_as(logits).double()):
        given = raised.clone().requires_grad_()
        value = loss(given, target)
        value.backward()
        assert given.grad[:, 1].sum() > 0
        assert loss(raised - 1e-3 * foreground, target) < value


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_term_is_computed_in_float32_under_autocast(kind: str, fields: dict[str, object], dtype: torch.dtype) -> None:
    target = truth("every class", (2, 24, 21, 12), 3)
    logits = (2 * perfect(target, 3) + torch.randn(2, 3, 24, 21, 12, generator=random(0))).to(dtype)
    loss = term(kind, fields)
    with torch.autocast("cpu", dtype):
        rough = loss(logits, target)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(loss(logits.double(), target).item(), rel=2e-5)


@every
def test_the_same_input_gives_the_same_bits(kind: str, fields: dict[str, object]) -> None:
    target = truth("every class", (2, 16, 12, 9), 3)
    logits = torch.randn(2, 3, 16, 12, 9, generator=random(0))
    loss, results = term(kind, fields), []
    for _ in range(2):
        given = logits.clone().requires_grad_()
        value = loss(given, target)
        value.backward()
        results.append((value, given.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@every
def test_each_head_is_compared_at_its_own_size(kind: str, fields: dict[str, object]) -> None:
    target = truth("every class", (2, 12, 12, 8), 3)
    heads = [torch.randn(2, 3, *n, generator=random(i)) for i, n in enumerate([(12, 12, 8), (6, 6, 8), (2, 2, 1)])]
    config = LossConfig.model_validate(
        {"dice_weight": 0, "cross_entropy_weight": 0, "terms": [{"kind": kind, "weight": 2.0, **fields}]}
    )
    given = [head.clone().requires_grad_() for head in heads]
    value = build_loss(config)(given, target)
    value.backward()
    loss = term(kind, fields)
    alone = [
        weight * 2.0 * loss(head, resample_target(target, head.shape[2:])).item()
        for weight, head in zip(head_weights(3), heads, strict=True)
    ]
    assert value.item() == pytest.approx(sum(alone), rel=1e-5)
    assert all(torch.isfinite(head.grad).all() for head in given)


def test_a_sum_of_all_terms() -> None:
    target = truth("every class", (2, 12, 12, 8), 3)
    logits = torch.randn(2, 3, 12, 12, 8, generator=random(0))
    plain = build_loss(LossConfig())((logits,), target).item()
    parts = {kind: 0.5 + i for i, kind in enumerate(TERMS)}
    config = LossConfig.model_validate({"terms": [{"kind": kind, "weight": weight} for kind, weight in parts.items()]})
    expected = plain + sum(weight * term(kind, {})(logits, target).item() for kind, weight in parts.items())
    assert build_loss(config)((logits,), target).item() == pytest.approx(expected, rel=1e-5)


def test_a_term_of_weight_nought_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("computed")

    refusing = {kind: entry._replace(function=refuse) for kind, entry in TERMS.items()}
    monkeypatch.setattr("neoseg.losses.build.TERMS", refusing)
    logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    for weight in (0.0, 1.0):
        config = LossConfig.model_validate({"terms": [{"kind": kind, "weight": weight} for kind in TERMS]})
        if weight:
            with pytest.raises(AssertionError, match="computed"):
                build_loss(config)((logits,), target)
        else:
            assert torch.equal(build_loss(config)((logits,), target), build_loss(LossConfig())((logits,), target))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "focal", "gamma": -1}, "greater than or equal to 0"),
        ({"kind": "focal", "gamma": float("inf")}, "finite"),
        ({"kind": "focal", "alpha": 1.0}, "less than 1"),
        ({"kind": "tversky", "alpha": 0, "beta": 0}, "alpha and beta are both 0"),
        ({"kind": "tversky", "smoothing": 0}, "greater than or equal to"),
        ({"kind": "focal_tversky", "alpha": 0, "beta": 0}, "alpha and beta are both 0"),
        ({"kind": "focal_tversky", "gamma": 0}, "greater than 0"),
        ({"kind": "ms_ssim", "window": 8}, "even and has no voxel in its centre: use 7 or 9"),
        ({"kind": "ms_ssim", "window": 1}, "greater than or equal to 3"),
        ({"kind": "ms_ssim", "scales": 6}, "less than or equal to 5"),
        ({"kind": "hausdorff", "alpha": 0}, "greater than 0"),
        ({"kind": "boundary", "weight": -1}, "greater than or equal to 0"),
        ({"kind": "boundary", "gamma": 1}, "Extra inputs"),
        ({"kind": "dice"}, r"set by dice_weight and \[loss.dice\]"),
        ({"kind": "cross_entropy"}, "set by cross_entropy_weight"),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        LossConfig.model_validate({"terms": [fields]})


def test_the_page_on_losses_has_every_term_and_its_example_is_valid() -> None:
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "losses.md").read_text(encoding="utf-8")
    for kind, entry in TERMS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{kind}` |") and entry.paper in line)
        assert row.count("|") == 5
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert [len(LossConfig.model_validate(tomllib.loads(text)["loss"]).terms) for text in examples] == [2]


def test_a_sum_needs_a_weight() -> None:
    nothing = {"dice_weight": 0, "cross_entropy_weight": 0}
    with pytest.raises(pydantic.ValidationError, match="are both 0 and there are no terms"):
        LossConfig.model_validate(nothing)
    with pytest.raises(pydantic.ValidationError, match="are both 0, and so are the weights of all terms"):
        LossConfig.model_validate({**nothing, "terms": [{"kind": "focal", "weight": 0}]})
    assert LossConfig.model_validate({**nothing, "terms": [{"kind": "focal"}]}).terms[0].weight == 1


def test_configs_survive_json_and_none_is_stored_as_before() -> None:
    assert set(LossConfig().model_dump(mode="json")) == {"dice_weight", "cross_entropy_weight", "dice"}
    config = LossConfig.model_validate({"terms": [{"kind": kind} for kind in TERMS]})
    assert LossConfig.model_validate_json(config.model_dump_json()) == config
    assert LossConfig.model_validate_json(LossConfig().model_dump_json()) == LossConfig()


@every
def test_a_term_alone_teaches_the_truth(kind: str, fields: dict[str, object]) -> None:
    target = truth("every class", (1, 9, 8, 6), 3)
    logits = torch.zeros(1, 3, 9, 8, 6).requires_grad_()
    loss, optimiser = term(kind, fields), torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        loss(logits, target).backward()
        optimiser.step()
    assert torch.equal(logits.argmax(1), target)
