"""prepare-volume: each preparation step on one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_json, print_lines
from .options import Changes, Json

__all__ = ["prepare_volume"]


def prepare_volume(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Image file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Result; its ending chooses the format.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="adc, mr or ct; default: adc when the file's name says so, else mr.")
    ] = None,
    unit: Annotated[str, typer.Option("--unit", help="Unit of an ADC map; default: told from its values.")] = "",
    volume_index: Annotated[
        int | None, typer.Option("--volume-index", min=0, help="Which volume of a 4-D file, counted from 0.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Brain mask on the grid of IN; default: what is not background, or estimated."),
    ] = None,
    save_mask: Annotated[
        Path | None, typer.Option("--save-mask", help="Write the brain mask, on the grid of OUT.")
    ] = None,
    bias_field: Annotated[
        bool,
        typer.Option(
            "--bias-field",
            help="Correct the bias field. Changes local values of a quantitative map; its mean over the brain is kept.",
        ),
    ] = False,
    atlas: Annotated[Path | None, typer.Option("--atlas", help="Folder of an atlas, for --zmap.")] = None,
    zmap: Annotated[
        Path | None,
        typer.Option("--zmap", help="Write the Z map of ADC on the grid of IN; the ADC is not interpolated."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="TEMPLATE",
            help="Register to this image or atlas folder and write OUT on its grid: linear, the unit is kept.",
        ),
    ] = None,
    affine_only: Annotated[bool, typer.Option("--affine-only", help="Leave the free-form deformation out.")] = False,
    save_transform: Annotated[
        Path | None,
        typer.Option("--save-transform", help="Write template world to scan world: .npz, or ITK's .tfm, .h5."),
    ] = None,
    transform: Annotated[
        Path | None, typer.Option("--transform", help="Go to the grid of --to through a saved transform.")
    ] = None,
    inverse: Annotated[bool, typer.Option("--inverse", help="Use --transform the other way round.")] = False,
    label: Annotated[
        bool, typer.Option("--label", help="IN is a label: nearest voxel, type kept; with --to and --transform.")
    ] = False,
    crop: Annotated[bool, typer.Option("--crop", help="Cut to the brain; values and places stay.")] = False,
    spacing: Annotated[
        str | None,
        typer.Option("--spacing", metavar="X,Y,Z", help="Voxel size of OUT in mm; linear, the unit is kept."),
    ] = None,
    normalise: Annotated[
        str | None, typer.Option("--normalise", help="case or percentile; the values lose their unit.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration whose [prepare] sets the steps.")
    ] = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Take single preparation steps on one file: brain mask, bias field, Z map, template, crop, spacing, intensities.

    The steps run in this order. ADC is converted to 1e-6 mm2/s, and what is not brain becomes 0; without further
    options nothing else happens.
    """
    from ..config import load_config
    from ..errors import ConfigError
    from ..pipeline.prepare_volume import VolumeJob
    from ..pipeline.prepare_volume import prepare_volume as run_steps
    from ..prepare.configs import PrepareConfig

    if changes and config is None:
        raise ConfigError("prepare-volume: --set changes a configuration; give one with --config FILE.")
    settings = load_config(config, changes or ()).prepare if config is not None else PrepareConfig()
    if affine_only:
        settings = settings.model_copy(update={"ffd": None})
    facts = run_steps(
        VolumeJob(
            source=source,
            output=output,
            kind=kind,
            unit=unit,
            volume_index=volume_index,
            mask=mask,
            label=label,
            bias_field=bias_field,
            atlas=atlas,
            zmap=zmap,
            to=to,
            transform=transform,
            inverse=inverse,
            save_transform=save_transform,
            crop=crop,
            spacing_mm=_sizes(spacing),
            normalise=normalise,
            save_mask=save_mask,
        ),
        settings,
    )
    if as_json:
        print_json(facts)
        return
    for step in ("mask", "bias_field", "zmap", "to", "normalise", "labelled_ml"):
        if step in facts:
            numbers = ", ".join(f"{name} {value}" for name, value in facts[step].items() if value is not None)
            print_lines([f"{step}: {numbers}"])
    print_lines([f"warning: {sentence}" for sentence in facts["warnings"]])
    print_lines([f"Written: {', '.join(facts['files'])}"])


def _sizes(text: str | None) -> tuple[float, ...] | None:
    """Read "1,1,2" as three sizes in mm.

    Raises:
        ConfigError: anything else.
    """
    from ..errors import ConfigError

    if text is None:
        return None
    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) != 3 or not all(0 < size < 1000 for size in sizes):
        raise ConfigError(f"--spacing {text}: three sizes in mm between commas are wanted, such as 1.4,1.4,2.5.")
    return sizes
