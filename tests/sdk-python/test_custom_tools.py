"""Tools that the client has: called, answered, and run by the SDK's own runner."""

import asyncio
import base64

import anthropic
import pytest
from anthropic import beta_async_tool

from conftest import message, run, until
from provider import text, tool

WEATHER = {
    "type": "custom", "name": "weather", "description": "Tells the weather of a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n not really").decode()


@pytest.fixture
def session(client, environment):
    agent = client.beta.agents.create(
        name="meteorologist", model="claude-sonnet-5-5",
        tools=[{"type": "agent_toolset_20260401", "default_config": {"enabled": False},
                "configs": [{"name": "glob", "enabled": True},
                            {"name": "write", "enabled": True, "permission_policy": {"type": "always_ask"}}]},
               WEATHER])
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


def result(call, said, **more):
    return {"type": "user.custom_tool_result", "custom_tool_use_id": call,
            "content": [{"type": "text", "text": said}], **more}


def calls(*calls):
    return [block for call in calls for block in call]


def events(client, session):
    return list(client.beta.sessions.events.list(session.id, limit=1000))


def waits_for(client, session, ids):
    def ask():
        last = events(client, session)[-1]
        return last.type == "session.status_idle" and getattr(last.stop_reason, "event_ids", None) == ids
    until(f"it waits for {ids}", ask)


def ends(client, session):
    def ask():
        last = events(client, session)[-1]
        return last.type == "session.status_idle" and last.stop_reason.type == "end_turn" and last
    return until("the turn ends", ask)


def refusal(send):
    with pytest.raises(anthropic.BadRequestError) as raised:
        send()
    assert raised.value.body["error"]["type"] == "invalid_request_error"
    return raised.value.body["error"]["message"]


def test_the_answer_of_an_agent_has_the_tool_as_it_was_given(client, session):
    custom = session.agent.tools[1]
    assert custom.to_dict() == WEATHER


def test_a_call_waits_for_its_result(client, provider, session):
    provider.say(tool("weather", place="Oslo"), text("It rains in Oslo."))
    seen = run(client, session, message("How is Oslo?"))
    assert [it.type for it in seen] == [
        "user.message", "session.status_running", "user.message", "span.model_request_start",
        "span.model_request_end", "agent.custom_tool_use", "session.status_idle"]
    offered = {it["name"]: it for it in provider.requests[0]["tools"]}
    assert offered["weather"]["input_schema"] == WEATHER["input_schema"]
    call, idle = seen[-2:]
    assert (call.name, call.input, call.session_thread_id) == ("weather", {"place": "Oslo"}, None)
    assert idle.stop_reason.to_dict() == {"type": "requires_action", "event_ids": [call.id]}
    assert idle.stop_details is None
    assert client.beta.sessions.retrieve(session.id).status == "idle"

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    note = {"type": "document", "title": "report", "context": None,
            "source": {"type": "text", "media_type": "text/plain", "data": "wet"}}
    found = {"type": "search_result", "source": "https://example.com", "title": "Oslo",
             "content": [{"type": "text", "text": "12 mm"}], "citations": {"enabled": False}}
    answer = {"type": "user.custom_tool_result", "custom_tool_use_id": call.id,
              "content": [{"type": "text", "text": "rain"}, image, note, found]}
    with client.beta.sessions.events.stream(session.id) as stream:
        sent = client.beta.sessions.events.send(session.id, events=[answer]).data[0]
        assert (sent.type, sent.custom_tool_use_id) == ("user.custom_tool_result", call.id)
        assert sent.id.startswith("sevt_") and sent.processed_at is not None
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    assert [it.type for it in seen] == [
        "user.custom_tool_result", "session.status_running", "span.model_request_start", "agent.message",
        "span.model_request_end", "session.status_idle"]
    assert seen[0].id == sent.id and not seen[0].is_error
    told = provider.requests[1]["messages"][-1]["content"][0]
    assert (told["type"], told["tool_use_id"], told["is_error"]) == ("tool_result", call.id, False)
    assert [it["type"] for it in told["content"]] == ["text", "image", "document", "search_result"]
    assert told["content"][1]["source"] == image["source"]


def test_a_result_may_come_before_anybody_was_told_to_wait(client, provider, session):
    provider.say(tool("weather", place="Oslo"), text("done"))
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[message("go")])
        for event in stream:
            if event.type == "agent.custom_tool_use":
                client.beta.sessions.events.send(
                    session.id, events=[result(event.id, "no idea", is_error=True)])
            if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                break
    assert provider.requests[1]["messages"][-1]["content"][0]["is_error"] is True


def test_several_at_once_are_answered_in_parts(client, provider, session):
    provider.say(calls(tool("weather", place="Oslo"), tool("glob", pattern="*"),
                       tool("write", file_path="a.txt", content="x"), tool("weather", place="Rome")),
                 text("done"))
    seen = run(client, session, message("go"))
    types = [it.type for it in seen]
    uses = ["agent.custom_tool_use", "agent.tool_use", "agent.tool_use", "agent.custom_tool_use"]
    assert types[-6:] == [*uses, "agent.tool_result", "session.status_idle"]
    oslo, _, write, rome = [it.id for it in seen if it.type in uses]
    assert seen[-1].stop_reason.event_ids == [oslo, write, rome]

    client.beta.sessions.events.send(session.id, events=[result(rome, "sun")])
    waits_for(client, session, [oslo, write])
    allow = {"type": "user.tool_confirmation", "tool_use_id": write, "result": "allow"}
    client.beta.sessions.events.send(session.id, events=[allow])
    waits_for(client, session, [oslo])
    client.beta.sessions.events.send(session.id, events=[result(oslo, "rain")])
    ends(client, session)
    told = {it["tool_use_id"]: it for it in provider.requests[1]["messages"][-1]["content"]}
    assert set(told) >= {oslo, write, rome}
    assert told[oslo]["content"][0]["text"] == "rain"


def test_wrong_answers_are_refused_and_say_why(client, provider, session, impatient):
    provider.say(calls(tool("weather", place="Oslo"), tool("write", file_path="a", content="x")), text("done"))
    seen = run(client, session, message("go"))
    call, write = [it.id for it in seen if it.type.endswith("_use")]
    send = lambda *events: impatient.beta.sessions.events.send(session.id, events=list(events))

    assert "names no call" in refusal(lambda: send(result("sevt_01nothing", "x")))
    assert "custom_tool_use_id: is required" in refusal(lambda: send({"type": "user.custom_tool_result"}))
    assert "user.custom_tool_result" in refusal(
        lambda: send({"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"}))
    assert "user.tool_confirmation" in refusal(lambda: send(result(write, "x")))
    assert "self_hosted" in refusal(lambda: send({"type": "user.tool_result", "tool_use_id": write}))
    bad = {"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": [{"type": "redacted"}]}
    assert "events[0].content[0].type" in refusal(lambda: send(bad))
    # All of a request or nothing of it.
    assert "events[1]" in refusal(lambda: send(result(call, "x"), result("sevt_01nothing", "x")))
    waits_for(client, session, [call, write])

    send(result(call, "rain"))
    assert "was answered before" in refusal(lambda: send(result(call, "snow")))
    send({"type": "user.interrupt"})
    ends(client, session)
    assert "was answered before" in refusal(lambda: send(result(call, "snow")))
    with pytest.raises(anthropic.ConflictError) as raised:
        send({"type": "user.tool_confirmation", "tool_use_id": write, "result": "allow"})
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_an_interrupt_ends_the_wait(client, provider, session):
    provider.say(tool("weather", place="Oslo"), text("Well then."))
    seen = run(client, session, message("go"))
    call = seen[-2].id
    seen = run(client, session, {"type": "user.interrupt"})
    assert [it.type for it in seen] == ["user.interrupt", "user.custom_tool_result", "session.status_idle"]
    assert (seen[1].custom_tool_use_id, seen[1].is_error) == (call, True)
    assert seen[2].stop_reason.type == "end_turn"
    assert run(client, session, message("go on"))[-1].stop_reason.type == "end_turn"
    told = provider.requests[1]["messages"][-1]["content"]
    assert (told[0]["tool_use_id"], told[0]["is_error"]) == (call, True)


def test_the_runner_of_the_sdk_answers_calls(server, client, provider, session):
    provider.say(calls(tool("weather", place="Oslo"), tool("weather", place="Rome")),
                 tool("weather", place="nowhere"), text("All places are told."))

    @beta_async_tool
    async def weather(place: str) -> str:
        """Tells the weather of a place.

        Args:
            place: where
        """
        if place == "nowhere":
            raise ValueError("there is no such place")
        return f"sun in {place}"

    async def drive():
        made = []
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key=server.key) as own:
            await own.beta.sessions.events.send(session.id, events=[message("go")])
            async for call in own.beta.sessions.events.tool_runner(session.id, tools=[weather], max_idle=0.2):
                made.append(call)
        return made

    made = asyncio.run(asyncio.wait_for(drive(), 60))
    assert [(it.name, it.is_error, it.posted) for it in made] == [
        ("weather", False, True), ("weather", False, True), ("weather", True, True)]
    assert ends(client, session)
    told = [it["content"][0]["text"] for it in provider.requests[1]["messages"][-1]["content"]]
    assert told == ["sun in Oslo", "sun in Rome"]
