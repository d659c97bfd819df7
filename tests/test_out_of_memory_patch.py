"""The patch that is named when the memory does not suffice fits with the network that the planner gives it."""

import pytest

from neoseg.errors import GeometryError
from neoseg.networks.configs import NETWORKS
from neoseg.pipeline.out_of_memory import _rounded, patch_that_fits
from neoseg.plan.budget import PlanConfig, StepSettings
from neoseg.plan.cost import step_gib
from neoseg.plan.plan import Plan, make_plan
from test_plan import facts


@pytest.mark.parametrize("kind", ["unetr_pp", "unet", "unet_plus_plus", "attention_unet"])
def test_a_proposed_patch_fits_with_the_network_that_it_gets(kind: str) -> None:
    """With a budget of time a smaller patch gets a wider network, which takes more than the planned one would."""

    def planned(patch: tuple[int, ...] | None = None, batch: int | None = None) -> Plan:
        return make_plan(
            [facts(f"c{i}", (250 + i, 256), (0.5, 0.5)) for i in range(5)],
            channels=("grey",),
            network=NETWORKS[kind].config(),
            normalise={},
            config=PlanConfig(core_minutes=10, patch=patch),
            step=StepSettings(batch),
            inputs="k",
        )

    def too_much(patch: tuple[int, ...], batch: int, most: float) -> bool:
        try:
            made = planned(patch, batch)
        except GeometryError:
            return True
        return step_gib(made.network, made.patch, made.batch) > most

    plan, without = planned(), []
    whole = step_gib(plan.network, plan.patch, plan.batch)
    for share in (0.6, 0.4, 0.2):
        found, alone = (patch_that_fits(plan, share * whole, replan=how) for how in (planned, None))
        assert found is not None and alone is not None
        patch, batch, gib = found
        made = planned(patch, batch)
        assert (made.patch, made.batch) == (patch, batch)
        assert gib == step_gib(made.network, patch, batch) <= share * whole
        without.append(too_much(*alone[:2], share * whole))
    assert any(without)


def test_memory_is_told_without_powers_of_ten() -> None:
    assert [_rounded(gib) for gib in (0.0123, 1.234, 24.7, 128.3, 4549.6)] == ["0.012", "1.2", "25", "130", "4,500"]
