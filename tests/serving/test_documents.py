"""The OpenAPI document, and what a fuzzer makes of it: 200 cases a route, 2,000 in `make soak`."""

from __future__ import annotations

import os

import pytest

from servers import Live

CASES = int(os.environ.get("RESNETKIT_CASES", "200"))


def test_the_document(server: Live) -> None:
    document = server.get("/openapi.json").json
    assert set(document["paths"]) == {
        *("/info", "/metrics", "/predict", "/v2", "/v2/health/live", "/v2/health/ready"),
        *("/v2/models/{name}", "/v2/models/{name}/ready", "/v2/models/{name}/infer"),
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"] and {"400", "403", "503"} <= set(operation["responses"]), (path, method)
    assert document["paths"]["/predict"]["post"]["requestBody"]["content"].keys() >= {"multipart/form-data"}
    assert document["components"]["schemas"]["Answers"]["examples"]


def test_a_fuzzer_finds_no_500(server: Live) -> None:
    """I11, I34: no 500, and every answer is as the document says."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    import hypothesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # no schema tells a picture from other bytes

    document = server.get("/openapi.json").json
    for path, methods in document["paths"].items():
        for parameter in [each for one in methods.values() for each in one.get("parameters", [])]:
            if parameter["name"] in ("name", "model"):  # else nearly every case is of a model that there is not
                parameter["schema"] = {"enum": ["photos", "photos", "photos", "nope", path]}
    schema = schemathesis.openapi.from_dict(document)
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            derandomize=CASES == 200,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def fuzz(case) -> None:
            nonlocal seen
            seen += 1
            response = case.call(base_url=server.url.rstrip("/"))
            assert response.status_code < 500, response.text
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        fuzz()
    assert seen >= 9
    assert server.get("/v2/health/ready").status == 200
