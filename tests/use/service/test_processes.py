"""Several processes by themselves: one that dies is started again, and a signal ends all."""

import os
import signal
import sys
import threading
import time
from functools import partial

import pytest

from vlc.common.errors import UserError
from vlc.use.service.processes import Processes


def answer(folder, ready):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready("all heads")
    (folder / str(os.getpid())).touch()
    while True:
        signal.pause()


def fail(ready):
    raise UserError("no such checkpoint")


def die(ready):
    os._exit(3)


def _wait_for(condition):
    latest = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.02)


def test_a_process_that_dies_is_started_again_until_a_signal(tmp_path, capsys):
    said, ended, seen, before = [], [], [], signal.getsignal(signal.SIGTERM)

    def in_between():
        try:
            _wait_for(lambda: said and len(list(tmp_path.iterdir())) == 2)
            seen.extend(int(path.name) for path in tmp_path.iterdir())
            os.kill(seen[0], signal.SIGKILL)
            _wait_for(lambda: len(list(tmp_path.iterdir())) == 3)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=in_between)
    watching.start()
    Processes(partial(answer, tmp_path), ended.append).run(2, said.append)
    watching.join()
    assert said == ["all heads"]
    assert len(seen) == 2
    assert sorted(ended) == sorted(int(path.name) for path in tmp_path.iterdir())
    assert ended[0] == seen[0]
    assert "died (-9), and is started again" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("target", "message"), [(fail, "no such checkpoint"), (die, "died before it answered")])
def test_processes_that_cannot_start(target, message):
    with pytest.raises(UserError, match=message):
        Processes(target).run(2, lambda _: pytest.fail("it answers"))
