"""Reading and checking images: here, in processes of this machine, or on a Ray cluster; the results come in order."""

import contextlib
import io
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from PIL import UnidentifiedImageError

from vlc.common.errors import UserError
from vlc.data.images import UndecodableImage, open_image, opened, to_rgb
from write_arrow.machine.storage import Folder, StoredFile

_AHEAD = 2  # batches prepared beyond those that workers are at
_MOST_BYTES = 2**30  # of an encoded image: a record batch holds 2 GiB


class Task(NamedTuple):
    """Rows of images to read, all of them to go into one record batch.

    verify: decode each image as a check.
    sizes: the width and height that the annotation of each row states for its image, upright; None where it states none.
    measures: return the sizes of the rows' first images.
    """

    root: Folder
    rows: list[tuple[StoredFile, ...]]
    verify: bool
    sizes: list[tuple[int, int]] | None = None
    measures: bool = False


class Rejected(NamedTuple):
    """An image that was left out, with its row in the task."""

    row: int
    path: str
    reason: str


class Images(NamedTuple):
    """A column of encoded images, one after the other, and where each ends."""

    content: bytes
    ends: list[int]


class Prepared(NamedTuple):
    """The image columns of the rows that are kept, and the numbers of these rows in the task.

    sizes: width and height of the first image of each row that is kept, upright, where the task asks for them.
    """

    images: list[Images]
    rows: list[int]
    rejected: list[Rejected]
    sizes: list[tuple[int, int]]


def prepare(task: Task) -> Prepared:
    """Read the images of a task, and leave out rows whose image fails a check. Raises UserError if a disk fails."""
    files = [file for row in task.rows for file in row]
    contents = _read(task.root, files)
    sizes = task.sizes or [None] * len(task.rows)
    columns: list[list[bytes]] = [[] for _ in task.rows[0]]
    rows, rejected, measured = [], [], []
    for number, row in enumerate(task.rows):
        images = [next(contents) for _ in row]
        problems = [
            Rejected(number, file.name, reason)
            for file, content in zip(row, images, strict=True)
            if (reason := _problem(content, task.verify, sizes[number]))
        ]
        if task.measures and not problems:
            try:
                measured.append(open_image(images[0]).size)
            except UndecodableImage as error:
                problems = [Rejected(number, row[0].name, str(error))]
        if problems:
            rejected += problems
            continue
        rows.append(number)
        for column, image in zip(columns, images, strict=True):
            assert isinstance(image, bytes), "any error is a problem"
            column.append(image)
    joined = [Images(b"".join(column), list(itertools.accumulate(map(len, column)))) for column in columns]
    return Prepared(joined, rows, rejected, measured)


def _read(root: Folder, files: list[StoredFile]) -> Iterator[bytes | OSError]:
    """Their contents; files that are larger than any image are not read."""
    wanted = [file for file in files if (file.size or 0) <= _MOST_BYTES]
    contents = iter(root.read_many(wanted))
    for file in files:
        large = (file.size or 0) > _MOST_BYTES
        yield OSError(f"{file.size:,} bytes, more than the {_MOST_BYTES:,} of an image") if large else next(contents)


def _problem(content: bytes | OSError, verify: bool, size: tuple[int, int] | None) -> str | None:
    if isinstance(content, FileNotFoundError):
        return "no such file"
    if isinstance(content, OSError):
        return content.strerror or str(content)
    problem = problem_of(content) if verify else None
    return size_problem_of(content, size) if problem is None and size else problem


def size_problem_of(image: bytes, stated: tuple[int, int]) -> str | None:
    """Say that an encoded image is not as wide and high, upright, as its annotation states; None if it is.

    Of a JPEG only the header is read.
    """
    try:
        width, height = open_image(image).size
    except UndecodableImage as error:
        return str(error)
    if (width, height) == stated:
        return None
    return f"the picture has {width}x{height} pixels, and its annotation says {stated[0]}x{stated[1]}"


def problem_of(image: bytes) -> str | None:
    """Why encoded bytes cannot be decoded, None if they can."""
    if not image:
        return "an empty file"
    if image.startswith(b"%!PS"):
        return "EPS is a program that draws, not an image"
    try:
        with opened(io.BytesIO(image)) as picture:
            picture.draft("RGB", (1, 1))  # JPEG: all of the file is read, fewer pixels are made
            to_rgb(picture)
    except UndecodableImage as error:
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        return "not an image of a known format" if unknown else str(error)
    return None


class InProcess:
    """Runs tasks one by one in this process."""

    def run(self, tasks: Iterable[tuple[Any, Task]]) -> Iterator[tuple[Any, Prepared]]:
        """(key, task) -> (key, prepared), in the same order."""
        for key, task in tasks:
            yield key, prepare(task)


class Processes:
    """Runs tasks in processes of this machine. At most num_workers + 2 results are held at a time."""

    def __init__(self, num_workers: int):
        # Not forked: the progress bar and Arrow have threads, and some remote file systems cannot be forked.
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_follow_parent)
        self.ahead = num_workers + _AHEAD

    def run(self, tasks: Iterable[tuple[Any, Task]]) -> Iterator[tuple[Any, Prepared]]:
        """(key, task) -> (key, prepared), in the same order. Raises UserError if a process dies."""
        try:
            yield from _in_order(
                tasks, lambda task: self.pool.submit(prepare, task), lambda future: future.result(), self.ahead
            )
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died, most likely for lack of memory: run the same command with fewer --workers"
            ) from error

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


class Ray:
    """Runs tasks on a Ray cluster: address, or "local" for num_workers processes of this machine.

    Images are read by the cluster's nodes; record batches are written by this process. Raises UserError if Ray is not
    installed or the address does not answer.
    """

    def __init__(self, address: str, num_workers: int):
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--ray needs Ray: pip install ray (or pip install -e '.[ray]' in this repository)"
            ) from error
        self.ray = ray
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address == "local":
            options |= {"num_cpus": num_workers, "include_dashboard": False}
        else:
            import vlc
            import write_arrow

            options |= {"runtime_env": {"py_modules": [vlc, write_arrow]}}  # nodes may not have this suite installed
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"--ray {address}: {error}") from error
        self.prepare = ray.remote(prepare)
        self.ahead = int(ray.cluster_resources().get("CPU", 1)) + _AHEAD

    def run(self, tasks: Iterable[tuple[Any, Task]]) -> Iterator[tuple[Any, Prepared]]:
        """(key, task) -> (key, prepared), in the same order."""
        try:
            yield from _in_order(tasks, self.prepare.remote, self.ray.get, self.ahead)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise

    def close(self) -> None:
        self.ray.shutdown()


Workers = InProcess | Processes | Ray


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(num_workers: int, ray_address: str | None = None) -> Iterator[Workers]:
    """Who reads images during the block."""
    if ray_address is None and num_workers == 1:
        yield InProcess()
        return
    pool = Processes(num_workers) if ray_address is None else Ray(ray_address, num_workers)
    try:
        yield pool
    finally:
        pool.close()


def _in_order(
    tasks: Iterable[tuple[Any, Task]], submit: Callable, result: Callable, ahead: int
) -> Iterator[tuple[Any, Prepared]]:
    waiting: deque = deque()
    for key, task in tasks:
        waiting.append((key, submit(task)))
        if len(waiting) >= ahead:
            key, promise = waiting.popleft()
            yield key, result(promise)
    while waiting:
        key, promise = waiting.popleft()
        yield key, result(promise)


def _follow_parent() -> None:
    """A worker leaves interruption to its parent, and ends when the parent does, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
