"""Sessions as the SDK makes, drives, changes and removes them."""

import threading

import anthropic
import pytest

from conftest import message, new_only, run, until
from provider import text, tool

ALLOW, ASK = {"type": "always_allow"}, {"type": "always_ask"}
TOOLSET = {"type": "agent_toolset_20260401"}
SERVER = {"type": "url", "name": "tickets", "url": "https://tickets.example/mcp"}
MCP = {"type": "mcp_toolset", "mcp_server_name": "tickets"}


def plain(thing):
    return thing.to_dict(mode="json")


def code_of(refused):
    """The finer word of an error; older SDKs do not take it out of the body."""
    return refused.value.body["error"].get("details", {}).get("error_code")


@pytest.fixture
def make(client, agent, environment):
    return lambda **more: client.beta.sessions.create(
        **{"agent": agent.id, "environment_id": environment.id, **more})


def dollars(cents):
    return {"type": "limit", "max_list_cost": {"amount": str(cents), "currency": "USD"}}


def events(client, session):
    return list(client.beta.sessions.events.list(session.id))


def test_a_message_is_answered(client, provider, agent, environment):
    provider.say(text("Good evening."))
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    seen = run(client, session, message("Good evening?"))
    assert [it.content[0].text for it in seen if it.type == "agent.message"] == ["Good evening."]


def test_a_session_is_answered_to_the_field(client, provider, make, agent, environment):
    vaults = [client.beta.vaults.create(display_name=name).id for name in ("first", "second")]
    session = make(title="Night shift", metadata={"desk": "front"}, vault_ids=vaults)
    shown = plain(session)
    published = {"id", "agent", "archived_at", "budget", "created_at", "environment_id", "metadata",
                 "outcome_evaluations", "resources", "stats", "status", "title", "type", "updated_at",
                 "usage", "vault_ids", "deployment_id"}
    assert published <= set(shown)
    assert session.id.startswith("sesn_") and session.type == "session" and session.status == "idle"
    assert (session.title, session.metadata) == ("Night shift", {"desk": "front"})
    assert session.vault_ids == vaults and session.environment_id == environment.id
    assert (session.archived_at, session.budget, session.deployment_id) == (None, None, None)
    assert (session.outcome_evaluations, session.resources) == ([], [])
    of_agent = {"id", "description", "execution_identity", "mcp_servers", "model", "multiagent", "name",
                "skills", "system", "tools", "type", "version"}
    assert set(shown["agent"]) == of_agent
    assert {key: plain(agent)[key] for key in of_agent} == shown["agent"]
    assert shown["usage"]["input_tokens"] == 0
    assert shown["usage"]["list_cost"] == {"amount": "0", "currency": "USD"}

    provider.say(text("Here."))
    run(client, session, message("Anybody?"))
    session = client.beta.sessions.retrieve(session.id)
    assert session.status == "idle"
    assert (session.usage.input_tokens, session.usage.output_tokens) == (100, 20)
    assert (session.usage.cache_read_input_tokens, session.usage.cache_creation.ephemeral_5m_input_tokens) \
        == (0, 0)
    assert session.stats.duration_seconds >= session.stats.active_seconds >= 0


def test_the_agent_comes_in_three_forms(client, impatient, make, agent):
    client.beta.agents.update(agent.id, system="second")
    latest = make().agent
    assert (latest.version, latest.system) == (2, "second")
    assert make(agent={"type": "agent", "id": agent.id}).agent.version == 2
    pinned = make(agent={"type": "agent", "id": agent.id, "version": 1}).agent
    assert (pinned.version, pinned.system) == (1, None)

    overrides = lambda **fields: {"type": "agent_with_overrides", "id": agent.id, **fields}
    own = plain(make(agent=overrides(
        system=None, model={"id": "claude-opus-5-5", "effort": "low", "inference_geo": "eu"},
        tools=[{**TOOLSET, "configs": [{"name": "bash", "type": "bash", "enabled": False}]}, MCP],
        mcp_servers=[SERVER], skills=[{"type": "anthropic", "skill_id": "xlsx", "version": "1"}])).agent)
    assert (own["id"], own["version"], own["name"], own["system"]) == (agent.id, 2, "concierge", None)
    assert own["model"] == {"id": "claude-opus-5-5", "speed": "standard", "effort": {"type": "high"},
                            "inference_geo": "eu"}
    assert own["tools"][0]["configs"] == [
        {"name": "bash", "type": "bash", "enabled": False, "permission_policy": ALLOW}]
    assert own["tools"][1]["default_config"] == {"enabled": True, "permission_policy": ASK}
    assert (own["mcp_servers"], own["skills"][0]["version"]) == ([SERVER], "1")
    assert make(agent=overrides(tools=[])).agent.tools == []
    kept = make(agent=overrides(version=1))
    assert plain(kept.agent) == plain(pinned), "what is left out is the agent's"
    assert client.beta.agents.retrieve(agent.id).version == 2, "the agent is as it was"

    refused = pytest.raises(anthropic.BadRequestError)
    with refused as error:
        impatient.beta.sessions.create(agent=overrides(model=None), environment_id=kept.environment_id)
    assert code_of(error) == "agent_model_required"
    for wrong in (overrides(name="other"), {"type": "agents", "id": agent.id}, {"type": "agent"},
                  overrides(mcp_servers=[SERVER], tools=[]), 7):
        with pytest.raises(anthropic.BadRequestError):
            impatient.beta.sessions.create(agent=wrong, environment_id=kept.environment_id)
    for missing in ("agent_nobody", {"type": "agent", "id": agent.id, "version": 9}):
        with pytest.raises(anthropic.NotFoundError):
            impatient.beta.sessions.create(agent=missing, environment_id=kept.environment_id)


def test_a_session_can_start_with_events(client, impatient, provider, make):
    provider.say(text("Both."))
    session = make(initial_events=[message("one"), message("two")])
    assert session.status == "running", "never idle first"
    until("it rests", lambda: client.beta.sessions.retrieve(session.id).status == "idle")
    said = [it.content[0].text for it in events(client, session) if it.type == "user.message"]
    assert said == ["one", "two"]
    before = len(client.beta.sessions.list(limit=100).data)
    for wrong in ([message("one"), {"type": "user.interrupt"}], [message("x")] * 51):
        with pytest.raises(anthropic.BadRequestError):
            impatient.beta.sessions.create(
                agent=session.agent.id, environment_id=session.environment_id, initial_events=wrong)
    assert len(client.beta.sessions.list(limit=100).data) == before, "all or nothing"


def test_an_update_changes_what_it_names_and_tells_so(client, make):
    session = make(title="before", metadata={"a": "1", "b": "2"})
    update = lambda **fields: client.beta.sessions.update(session.id, **fields)
    same = update(title="before", metadata={"b": "2"})
    assert same.updated_at == session.updated_at and events(client, session) == []
    changed = update(title="after", metadata={"a": None, "c": "3"})
    assert (changed.title, changed.metadata) == ("after", {"b": "2", "c": "3"})
    tools = [{**TOOLSET, "default_config": {"permission_policy": ASK}}]
    agent = update(agent={"tools": tools}).agent
    assert plain(agent)["tools"][0]["default_config"] == {"enabled": True, "permission_policy": ASK}
    assert update(title=None, metadata={"b": None, "c": None}).title is None
    first, second, third = [plain(it) for it in events(client, session)]
    assert {it["type"] for it in (first, second, third)} == {"session.updated"}
    own = lambda it: {key: it[key] for key in it if key not in ("id", "type", "processed_at")}
    assert own(first) == {"title": "after", "metadata": {"b": "2", "c": "3"}}
    assert own(second) == {"agent": plain(agent)}
    assert own(third) == {"title": None}
    assert client.beta.agents.retrieve(agent.id).tools != agent.tools, "for this session only"


def test_an_update_reaches_the_stream(client, make):
    session = make()
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.update(session.id, title="new")
        assert next(iter(stream)).type == "session.updated"


def test_what_cannot_be_changed_is_refused(client, impatient, make):
    vault = client.beta.vaults.create(display_name="first").id
    session = make(vault_ids=[vault])
    update = lambda **fields: impatient.beta.sessions.update(session.id, **fields)
    for wrong in ({"vault_ids": ["vlt_2"]}, {"metadata": {"k": "v" * 513}}, {"agent": {"tools": [MCP]}},
                  {"agent": {"system": "x"}}, {"title": 7}, {"budget": {"type": "limit"}}):
        with pytest.raises(anthropic.BadRequestError):
            update(**wrong)
    assert plain(client.beta.sessions.retrieve(session.id))["vault_ids"] == [vault]
    for wrong in ({"vault_ids": [7]}, {"vault_ids": "vlt_1"}, {"metadata": {"k": 1}},
                  {"environment_id": "env_nowhere"}, {"resources": [{"type": "file", "file_id": "file_1"}]},
                  {"budget": dollars(0)}, {"budget": dollars("1.5")}, {"agent": None}):
        body = {"agent": session.agent.id, "environment_id": session.environment_id, **wrong}
        with pytest.raises((anthropic.BadRequestError, anthropic.NotFoundError)):
            impatient.beta.sessions.create(**body)


class Held:
    """An answer of the model that comes when it is let go."""

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()

    def __call__(self, _):
        self.asked.set()
        self.go.wait(60)
        return text("At last.")


def test_at_work_it_stays_as_it_is(client, impatient, provider, make):
    held = Held()
    provider.say(held)
    session = make(initial_events=[message("wait")])
    assert held.asked.wait(60)
    for attempt in (
        lambda: impatient.beta.sessions.archive(session.id),
        lambda: impatient.beta.sessions.delete(session.id),
        lambda: impatient.beta.sessions.update(session.id, agent={"tools": []}),
    ):
        with pytest.raises(anthropic.BadRequestError, match="while"):
            attempt()
    assert client.beta.sessions.retrieve(session.id).status == "running"
    assert client.beta.sessions.update(session.id, title="meanwhile").title == "meanwhile"
    held.go.set()
    until("it rests", lambda: client.beta.sessions.retrieve(session.id).status == "idle")
    log = [it.type for it in events(client, session)]
    assert log.index("session.updated") < log.index("agent.message")
    assert client.beta.sessions.archive(session.id).status == "terminated"


def test_an_archived_session_is_read_only(client, impatient, make):
    session = make()
    archived = client.beta.sessions.archive(session.id)
    assert archived.status == "terminated" and archived.archived_at
    assert plain(client.beta.sessions.archive(session.id)) == plain(archived)
    for attempt in (
        lambda: impatient.beta.sessions.events.send(session.id, events=[message("late")]),
        lambda: impatient.beta.sessions.update(session.id, title="late"),
    ):
        with pytest.raises(anthropic.ConflictError) as refused:
            attempt()
        assert refused.value.response.headers["x-should-retry"] == "false"
    assert [it.type for it in events(client, session)] == ["session.status_terminated"]


def asked(client, provider, make):
    """A session whose turn waits for somebody to allow a call."""
    provider.say(tool("bash", command="true"))
    session = make(agent={"type": "agent_with_overrides", "id": make().agent.id, "tools": [
        {**TOOLSET, "default_config": {"permission_policy": ASK}}]})
    assert run(client, session, message("go"))[-1].stop_reason.type == "requires_action"
    return session


def test_a_session_that_waits_for_an_answer_rests(client, impatient, provider, make):
    session = asked(client, provider, make)
    call = next(it for it in events(client, session) if it.type == "agent.tool_use")
    assert client.beta.sessions.archive(session.id).status == "terminated"
    answer = {"type": "user.tool_confirmation", "tool_use_id": call.id, "result": "allow"}
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.sessions.events.send(session.id, events=[answer])
    other = asked(client, provider, make)
    client.beta.sessions.update(other.id, agent={"tools": []})
    assert client.beta.sessions.delete(other.id).type == "session_deleted"


def test_a_deleted_session_is_gone(client, impatient, provider, make):
    session = make()
    run(client, session, message("hello"))
    with client.beta.sessions.events.stream(session.id) as stream:
        deleted = client.beta.sessions.delete(session.id)
        assert plain(deleted) == {"id": session.id, "type": "session_deleted"}
        assert [it.type for it in stream] == ["session.deleted"], "and the stream ends"
    for attempt in (
        lambda: impatient.beta.sessions.retrieve(session.id),
        lambda: impatient.beta.sessions.delete(session.id),
        lambda: impatient.beta.sessions.archive(session.id),
        lambda: impatient.beta.sessions.update(session.id, title="x"),
        lambda: impatient.beta.sessions.events.list(session.id),
        lambda: impatient.beta.sessions.events.send(session.id, events=[message("x")]),
        lambda: impatient.beta.sessions.threads.list(session.id),
    ):
        with pytest.raises(anthropic.NotFoundError):
            attempt()
    assert session.id not in [it.id for it in client.beta.sessions.list(include_archived=True)]


def test_a_budget_stops_a_session(client, impatient, provider, make):
    # A request costs 600 millionths of a dollar; a cent is used up by seventeen.
    provider.say(*[tool("glob", pattern=f"*{n}") for n in range(40)])
    session = make(budget=dollars(1))
    assert plain(session.budget) == dollars(1)
    last = run(client, session, message("look everywhere"))[-1]
    assert last.stop_reason.type == "budget_reached"
    stopped = client.beta.sessions.retrieve(session.id)
    assert (stopped.status, plain(stopped.usage.list_cost)["amount"]) == ("idle", "1")
    assert len(provider.requests) == 17
    with pytest.raises(anthropic.BadRequestError):
        impatient.beta.sessions.events.send(session.id, events=[message("more")])

    update = lambda budget: impatient.beta.sessions.update(session.id, budget=budget)
    with pytest.raises(anthropic.BadRequestError) as refused:
        update(dollars(1))
    assert code_of(refused) == "budget_not_raised"
    assert plain(update(dollars(2)).budget) == dollars(2)
    provider.forget()
    provider.say(text("On it."))
    assert run(client, session, message("more"))[-1].stop_reason.type == "end_turn"
    assert update(None).budget is None
    with pytest.raises(anthropic.BadRequestError) as refused:
        update(dollars(100))
    assert code_of(refused) == "budget_create_only"
    budgets = [plain(it)["budget"] for it in events(client, session) if it.type == "session.updated"]
    assert budgets == [dollars(2), None]


def test_a_budget_needs_a_price(impatient, environment, agent):
    unpriced = {"type": "agent_with_overrides", "id": agent.id, "model": "claude-unheard-of"}
    with pytest.raises(anthropic.BadRequestError) as refused:
        impatient.beta.sessions.create(agent=unpriced, environment_id=environment.id, budget=dollars(5))
    assert code_of(refused) == "model_not_budgetable"


def test_a_list_is_filtered(client, impatient, provider, make, agent):
    idle, archived, gone = make(), make(), make()
    client.beta.sessions.archive(archived.id)
    client.beta.sessions.delete(gone.id)
    client.beta.agents.update(agent.id, system="second")
    second = make()
    ids = lambda **filters: [it.id for it in client.beta.sessions.list(agent_id=agent.id, **filters)]
    assert ids() == [second.id, idle.id]
    assert ids(order="asc") == [idle.id, second.id]
    assert ids(include_archived=True) == [second.id, archived.id, idle.id]
    assert ids(agent_version=2) == [second.id]
    assert ids(statuses=["idle"]) == [second.id, idle.id] and ids(statuses=["running", "rescheduling"]) == []
    assert ids(statuses=["terminated"], include_archived=True) == [archived.id]
    assert ids(statuses=["idle", "terminated"], include_archived=True, order="asc") == \
        [idle.id, archived.id, second.id]
    at = second.created_at
    assert ids(created_at_gte=at) == [second.id] and ids(created_at_gt=at) == []
    assert second.id not in ids(created_at_lt=at) and ids(created_at_lte=at) == [second.id, idle.id]
    assert ids(deployment_id="depl_1") == [] and ids(memory_store_id="memstore_1") == []
    for wrong in ({"statuses": ["asleep"]}, {"order": "up"}, {"limit": 0}, {"limit": 101},
                  {"agent_version": 0}, {"created_at_gt": "yesterday"}, {"page": "no page"}):
        with pytest.raises(anthropic.BadRequestError):
            impatient.beta.sessions.list(agent_id=agent.id, **wrong)


def test_pages_lead_both_ways(client, impatient, make, agent):
    made = [make().id for _ in range(5)]
    for order, wanted in (("asc", made), ("desc", made[::-1])):
        get = lambda **more: client.beta.sessions.list(agent_id=agent.id, limit=2, order=order, **more)
        first = get()
        assert first.prev_page is None
        second = get(page=first.next_page)
        third = get(page=second.next_page)
        assert third.next_page is None
        pages = [[it.id for it in page.data] for page in (first, second, third)]
        assert pages == [wanted[:2], wanted[2:4], wanted[4:]]
        back = get(page=third.prev_page)
        assert [it.id for it in back.data] == pages[1]
        assert [it.id for it in get(page=back.prev_page).data] == pages[0]
        assert get(page=back.prev_page).prev_page is None
        assert [it.id for it in get(page=back.next_page).data] == pages[2]
        other = "asc" if order == "desc" else "desc"
        with pytest.raises(anthropic.BadRequestError):
            impatient.beta.sessions.list(order=other, page=first.next_page)
    assert [it.id for it in client.beta.sessions.list(agent_id=agent.id, limit=2)] == made[::-1]


@new_only
def test_the_primary_thread_is_the_session(client, impatient, provider, make):
    session = make()
    threads = client.beta.sessions.threads
    [thread] = threads.list(session.id)
    shown = plain(thread)
    assert set(shown) == {"id", "agent", "archived_at", "created_at", "parent_thread_id", "session_id",
                          "stats", "status", "type", "updated_at", "usage", "workflow_run_id"}
    assert thread.id.startswith("sthr_") and thread.type == "session_thread"
    assert (thread.session_id, thread.status, thread.parent_thread_id) == (session.id, "idle", None)
    assert (thread.stats, thread.usage) == (None, None), "nothing has begun"
    assert "multiagent" not in shown["agent"] and shown["agent"]["id"] == session.agent.id
    assert plain(threads.retrieve(thread.id, session_id=session.id)) == shown
    run(client, session, message("hello"))
    thread = threads.retrieve(thread.id, session_id=session.id)
    assert (thread.usage.input_tokens, thread.stats.startup_seconds) == (100, 0)
    of_thread = list(threads.events.list(thread.id, session_id=session.id, limit=3))
    assert of_thread == events(client, session)
    assert [it.id for it in threads.list(session.id, statuses=["idle"])] == [thread.id]
    assert list(threads.list(session.id, statuses=["running"])) == []
    with pytest.raises(anthropic.BadRequestError):
        impatient.beta.sessions.threads.archive(thread.id, session_id=session.id)
    other = make()
    for attempt in (threads.retrieve, threads.archive, threads.events.list):
        with pytest.raises(anthropic.NotFoundError):
            attempt(thread.id, session_id=other.id)
    client.beta.sessions.archive(session.id)
    archived = threads.archive(thread.id, session_id=session.id)
    assert archived.status == "terminated" and archived.archived_at
