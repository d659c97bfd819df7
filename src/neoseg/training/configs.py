"""The settings of a training; no torch here, so that configurations load fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from ..inference.configs import Precision, Whole

__all__ = ["TrainingConfig"]


class TrainingConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How long, with what optimiser and by what choices a fold is trained.

    The length is ``time_budget_s`` when given, else ``steps`` when given, else ``epochs * steps_per_epoch``.

    Attributes:
        epochs: number of epochs; used when neither ``steps`` nor ``time_budget_s`` is given.
        steps: number of optimiser steps.
        time_budget_s: seconds of training with its validations; turned into a number of steps after a timed warm-up,
            stored before step 1 and kept by every resumed run.
        steps_per_epoch: steps between two validations, log lines and pictures.
        batch_size: patches in one pass through the network.
        accumulate: passes whose gradients are added up for one step; the step then sees ``batch_size * accumulate``
            patches in the memory of ``batch_size``. Batch norms see one pass at a time.
        optimiser: "adamw" or "sgd" (momentum 0.99, Nesterov).
        schedule: of the learning rate. "auto" is "cosine" for adamw (a linear rise, then half a cosine to zero) and
            "poly" for sgd (``(1 - step / steps) ** 0.9``); "plateau" lowers it by ``plateau_factor`` when
            ``plateau_patience`` validations have not been better; "constant" keeps it.
        learning_rate: peak rate; omitted: 1e-3 for adamw and 1e-2 for sgd.
        weight_decay: on weights of convolutions and linear layers.
        decay_all: the decay also acts on biases, norms, scales, temperatures and position tables, as in some authors'
            code.
        warmup_fraction: share of the steps over which the rate rises from zero in the cosine schedule.
        plateau_factor: the rate is multiplied by it.
        plateau_patience: validations; with ``validate_every = 2`` as many mean twice the epochs.
        gradient_clip: largest norm of the gradient.
        precision: "auto" takes bfloat16 where the device has it in hardware, float16 on GPUs of the Volta and Turing
            generations, else float32. In float16 the loss is scaled.
        ema_decay: decay of an exponential moving average of the weights and of the running statistics of batch norms
            (then validated and kept as best); omitted: the weights themselves.
        patch_scales: sizes of the patches, as multiples of the planned patch along every axis, such as (0.75, 1, 1.25).
            Each batch has one of them, all equally often; each side is the nearest that suits the network. It needs a
            network that takes any size. Omitted: the planned patch alone.
        foreground_fraction: share of the patches that are placed on a lesion.
        lesion_power: a lesion is drawn with probability proportional to ``volume ** lesion_power``.
        validate_every: epochs between two validations.
        validate_whole: each validation volume is one window, ``true`` or up to a number of voxels, as ``window.whole``
            says of predictions; otherwise windows have the size of the patch. Give both alike: then the best epoch is
            chosen by what the network is used for.
        validation_smoothing: weight of the past in the smoothed validation Dice that chooses the best epoch; 0 takes
            each value as it is.
        early_stop_patience: validations in a row without a better smoothed Dice after which the training ends, as many
            times ``validate_every`` epochs; omitted: never.
        checkpoint_every_seconds: longest work that a crash may cost.
    """

    epochs: int = Field(default=100, ge=1)
    steps: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    steps_per_epoch: int = Field(default=50, ge=1)
    batch_size: int = Field(default=2, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["auto", "cosine", "poly", "plateau", "constant"] = "auto"
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=3e-5, ge=0)
    decay_all: bool = False
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    plateau_factor: float = Field(default=0.2, gt=0, lt=1)
    plateau_patience: int = Field(default=10, ge=1)
    gradient_clip: float = Field(default=12.0, gt=0)
    precision: Precision = "auto"
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    patch_scales: tuple[Annotated[float, Field(ge=0.25, le=4)], ...] | None = Field(default=None, min_length=2)
    foreground_fraction: float = Field(default=0.5, ge=0, le=1)
    lesion_power: float = Field(default=0.5, ge=0, le=1)
    validate_every: int = Field(default=1, ge=1)
    validate_whole: Whole = False
    validation_smoothing: float = Field(default=0.5, ge=0, lt=1)
    early_stop_patience: int | None = Field(default=None, ge=1)
    checkpoint_every_seconds: float = Field(default=300.0, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.steps is not None and self.time_budget_s is not None:
            raise ValueError("steps and time_budget_s both set the length of the training; give one of them")
        return self

    @property
    def decided_schedule(self) -> str:
        """The schedule, with "auto" decided by the optimiser."""
        return {"adamw": "cosine", "sgd": "poly"}[self.optimiser] if self.schedule == "auto" else self.schedule

    @property
    def peak_rate(self) -> float:
        """The learning rate that is used."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.optimiser == "adamw" else 1e-2
