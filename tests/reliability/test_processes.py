"""Every recipe and every objective alone, in two processes and three, with DDP and FSDP.

Each case trains two epochs of data whose size nothing divides, validates and tests; what was measured is what one process
measures. `python -m pytest tests/reliability/test_processes.py` runs it, in about ten minutes on two cores.
"""

import pytest

from tests import processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes")
    processes.write_uneven(path / "data")
    return path


@pytest.fixture(scope="module", params=[(2, False), (3, False), (2, True), (3, True)], ids=str)
def together(request, folder):
    """How many processes there are, and what they measured of each case."""
    count, fsdp = request.param
    return count, processes.run_together(count, list(processes.CASES), folder, fsdp=fsdp)


@pytest.mark.parametrize("name", processes.CASES)
def test_several_processes_train_and_measure_what_one_does(together, folder, small_vit, small_vilt, name):
    count, results = together
    processes.check(results[name], count, folder)
