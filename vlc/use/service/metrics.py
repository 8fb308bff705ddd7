"""What the service counts, in the form of Prometheus."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


SHARED = "PROMETHEUS_MULTIPROC_DIR"  # in the environment: the folder where processes count together


class Metrics:
    """The counters of one application, each with its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        if SHARED not in os.environ:
            ProcessCollector(registry=self.registry)
        own = self.registry
        self.requests = Counter("vlc_requests", "Answered requests", ["path", "status"], registry=own)
        self.seconds = Histogram("vlc_request_seconds", "Time of a request", ["path"], buckets=_SECONDS, registry=own)
        self.under_way = Gauge(
            "vlc_requests_under_way",
            "Requests that are read, wait or are computed",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.waiting = Gauge(
            "vlc_waiting",
            "Prepared requests that wait for the model, or are computed",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.batch_sizes = Histogram("vlc_batch_size", "Requests of a batch", ["head"], buckets=_SIZES, registry=own)
        self.batch_seconds = Histogram(
            "vlc_batch_seconds", "Computation of a batch", ["head"], buckets=_SECONDS, registry=own
        )
        self.dropped = Counter(
            "vlc_dropped", "Requests that were not computed, as their clients had left", registry=own
        )

    def text(self) -> bytes:
        """All counters as Prometheus reads them: of several processes the sums."""
        registry = self.registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
