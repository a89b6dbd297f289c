"""The stream, on the wire and through the SDK; previews."""

import http.client
import threading
import urllib.parse

import pytest
from anthropic.lib.sessions import accumulate_managed_agents_event

from conftest import message, run, until
from provider import text, tool


@pytest.fixture
def session(client, agent, environment):
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


class Wire:
    """The bytes of a stream, as frames."""

    def __init__(self, server, path, **headers):
        host = urllib.parse.urlparse(server.url).netloc
        self.connection = http.client.HTTPConnection(host, timeout=60)
        self.connection.request("GET", path, headers={"x-api-key": server.key, **headers})
        self.response = self.connection.getresponse()

    def frame(self):
        frame = {}
        while line := self.response.readline().decode():
            if line == "\n":
                return frame
            name, _, value = line.rstrip("\n").partition(":")
            frame[name or "comment"] = value.strip()
        return None

    def events(self):
        while (frame := self.frame()) is not None:
            if "event" in frame:
                yield frame
            else:
                assert list(frame) == ["comment"], frame

    def close(self):
        self.connection.close()


def path(session, query=""):
    return f"/v1/sessions/{session.id}/events/stream{query}"


def test_headers_come_at_once_and_beats_while_nothing_happens(server, session):
    wire = Wire(server, path(session), **{"accept-encoding": "gzip, deflate"})
    assert wire.response.status == 200
    headers = wire.response.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["content-encoding"] is None and headers["request-id"].startswith("req_")
    wire.connection.sock.settimeout(15)
    assert wire.frame() and wire.frame(), "two comments within 15 seconds"
    wire.close()


def test_every_frame_has_a_name_and_replay_is_asked_for(server, client, provider, session):
    provider.say(text("one"), text("two"))
    run(client, session, message("first"))
    live = Wire(server, path(session))
    client.beta.sessions.events.send(session.id, events=[message("second")])
    seen = []
    for frame in live.events():
        seen.append(frame)
        if frame["event"] == "session.status_idle":
            break
    live.close()
    assert [it["event"] for it in seen] == [
        "user.message", "session.status_running", "user.message", "span.model_request_start", "agent.message",
        "span.model_request_end", "session.status_idle"], "nothing from before it opened"
    assert [it.get("id") for it in seen] == [None, "7", "8", "9", "10", "11", "12"]
    replayed = Wire(server, path(session), **{"last-event-id": "9"})
    frames = replayed.events()
    assert [next(frames)["id"] for _ in range(3)] == ["10", "11", "12"]
    replayed.close()


def test_the_primary_thread_has_the_same_stream(client, provider, session):
    thread = "sthr_" + session.id.removeprefix("sesn_")
    provider.say(text("one"))
    with client.beta.sessions.threads.events.stream(thread, session_id=session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[message("first")])
        seen = []
        for event in stream:
            seen.append(event.type)
            if event.type == "session.status_idle":
                break
    assert seen[-3:] == ["agent.message", "span.model_request_end", "session.status_idle"]
    with pytest.raises(Exception) as raised:
        client.beta.sessions.threads.events.stream("sthr_other", session_id=session.id)
    assert raised.value.status_code == 404


def test_previews_fold_into_the_event(client, provider, session):
    provider.say([*text("The bell rings."), *text("And again.")], text("no preview"))
    kinds = ["agent.message", "agent.thinking"]
    with (client.beta.sessions.events.stream(session.id, event_deltas=kinds) as stream,
          client.beta.sessions.events.stream(session.id) as plain):
        client.beta.sessions.events.send(session.id, events=[message("ring")])
        seen, snapshot, snapshots = [], None, []
        for event in stream:
            seen.append(event)
            snapshot = accumulate_managed_agents_event(snapshot, event)
            if event.type == "event_delta":
                snapshots.append([it.text for it in snapshot.content])
            if event.type == "session.status_idle":
                break
        without = []
        for event in plain:
            without.append(event.type)
            if event.type == "session.status_idle":
                break
    types = [it.type for it in seen]
    assert not [it for it in without if it.startswith("event_")]
    start = types.index("event_start")
    assert types[start - 1] == "span.model_request_start"
    final = next(it for it in seen if it.type == "agent.message")
    assert seen[start].event.to_dict() == {"type": "agent.message", "id": final.id}
    deltas = [it for it in seen if it.type == "event_delta"]
    assert {it.event_id for it in deltas} == {final.id}
    assert {it.delta.type for it in deltas} == {"content_delta"}
    assert snapshots[-1] == ["The bell rings.", "And again."] == [it.text for it in final.content]
    assert types.index("agent.message") > max(n for n, kind in enumerate(types) if kind == "event_delta")
    assert snapshot.to_dict() == final.to_dict()
    listed = client.beta.sessions.events.list(session.id)
    assert not [it for it in listed if it.type.startswith("event_")]
    for wrong in (["agent.tool_use"], ["agent.message"] * 101):
        with pytest.raises(Exception) as raised:
            client.beta.sessions.events.stream(session.id, event_deltas=wrong)
        assert raised.value.status_code == 400


def thinking(said):
    return [{"type": "thinking", "thinking": said, "signature": "signed"}]


def test_thinking_is_announced(client, provider, session):
    provider.say([*thinking("hm"), *text("I see.")])
    with client.beta.sessions.events.stream(session.id, event_deltas=["agent.thinking"]) as stream:
        client.beta.sessions.events.send(session.id, events=[message("think")])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    assert [it.type for it in seen[3:]] == [
        "span.model_request_start", "event_start", "agent.thinking", "agent.message",
        "span.model_request_end", "session.status_idle"]
    assert seen[4].event.to_dict() == {"type": "agent.thinking", "id": seen[5].id}
    assert set(seen[5].to_dict()) == {"id", "type", "processed_at"}


def test_a_stream_that_opens_in_the_middle_shows_nothing_of_that_request(server, client, provider, session):
    first = threading.Event()
    provider.say(lambda _: first.wait(30) and text("late"), text("early"))
    client.beta.sessions.events.send(session.id, events=[message("go")])
    until("the model is asked", lambda: provider.requests)
    wire = Wire(server, path(session, "?event_deltas[]=agent.message"))
    assert wire.frame() == {"comment": "open"}
    first.set()
    frames = wire.events()

    def turn():
        seen = []
        while not seen or seen[-1] != "session.status_idle":
            seen.append(next(frames)["event"])
        return seen

    assert turn() == ["agent.message", "span.model_request_end", "session.status_idle"]
    client.beta.sessions.events.send(session.id, events=[message("again")])
    assert "event_start" in turn()
    wire.close()


def test_a_stream_ends_with_its_session(server, client, provider, session):
    provider.say(text("one"))
    run(client, session, message("first"))
    live = Wire(server, path(session))
    client.beta.sessions.archive(session.id)
    assert [it["event"] for it in live.events()] == ["session.status_terminated"]
    late = Wire(server, path(session))
    assert [it["event"] for it in late.events()] == ["session.status_terminated"], "clients leave at it"
    for wire in (live, late):
        wire.close()
