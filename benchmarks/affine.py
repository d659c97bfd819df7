"""Affine registration: known maps, real pairs, templates, wrong orientations, lesions, cost beside SimpleITK.

python benchmarks/affine.py DATA [--pictures DIR] [--parts ...]   writes benchmarks/results/affine.json

DATA holds ms_longitudinal_registration, ms_mni, isles22_case0001_unlabelled and the two templates. Every error is the
distance in mm between the found and the true place, over the brain. Time is CPU time of one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.io import read_volume
from neoseg.phantom import head as phantom
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.geometry import draw_grid
from neoseg.register.affine import AffineRegistration, register_affine
from neoseg.register.configs import AffineConfig
from neoseg.register.images import around
from neoseg.register.itk import affine_from_itk, image_to_itk, lps
from neoseg.register.moments import start_from_moments
from neoseg.register.plausible import implausible, unlike
from neoseg.register.search import turn_of
from neoseg.register.transforms import Affine, resample
from neoseg.volume import Grid, Volume, upright

RESULT = Path(__file__).parent / "results" / "affine.json"
CONFIG = AffineConfig()
GEOMETRIES = (
    ((0, 0, 1), (1.1, 1.1, 1.1), (6, -6, 5.3), (1.4, 1.4, 4.0), (128, 128, 26)),
    ((1, 0.3, -0.5), (0.9, 1.0, 1.1), (-6, 6, 5.3), (1.4, 1.4, 4.0), (128, 128, 32)),
    ((0.2, -1, 0.3), (1.1, 0.95, 1.0), (0, -8, -6), (1.25, 1.25, 2.5), (128, 128, 44)),
)
BURDENS = (0, 1, 3, 8, 15, 25, 40, 55, 70, None)
PATIENTS, HEALTHY, TURNED = 12, 6, 9


def rotation(axis: Any, degrees: float) -> Any:
    vector = np.asarray(axis, dtype=float)
    return Rotation.from_rotvec(np.radians(degrees) * vector / np.linalg.norm(vector)).as_matrix()


@dataclass(frozen=True)
class Template:
    """The mean of healthy heads, affinely aligned to one of them."""

    image: Volume
    mask: Any


@cache
def mean_head() -> Template:
    heads = [head(1000 + i) for i in range(HEALTHY)]
    grid = around(heads[0].grid, heads[0].array[0] != 0, 2.0, 12.0)
    maps = [Affine.identity(), *(register_affine(heads[0], other, config=CONFIG).transform for other in heads[1:])]
    images = np.stack([resample(other, grid, found).array[0] for other, found in zip(heads, maps, strict=True)])
    mask = (images > 0).mean(axis=0) >= 0.5
    mean = images.sum(axis=0) / np.maximum((images > 0).sum(axis=0), 1)
    return Template(Volume(np.where(mask, mean, 0)[None].astype(np.float32), grid), mask)


def head(seed: int, burden: float | None = None, grid: Grid | None = None) -> Volume:
    """The scan of a head, on its own grid or on another one, where it is rendered anew (with its own noise)."""
    generator = np.random.default_rng(seed)
    if grid is None:
        return phantom.make_head(generator, HeadConfig(), lesion_burden=burden).adc
    own = own_grid(seed)
    real = phantom.draw_deformation
    with (
        mock.patch.object(phantom, "draw_grid", lambda *_: grid),
        mock.patch.object(phantom, "draw_deformation", lambda g, c, *_: real(g, c, own.centre, own.directions)),
    ):
        return phantom.make_head(generator, HeadConfig(), lesion_burden=burden).adc


def own_grid(seed: int) -> Grid:
    return draw_grid(np.random.default_rng(seed).spawn(7)[0], phantom.BRAIN_HEIGHT_MM)


def moved(seed: int, geometry: int, burden: float | None = None) -> tuple[Volume, Affine]:
    """A head seen through a known affine on an oblique grid, and that map from the new world to the head's own."""
    axis, scale, shift, spacing, shape = GEOMETRIES[geometry]
    centre = own_grid(seed).centre
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(axis, 20) @ np.diag(scale)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
    truth, affine = Affine(matrix), np.eye(4)
    affine[:3, :3] = rotation((0.3, 0.5, 0.2), 10 + geometry) @ np.diag(spacing)
    affine[:3, 3] = truth.inverse().points(centre[None])[0] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    image = head(seed, burden, Grid(shape, truth.matrix @ affine))
    return Volume(image.array, Grid(shape, affine)), truth


def brain_points(volume: Volume) -> Any:
    return volume.grid.to_world(np.argwhere(volume.array[0] != 0)[::5])


def error(found: Affine, truth: Affine, points: Any) -> float:
    return float(np.linalg.norm(found.points(points) - truth.points(points), axis=1).mean())


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "smallest": round(min(values), 3),
        "largest": round(max(values), 3),
        "count": len(values),
    }


def known_affines() -> dict[str, Any]:
    errors, seconds = [], []
    for seed in (11, 12):
        own = head(seed)
        for geometry in range(len(GEOMETRIES)):
            image, truth = moved(seed, geometry)
            for fixed, moving, true in ((image, own, truth), (own, image, truth.inverse())):
                found, cpu = timed(lambda f=fixed, m=moving: register_affine(f, m, config=CONFIG))
                errors.append(error(found.transform, true, brain_points(fixed)))
                seconds.append(cpu)
    return {"mean_error_mm": spread(errors), "cpu_s": spread(seconds)}


def turned(volume: Volume, turn: Any) -> Volume:
    """The same voxels under a header that is turned about the centre and shifted."""
    grid, affine = volume.grid, volume.grid.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = turn @ (affine[:3, 3] - grid.centre) + grid.centre + [5, -8, 10]
    return Volume(volume.array, Grid(grid.shape, affine))


def flipped(volume: Volume, axis: int) -> Volume:
    return Volume(np.ascontiguousarray(np.flip(volume.array, axis + 1)), volume.grid)


def cut(volume: Volume, low: float, high: float) -> Volume:
    count = volume.grid.shape[2]
    first, last = int(low * count), int(high * count)
    shape = (*volume.grid.shape[:2], last - first)
    return Volume(volume.array[..., first:last].copy(), volume.grid.cropped((0, 0, first), shape))


def noisy(volume: Volume, seed: int) -> Volume:
    """Rician noise everywhere, so that no voxel of the background is 0."""
    generator, image = np.random.default_rng(seed), volume.array.astype(np.float32)
    real, imaginary = (generator.normal(0, 12, image.shape) for _ in range(2))
    return volume.with_array(np.hypot(image + real, imaginary).astype(np.float32))


def real_pairs(data: Path) -> dict[str, Any]:
    """Two studies of one patient; each has its own map from a common space, so the true map goes back and forth."""
    result = {}
    for folder in sorted((data / "ms_longitudinal_registration").glob("patient*")):
        one, two = (read_volume(folder / f"study{i}_FLAIR.nii.gz") for i in (1, 2))
        to_one, to_two = (
            affine_from_itk(sitk.ReadTransform(str(folder / f"study{i}_FLAIR_to_common_space.txt"))) for i in (1, 2)
        )
        mask = read_volume(folder / "brainmask.nii.gz")
        common = mask.grid.to_world(np.argwhere(mask.array[0] != 0)[::29])
        here, there = to_one.points(common), to_two.points(common)
        half = rotation((0, 1, 0), 180)
        pairs = {
            "first_to_second": (one, two, here, there),
            "second_to_first": (two, one, there, here),
            "noise_in_the_background": (noisy(one, 1), noisy(two, 2), here, there),
            "header_turned_by_180": (one, turned(two, half), here, _turned_points(there, two, half)),
            "30_percent_of_slices_missing": (one, cut(two, 0.0, 0.7), here, there),
            "both_cut": (cut(one, 0.3, 1.0), cut(two, 0.0, 0.8), here, there),
        }
        rows: dict[str, Any] = {"before_mm": round(float(np.linalg.norm(here - there, axis=1).mean()), 3)}
        for name, (fixed, moving, start, end) in pairs.items():
            found, cpu = timed(lambda f=fixed, m=moving: register_affine(f, m, config=CONFIG))
            distance = np.linalg.norm(found.transform.points(start) - end, axis=1)
            rows[name] = {
                "mean_mm": round(float(distance.mean()), 3),
                "largest_mm": round(float(distance.max()), 3),
                "mirrored": round(found.mirrored, 3),
                "cpu_s": round(cpu, 2),
            }
        mirror = register_affine(one, flipped(two, 0), config=CONFIG)
        rows["mirrored_file"] = {
            "mirrored": round(mirror.mirrored, 3),
            "told": any("mirror" in text for text in implausible(mirror.facts())),
        }
        result[folder.name] = rows
    return result


def _turned_points(points: Any, volume: Volume, turn: Any) -> Any:
    return (points - volume.grid.centre) @ turn.T + volume.grid.centre + [5, -8, 10]


def templates(data: Path, pictures: Path | None) -> dict[str, Any]:
    """Real heads, and procedural newborns, to two templates of another contrast."""
    adult = read_volume(data / "template_adult_mni152" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    newborn = read_volume(data / "template_neonate_bcp_0mo" / "tpl-UNCBCP4DInfant_cohort-00_desc-brain_T2w.nii.gz")
    heads = {"stroke_adc": read_volume(data / "isles22_case0001_unlabelled" / "sub-strokecase0001_ses-0001_adc.nii.gz")}
    for folder in sorted((data / "ms_mni").glob("patient*")):
        heads[f"ms_flair_{folder.name}"] = read_volume(folder / "FLAIR.nii.gz")
    for folder in sorted((data / "ms_longitudinal_registration").glob("patient*"))[:1]:
        image, mask = read_volume(folder / "study1_FLAIR.nii.gz"), read_volume(folder / "brainmask.nii.gz")
        heads["flair_with_skull"] = image
        to_study = affine_from_itk(sitk.ReadTransform(str(folder / "study1_FLAIR_to_common_space.txt")))
        brain = resample(mask, image.grid, to_study.inverse(), order=0).array != 0
        heads["flair_skull_stripped"] = image.with_array(np.where(brain, image.array, 0))
    heads |= {f"phantom_{seed}": head(seed) for seed in (11,)}
    result: dict[str, Any] = {}
    for name, image in heads.items():
        for title, template in (("adult", adult), ("newborn", newborn)):
            found, cpu = timed(lambda f=image, m=template: register_affine(f, m, config=CONFIG))
            facts: dict[str, Any] = {key: round(value, 3) for key, value in found.facts().items()}
            result[f"{name}_to_{title}"] = facts | {"cpu_s": round(cpu, 2), "told": list(implausible(found.facts()))}
            if pictures is not None:
                picture(image, template, found, pictures / f"{name}_to_{title}.png")
    return result


def picture(fixed: Volume, moving: Volume, found: AffineRegistration, path: Path) -> None:
    """Three slices of the fixed head with the outline of the template that was laid on it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    index = np.argwhere(fixed.array[0] != 0)
    world = fixed.grid.to_world(index)
    low, high = world.min(axis=0) - 8, world.max(axis=0) + 8
    grid_affine = np.eye(4)
    grid_affine[:3, 3] = low
    grid = Grid(tuple(int(n) for n in np.ceil(high - low)), grid_affine)
    image = resample(fixed, grid).array[0]
    other = resample(moving, grid, found.transform).array[0]
    middle = [n // 2 for n in grid.shape]
    figure, axes = plt.subplots(2, 3, figsize=(11, 7))
    for axis in range(3):
        one, two = np.take(image, middle[axis], axis).T, np.take(other, middle[axis], axis).T
        top = np.percentile(image[image != 0], 99)
        axes[0, axis].imshow(one, origin="lower", cmap="gray", vmin=0, vmax=top)
        axes[0, axis].contour(two > 0.15 * other.max(), [0.5], colors="red", linewidths=0.7)
        axes[1, axis].imshow(two, origin="lower", cmap="gray")
        axes[1, axis].contour(one > 0.15 * top, [0.5], colors="lime", linewidths=0.7)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    plt.close(figure)


def orientations(template: Template) -> dict[str, Any]:
    """How often heads under turned headers are found, and the cost, by the number of orientations tried."""
    generator = np.random.default_rng(1)
    jobs = []
    for i in range(TURNED):
        half = i % 3 == 0
        turn = rotation(np.eye(3)[i % 9 // 3], 180) if half else Rotation.random(random_state=generator).as_matrix()
        jobs.append((turned(head(20 + i % 8, (None, 20, 40, 60)[i % 4]), turn), turn))
    straight_found = [
        register_affine(_straight(j), template.image, config=CONFIG, moving_mask=template.mask) for j in jobs
    ]
    result = {}
    for count in (0, 400):
        config = AffineConfig(orientations=count)
        right, seconds = 0, []
        for (image, turn), straight in zip(jobs, straight_found, strict=True):
            found, cpu = timed(
                lambda f=image, c=config: register_affine(f, template.image, config=c, moving_mask=template.mask)
            )
            away = found.transform.matrix[:3, :3] @ turn @ np.linalg.inv(straight.transform.matrix[:3, :3])
            right += turn_of(away) < 5
            seconds.append(cpu)
        result[str(count)] = {"found": right, "of": len(jobs), "cpu_s": round(statistics.median(seconds), 2)}
    return result


def _straight(job: tuple[Volume, Any]) -> Volume:
    image, turn = job
    return turned(image, np.linalg.inv(turn))


def wrong_optima(template: Template) -> dict[str, Any]:
    """Patients to an atlas: how many right registrations are doubted, how many wrong ones are not."""
    right: dict[str, dict[str, Any]] = {}
    wrong: dict[str, dict[str, dict[str, Any]]] = {}
    for number in range(PATIENTS):
        scan = head(2000 + number, BURDENS[number % len(BURDENS)])
        scan = Volume(scan.array, upright(scan.grid))
        name = str(number)
        right[name] = _facts(scan, template)
        centre = scan.grid.to_world(np.argwhere(scan.array[0] != 0).mean(axis=0))
        shift = start_from_moments(scan, template.image, moving_mask=template.mask).matrix[:3, 3]
        for axis, title in enumerate("xyz"):
            matrix = np.eye(4)
            matrix[:3, :3] = rotation(np.eye(3)[axis], 180)
            matrix[:3, 3] = shift + centre - matrix[:3, :3] @ centre
            wrong.setdefault(f"started_180_about_{title}", {})[name] = _facts(scan, template, Affine(matrix))
        wrong.setdefault("file_mirrored_left_right", {})[name] = _facts(flipped(scan, 0), template)
        wrong.setdefault("file_mirrored_up_down", {})[name] = _facts(flipped(scan, 2), template)
    result: dict[str, Any] = {
        "patients": PATIENTS,
        "false_alarms": sum(bool(_told(facts, right, name)) for name, facts in right.items()),
        "similarity_right": spread([facts["affine_similarity"] for facts in right.values()]),
        "rival_right": spread([facts["affine_rival"] for facts in right.values()]),
        "by_number_of_others": {},
    }
    for kind, cases in wrong.items():
        told = [bool(_told(facts, right, name)) for name, facts in cases.items()]
        cohort_only = [bool(_told({**f, "affine_turn_degrees": 0.0}, right, name)) for name, f in cases.items()]
        result[kind] = {
            "similarity": spread([facts["affine_similarity"] for facts in cases.values()]),
            "told": sum(told),
            "told_without_the_angle": sum(cohort_only),
            "of": len(told),
        }
    generator, names = np.random.default_rng(0), list(right)
    forced = [cases for kind, cases in wrong.items() if kind.startswith("started")]
    for others in (1, 2, 4, 9, PATIENTS - 1):
        alarms, missed, tries = 0, 0, 300
        for _ in range(tries):
            name, *rest = generator.choice(names, others + 1, replace=False)
            cohort = [right[str(other)] for other in rest]
            alarms += bool(unlike(right[str(name)], cohort))
            missed += not unlike(forced[generator.integers(3)][str(name)], cohort)
        result["by_number_of_others"][str(others)] = {
            "false_alarm_rate": round(alarms / tries, 3),
            "detection_rate_without_the_angle": round(1 - missed / tries, 3),
        }
    return result


def _facts(scan: Volume, template: Template, start: Affine | None = None) -> dict[str, Any]:
    return register_affine(scan, template.image, config=CONFIG, moving_mask=template.mask, start=start).facts()


def _told(facts: dict[str, Any], right: dict[str, dict[str, Any]], name: str) -> tuple[str, ...]:
    return (*implausible(facts), *unlike(facts, [other for key, other in right.items() if key != name]))


def lesions(template: Template) -> dict[str, Any]:
    """The same heads with and without lesions: error of a known map, and how far lesions move the map to an atlas."""
    result = {}
    for burden in (40, 55, 70):
        errors, shifts = [], []
        for seed in (31, 32):
            healthy = head(seed)
            image, truth = moved(seed, seed % 3, burden)
            found = register_affine(image, healthy, config=CONFIG).transform
            errors.append(error(found, truth, brain_points(image)))
            ill = head(seed, burden)
            maps = [
                register_affine(scan, template.image, config=CONFIG, moving_mask=template.mask).transform
                for scan in (healthy, ill)
            ]
            shifts.append(error(maps[1], maps[0], brain_points(ill)))
        result[str(burden)] = {"error_to_own_healthy_scan_mm": spread(errors), "shift_on_atlas_mm": spread(shifts)}
    return result


def beside_simpleitk() -> dict[str, Any]:
    """Rigid and affine on 128 x 128 x 40 from the same start (the masks' centres)."""
    rows: dict[str, list[float]] = {"ours_s": [], "theirs_s": [], "ours_mm": [], "theirs_mm": []}
    grid_affine = np.diag([1.4, 1.4, 2.5, 1.0])
    for seed in (41, 42):
        centre = own_grid(seed).centre
        affine = grid_affine.copy()
        affine[:3, 3] = centre - affine[:3, :3] @ [63.5, 63.5, 19.5]
        moving = head(seed, None, Grid((128, 128, 40), affine))
        axis, scale, shift, *_ = GEOMETRIES[seed % 3]
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(axis, 15) @ np.diag(scale)
        matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
        truth = Affine(matrix)
        own = grid_affine.copy()
        own[:3, 3] = truth.inverse().points(centre[None])[0] - own[:3, :3] @ [63.5, 63.5, 19.5]
        image = head(seed, None, Grid((128, 128, 40), truth.matrix @ own))
        fixed = Volume(image.array, Grid((128, 128, 40), own))
        found, cpu = timed(lambda f=fixed, m=moving: register_affine(f, m, config=CONFIG).transform)
        rows["ours_s"].append(cpu)
        rows["ours_mm"].append(error(found, truth, brain_points(fixed)))
        found, cpu = timed(lambda f=fixed, m=moving: simpleitk(f, m))
        rows["theirs_s"].append(cpu)
        rows["theirs_mm"].append(error(found, truth, brain_points(fixed)))
    result: dict[str, Any] = {name: spread(values) for name, values in rows.items()}
    result["ours_over_theirs"] = round(statistics.median(rows["ours_s"]) / statistics.median(rows["theirs_s"]), 3)
    return result


def simpleitk(fixed: Volume, moving: Volume) -> Affine:
    """SimpleITK's usual recipe: Mattes information with 32 bins, regular step gradient descent, rigid, then affine."""
    images = [sitk.Cast(image_to_itk(v), sitk.sitkFloat32) for v in (fixed, moving)]
    start = start_from_moments(fixed, moving)
    centre = lps(fixed.grid.to_world(np.argwhere(fixed.array[0] != 0).mean(axis=0))).tolist()
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(centre)
    rigid.SetTranslation(lps(start.matrix[:3, 3]).tolist())
    rigid = _descend(images, rigid)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(centre)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    return affine_from_itk(_descend(images, affine))


def _descend(images: list[Any], transform: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*images)
    return transform


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "known_affines": lambda _: known_affines(),
    "real_pairs": lambda given: real_pairs(given.data),
    "wrong_optima": lambda _: wrong_optima(mean_head()),
    "beside_simpleitk": lambda _: beside_simpleitk(),
    "templates": lambda given: templates(given.data, given.pictures),
    "orientations_tried": lambda _: orientations(mean_head()),
    "lesions": lambda _: lesions(mean_head()),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    found = read_json(RESULT) if RESULT.is_file() else {}
    for name in arguments.parts:
        found[name], cpu = timed(lambda part=name: PARTS[part](arguments))
        print(f"{name}: {cpu:.0f} s", flush=True)
        about = {"what": (__doc__ or "").split("\n\n")[0], "machine": machine()}
        write_json(RESULT, about | {part: found[part] for part in PARTS if part in found})


if __name__ == "__main__":
    main()
