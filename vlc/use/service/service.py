"""What the endpoints share: the models with their heads, the threads that prepare requests, and the batches."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from vlc.common.errors import NonFiniteMetric, UserError
from vlc.configuration.command_settings import ServiceSettings
from vlc.data.tokens import MASK
from vlc.objectives.base import Answer
from vlc.use.forms import Field, Prepared, Request
from vlc.use.model import Model
from vlc.use.search.searching import Opened, counts, open_index
from vlc.use.service.batching import Batcher, ClientLeft, Left, Stopping
from vlc.use.service.bodies import IMAGES, Body, Received
from vlc.use.service.metrics import Metrics
from vlc.use.service.multipart import Part
from vlc.use.service.problems import Problem, busy

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Head:
    """A head of a checkpoint, as it is asked.

    checkpoint: the name of the checkpoint.
    name: the name of the head.
    fields: that it reads.
    body: of its requests.
    """

    checkpoint: str
    model: Model
    name: str
    fields: Mapping[str, Field]
    body: Body

    @property
    def default(self) -> bool:
        """Whether `POST /` asks it where no task is named: it judges whether an image entails a text."""
        return "entailment" in getattr(self.model.module.objectives[self.name].options, "names", ())

    def read(self, received: Received) -> list[Prepared]:
        """Read a body, and decode and tokenise what it asks. Raises Problem for what the head cannot read."""
        return self.prepared(self.body.read(received))

    def read_parts(self, parts: Sequence[Part]) -> list[Prepared]:
        """Do so with the parts of a form."""
        return self.prepared(self.body.read_parts(parts))

    def requests(self, given: Mapping[str, Any]) -> list[Request]:
        """The requests of the fields of a body, one for each text."""
        texts = given.get("text")
        others = {key: value for key, value in given.items() if key != "text"}
        return [Request(**others, text=text) for text in (texts if isinstance(texts, list) else [texts])]

    def prepared(self, given: Mapping[str, Any]) -> list[Prepared]:
        """Decode and tokenise. Raises Problem for what the head cannot read."""
        with naming_fields(self.model, self.checkpoint, self.fields):
            return [self.model.prepare(self.name, request) for request in self.requests(given)]


@contextmanager
def naming_fields(model: Model, checkpoint: str, fields: Collection[str]) -> Iterator[None]:
    """Turn a UserError about a request into a Problem, which names the field with which the error begins."""
    try:
        yield
    except NonFiniteMetric:
        raise
    except UserError as error:
        detail = str(error).replace(str(model.path), checkpoint)
        if "cannot be decoded" in detail:
            raise Problem(400, detail, IMAGES) from error
        named = (name for name in fields if detail.startswith(name))
        raise Problem(422, detail, "boxes" if "is no box" in detail else next(named, None)) from error


class Service:
    """The state of an application.

    heads: by their path below /v1: the name of the head for the first checkpoint that has it, and, where there are several
        checkpoints, CHECKPOINT/HEAD.
    index: the folder of an index to search; empty: none. `counts` says how many images and texts it has.
    stopping: whether the service refuses new requests.
    """

    def __init__(self, models: Mapping[str, Model], settings: ServiceSettings, index: str = ""):
        self.models, self.settings, self.index = models, settings, index
        self.api_key = settings.key
        self.metrics = Metrics()
        self.stopping = False
        self.batcher = Batcher(
            settings.wait_ms / 1000,
            max(model.settings.data.per_gpu_batchsize for model in models.values()),
            self._observe,
            self.metrics.dropped.inc,
        )
        self.counts = counts(index) if index else {}
        self.opened = self._opened() if index else {}
        self.decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="decoder")
        self.heads: dict[str, Head] = {}
        for checkpoint, model in models.items():
            for name, form in model.forms.items():
                fields = form.fields(model, model.module.objectives[name])
                head = Head(checkpoint, model, name, fields, Body.of_fields(f"{name}_request", fields, settings))
                self.heads.setdefault(name, head)
                if len(models) > 1:
                    self.heads[f"{checkpoint}/{name}"] = head

    @property
    def default_head(self) -> Head | None:
        """The head that `POST /` asks where no task is named: of visual entailment, or else the first one."""
        heads = list(self.heads.values())
        return next((head for head in heads if head.default), next(iter(heads), None))

    @property
    def embedder(self) -> tuple[str, Model] | None:
        """The first checkpoint that makes embeddings, with its name."""
        makers = ((name, model) for name, model in self.models.items() if "itc" in model.settings.tasks[0].kinds)
        return next(makers, None)

    @property
    def secured(self) -> dict[str, Any]:
        """What OpenAPI says of an address that wants the key."""
        return {"security": [{"key": []}]} if self.api_key else {}

    def _opened(self) -> dict[str, Opened]:
        """The vectors of the index, by their kinds. Raises UserError where it is no index of the checkpoint."""
        if self.embedder is None:
            raise UserError(f"index={self.index} is searched by embeddings, and no checkpoint makes them")
        _, model = self.embedder
        return {kind: open_index(model, self.index, kind) for kind in self.counts}

    # -- computing

    async def prepare(self, function: Callable[..., ResultT], *arguments: Any, left: Left) -> ResultT:
        """Run a function that decodes in a thread beside the event loop, unless the client has left by then."""
        if self.stopping:
            raise busy("The service stops")

        def run() -> ResultT:
            if left():
                self.metrics.dropped.inc()
                raise ClientLeft
            return function(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self.decoders, run)

    async def compute(
        self, key: Hashable, function: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], left: Left
    ) -> list[Any]:
        """Compute items in the thread of the model, with others of this key."""
        return await self._computed([key] * len(items), function, items, left)

    async def _computed(
        self,
        keys: Sequence[Hashable],
        function: Callable[[Sequence[Any]], Sequence[Any]],
        items: Sequence[Any],
        left: Left,
    ) -> list[Any]:
        submit = self.batcher.submit
        self.metrics.waiting.inc(len(items))
        try:
            return await asyncio.gather(
                *(submit(key, function, item, left) for key, item in zip(keys, items, strict=True))
            )
        except Stopping as error:
            raise busy("The service stops") from error
        finally:
            self.metrics.waiting.dec(len(items))

    async def ask(self, head: Head, given: Mapping[str, Any], left: Left) -> list[list[Answer]]:
        """Return the answers of a head to each text of a request, or to its images.

        given: the fields of a body.
        """
        prepared = await self.prepare(head.prepared, given, left=left)
        return await self.answers(head, prepared, left)

    async def answers(self, head: Head, prepared: Sequence[Prepared], left: Left) -> list[list[Answer]]:
        """Return the answers to prepared requests."""

        def asked(items: Sequence[Prepared]) -> list[list[Answer]]:
            return head.model.ask(head.name, items)

        keys = [(head.checkpoint, head.name, one.shape) for one in prepared]
        found = await self._computed(keys, asked, prepared, left)
        if not all(found):
            raise Problem(422, f"text: {head.name} says nothing of it; {MASK} stands for a word to fill in", "text")
        return found

    async def close(self) -> None:
        """Refuse what comes, and answer what waits."""
        self.stopping = True
        await self.batcher.close()
        self.decoders.shutdown()

    def _observe(self, key: Hashable, size: int, seconds: float) -> None:
        name = key[1] if isinstance(key, tuple) else str(key)
        self.metrics.batch_sizes.labels(name).observe(size)
        self.metrics.batch_seconds.labels(name).observe(seconds)
