"""Work over whole data sets in shards, by any number of processes, which may be killed and started again.

A shard is a file with the results for some inputs in succession. Which inputs it has, and every byte of it, follows from
the data and the settings alone. A process takes a shard by locking a byte of a file, so that the shards of a process that
died are free again, processes need no connection to each other, and further ones may join at any time. On a file system
without locks several processes may compute the same shard, which costs time and changes nothing.
"""

import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from vlc.common.errors import NonFiniteMetric, UserError
from vlc.common.files import to_json, write_atomically
from vlc.common.terminal import cell, progress
from vlc.data.rows import Location
from vlc.evaluation.predictions import write_text
from vlc.hardware.distributed import LAUNCHED
from vlc.use.vectors import file_checksum

UNFINISHED = ".unfinished"  # name of the folder that holds the plan, the locks, and the records of finished shards
ROWS = 500  # inputs of a shard, rounded to whole batches
_LOOK_EVERY = 0.5  # seconds between looks at the shards that others compute
_FINISH, _FIRST_SHARD = 0, 1  # bytes of the file of locks

Failed: TypeAlias = list[tuple[Location, str]]  # inputs that could not be read, with the reason
Rows: TypeAlias = pa.RecordBatch | list[dict[str, Any]]
Table: TypeAlias = Callable[[Path], AbstractContextManager[Callable[[Rows], None]]]  # file -> writer of rows


class Process(NamedTuple):
    """One of the processes that were started together.

    since: when they were, in seconds of the epoch; infinite: nobody knows.
    """

    rank: int = 0
    world_size: int = 1
    since: float = float("inf")

    @classmethod
    def launched(cls) -> "Process":
        """Return this process, as `launch` or torchrun describes it."""
        rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        return cls(rank, size, float(os.environ.get(LAUNCHED, "inf")))


@dataclass(frozen=True)
class Shard:
    """A file to be made of some inputs.

    number: among all shards of the work.
    record: the file that appears when the shard is finished, with its checksum.
    inputs: their numbers.
    """

    number: int
    path: Path
    record: Path
    inputs: range

    def batches(self, size: int) -> Iterator[range]:
        """Yield the numbers of the inputs in batches, which do not depend on other shards."""
        for first in range(self.inputs.start, self.inputs.stop, size):
            yield range(first, min(first + size, self.inputs.stop))


class Work:
    """The shards of all kinds of inputs, and what has become of them. It is a context, in which they are computed.

    folder: where the shards are written.
    state: where their records are written, until `result` is there.
    result: the file that is written last, when all shards are put together.
    plan: everything that the bytes of the shards depend on. Raises UserError, with the differences, where shards of
        another plan are there.
    option: the key of the user for the folder, such as "out".
    counts: the number of inputs of each kind.
    batch: inputs that are computed at once.
    suffix: of the files.
    """

    def __init__(
        self,
        state: Path,
        result: Path,
        plan: Mapping[str, Any],
        counts: Mapping[str, int],
        *,
        batch: int,
        suffix: str,
        option: str,
        process: Process,
        folder: Path | None = None,
    ):
        self.state, self.result, self.process, self._option = state, result, process, option
        self.plan = plain({**plan, **counts})
        self._mark = zlib.crc32(json.dumps(self.plan, sort_keys=True).encode())
        self._folder, self.batch = folder or state, batch
        self.shards: dict[str, list[Shard]] = {}
        number, size = _FIRST_SHARD, batch * max(1, ROWS // batch)
        for kind, count in counts.items():
            self.shards[kind] = []
            for place, first in enumerate(range(0, count, size)):
                name, inputs = f"{kind}-{place:05}", range(first, min(first + size, count))
                shard = Shard(number, self._folder / f"{name}{suffix}", state / f"{name}.json", inputs)
                self.shards[kind].append(shard)
                number += 1
        self._records: dict[Shard, dict[str, Any]] = {}
        self._advance: Callable[[int], None] = lambda count: None
        self._locks = -1

    def __enter__(self) -> "Work":
        self.state.mkdir(parents=True, exist_ok=True)
        self._locks = os.open(self.state / "locks", os.O_RDWR | os.O_CREAT, 0o666)
        plan = self.state / "plan.json"
        stored = json.loads(plan.read_bytes()) if plan.exists() else self.plan
        if stored != self.plan and any(self.state.glob("*-*.json")):
            raise UserError(
                f"{self._option}: {self.state} holds unfinished work that differs: {differences(stored, self.plan)}. "
                "Finish it with the settings and weights from before, or remove this folder to begin anew"
            )
        write_text(plan, to_json(self.plan))
        if found := sum(map(self._is_finished, self._all)):
            said = f"{self.state.parent}: {found:,} of {len(self._all):,} shards were finished before, the work goes on"
            Console().print(cell(said), soft_wrap=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: Any) -> None:
        """Remove what was begun where nothing can come of it, and no other process works on it."""
        useless = isinstance(error, NonFiniteMetric) or (error is not None and not any(self.state.glob("*-*.json")))
        if useless and self._lock(0, 0):
            self.close()
        os.close(self._locks)

    @property
    def _all(self) -> list[Shard]:
        return list(chain(*self.shards.values()))

    def close(self) -> None:
        """Remove the records: the result is complete. An own folder that is empty goes too."""
        (self.state / "plan.json").unlink(missing_ok=True)  # first, by which others see that there is nothing to do
        shutil.rmtree(self.state, ignore_errors=True)
        with suppress(OSError):
            self.state.parent.rmdir()

    def rounds(self, kind: str) -> Iterator[Iterator[Shard]]:
        """Yield shards of a kind for this process to compute, until all of the kind are finished.

        A shard is taken when it is drawn. A further round has the shards that others took and did not finish.
        """
        shards, shown = self.shards[kind], self.process.rank == 0
        first = len(shards) * self.process.rank // self.process.world_size
        with progress(kind, sum(len(shard.inputs) for shard in shards), shown=shown) as self._advance:
            self._advance(sum(len(shard.inputs) for shard in shards if shard in self._records))
            while not self._gone and not all(map(self._is_finished, shards)):
                taken = self._taken(shards[first:] + shards[:first])
                if (shard := next(taken, None)) is None:
                    time.sleep(_LOOK_EVERY)
                else:
                    yield chain([shard], taken)
        self._advance = lambda count: None

    def _taken(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        for shard in shards:
            if not self._is_finished(shard) and self._lock(shard.number):
                if self._is_finished(shard):
                    self._unlock(shard.number)
                elif not self._gone:
                    yield shard

    def write(self, computed: Iterable[tuple[Shard, Rows, Failed]], table: Table) -> None:
        """Write shards of which every batch is computed in turn: its rows, and the inputs without any."""
        computed = iter(computed)
        for first in computed:
            shard, count, failed = first[0], 0, Failed()
            with write_atomically(shard.path) as partial, table(partial) as write:
                # A shard is complete with its last batch, and does not wait for the next one.
                for inputs, (_, rows, without) in zip(
                    shard.batches(self.batch), chain([first], computed), strict=False
                ):
                    write(rows)
                    count += len(rows)
                    failed += without
                    self._advance(len(inputs))
            size = shard.path.stat().st_size
            record = {"rows": count, "failed": failed, "bytes": size, "checksum": file_checksum(shard.path, size)}
            write_text(shard.record, json.dumps(record | {"plan": self._mark}, ensure_ascii=False))
            self._records[shard] = json.loads(json.dumps(record))
            self._unlock(shard.number)

    @contextmanager
    def finishing(self) -> Iterator[bool]:
        """Wait until no other process puts the shards together; yields whether this one is to do it.

        Raises UserError where shards were damaged, or others have given up.
        """
        if not self._lock(_FINISH, wait=True) and self.process.rank > 0:  # there are no locks
            yield False
        elif self._gone:
            if not self.result.exists():
                raise UserError(f"{self.state} was removed by another process, which failed")
            yield False
        else:
            self._verify()
            yield True
        self._unlock(_FINISH)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return file, rows, bytes and checksum of each shard of a kind."""
        found = [(shard, self._records[shard]) for shard in self.shards[kind]]
        return [
            {"file": shard.path.name} | {key: own[key] for key in ("rows", "bytes", "checksum")} for shard, own in found
        ]

    def failed(self, kind: str) -> Failed:
        """Return the inputs of a kind that could not be read, in their order."""
        records = (self._records[shard] for shard in self.shards[kind])
        return [(Location(*place), reason) for record in records for place, reason in record["failed"]]

    def _verify(self) -> None:
        """Raise UserError where a shard is no longer what was written; it counts as not finished from now on."""
        damaged = [shard for shard in self._all if not self._is_sound(shard)]
        for shard in damaged:
            shard.record.unlink(missing_ok=True)
        if damaged:
            names = ", ".join(shard.path.name for shard in damaged[:3]) + (" and more" if len(damaged) > 3 else "")
            raise UserError(
                f"{self._folder}: {names} changed since they were written. Run the same command again: it computes them "
                "anew, and nothing else"
            )

    def _is_sound(self, shard: Shard) -> bool:
        record = self._records[shard]
        with suppress(OSError):
            return file_checksum(shard.path, record["bytes"]) == record["checksum"]
        return False

    def _is_finished(self, shard: Shard) -> bool:
        """Whether a shard of this plan is there; of another process, the progress counts it when it is first seen."""
        if shard not in self._records:
            with suppress(OSError, ValueError):
                record = json.loads(shard.record.read_bytes())
                if record.pop("plan") == self._mark and shard.path.stat().st_size == record["bytes"]:
                    self._records[shard] = record
                    self._advance(len(shard.inputs))
        return shard in self._records

    @property
    def _gone(self) -> bool:
        """Whether another process has put the shards together."""
        return not (self.state / "plan.json").exists()

    def _lock(self, first: int, length: int = 1, *, wait: bool = False) -> bool:
        """Lock bytes of the file of locks; returns whether they are free, or there are no locks and nobody need wait."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), length, first)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return not wait
        return True

    def _unlock(self, number: int) -> None:
        with suppress(OSError):
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, number)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back, so that they can be compared with stored ones."""
    return json.loads(json.dumps(values))


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys whose values differ, with both values in short."""
    keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
    return ", ".join(f"{key} is {str(now.get(key))[:60]} and was {str(stored.get(key))[:60]}" for key in keys)


def arrow(schema: pa.Schema) -> Table:
    """Return the writer of Arrow IPC files, a record batch for each batch."""

    @contextmanager
    def table(path: Path) -> Iterator[Callable[[Rows], None]]:
        with pa.ipc.new_file(str(path), schema) as writer:
            yield lambda rows: writer.write_batch(_record_batch(rows, schema))

    return table


def parquet(schema: pa.Schema) -> Table:
    """Return the writer of Parquet files, a row group for each batch."""

    @contextmanager
    def table(path: Path) -> Iterator[Callable[[Rows], None]]:
        with pq.ParquetWriter(str(path), schema) as writer:
            yield lambda rows: writer.write_batch(_record_batch(rows, schema))

    return table


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[Rows], None]]:
    """Write a JSON object in a line for each row."""
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _record_batch(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema) if isinstance(rows, list) else rows
