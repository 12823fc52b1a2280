"""What Prometheus is told, at /metrics. docs/serving.md explains every name."""

from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from molmoact2.serving.engine import Engine
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.waiting import NOT_COMPUTED
from molmoact2.wire.messages import Telemetry

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32)
PREFIX = "molmoact2_"


class Metrics:
    """Counts what happens; implements `serving.exchange.Watcher`. Every server has its own."""

    def __init__(self, engine: Engine) -> None:
        """Begin to count what `engine` does."""
        self.registry = registry = CollectorRegistry()
        registry.register(EngineState(engine))

        def seconds(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}{name}_seconds", what, labels, buckets=SECONDS, registry=registry)

        def total(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}{name}_total", what, labels, registry=registry)

        self.sense_to_act = seconds("sense_to_act", "From the arrival of an observation to its actions.", "dialect")
        self.queue = seconds("queue", "What an answered question waited for the worker.")
        self.inference = seconds("inference", "What computing an answer took.", "embodiment")
        self.batch = Histogram(f"{PREFIX}batch_size", "Answered together.", buckets=SIZES, registry=registry)
        self.answers = total("answers", "Chunks of actions that were given.", "dialect")
        self.refusals = total("refusals", "Questions and messages that were refused.", "dialect", "code")
        self.stale = total("stale_chunks", "Chunks that were computed and nobody needed any more.")
        self.errors = total("errors", "Errors of the server itself, each with an id in its log.")
        self.telemetry = total("telemetry", "Reports of robots about what they did.")
        self._batch = NOT_COMPUTED

    def exchanged(self, exchange: Exchange, /) -> None:
        """A question was answered or refused."""
        is_computed = exchange.batch != NOT_COMPUTED
        if is_computed and exchange.batch != self._batch:  # those of one batch come one after the other
            self.batch.observe(exchange.together)
            self._batch = exchange.batch
        if exchange.refusal is not None:
            self.refusals.labels(exchange.dialect, exchange.refusal[0]).inc()
            self.stale.inc(is_computed and exchange.refusal[0] in ("late", "held"))
            return
        self.answers.labels(exchange.dialect).inc()
        self.sense_to_act.labels(exchange.dialect).observe(exchange.total_s)
        self.queue.observe(exchange.queue_s)
        self.inference.labels(exchange.question.embodiment).observe(exchange.inference_s)

    def moved(self, session: str, telemetry: Telemetry, /) -> None:  # noqa: ARG002
        """A robot said what it did."""
        self.telemetry.inc()

    def failed(self, where: str, error_id: str, message: str, /) -> None:  # noqa: ARG002
        """A message was malformed, or something broke."""
        if error_id == "malformed":
            self.refusals.labels(where, error_id).inc()
        else:
            self.errors.inc()

    def ended(self, session: str, /) -> None:
        """A session is over; nothing is counted."""

    def routes(self) -> APIRouter:
        """/metrics."""
        router = APIRouter()

        @router.get("/metrics")
        async def metrics() -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router


class EngineState(Collector):
    """What the engine is doing at the moment when Prometheus asks."""

    def __init__(self, engine: Engine) -> None:
        """Look at `engine`."""
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        """The present values."""
        engine = self.engine
        yield CounterMetricFamily(
            f"{PREFIX}worker_busy_seconds", "Time the worker has computed; its rate is its load.", engine.busy_s
        )
        for name, what, value in (
            ("queue_length", "Questions that wait.", engine.num_waiting),
            ("queue_age_seconds", "How long the oldest of them has waited.", engine.oldest_s),
            ("sessions", "Sessions that are remembered.", len(engine.sessions)),
            ("ready", "1 when questions are taken on.", engine.state == "ready"),
        ):
            yield GaugeMetricFamily(PREFIX + name, what, value)
