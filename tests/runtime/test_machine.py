"""The machine in a run's record, and the warning on another one."""

import warnings

import pytest
import torch

from vaportok_rl.runtime.machine import describe_machine, usable_device, warn_if_other_machine


def test_the_record_names_threads_and_processor() -> None:
    found = describe_machine()
    assert found["threads"] == torch.get_num_threads()
    assert found["processor"]


def test_only_what_differs_is_said() -> None:
    here = describe_machine()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_other_machine(here, here)
    with pytest.warns(UserWarning, match=r"\(threads: 64 then, \d+ now\)"):
        warn_if_other_machine({**here, "threads": 64}, here)


@pytest.mark.parametrize("device", ["cuda:99", "mps:3", "gpu", None, 7.5])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ValueError, match=f"got {device!r}.*device='cpu'"):
        usable_device(device)
