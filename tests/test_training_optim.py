import pytest
import torch
from torch import nn

from neoseg.training.configs import TrainingConfig
from neoseg.training.optim import MovingAverage, learning_rate_at, make_optimiser, weight_groups


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 8))
        self.temperature_spatial = nn.Parameter(torch.ones(2, 1, 1))
        self.gamma = nn.Parameter(torch.ones(8))
        self.project_matrix = nn.Parameter(torch.zeros(4, 3))
        self.linear = nn.Linear(8, 8)
        self.conv = nn.Conv3d(1, 2, 3)
        self.norm = nn.LayerNorm((4, 8))
        self.other = nn.InstanceNorm3d(2, affine=True)
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)


def names(network, parameters):
    of = {id(p): name for name, p in network.named_parameters()}
    return {of[id(p)] for p in parameters}


def test_only_weights_of_layers_decay():
    network = Attention()
    decayed, spared = weight_groups(network)
    assert names(network, decayed) == {"project_matrix", "linear.weight", "conv.weight"}
    assert names(network, spared) == {
        "position", "temperature_spatial", "gamma", "linear.bias", "conv.bias",
        "norm.weight", "norm.bias", "other.weight", "other.bias",
    }  # fmt: skip


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_weight_decay_moves_only_its_group(optimiser):
    network = Attention()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    made = make_optimiser(network, TrainingConfig(optimiser=optimiser, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    decayed, spared = weight_groups(network)
    assert all((p < 1).all() for p in decayed) and all((p == 1).all() for p in spared)


def test_the_polynomial_schedule():
    config = TrainingConfig(optimiser="sgd")
    assert learning_rate_at(0, 1000, config) == 0.01
    assert learning_rate_at(500, 1000, config) == pytest.approx(0.01 * 0.5**0.9)
    assert 0 < learning_rate_at(999, 1000, config) < 1e-4


def test_the_cosine_schedule_rises_and_falls():
    config = TrainingConfig(learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5) and 0 < rates[99] < 0.01
    assert learning_rate_at(0, 1, config) == 1.0


def test_a_schedule_may_be_chosen_apart_from_the_optimiser():
    given = TrainingConfig(optimiser="sgd", schedule="cosine", warmup_fraction=0.0)
    assert learning_rate_at(50, 100, given) == pytest.approx(0.005)
    assert learning_rate_at(50, 100, TrainingConfig(schedule="poly")) == pytest.approx(1e-3 * 0.5**0.9)
    for schedule in ("constant", "plateau"):
        assert learning_rate_at(99, 100, TrainingConfig(schedule=schedule)) == 1e-3


def test_the_decay_of_all_weights_has_to_be_asked_for():
    network = Attention()
    groups = make_optimiser(network, TrainingConfig(weight_decay=0.5, decay_all=True)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]


def test_a_moving_average_forgets_the_start():
    network = nn.BatchNorm3d(1)
    average = MovingAverage(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(3.0)
    average.update(network, 0)
    # decay (1 + 0) / (10 + 0)
    assert average.state["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    before = average.state["weight"].item()
    average.update(network, 10**6)
    assert average.state["weight"].item() == pytest.approx(0.9 * before + 0.1 * 3)


def test_a_moving_average_takes_running_statistics_at_the_pace_of_the_weights_and_copies_counts():
    network = nn.BatchNorm3d(1)
    average = MovingAverage(network, 0.9)
    with torch.no_grad():
        network.running_mean.fill_(7.0)
        network.running_var.fill_(5.0)
        network.num_batches_tracked.fill_(4)
    average.update(network, 10**6)
    assert average.state["running_mean"].item() == pytest.approx(0.9 * 0 + 0.1 * 7)
    assert average.state["running_var"].item() == pytest.approx(0.9 * 1 + 0.1 * 5)
    assert average.state["num_batches_tracked"].item() == 4


def test_a_moving_average_keeps_constant_buffers_bit_by_bit():
    network = nn.Linear(2, 2)
    constant = torch.tensor([float("-inf"), 0.1, 1 / 3, float("inf"), -0.0])
    network.register_buffer("mask", constant.clone())
    average = MovingAverage(network, 0.9)
    for step in range(30):
        average.update(network, step)
    assert torch.equal(average.state["mask"], constant)
