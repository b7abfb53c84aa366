"""What Prometheus reads. One registry for each application, none of the process."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from engine.events import Usage

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "HTTP requests by route, method and status", "route method status")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts")
        self._cached = self._counter("cached_prompt_tokens", "Tokens of prompts that were not computed again")
        self._completion = self._counter("completion_tokens", "Tokens of answers, forced ones included")
        self._forced = self._counter("forced_tokens", "Tokens of answers that the grammar left no choice about")
        self._passes = self._counter("forward_passes", "Forward passes of answers, without calibration")
        handed_over = "Chats that went to the upstream, by what the model leaned to without being sure"
        self._handed_over = self._counter("handed_over", handed_over, "decision")
        self._routed = self._counter("routed_turns", "Turns that a direct route answered", "route")
        self._duration = self._histogram("request_seconds", "From a request to the end of its answer", LATENCY_S)
        self._first = self._histogram("time_to_first_token_seconds", "From a request to its first event", LATENCY_S)
        self._per_token = self._histogram("time_per_token_seconds", "Between tokens after the first", PER_TOKEN_S)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for when Prometheus reads."""
        Gauge(f"toolmask_{name}", description, registry=self._registry).set_function(value)

    def counter(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a count that is asked for when Prometheus reads; where it falls back, Prometheus takes it as reset."""
        self._registry.register(_Counted(f"toolmask_{name}", description, value))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request has been answered. route: as the application declares it, so that there are few."""
        self._requests.labels(route, method, str(status)).inc()
        self._duration.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """A request has its first event."""
        self._first.observe(seconds)

    def finished(self, prompts: Sequence[Sequence[Usage]], seconds_after_first: float) -> None:
        """A request's choices have ended. prompts: the usage of each one's choices."""
        self.used(prompts)
        longest = max(usage.completion_tokens for choices in prompts for usage in choices)
        if longest > 1:
            self._per_token.observe(seconds_after_first / (longest - 1))

    def handed_over(self, decision: str) -> None:
        """A chat goes to the upstream. decision: what the model leaned to."""
        self._handed_over.labels(decision).inc()

    def routed(self, route: str) -> None:
        """A direct route has answered a turn. route: its name, of which there are no more than the server was given."""
        self._routed.labels(route).inc()

    def used(self, prompts: Iterable[Sequence[Usage]]) -> None:
        """Count tokens. A prompt counts once, however many answers it gets."""
        for choices in prompts:
            self._prompt.inc(choices[0].prompt_tokens)
            self._cached.inc(choices[0].cached_tokens)
            for usage in choices:
                self._completion.inc(usage.completion_tokens)
                self._forced.inc(usage.forced_tokens)
                self._passes.inc(usage.forward_passes)

    def page(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, description: str, labels: str = "") -> Counter:
        return Counter(f"toolmask_{name}", description, labels.split(), registry=self._registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"toolmask_{name}", description, buckets=buckets, registry=self._registry)


class _Counted(Collector):
    """A counter that is kept elsewhere; the library has none such."""

    def __init__(self, name: str, description: str, value: Callable[[], float]) -> None:
        self._name = name
        self._description = description
        self._value = value

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._description, self._value())

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Its name alone: on being registered it must not ask for a value."""
        yield CounterMetricFamily(self._name, self._description)
