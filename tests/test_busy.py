"""The benchmark beside busy neighbours."""

import sys

from benchmarks import busy


class _Side:
    """Is as fast as its setting says, divided by the neighbours."""

    running = 0

    def __init__(self, module, words, folder, *, environment):
        self.per_s = 100.0 * int(environment.get("SPEED", 3))

    def repeat(self) -> dict[str, float]:
        return {"per_s": self.per_s / (1 + _Side.running)}

    def close(self) -> None:
        pass


def test_a_row_has_the_rate_beside_each_number_of_neighbours(monkeypatch):
    words = "busy --work ranking --settings vlc SPEED=1 --neighbours 0 1 --rounds 2".split()
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(busy, "Side", _Side)
    arguments, started = busy._parse(), []

    def popen(command, start_new_session):
        _Side.running += 1
        started.append(command)
        return _Neighbour()

    monkeypatch.setattr(busy.subprocess, "Popen", popen)
    ours, other = busy.measure("ranking", arguments)
    assert (ours["setting"], ours["0"], ours["1"], ours["1 / idle"], ours["+- 1"]) == ("vlc", 300.0, 150.0, 0.5, 0.0)
    assert (other["setting"], other["0"], other["1"]) == ("SPEED=1", 100.0, 50.0)
    assert (len(started), _Side.running) == (1, 0)


class _Neighbour:
    def kill(self) -> None:
        _Side.running -= 1

    def wait(self) -> None:
        pass
