"""What Prometheus is told."""

from __future__ import annotations

from resnetkit.serving.measures import Measures


def test_counts() -> None:
    measures = Measures()
    measures.request("/predict", 200, 0.02)
    measures.request("/predict", 503, 0.001)
    measures.answered("m", 3)
    measures.queued("m", 2)
    measures.restarted("m")
    lines = measures.text().decode().splitlines()
    for line in (
        'resnetkit_requests_total{route="/predict",status="503"} 1.0',
        'resnetkit_request_seconds_count{route="/predict"} 2.0',
        'resnetkit_inputs_total{model="m"} 3.0',
        'resnetkit_queue{model="m"} 2.0',
        'resnetkit_worker_ends_total{model="m"} 1.0',
    ):
        assert line in lines
