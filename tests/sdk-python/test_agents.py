"""Agents, their versions and the rules of their updates, as the SDK sees them."""

from datetime import timedelta

import anthropic
import pytest

from conftest import new_only

ALLOW, ASK = {"type": "always_allow"}, {"type": "always_ask"}
TOOLSET = {"type": "agent_toolset_20260401"}
SERVER = {"type": "url", "name": "tickets", "url": "https://tickets.example/mcp"}
MCP = {"type": "mcp_toolset", "mcp_server_name": "tickets"}


def make(client, **more):
    return client.beta.agents.create(**{"name": "concierge", "model": "claude-sonnet-5-5", **more})


def plain(thing):
    return thing.to_dict(mode="json")


def test_an_agent_is_answered_to_the_field(client):
    agent = make(client, description="answers", system="Be kind.", metadata={"team": "desk"},
                 tools=[TOOLSET])
    shown = plain(agent)
    published = {"id", "archived_at", "created_at", "description", "execution_identity", "mcp_servers",
                 "metadata", "model", "multiagent", "name", "skills", "system", "tools", "type",
                 "updated_at", "version"}
    assert published <= set(shown)
    assert agent.id.startswith("agent_") and agent.type == "agent" and agent.version == 1
    assert shown["model"] == {"id": "claude-sonnet-5-5", "speed": "standard", "effort": {"type": "high"}}
    assert shown["execution_identity"] == {"type": "service_account"}
    assert (agent.archived_at, agent.multiagent, agent.skills, agent.mcp_servers) == (None, None, [], [])
    assert shown["tools"] == [{"type": "agent_toolset_20260401", "configs": [],
                               "default_config": {"enabled": True, "permission_policy": ALLOW}}]
    assert (agent.description, agent.system, agent.metadata) == ("answers", "Be kind.", {"team": "desk"})
    assert plain(client.beta.agents.retrieve(agent.id)) == shown


def test_a_model_is_a_text_or_an_object(client):
    agent = make(client, model={"id": "claude-sonnet-5-5", "effort": "low", "speed": "fast",
                                "inference_geo": "eu"})
    assert plain(agent.model) == {"id": "claude-sonnet-5-5", "speed": "fast", "effort": {"type": "low"},
                                  "inference_geo": "eu"}
    update = lambda model: plain(client.beta.agents.update(agent.id, model=model).model)
    # Left out, an effort stays with the same model; everything else is replaced.
    assert update({"id": "claude-sonnet-5-5"}) == {
        "id": "claude-sonnet-5-5", "speed": "standard", "effort": {"type": "low"}}
    assert update("claude-sonnet-5-5")["effort"] == {"type": "low"}
    assert update({"id": "claude-opus-5-5"})["effort"] == {"type": "high"}
    assert update({"id": "claude-opus-5-5", "effort": {"type": "max"}})["effort"] == {"type": "max"}


def test_tools_are_resolved(client):
    tools = [
        {**TOOLSET, "default_config": {"permission_policy": ASK}, "configs": [
            {"name": "bash", "type": "bash", "enabled": False},
            {"name": "web_fetch", "type": "web_fetch", "permission_policy": ALLOW,
             "allowed_domains": ["docs.example"], "url_sources": {"user_input": "all"}},
        ]},
        {**MCP, "configs": [{"name": "search", "permission_policy": ALLOW}]},
        {"type": "custom", "name": "ring", "description": "Rings.",
         "input_schema": {"type": "object", "properties": {"times": {"type": "integer"}}}},
    ]
    agent = make(client, tools=tools, mcp_servers=[SERVER])
    built_in, mcp, custom = plain(agent)["tools"]
    assert built_in["default_config"] == {"enabled": True, "permission_policy": ASK}
    assert built_in["configs"] == [
        {"name": "bash", "type": "bash", "enabled": False, "permission_policy": ASK},
        {"name": "web_fetch", "type": "web_fetch", "enabled": True, "permission_policy": ALLOW,
         "allowed_domains": ["docs.example"],
         "url_sources": {"user_input": {"type": "all"}, "client_tool_results": None,
                         "server_tool_results": None}},
    ]
    assert mcp == {"type": "mcp_toolset", "mcp_server_name": "tickets",
                   "default_config": {"enabled": True, "permission_policy": ASK},
                   "configs": [{"name": "search", "enabled": True, "permission_policy": ALLOW}]}
    assert custom == tools[2]
    assert plain(agent)["mcp_servers"] == [SERVER]


@new_only
def test_an_update_keeps_what_it_leaves_out(client):
    agent = make(client, description="d", system="s", tools=[TOOLSET, MCP], mcp_servers=[SERVER],
                 skills=[{"type": "anthropic", "skill_id": "xlsx"}], metadata={"a": "1", "b": "2"})
    assert plain(agent)["skills"] == [{"type": "anthropic", "skill_id": "xlsx", "version": "latest"}]
    update = lambda **fields: client.beta.agents.update(agent.id, **fields)
    named = update(name="porter")
    before, after = plain(agent), plain(named)
    assert {key for key in before if before[key] != after[key]} - {"updated_at"} == {"name", "version"}
    assert update(metadata={"a": None, "c": "3"}).metadata == {"b": "2", "c": "3"}
    cleared = update(description="", system=None, tools=None, mcp_servers=[], skills=[])
    assert (cleared.description, cleared.system) == (None, None)
    assert (cleared.tools, cleared.mcp_servers, cleared.skills) == ([], [], [])
    assert update(multiagent=None, execution_identity=None).version == cleared.version


def test_versions_are_numbered_kept_and_fought_over(client, impatient):
    agent = make(client, system="one")
    update = lambda **fields: client.beta.agents.update(agent.id, **fields)
    assert update(name="concierge").version == 1, "a change of nothing makes no version"
    assert update(system="two", version=1).version == 2
    with pytest.raises(anthropic.ConflictError) as stale:
        client.beta.agents.update(agent.id, name="concierge", version=1)
    assert stale.value.response.headers["x-should-retry"] == "false"
    assert stale.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert update(system="three").version == 3, "without a version the last write wins"

    retrieve = client.beta.agents.retrieve
    assert [retrieve(agent.id, version=n).system for n in (1, 2, 3)] == ["one", "two", "three"]
    assert retrieve(agent.id).version == 3
    with pytest.raises(anthropic.NotFoundError):
        retrieve(agent.id, version=4)
    with pytest.raises(anthropic.BadRequestError):
        impatient.beta.agents.retrieve(agent.id, version=0)
    page = client.beta.agents.versions.list(agent.id, limit=2)
    assert [it.version for it in page.data] == [3, 2] and page.next_page
    assert [it.version for it in page] == [3, 2, 1], "the pages of an iteration"


def test_an_archived_agent_is_read_only(client, impatient, environment):
    agent = make(client)
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    archived = client.beta.agents.archive(agent.id)
    assert archived.archived_at and archived.version == 1
    assert client.beta.agents.archive(agent.id).archived_at == archived.archived_at
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.agents.update(agent.id, name="porter")
    with pytest.raises(anthropic.BadRequestError):
        impatient.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    assert client.beta.sessions.retrieve(session.id).status == "idle", "its sessions go on"
    listed = lambda **filters: agent.id in [it.id for it in client.beta.agents.list(**filters)]
    assert not listed(limit=100) and listed(limit=100, include_archived=True)


def test_a_list_is_paged_and_filtered(client):
    made = [make(client, name=f"listed {n}") for n in range(3)]
    found = [it.id for it in client.beta.agents.list(limit=2) if it.name.startswith("listed")]
    assert found == [it.id for it in reversed(made)], "newest first"
    middle = made[1].created_at
    ids = lambda **range: {it.id for it in client.beta.agents.list(limit=100, **range)}
    assert made[1].id in ids(created_at_gte=middle, created_at_lte=middle)
    assert made[0].id not in ids(created_at_gte=made[2].created_at + timedelta(milliseconds=1))


SCHEMA = {"type": "object"}


@pytest.mark.parametrize("field, wrong", [
    ("name", {"name": ""}),
    ("name", {"name": "n" * 257}),
    ("description", {"description": "d" * 2049}),
    ("system", {"system": "s" * 100_001}),
    ("metadata", {"metadata": {str(n): "v" for n in range(17)}}),
    ("metadata", {"metadata": {"k" * 65: "v"}}),
    ("metadata", {"metadata": {"k": "v" * 513}}),
    ("model", {"model": {"id": "m", "effort": "huge"}}),
    ("model", {"model": {"id": "m", "speed": "slow"}}),
    ("multiagent", {"multiagent": {"type": "coordinator", "agents": [{"type": "self"}]}}),
    pytest.param(
        "execution_identity",
        {"execution_identity": {"type": "aws_role", "role_arn": "arn:aws:iam::1:role/r"}}, marks=new_only),
    ("mcp_servers", {"mcp_servers": [SERVER]}),
    ("mcp_servers", {"mcp_servers": [SERVER, SERVER], "tools": [MCP]}),
    ("tools", {"tools": [MCP]}),
    ("tools", {"tools": [{**TOOLSET, "configs": [{"name": "rm"}]}]}),
    ("tools", {"tools": [{**TOOLSET, "configs": [{"name": "bash", "type": "read"}]}]}),
    ("tools", {"tools": [{**TOOLSET, "configs": [
        {"name": "web_fetch", "allowed_domains": ["a.example"], "blocked_domains": ["b.example"]}]}]}),
    ("tools", {"tools": [{"type": "custom", "name": "a b", "description": "d", "input_schema": SCHEMA}]}),
    ("tools", {"tools": [{"type": "custom", "name": f"t{n}", "description": "d", "input_schema": SCHEMA}
                         for n in range(257)]}),
    ("skills", {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}),
    ("skills", {"skills": [{"type": "own"}], "tools": [TOOLSET]}),
])
def test_what_cannot_be_is_named(impatient, field, wrong):
    with pytest.raises(anthropic.BadRequestError) as refused:
        make(impatient, **wrong)
    error = refused.value.body["error"]
    assert error["type"] == "invalid_request_error" and error["message"].startswith(field), error
