"""Moved samples are made from the part of the volume that they need: nothing inside of the volume becomes fill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.elastic import displacement_mm
from neoseg.augment.spatial import rotation_matrix
from neoseg.augment.transform import BatchInfo
from neoseg.data.patches import PatchSampler, Position, clipped
from neoseg.targets import Targets
from neoseg.training.batch import StepParts, make_batch
from neoseg.training.configs import TrainingConfig
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.ranks import Ranks

FILL, SEED, BATCH = -5.0, 11, 4
OFF = {name: 0.0 for name in AugmentConfig.model_fields if name.endswith("_probability")}
TURN = {"rotation_probability": 1.0, "rotation_degrees": (40.0, 40.0, 60.0)}
ZOOM = {"scaling_probability": 1.0, "scaling_range": (0.6, 1.4)}
BEND = {"elastic_probability": 1.0, "elastic_spacing_mm": 12.0, "elastic_displacement_mm": (4.0, 4.8)}
MOVES = {
    "turn": TURN,
    "zoom out": {"scaling_probability": 1.0, "scaling_range": (0.6, 0.7)},
    "bend": BEND,
    "all": TURN | ZOOM | BEND,
}
GRIDS = {
    "3-D": ((70, 80, 60), (16, 12, 10), (1.0, 1.3, 2.5)),
    "thick": ((70, 12, 80), (16, 6, 14), (1.0, 4.0, 1.2)),
    "2-D": ((90, 80), (20, 16), (1.0, 1.4)),
}
"""Shape of the volume, patch and spacing."""


pytestmark = pytest.mark.usefixtures("one_thread")


class Central(PatchSampler):
    """Places every patch so far inside that no transform of this file reaches the border, except along thick slices."""

    def draw(self, generator: np.random.Generator, count: int, patch: tuple[int, ...] | None = None) -> list[Position]:
        positions = super().draw(generator, count, patch)
        patch = patch or self._patch
        return [
            Position(p.case, tuple((n - side) // 2 + p.case for n, side in zip(shape, patch, strict=True)), False)
            for p in positions
            for shape in [self._shapes[p.case]]
        ]


def parts_of(
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    kind: str,
    moves: dict[str, object],
    *,
    sampler: type[PatchSampler] = Central,
    ranks: Ranks | None = None,
) -> StepParts:
    _, patch, spacing = GRIDS[kind]
    cases = [TrainingCase(f"t{i}", image, label) for i in range(2)]
    data = TrainingData(cases, [], spacing, Targets.of_classes(4), patch, FILL)
    config = TrainingConfig(batch_size=BATCH)
    augmentation = Augmentation(AugmentConfig(**OFF | moves))
    placed = sampler([case.label for case in cases], patch)
    parts = StepParts(
        lambda a, b: a.sum(), data, placed, augmentation, config, torch.device("cpu"), torch.float32, SEED
    )
    return parts if ranks is None else StepParts(**{**vars(parts), "ranks": ranks})


def sources(parts: StepParts, step: int) -> tuple[list[Position], list[NDArray[np.float64]]]:
    """Return where the rows of a batch lie, and for each voxel the index in the volume that its value comes from."""
    data = parts.data
    generator = np.random.default_rng([SEED, step])
    generator.integers(2**62)
    positions = parts.sampler.draw(generator, BATCH, data.patch)
    info = BatchInfo(BATCH, data.channels, data.patch, data.spacing_mm, data.fill)
    assert parts.augmentation is not None
    drawn = parts.augmentation.sample(generator, info)
    spacing, centre = np.array(data.spacing_mm), (np.array(data.patch) - 1) / 2
    place = (np.stack(np.indices(data.patch), axis=-1) - centre) * spacing
    thick = len(spacing) == 3 and spacing.max() > 3 * spacing.min()
    result = []
    for i, position in enumerate(positions):
        zoom = np.full(len(spacing), drawn["affine"]["zoom"][i])
        if thick:
            zoom[spacing.argmax()] = 1
        turn = rotation_matrix(drawn["affine"]["degrees"][i])
        own = {key: values[i] for key, values in drawn["elastic"].items()}
        move = displacement_mm(own, info, torch.device("cpu")).numpy().astype(np.float64)
        # the row vectors of R^T, then the zoom undone
        result.append(((place + move) @ turn / zoom) / spacing + centre + position.start)
    return positions, result


def ramps(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return one channel an axis, which holds the index along it."""
    return np.indices(shape).astype(np.float32)


@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("kind", GRIDS)
class TestInside:
    def test_a_constant_volume_stays_constant(self, kind: str, moves: str) -> None:
        shape = GRIDS[kind][0]
        image, label = np.full((2, *shape), 3.0, np.float32), np.full(shape, 2, np.uint8)
        parts = parts_of(image, label, kind, MOVES[moves])
        for step in range(3):
            batch = make_batch(parts, step)
            torch.testing.assert_close(batch.images, torch.full_like(batch.images, 3.0), atol=1e-5, rtol=0)
            assert (batch.labels == 2).all()

    def test_a_ramp_is_the_ramp_of_the_coordinates_that_values_come_from(self, kind: str, moves: str) -> None:
        shape = GRIDS[kind][0]
        parts = parts_of(ramps(shape), np.zeros(shape, np.uint8), kind, MOVES[moves])
        for step in range(3):
            batch = make_batch(parts, step)
            for row, place in zip(batch.images.numpy(), sources(parts, step)[1], strict=True):
                # a linear interpolation of a ramp is exact
                np.testing.assert_allclose(np.moveaxis(row, 0, -1), place, atol=2e-3)

    def test_a_label_follows_its_image(self, kind: str, moves: str) -> None:
        shape = GRIDS[kind][0]
        # stripes along the first and the last axis, so broad that voxels between two classes can be told
        label = ((np.indices(shape)[0] // 5 + np.indices(shape)[-1] // 4) % 3).astype(np.uint8)
        image = np.stack([label == value for value in range(3)]).astype(np.float32)
        parts = parts_of(image, label, kind, MOVES[moves])
        batch = make_batch(parts, 0)
        share, winner = batch.images.max(dim=1)
        clear = share > 0.51
        assert clear.float().mean() > 0.8
        assert torch.equal(winner[clear].to(torch.uint8), batch.labels[clear])


@pytest.mark.parametrize("changes", [(4, 0, -3), (0, -3, 4), (-3, 4, 0)])
@pytest.mark.parametrize("kind", GRIDS)
def test_fill_lies_only_outside_of_the_volume(kind: str, changes: tuple[int, ...]) -> None:
    patch = GRIDS[kind][1]
    # one axis longer than the patch, one as long, one shorter
    shape = tuple(n + change for n, change in zip(patch, changes, strict=False))
    image, label = np.full((1, *shape), 3.0, np.float32), np.ones(shape, np.uint8)
    parts = parts_of(image, label, kind, MOVES["all"], sampler=PatchSampler)
    outer = inner = 0
    for step in range(4):
        batch = make_batch(parts, step)
        for row, own, place in zip(batch.images, batch.labels, sources(parts, step)[1], strict=True):
            inside = ((place >= 1e-3) & (place <= np.array(shape) - 1 - 1e-3)).all(axis=-1)
            outside = ((place <= -1 - 1e-3) | (place >= np.array(shape) + 1e-3)).any(axis=-1)
            values, found = row[0].numpy(), own.numpy()
            np.testing.assert_allclose(values[inside], 3.0, atol=1e-5)
            assert (found[inside] == 1).all()
            assert (values[outside] == FILL).all() and not found[outside].any()
            outer, inner = outer + int(outside.sum()), inner + int(inside.sum())
    assert outer > 100 and inner > 100


@pytest.mark.parametrize("kind", GRIDS)
def test_the_centre_of_a_patch_stays_where_it_was_placed(kind: str) -> None:
    shape, patch, _ = GRIDS[kind]
    image, label = ramps(shape), np.zeros(shape, np.uint8)
    label[tuple(n // 3 for n in shape)] = 1
    parts = parts_of(image, label, kind, TURN | ZOOM, sampler=PatchSampler)
    for step in range(3):
        for row, position in zip(make_batch(parts, step).images.numpy(), sources(parts, step)[0], strict=True):
            # sides are even, so the centre lies between the middle voxels
            middle = row[(slice(None), *(slice(n // 2 - 1, n // 2 + 1) for n in patch))]
            if (middle != FILL).all():
                wanted = np.array(position.start) + (np.array(patch) - 1) / 2
                np.testing.assert_allclose(middle.reshape(len(patch), -1).mean(axis=1), wanted, atol=2e-3)


@pytest.mark.parametrize("world", [2, 4])
def test_each_rank_makes_the_rows_that_one_process_would_make(world: int) -> None:
    shape = GRIDS["3-D"][0]
    generator = np.random.default_rng(0)
    image, label = generator.normal(size=(2, *shape)).astype(np.float32), generator.integers(0, 4, shape, np.uint8)
    moves = {**MOVES["all"], "rotation_probability": 0.5, "scaling_probability": 0.3, "elastic_probability": 0.3}
    for step in range(4):
        whole = make_batch(parts_of(image, label, "3-D", moves, sampler=PatchSampler), step)
        shares = [
            make_batch(parts_of(image, label, "3-D", moves, sampler=PatchSampler, ranks=Ranks(rank, world)), step)
            for rank in range(world)
        ]
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)


def test_a_box_ends_with_the_volume() -> None:
    assert clipped((-2, 1, 3), (5, 3, 9), (4, 10, 8)) == ((0, 1, 3), (3, 3, 5))
    assert clipped((-2, -1), (9, 9), (4, 5)) == ((0, 0), (4, 5))


class Watched(np.ndarray):
    """An array that counts what is taken out of it."""

    taken = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        part = super().__getitem__(key)
        Watched.taken += part.size
        return np.asarray(part)


def test_only_the_needed_part_is_read_and_nothing_more_where_nothing_moves() -> None:
    shape, patch, _ = GRIDS["3-D"]
    image, label = np.zeros((1, *shape), np.float32), np.zeros(shape, np.uint8)
    read = {}
    for name, moves in {"off": {}, "turn": TURN}.items():
        parts = parts_of(image.view(Watched), label, "3-D", moves)
        Watched.taken = 0
        make_batch(parts, 0)
        read[name] = Watched.taken
    assert read["off"] == BATCH * np.prod(patch)
    # a box around the turned patch: much smaller than the volume
    assert read["off"] < read["turn"] < 0.2 * BATCH * np.prod(shape)
