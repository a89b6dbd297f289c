"""Sessions in an environment of the client's own: the SDK's runner carries out the agent's tools."""

import asyncio

import anthropic
import pytest
from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401

from conftest import message, run, until
from provider import text, tool


@pytest.fixture(scope="module")
def environment(client):
    made = client.beta.environments.create(name="the client's own", config={"type": "self_hosted"})
    assert made.config.type == "self_hosted"
    return made


def make(client, environment, policy):
    agent = client.beta.agents.create(name="remote", model="claude-sonnet-5-5", tools=[
        {"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": policy}}}])
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


def rests(client, session):
    """Why it rests, or nothing."""
    last = client.beta.sessions.events.list(session.id, order="desc", limit=1).data[0]
    return last.stop_reason if last.type == "session.status_idle" else None


def ends(client, session):
    until("the turn ends", lambda: (it := rests(client, session)) and it.type == "end_turn")


def drive(server, session, directory, n):
    """The calls that the SDK's runner makes in a directory, until it made so many."""
    async def work():
        made = []
        async with (anthropic.AsyncAnthropic(base_url=server.url, api_key=server.key) as client,
                    AgentToolContext(workdir=str(directory)) as context):
            tools = beta_agent_toolset_20260401(context)
            async for call in client.beta.sessions.events.tool_runner(session.id, tools=tools, max_idle=0.2):
                made.append(call)
        return made
    made = asyncio.run(asyncio.wait_for(work(), 60))
    assert len(made) == n
    return made


def test_the_runner_of_the_sdk_works_where_the_client_is(server, client, provider, environment, tmp_path):
    session = make(client, environment, "always_allow")
    provider.say(tool("write", file_path="bell.txt", content="ding") + tool("bash", command="pwd"),
                 tool("read", file_path="bell.txt"), text("It rang."))
    seen = run(client, session, message("ring"))
    calls = [it.id for it in seen if it.type == "agent.tool_use"]
    assert [it.type for it in seen[-3:]] == ["agent.tool_use", "agent.tool_use", "session.status_idle"]
    assert seen[-1].stop_reason.event_ids == calls
    made = drive(server, session, tmp_path, 3)
    assert [(it.name, it.is_error, it.posted) for it in made] == [
        ("write", False, True), ("bash", False, True), ("read", False, True)]
    assert (tmp_path / "bell.txt").read_text() == "ding"
    ends(client, session)
    told = provider.requests[2]["messages"][-1]["content"][0]
    assert "ding" in told["content"][0]["text"]
    events = list(client.beta.sessions.events.list(session.id))
    assert not [it for it in events if it.type == "agent.tool_result"]
    results = [it for it in events if it.type == "user.tool_result"]
    assert [it.tool_use_id for it in results[:2]] == calls


def test_what_is_asked_about_is_allowed_first(client, provider, environment):
    session = make(client, environment, "always_ask")
    provider.say(tool("bash", command="date") + tool("bash", command="rm -r /"), text("Well."))
    seen = run(client, session, message("go"))
    date, rm = [it.id for it in seen if it.type == "agent.tool_use"]
    answer = {"type": "user.tool_result", "tool_use_id": date, "content": [{"type": "text", "text": "today"}]}
    send = lambda *events: client.beta.sessions.events.send(session.id, events=list(events))
    with pytest.raises(anthropic.BadRequestError, match="user.tool_confirmation"):
        send(answer)
    send({"type": "user.tool_confirmation", "tool_use_id": date, "result": "allow"},
         {"type": "user.tool_confirmation", "tool_use_id": rm, "result": "deny"})
    until("only the first one is left", lambda: (it := rests(client, session))
          and getattr(it, "event_ids", None) == [date])
    with pytest.raises(anthropic.BadRequestError, match="user.tool_result"):
        send({"type": "user.tool_confirmation", "tool_use_id": date, "result": "allow"})
    send(answer)
    ends(client, session)
    told = {it["tool_use_id"]: it for it in provider.requests[1]["messages"][-1]["content"]}
    assert (told[date]["is_error"], told[rm]["is_error"]) == (False, True)
    assert told[date]["content"][0]["text"] == "today"


def test_an_interrupt_ends_the_wait(client, provider, environment):
    session = make(client, environment, "always_allow")
    provider.say(tool("bash", command="date"))
    run(client, session, message("go"))
    rest = run(client, session, {"type": "user.interrupt"})
    assert [it.type for it in rest] == ["user.interrupt", "user.tool_result", "session.status_idle"]
    assert rest[1].is_error is True
