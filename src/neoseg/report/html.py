"""The report page: one file that needs nothing else, neither a network nor another file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import replacing
from . import charts
from .content import CaseResult, Evaluation, LabelVolume, ReportContent

__all__ = ["write_report"]

DASH = "–"


def write_report(path: Path, content: ReportContent) -> None:
    """Write ``content`` as one self-contained HTML file: styles, pictures and the little script are inside.

    Cases are sorted worst first. Everything in ``content`` is escaped, so a case may have any name. A policy in the
    page's head forbids the browser every request, so nothing leaves the machine that shows it.
    """
    text = (
        _environment()
        .get_template("report.html")
        .render(
            content=content,
            results=worst_first(content.results),
            config_groups=config_groups(content.config),
            config_json=json.dumps(content.config, indent=2, ensure_ascii=False, default=str),
            score_names=list(dict.fromkeys(name for result in content.results for name in result.scores)),
            charts=_charts(content),
            measured=[list(dict.fromkeys(v.label for v in _measured(content, e))) for e in content.evaluations],
            ranked=any(result.risk is not None for result in content.results),
            has_truth=any(volume.true_ml is not None for result in content.results for volume in result.volumes),
        )
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def worst_first(results: Sequence[CaseResult]) -> list[CaseResult]:
    """Sort by risk, the smallest first; cases without one keep their order at the end."""
    return sorted(results, key=lambda result: (result.risk is None, 0.0 if result.risk is None else result.risk))


def config_groups(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Flatten a nested configuration into (section, [(dotted key, value as text)]); plain keys come first."""
    plain = [(key, _shown(value)) for key, value in config.items() if not isinstance(value, Mapping)]
    sections = [(key, list(_leaves(value))) for key, value in config.items() if isinstance(value, Mapping)]
    return ([("run", plain)] if plain else []) + [section for section in sections if section[1]]


def _leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(_shown(item) for item in value) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _charts(content: ReportContent) -> dict[str, str]:
    """Draw what there is data for; the values are data URIs."""
    drawn = {}
    if content.curves:
        drawn["curves"] = charts.learning_curves(content.curves)
    for number, evaluation in enumerate(content.evaluations):
        systems = (evaluation.network, *evaluation.rules)
        if any(burden.summary.n for system in systems for burden in system.by_burden):
            drawn[f"burden{number}"] = charts.dice_by_burden(systems, evaluation.metric, content.region)
        pairs = [(v.true_ml, v.predicted_ml) for v in _measured(content, evaluation) if v.true_ml is not None]
        if len(pairs) > 1:
            true, predicted = zip(*pairs, strict=True)
            drawn[f"volumes{number}"] = charts.bland_altman(true, predicted, content.flag_ml, content.size_unit)
    return {name: _uri(svg.encode(), "image/svg+xml") for name, svg in drawn.items()}


def _measured(content: ReportContent, evaluation: Evaluation) -> list[LabelVolume]:
    """Return the volumes of the cases of an evaluation whose agreement is drawn: of what the network learns alone."""
    own = [result for result in content.results if result.group == evaluation.title]
    return [volume for result in own for volume in result.volumes if volume.target and volume.true_ml is not None]


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "interval": interval,
        "ml": millilitres,
        "percent": percent,
        "duration": duration,
        "png": lambda data: _uri(data, "image/png"),
        "unit": lambda unit: f" {unit}" if unit else "",
    }
    return environment


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with fixed decimals and a true minus sign; a dash when it is not known."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Write a difference with its sign."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    """Write an interval as "0.51 to 0.74"; a dash when it is not known."""
    return DASH if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def millilitres(value: float | None) -> str:
    """Write a volume in mL: two decimals below 10 mL, one below 100, none above; "< 0.01" for a trace."""
    if value is None:
        return DASH
    if value < 0.005:
        return "< 0.01" if value > 0 else "0"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def percent(value: float | None) -> str:
    """Write a share in percent as volumes are written."""
    return DASH if value is None else f"{millilitres(value)} %"


def duration(seconds: float) -> str:
    """Write a time for people: "0.4 s", "12 s", "3 min 05 s", "1 h 02 min"."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
