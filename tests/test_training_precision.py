import pytest
import torch
from torch import nn

from neoseg.errors import ConfigError
from neoseg.inference.precision import resolve_precision
from neoseg.training.configs import TrainingConfig
from neoseg.training.precision import training_precision, wrong_in_bfloat16

CPU = torch.device("cpu")
HAS_BFLOAT16 = resolve_precision("auto", CPU) == torch.bfloat16


class Pooled(nn.Module):
    """A network whose inner convolution sees an eighth of the patch."""

    def __init__(self, *, wide: bool = False) -> None:
        super().__init__()
        self.inner = nn.Conv3d(1, 8, 3, padding=1)
        self.last = nn.Conv3d(8, 2, 1)
        self.wide = wide

    def forward(self, x):
        small = nn.functional.avg_pool3d(x, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not self.wide and torch.is_autocast_enabled("cpu")):
            small = self.inner(small)
        return (nn.functional.interpolate(self.last(small), size=x.shape[2:]),)


def data_of(patch):
    return type("Data", (), {"patch": patch, "patches": (), "channels": 1})()


def test_a_convolution_shorter_than_its_kernel_is_found_by_name():
    assert wrong_in_bfloat16(Pooled(), torch.zeros(1, 1, 16, 32, 32)) == ["inner"]
    assert wrong_in_bfloat16(Pooled(), torch.zeros(1, 1, 24, 16, 8)) == []
    assert wrong_in_bfloat16(Pooled(wide=True), torch.zeros(1, 1, 16, 32, 32)) == []


def test_the_search_leaves_the_network_as_it_was():
    network = Pooled().train()
    wrong_in_bfloat16(network, torch.zeros(1, 1, 16, 16, 16))
    assert network.training and not network.inner._forward_pre_hooks


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not compute in bfloat16")
def test_auto_avoids_bfloat16_where_gradients_are_wrong():
    dtype, caution = training_precision(Pooled(), data_of((16, 32, 32)), TrainingConfig(), CPU)
    assert dtype == torch.float32 and "inner" in caution
    assert training_precision(Pooled(), data_of((24, 32, 32)), TrainingConfig(), CPU) == (torch.bfloat16, "")


def test_bfloat16_asked_for_is_refused_in_words():
    with pytest.raises(ConfigError, match=r'training.precision = "bfloat16".*inner'):
        training_precision(Pooled(), data_of((16, 32, 32)), TrainingConfig(precision="bfloat16"), CPU)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_what_is_let_pass_has_the_gradients_of_float32(kernel):
    torch.set_num_threads(1)
    for shape in [(1, 2, 2), (2, 3, 2), (3, 1, 2), (3, 2, 4), (4, 4, 4), (5, 2, 1), (6, 3, 3)]:
        torch.manual_seed(0)
        conv = nn.Conv3d(16, 16, kernel, padding=kernel // 2, bias=False)
        x = torch.randn(2, 16, *shape)
        if wrong_in_bfloat16(conv, x):
            continue
        weight_gradients = []
        for enabled in (False, True, True, True):
            # memory that was used before shows what reads it unwritten
            del [torch.full((n,), float("nan")) for n in (1000, 20000, 100000, 400000)][:]
            conv.weight.grad = None
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                y = conv(x)
            y.float().square().sum().backward()
            weight_gradients.append(conv.weight.grad.clone())
        scale = weight_gradients[0].abs().max()
        for found in weight_gradients[1:]:
            assert ((found - weight_gradients[0]).abs() < 0.05 * scale).all(), shape
