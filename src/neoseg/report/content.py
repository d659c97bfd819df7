"""What a report shows, as frozen records of plain data: the pipeline fills them, the page only lays them out.

Every part is optional: no labels means no evaluations, no held-out group means one evaluation less. Volumes are mL
(of planes: areas, in the content's ``size_unit``), shares are percent, spacings are mm (or ``length_unit``), times are
seconds. A missing number is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .summary import BurdenBin, FalsePositives, PairedDifference, Summary

__all__ = [
    "ADC_CAUTIONS",
    "CaseResult",
    "CaseRow",
    "Curve",
    "Evaluation",
    "LabelVolume",
    "MetricNote",
    "PlanEntry",
    "ReportContent",
    "ScoreLine",
    "ScoreRow",
    "StageRecord",
    "StageWarning",
    "System",
]

Better = Literal["higher", "lower", "zero"]

ADC_CAUTIONS = (
    "ADC depends on tissue. In healthy newborns the deep grey matter and the internal capsule lie near 1100 to "
    "1260 × 10⁻⁶ mm²/s (Sotardi 2021), so normal voxels there reach 1000 once noise is added: a fixed cut near 1000 "
    "marks normal deep grey matter, and a lower cut misses mild injury elsewhere. Read ADC beside Z-ADC, which "
    "compares each voxel with healthy newborns at the same place.",
    "ADC changes with time. Values fall over the first days after the injury and return to the normal range at about "
    "one week, later after cooling (Bednarek 2012), so a scan outside days 2 to 7 (cooled: 2 to 10) can look normal "
    "although tissue is injured. The age at the scan has to be known to read these numbers.",
    "Z-ADC here comes from the atlas named in the configuration. It is not the map that a data set's organisers may "
    "have distributed, and it is only as good as the registration of each head to that atlas.",
)
"""What a reader has to know wherever ADC or its Z map is shown."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One score of one case.

    Attributes:
        case: the case.
        label: name of the class ("lesion").
        metric: name as shown ("Dice").
        value: None when undefined.
        worst: the worst value that the metric can take for this case.
        unit: "" for a pure number, "mm", "mL", "%".
        better: which direction is good.
    """

    case: str
    label: str
    metric: str
    value: float | None
    worst: float
    unit: str = ""
    better: Better = "higher"


@dataclass(frozen=True, kw_only=True)
class ScoreLine:
    """One line of a score table: one metric of one class, summarised over cases."""

    metric: str
    label: str
    unit: str
    better: Better
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class System:
    """One way to segment, with its headline score: the network, or a rule shown beside it.

    Attributes:
        name: such as "UNETR++, mean of 3 folds" or "Z-ADC below a threshold".
        detail: what was tuned to which value and on what, in words: "Z < −2.1, components of at least 35 mm³".
        score: the headline metric over the non-empty cases.
        difference: the network minus this system on the same cases; None for the network itself.
        by_subject: the same metric over the means of the subjects; None unless a subject has several of the cases.
        difference_by_subject: the network minus this system over the means of the subjects; None where ``by_subject``
            is, and for the network itself.
        by_burden: the same metric within burden bins; empty when the burden is unknown.
        false_positives: predictions in lesion-free cases; None when there is no such case.
    """

    name: str
    score: Summary
    detail: str = ""
    difference: PairedDifference | None = None
    by_subject: Summary | None = None
    difference_by_subject: PairedDifference | None = None
    by_burden: tuple[BurdenBin, ...] = ()
    false_positives: FalsePositives | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one group of cases.

    Attributes:
        title: "Held-out cases", "Cross-validation".
        how: one sentence: which model predicted which cases.
        network: the trained network.
        rules: what it is compared with.
        lines: all metrics of the network.
        metric: name of the headline metric.
        cases: scored cases.
        subjects: whose they are; fewer than cases where intervals are drawn over subjects.
    """

    title: str
    how: str
    network: System
    rules: tuple[System, ...] = ()
    lines: tuple[ScoreLine, ...] = ()
    metric: str = "Dice"
    cases: int = 0
    subjects: int = 0

    @property
    def several_a_subject(self) -> bool:
        """Whether a subject has several cases, so that subjects are drawn whole."""
        return self.subjects < self.cases


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """One case of the data table.

    Attributes:
        grid: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        volume_ml: true volume of all classes; None without a label.
        share_percent: the same in percent of the brain; None when either is unknown.
    """

    case: str
    subject: str
    site: str
    group: str
    split: str
    grid: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    volume_ml: float | None = None
    share_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class LabelVolume:
    """Volume of one class in one case, in mL and in percent of the brain; None means unknown.

    Attributes:
        target: it is among what the network learns; with regions the classes beside them are not.
    """

    label: str
    predicted_ml: float
    true_ml: float | None = None
    predicted_percent: float | None = None
    true_percent: float | None = None
    target: bool = True


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """The result of one predicted case.

    Attributes:
        case: the case.
        group: title of the evaluation that it belongs to, or "Prediction".
        volumes: one a class.
        scores: score name as the column head ("Dice", "NSD", "Dice anterior") to value.
        risk: what the cases are sorted by, the smallest first (the headline score); None goes last, in given order.
        panel: PNG of the slices, see :func:`neoseg.report.figures.case_panel`.
        panel_text: what the picture shows, for those who cannot see it.
        notes: warnings and remarks about this case.
    """

    case: str
    group: str
    volumes: tuple[LabelVolume, ...]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    risk: float | None = None
    panel: bytes | None = None
    panel_text: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanEntry:
    """One derived number of the plan with its reason."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The training of one fold.

    Attributes:
        name: "fold 0".
        epochs: epoch numbers, counted from 1.
        loss: training loss, one an epoch.
        dice: validation Dice, one an epoch; None where it was not measured.
        best_epoch: the epoch whose weights are used, counted from 1.
    """

    name: str
    epochs: tuple[int, ...]
    loss: tuple[float | None, ...]
    dice: tuple[float | None, ...]
    best_epoch: int | None = None


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage of the run: its time and whether it was done now, reused from before, or failed."""

    name: str
    seconds: float
    state: Literal["done", "reused", "failed"] = "done"


@dataclass(frozen=True, kw_only=True)
class StageWarning:
    """One warning; ``case`` is empty when it is about the whole stage."""

    stage: str
    text: str
    case: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricNote:
    """How one metric is defined: in one sentence, and what holds when one or both masks are empty."""

    name: str
    unit: str
    better: Better
    definition: str
    empty: str
    worst: str


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything that one report shows.

    Attributes:
        title: name of the run.
        created: date and time, as text.
        summary: one or two sentences: which data, which network.
        notice: a sentence that has to stand on top, such as that all images are computer-made.
        structure: what is segmented, singular ("lesion", "hippocampus").
        region: what shares are shares of ("brain").
        flag_ml: predicted volumes above this are flagged; None for no flag.
        length_unit: of spacings: "mm", or "px".
        size_unit: of all that is called a volume: "mL", of planes "mm²" or "px²".
        evaluations: the most important first (held-out before cross-validation).
        config: the resolved configuration, JSON values.
        cautions: what a reader has to know, :data:`ADC_CAUTIONS` where ADC is shown.
        versions: name to version of what made this run.
    """

    title: str
    created: str
    summary: str = ""
    notice: str = ""
    structure: str = "lesion"
    region: str = "brain"
    flag_ml: float | None = 1.0
    length_unit: str = "mm"
    size_unit: str = "mL"
    evaluations: tuple[Evaluation, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[CaseRow, ...] = ()
    plan: tuple[PlanEntry, ...] = ()
    curves: tuple[Curve, ...] = ()
    results: tuple[CaseResult, ...] = ()
    warnings: tuple[StageWarning, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    metrics: tuple[MetricNote, ...] = ()
    cautions: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
