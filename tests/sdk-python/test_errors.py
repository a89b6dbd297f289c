"""Each error of the API as the class that the SDK has for it, and the rules of the wire."""

import json
import urllib.error
import urllib.request

import anthropic
import pytest

UNKNOWN = "sesn_01aaaaaaaaaaaaaaaaaaaaaaaa"


def call(server, method, path, headers=None, body=None):
    """Status, headers and object of an answer, asked for without the SDK."""
    headers = {"x-api-key": server.key, **(headers or {})}
    request = urllib.request.Request(server.url + path, method=method, headers=headers, data=body)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers, json.loads(answer.read())


def check(error, status, kind):
    assert (error.status_code, error.type) == (status, kind)
    body = error.body
    assert body["type"] == "error" and body["error"]["type"] == kind and body["error"]["message"]
    assert error.request_id.startswith("req_") and body["request_id"] == error.request_id


def test_400(impatient):
    with pytest.raises(anthropic.BadRequestError) as it:
        impatient.beta.agents.create(name="", model="claude-sonnet-5-5")
    check(it.value, 400, "invalid_request_error")


def test_401(server):
    nobody = anthropic.Anthropic(base_url=server.url, api_key="nobody's", max_retries=0)
    for attempt in (nobody.beta.agents.list, nobody.beta.memory_stores.list):
        with pytest.raises(anthropic.AuthenticationError) as it:
            attempt()
        check(it.value, 401, "authentication_error")


def test_403(server, client):
    made = client.post("/v1/api_keys", body={"name": "reader", "scopes": ["read"]}, cast_to=object)
    reader = anthropic.Anthropic(base_url=server.url, api_key=made["key"], max_retries=0)
    assert reader.beta.agents.list().data
    with pytest.raises(anthropic.PermissionDeniedError) as it:
        reader.beta.agents.create(name="a", model="m")
    check(it.value, 403, "permission_error")


def test_404(impatient):
    for attempt in (
        lambda: impatient.beta.sessions.retrieve(UNKNOWN),
        lambda: impatient.beta.agents.retrieve("env_1"),
        lambda: impatient.beta.environments.retrieve("env_01aaaaaaaaaaaaaaaaaaaaaaaa"),
        lambda: impatient.beta.memory_stores.list(),
        lambda: impatient.beta.dreams.list(),
        lambda: impatient.beta.skills.list(),
        lambda: impatient.messages.create(model="m", max_tokens=1, messages=[
            {"role": "user", "content": "x"}]),
    ):
        with pytest.raises(anthropic.NotFoundError) as it:
            attempt()
        check(it.value, 404, "not_found_error")


def test_409_is_not_tried_again(client, agent):
    with pytest.raises(anthropic.ConflictError) as it:
        client.beta.agents.update(agent.id, name="x", version=7)
    check(it.value, 409, "invalid_request_error")
    assert it.value.response.headers["x-should-retry"] == "false"
    assert it.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_413(impatient):
    with pytest.raises(anthropic.APIStatusError) as it:
        impatient.beta.agents.create(name="a", model="m", system="x" * (26 << 20))
    check(it.value, 413, "request_too_large")


@pytest.mark.parametrize("method, path", [
    ("GET", "/v1/nothing"), ("POST", "/v1/agents/agent_1/nothing"), ("GET", "/v1"), ("DELETE", "/v1/x/y/z"),
])
def test_what_is_not_there_says_so_in_one_shape(server, method, path):
    status, headers, body = call(server, method, path)
    assert (status, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")
    assert headers["request-id"] == body["request_id"]
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("method, path", [
    ("DELETE", "/v1/agents"), ("PUT", "/v1/agents/agent_1"), ("PATCH", "/v1/sessions/" + UNKNOWN),
    ("GET", "/v1/sessions/" + UNKNOWN + "/archive"), ("DELETE", "/v1/agents/agent_1"),
])
def test_a_wrong_method_says_so_in_one_shape(server, method, path):
    status, headers, body = call(server, method, path)
    assert (status, body["type"], body["error"]["type"]) == (405, "error", "invalid_request_error")
    assert headers["request-id"] == body["request_id"] and headers["allow"]


@pytest.mark.parametrize("headers", [
    {"x-api-key": "KEY", "anthropic-version": "2023-06-01"},
    {"authorization": "Bearer KEY", "anthropic-version": "2026-10-21"},
    {"authorization": "bearer KEY", "anthropic-beta": "foo,managed-agents-2026-04-01"},
    {"x-api-key": "KEY", "x-stainless-unheard-of": "1", "accept": "*/*"},
])
def test_both_generations_are_let_in(server, headers):
    headers = {name: value.replace("KEY", server.key) for name, value in headers.items()}
    request = urllib.request.Request(server.url + "/v1/agents?beta=true&limit=1", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200 and answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
def test_a_post_may_be_empty(server, client, headers):
    agent = client.beta.agents.create(name="a", model="m")
    for path in (f"/v1/agents/{agent.id}", f"/v1/agents/{agent.id}/archive?beta=true"):
        status, _, body = call(server, "POST", path, {"content-length": "0", **headers})
        assert (status, body["id"]) == (200, agent.id)


@pytest.mark.parametrize("query", [
    "statuses%5B%5D=idle&statuses%5B%5D=running", "statuses[]=idle", "statuses=idle",
    "created_at%5Bgt%5D=2026-01-02T00%3A00%3A00%2B00%3A00", "include_archived=true", "include_archived=false",
    "unheard_of=1", "order=asc&limit=100",
])
def test_queries_come_as_the_sdks_send_them(server, query):
    status, _, body = call(server, "GET", "/v1/sessions?" + query)
    assert status == 200 and set(body) == {"data", "next_page", "prev_page"}


@pytest.mark.parametrize("path", ["agents", "environments", "sessions", "agents/{agent}/versions"])
def test_the_size_of_a_page_has_bounds(server, agent, path):
    for limit in ("0", "-1", "101", "many", "1.5"):
        status, _, body = call(server, "GET", f"/v1/{path.format(agent=agent.id)}?limit={limit}")
        assert (status, body["error"]["message"]) == (400, "limit: must be a whole number from 1 to 100")


@pytest.mark.parametrize("body", [b"[]", b"{", b"7", b'{"name": "a", "model": "m", "nam": 1}', b"\xff"])
def test_a_body_that_cannot_be_read_is_a_bad_request(server, body):
    status, _, answer = call(server, "POST", "/v1/agents", {"content-type": "text/plain"}, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
