"""Events: sent, listed, in the order and with the fields of the API."""

import json
import threading
import time
import urllib.request

import anthropic
import pytest

from conftest import evaluated, message, new_only, run, until
from provider import text, tool

PLAIN = ["user.message", "session.status_running", "user.message", "span.model_request_start",
         "agent.message", "span.model_request_end", "session.status_idle"]


@pytest.fixture
def session(client, agent, environment):
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


def make(client, environment, configs=(), **more):
    tools = [{"type": "agent_toolset_20260401", "default_config": {"enabled": False}, "configs": list(configs)}]
    agent = client.beta.agents.create(name="worker", model="claude-sonnet-5-5", tools=tools)
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id, **more)


def entry(name, policy):
    return {"name": name, "enabled": True, "permission_policy": {"type": policy}}


def events(client, session, **query):
    return list(client.beta.sessions.events.list(session.id, **query))


def refusal(send, kind=anthropic.BadRequestError):
    with pytest.raises(kind) as raised:
        send()
    body = raised.value.body
    assert body["type"] == "error" and body["request_id"] == raised.value.response.headers["request-id"]
    assert body["error"]["type"] == "invalid_request_error"
    return body["error"]


def told(error):
    return error["message"]


def test_a_plain_turn(client, provider, session):
    provider.say(text("Good evening."))
    seen = run(client, session, message("Good evening?"))
    assert [it.type for it in seen] == PLAIN
    queued, running, taken, start, said, end, idle = [it.to_dict(mode="json") for it in seen]
    content = [{"type": "text", "text": "Good evening?"}]
    assert queued == {"id": queued["id"], "type": "user.message", "content": content, "processed_at": None}
    assert taken == {**queued, "processed_at": taken["processed_at"]} and taken["processed_at"]
    assert set(running) == {"id", "type", "processed_at"} == set(start)
    assert said["content"] == [{"type": "text", "text": "Good evening."}]
    usage = end.pop("model_usage")
    assert usage == {"input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 0,
                     "cache_read_input_tokens": 0}
    assert (end["is_error"], end["model_request_start_id"]) == (False, start["id"])
    assert (idle["stop_reason"], idle["stop_details"]) == ({"type": "end_turn"}, None)
    assert all(it["id"].startswith("sevt_") for it in (queued, running, start, said, end, idle))
    # Each once, in its newest form.
    assert [it.to_dict(mode="json") for it in events(client, session)] == [
        it.to_dict(mode="json") for it in seen[1:]]


def test_a_tool_that_is_allowed(client, provider, environment):
    session = make(client, environment, [entry("glob", "always_allow")])
    provider.say(tool("glob", pattern="*"), text("Nothing there."))
    seen = run(client, session, message("look"))
    assert [it.type for it in seen[3:]] == [
        "span.model_request_start", "span.model_request_end", "agent.tool_use", "agent.tool_result",
        "span.model_request_start", "agent.message", "span.model_request_end", "session.status_idle"]
    use, result = seen[5].to_dict(mode="json"), seen[6].to_dict(mode="json")
    assert use == {"id": use["id"], "type": "agent.tool_use", "name": "glob", "input": {"pattern": "*"},
                   "evaluated_permission": "allow", "evaluation": {"type": "always_allow"},
                   "processed_at": use["processed_at"]}
    assert (result["tool_use_id"], result["is_error"]) == (use["id"], False)
    assert result["content"][0]["type"] == "text"


def test_a_tool_that_is_not_there_is_refused(client, provider, environment):
    session = make(client, environment)
    provider.say(tool("write", file_path="a", content="b"), text("Then not."))
    seen = run(client, session, message("write"))
    use = next(it for it in seen if it.type == "agent.tool_use")
    assert (use.evaluated_permission, evaluated(use)) == ("deny", None)
    assert next(it for it in seen if it.type == "agent.tool_result").is_error is True


def test_confirmations(client, provider, environment):
    session = make(client, environment, [entry("write", "always_ask")])
    both = tool("write", file_path="a", content="b") + tool("write", file_path="c", content="d")
    provider.say(both, text("One of them."))
    seen = run(client, session, message("write"))
    uses = [it for it in seen if it.type == "agent.tool_use"]
    assert [(it.evaluated_permission, evaluated(it)) for it in uses] == [("ask", "always_ask")] * 2
    assert seen[-1].stop_reason.event_ids == [it.id for it in uses]
    with client.beta.sessions.events.stream(session.id) as stream:
        sent = client.beta.sessions.events.send(session.id, events=[
            {"type": "user.tool_confirmation", "tool_use_id": uses[0].id, "result": "allow"},
            {"type": "user.tool_confirmation", "tool_use_id": uses[1].id, "result": "deny",
             "deny_message": "one is enough"}])
        rest = []
        for event in stream:
            rest.append(event)
            if event.type == "session.status_idle":
                break
    assert [it.type for it in rest] == [
        "user.tool_confirmation", "user.tool_confirmation", "session.status_running", "agent.tool_result",
        "agent.tool_result", "span.model_request_start", "agent.message", "span.model_request_end",
        "session.status_idle"]
    assert [it.id for it in sent.data] == [it.id for it in rest[:2]]
    denied = rest[1].to_dict(mode="json")
    assert denied == {"id": denied["id"], "type": "user.tool_confirmation", "tool_use_id": uses[1].id,
                      "result": "deny", "deny_message": "one is enough", "processed_at": denied["processed_at"]}
    assert [it.is_error for it in rest[3:5]] == [False, True]
    assert "one is enough" in rest[4].content[0].text
    again = {"type": "user.tool_confirmation", "tool_use_id": uses[0].id, "result": "allow"}
    refusal(lambda: client.beta.sessions.events.send(session.id, events=[again]), anthropic.ConflictError)


def test_an_interrupt_stops_a_request(client, provider, session):
    gate = threading.Event()
    provider.say(lambda _: gate.wait(30) and text("never heard"))
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[message("go")])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "span.model_request_start":
                sent = client.beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}]).data[0]
            if event.type == "session.status_idle":
                break
    gate.set()
    assert [it.type for it in seen[4:]] == ["user.interrupt", "span.model_request_end", "session.status_idle"]
    assert seen[4].id == sent.id and sent.processed_at is None
    assert seen[5].is_error is True
    assert seen[6].stop_reason.type == "end_turn"
    # At rest it changes nothing.
    before = len(events(client, session))
    thread = "sthr_" + session.id.removeprefix("sesn_")
    sent = client.beta.sessions.events.send(
        session.id, events=[{"type": "user.interrupt", "session_thread_id": thread}])
    assert sent.data[0].processed_at is not None
    assert len(events(client, session)) == before
    wrong = {"type": "user.interrupt", "session_thread_id": "sthr_other"}
    assert thread in told(refusal(lambda: client.beta.sessions.events.send(session.id, events=[wrong])))


def test_a_refusal_has_its_details(client, provider, session):
    details = {"type": "refusal", "category": "cyber", "explanation": "It would do harm."}
    provider.say([details])
    idle = run(client, session, message("?"))[-1].to_dict()
    assert (idle["stop_reason"], idle["stop_details"]) == ({"type": "refusal"}, details)


def test_failed_requests_are_told_and_tried_again(client, provider, session):
    def fail(_):
        raise ConnectionResetError
    provider.say(fail, text("At last."))
    seen = run(client, session, message("go"))
    types = [it.type for it in seen]
    at = types.index("session.error")
    assert types[at - 1:at + 3] == [
        "span.model_request_end", "session.error", "session.status_rescheduled", "session.status_running"]
    error = seen[at].error
    assert error.type in ("model_request_failed_error", "model_overloaded_error") and error.message
    assert error.retry_status.type == "retrying"
    assert seen[at - 1].is_error is True
    assert seen[-1].stop_reason.type == "end_turn"


@new_only
def test_a_budget_that_is_used_up(client, provider, environment):
    budget = {"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}}
    session = make(client, environment, [entry("glob", "always_allow")], budget=budget)
    # A request costs 100 * 3 / 10^6 + 20 * 15 / 10^6 dollars, six hundredths of a cent.
    provider.say(*[tool("glob", pattern=f"{n}*") for n in range(30)])
    seen = run(client, session, message("go"))
    last = [it.to_dict(mode="json") for it in seen[-3:]]
    assert [it["type"] for it in last] == [
        "session.thread_status_idle", "session.usage", "session.status_idle"]
    thread, used, idle = last
    assert thread["session_thread_id"] == "sthr_" + session.id.removeprefix("sesn_")
    assert (thread["agent_name"], thread["stop_reason"], thread["stop_details"]) == (
        "worker", {"type": "budget_reached"}, None)
    assert used["budget"] == budget
    assert used["usage"]["list_cost"] == {"amount": "1", "currency": "USD"}
    assert used["usage"]["input_tokens"] == 1700 and used["usage"]["active_seconds"] >= 0
    assert (idle["stop_reason"], idle["stop_details"]) == ({"type": "budget_reached"}, None)
    assert not [it for it in seen if it.type == "session.error"]
    refused = told(refusal(lambda: client.beta.sessions.events.send(session.id, events=[message("more")])))
    assert "budget" in refused
    client.beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])


def test_the_operator_speaks_with_a_message(client, provider, session):
    system = {"type": "system.message", "content": [{"type": "text", "text": "Answer in Latin."}]}
    provider.say(text("Salve."), text("Vale."))
    seen = run(client, session, message("Hello?"), system)
    assert [it.type for it in seen[:5]] == [
        "user.message", "system.message", "session.status_running", "user.message", "system.message"]
    assert (seen[1].id, seen[1].processed_at) == (seen[4].id, None)
    assert seen[4].to_dict()["content"] == system["content"]
    roles = [it["role"] for it in provider.requests[0]["messages"]]
    assert roles == ["user", "system"]
    assert provider.requests[0]["messages"][1]["content"][0]["text"] == "Answer in Latin."
    run(client, session, message("Goodbye?"))
    assert [it["role"] for it in provider.requests[1]["messages"]] == ["user", "system", "assistant", "user"]

    send = lambda *list: client.beta.sessions.events.send(session.id, events=list)
    assert "must follow" in told(refusal(lambda: send(system)))
    assert "must be the last" in told(refusal(lambda: send(message("a"), system, message("b"))))
    assert "must be the last" in told(refusal(lambda: send(message("a"), system, system)))
    assert "must follow" in told(refusal(lambda: send({"type": "user.interrupt"}, system)))
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert "content[0].type" in told(refusal(lambda: send(message("a"), {**system, "content": [image]})))
    agent = client.beta.agents.create(name="old", model="claude-opus-4-5")
    old = client.beta.sessions.create(agent=agent.id, environment_id=session.environment_id)
    error = refusal(lambda: client.beta.sessions.events.send(old.id, events=[message("a"), system]))
    assert error["details"]["error_code"] == "model_does_not_support_mid_conversation_system"


def test_lists(client, provider, session):
    provider.say(text("one"), text("two"))
    run(client, session, message("first"))
    run(client, session, message("second"))
    every = events(client, session)
    assert [it.type for it in every] == 2 * PLAIN[1:]
    assert [it.id for it in events(client, session, order="desc")] == [it.id for it in reversed(every)]
    assert [it.id for it in events(client, session, limit=5)] == [it.id for it in every], "over pages"
    some = events(client, session, types=["agent.message", "session.status_idle"])
    assert [it.type for it in some] == ["agent.message", "session.status_idle"] * 2
    middle = every[6].processed_at
    after = [it.id for it in events(client, session, created_at_gt=middle)]
    assert after == [it.id for it in every if it.processed_at > middle]
    upto = [it.id for it in events(client, session, created_at_lte=middle)]
    assert upto == [it.id for it in every if it.processed_at <= middle]
    page = client.beta.sessions.events.list(session.id, limit=2)
    refusal(lambda: client.beta.sessions.events.list(session.id, limit=2, order="desc", page=page.next_page))
    refusal(lambda: client.beta.sessions.events.list(session.id, limit=1001))
    refusal(lambda: client.beta.sessions.events.list(session.id, page="nonsense"))
    with pytest.raises(anthropic.NotFoundError):
        client.beta.sessions.events.list("sesn_nobody")


def test_what_waits_comes_last_and_has_no_time(client, provider, session):
    gate = threading.Event()
    provider.say(lambda _: gate.wait(30) and text("one"), text("two"))
    client.beta.sessions.events.send(session.id, events=[message("first")])
    until("the model is asked", lambda: provider.requests)
    sent = client.beta.sessions.events.send(session.id, events=[message("second"), message("third")]).data
    assert [it.processed_at for it in sent] == [None, None]
    assert [it.id for it in events(client, session)][-2:] == [it.id for it in sent]
    assert [it.id for it in events(client, session, order="desc")][:2] == [it.id for it in reversed(sent)]
    assert [it.id for it in events(client, session, types=["user.message"])][-2:] == [it.id for it in sent]
    assert events(client, session, types=["system.message"]) == []
    past = "2020-01-01T00:00:00Z"
    assert not [it for it in events(client, session, created_at_gt=past) if it.processed_at is None]
    assert client.beta.sessions.retrieve(session.id).status == "running"
    gate.set()
    until("all is answered", lambda: events(client, session)[-1].type == "session.status_idle"
          and len(events(client, session, types=["session.status_idle"])) == 2)
    assert [it.id for it in events(client, session) if it.type == "user.message"][1:] == [it.id for it in sent]


def test_events_that_cannot_be_sent(client, session):
    send = lambda *list: client.beta.sessions.events.send(session.id, events=list)
    for event, place in [
        ({"type": "user.message"}, "events[0].content"),
        ({"type": "user.message", "content": []}, "events[0].content"),
        ({"type": "user.message", "content": [{"type": "redacted"}]}, "events[0].content[0].type"),
        ({"type": "user.message", "content": [{"type": "text", "text": "a"}], "x": 1}, "events[0].x"),
        ({"type": "agent.message", "content": []}, "events[0].type"),
        ({"type": "user.define_outcome", "description": "d"}, "events[0].rubric"),
        ({"type": "user.define_outcome", "description": "d", "rubric": {"type": "text", "content": "c"},
          "max_iterations": 21}, "events[0].max_iterations"),
        ({"type": "user.tool_confirmation", "result": "allow"}, "events[0].tool_use_id"),
        ({"type": "user.tool_confirmation", "tool_use_id": "sevt_01a", "result": "maybe"}, "events[0].result"),
        ({"type": "user.tool_confirmation", "tool_use_id": "sevt_01a", "result": "allow",
          "deny_message": "x"}, "events[0].deny_message"),
        ({"type": "user.tool_result", "tool_use_id": "sevt_01a"}, "events[0].tool_use_id"),
        ({"content": []}, "events[0].type"),
    ]:
        assert told(refusal(lambda: send(event))).startswith(place), event
    assert told(refusal(lambda: send())).startswith("events")
    # All of them or nothing.
    refusal(lambda: send(message("fine"), {"type": "nonsense"}))
    assert events(client, session) == []


def test_an_archived_session_takes_nothing_more(client, provider, session):
    provider.say(text("one"))
    run(client, session, message("first"))
    client.beta.sessions.archive(session.id)
    assert events(client, session)[-1].type == "session.status_terminated"
    with pytest.raises(anthropic.ConflictError) as raised:
        client.with_options(max_retries=0).beta.sessions.events.send(session.id, events=[message("more")])
    assert raised.value.body["error"]["type"] == "invalid_request_error"
    assert raised.value.response.headers["x-should-retry"] == "false"


def post(server, session, body, **headers):
    request = urllib.request.Request(
        f"{server.url}/v1/sessions/{session.id}/events", json.dumps(body).encode(),
        {"authorization": f"Bearer {server.key}", **headers})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())


def test_another_try_of_a_request_counts_once(server, client, provider, session):
    provider.say(text("one"))
    body = {"events": [message("once"), message("and more")]}
    retry = {"x-stainless-retry-count": "1"}
    first = post(server, session, body, **{"x-stainless-retry-count": "0"})
    assert post(server, session, body, **retry) == first
    assert post(server, session, body, **{"x-stainless-retry-count": "2"}) == first
    other = post(server, session, {"events": [message("other")]}, **retry)
    assert other["data"][0]["id"] not in [it["id"] for it in first["data"]]
    # Two first tries are two messages.
    assert post(server, session, {"events": [message("other")]}) != other
    def all_answered():
        every = events(client, session)
        said = [it for it in every if it.type == "user.message"]
        return len(said) == 4 and every[-1].type == "session.status_idle" and said
    said = until("all is answered", all_answered)
    assert [it.content[0].text for it in said] == ["once", "and more", "other", "other"]
