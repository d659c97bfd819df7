"""Settings of the procedural heads and of the cohort that is made of them."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["CohortConfig", "HeadConfig"]


class HeadConfig(BaseModel, frozen=True, extra="forbid"):
    """What varies from head to head and how much.

    Attributes:
        scale_sd: standard deviation of the size of a head along each axis (share of 1).
        velocity_mm: root mean square of the random velocity field that makes individual anatomy, mm per unit time.
        velocity_wavelength_mm: shortest length over which that field changes, mm.
        fold_wavelength_mm: distance between every second sulcus, mm.
        fold_individuality: share (0..1) of the pattern of folds that belongs to the head alone.
        cortex_mm: mean thickness of the cortex, mm.
        ventricle_scale_sd: standard deviation of the logarithm of the width of the ventricles.
        maturity_sd: standard deviation of the head's own factor on all tissue values (share of 1).
        regional_sd: standard deviation of slow regional variation of tissue values inside a head (share of 1).
        texture_sd: standard deviation of fine tissue texture (share of 1).
        distortion: largest fall of the ADC near air and bone under the brain (echo-planar distortion, not injury).
        field_sd: standard deviation over the brain of the logarithm of the receive field.
        slice_sd: standard deviation of the factor that each slice has of its own (motion between shots).
        snr: signal over noise of the image without diffusion weighting, in tissue.
        lesion_drop: smallest and largest fall of the ADC in the core of a lesion in white matter (share of 1).
        grey_drop: fall in grey matter over that in white matter.
        lesion_edge_mm: smallest and largest width of a lesion's soft edge, mm.
        point_mm: largest distance of the points over which a voxel is averaged (partial volume): in the slice, across.
    """

    scale_sd: float = Field(0.03, ge=0, le=0.1)
    velocity_mm: float = Field(2.5, ge=0, le=6)
    velocity_wavelength_mm: float = Field(40.0, ge=24)
    fold_wavelength_mm: float = Field(19.0, ge=12, le=40)
    fold_individuality: float = Field(0.7, ge=0, le=1)
    cortex_mm: float = Field(2.5, gt=0.5, le=5)
    ventricle_scale_sd: float = Field(0.2, ge=0, le=0.6)
    maturity_sd: float = Field(0.06, ge=0, le=0.2)
    regional_sd: float = Field(0.05, ge=0, le=0.2)
    texture_sd: float = Field(0.02, ge=0, le=0.2)
    distortion: float = Field(0.15, ge=0, le=0.5)
    field_sd: float = Field(0.08, ge=0, le=0.3)
    slice_sd: float = Field(0.015, ge=0, le=0.1)
    snr: float = Field(45.0, gt=3)
    lesion_drop: tuple[float, float] = (0.28, 0.46)
    grey_drop: float = Field(0.8, gt=0, le=1.2)
    lesion_edge_mm: tuple[float, float] = (0.6, 1.4)
    point_mm: tuple[float, float] = (0.8, 1.9)


class CohortConfig(BaseModel, frozen=True, extra="forbid"):
    """How many heads of which kind.

    Attributes:
        healthy: heads without a lesion, for the normative atlas.
        patients: heads for training and cross-validation.
        held_out: heads for the final test.
        seed: every head is a function of this number and of its own place in the cohort.
        head: what each head is made of.
    """

    healthy: int = Field(20, ge=0)
    patients: int = Field(30, ge=0)
    held_out: int = Field(12, ge=0)
    seed: int = Field(0, ge=0)
    head: HeadConfig = HeadConfig()
