"""What Prometheus is told: counts and times, by route and model, of nobody in particular."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """The numbers of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "resnetkit_requests",
            "Requests by route and status; 499: the client left.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "resnetkit_request_seconds",
            "From the headers to the end of the answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._inputs = Counter("resnetkit_inputs", "Files or rows answered.", ("model",), registry=self._registry)
        self._queue = Gauge("resnetkit_queue", "Requests taken and not answered.", ("model",), registry=self._registry)
        self._restarts = Counter("resnetkit_worker_ends", "Workers that ended.", ("model",), registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request has been dealt with."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answered(self, model: str, inputs: int) -> None:
        """A model has answered so many inputs."""
        self._inputs.labels(model).inc(inputs)

    def queued(self, model: str, waiting: int) -> None:
        """So many requests wait for a model."""
        self._queue.labels(model).set(waiting)

    def restarted(self, model: str) -> None:
        """A worker has ended."""
        self._restarts.labels(model).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
