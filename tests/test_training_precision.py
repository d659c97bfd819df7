import pytest
import torch

from neoseg.errors import ConfigError
from neoseg.inference.precision import resolve_precision
from neoseg.training.precision import training_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def test_a_cpu_trains_in_what_it_predicts_in():
    for precision in ("auto", "bfloat16", "float32"):
        assert training_precision(precision, CPU) == resolve_precision(precision, CPU)
    with pytest.raises(ConfigError, match='precision = "float16": it is for GPUs, not for cpu'):
        training_precision("float16", CPU)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_a_gpu_without_bfloat16_trains_in_float16_where_it_has_tensor_cores(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert training_precision("auto", GPU) == dtype
    assert training_precision("float32", GPU) == torch.float32
