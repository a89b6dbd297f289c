"""Vaults and credentials, as the SDK makes, changes and puts them away; and what sessions get of them."""

import glob
import json
import os

import anthropic
import pytest

from conftest import message, run
from provider import text, tool

URL = "https://mcp.example.com/mcp"


@pytest.fixture
def vault(client):
    return client.beta.vaults.create(display_name="Ada's", metadata={"user": "ada", "tier": "1"})


def bearer(url=URL, token="tkn-very-secret"):
    return {"type": "static_bearer", "mcp_server_url": url, "token": token}


def variable(name="API_TOKEN", value="var-very-secret", **more):
    return {"type": "environment_variable", "secret_name": name, "secret_value": value,
            "networking": {"type": "unrestricted"}, **more}


def oauth(url=URL, **more):
    return {"type": "mcp_oauth", "mcp_server_url": url, "access_token": "acc-very-secret",
            "expires_at": "2099-01-01T00:00:00Z",
            "refresh": {"client_id": "client-1", "refresh_token": "ref-very-secret",
                        "token_endpoint": "https://auth.example.com/token", "scope": "read",
                        "token_endpoint_auth": {"type": "client_secret_basic",
                                                "client_secret": "cli-very-secret"}}, **more}


def raw(answer):
    return json.loads(answer.to_json())


def test_a_vault_is_made_changed_and_listed(client, impatient, vault):
    assert vault.id.startswith("vlt_") and vault.type == "vault" and vault.archived_at is None
    assert set(raw(vault)) == {"id", "type", "display_name", "metadata", "created_at", "updated_at",
                               "archived_at"}
    changed = client.beta.vaults.update(vault.id, display_name="Ada", metadata={"tier": None, "b": "2"})
    assert (changed.display_name, changed.metadata) == ("Ada", {"user": "ada", "b": "2"})
    assert changed.updated_at >= vault.updated_at
    same = client.beta.vaults.update(vault.id)
    assert same == changed == client.beta.vaults.retrieve(vault.id)
    others = [client.beta.vaults.create(display_name=f"n{n}").id for n in range(3)]
    seen = [it.id for it in client.beta.vaults.list(limit=2)]
    assert set(others + [vault.id]) <= set(seen) and len(seen) == len(set(seen))
    archived = client.beta.vaults.archive(vault.id)
    assert archived.archived_at and archived == client.beta.vaults.archive(vault.id)
    assert vault.id not in [it.id for it in client.beta.vaults.list(limit=100)]
    assert vault.id in [it.id for it in client.beta.vaults.list(limit=100, include_archived=True)]
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.vaults.update(vault.id, display_name="x")
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.vaults.credentials.create(vault.id, auth=bearer())
    gone = client.beta.vaults.delete(vault.id)
    assert (gone.id, gone.type) == (vault.id, "vault_deleted")
    for ask in (client.beta.vaults.retrieve, client.beta.vaults.delete, client.beta.vaults.archive):
        with pytest.raises(anthropic.NotFoundError):
            ask(vault.id)


@pytest.mark.parametrize("given", [
    {"display_name": ""}, {"display_name": "n" * 256}, {"display_name": "n", "metadata": {"k" * 65: ""}},
    {"display_name": "n", "extra_body": {"x": 1}}])
def test_a_vault_that_cannot_be_is_refused(client, given):
    with pytest.raises(anthropic.BadRequestError) as error:
        client.beta.vaults.create(**given)
    assert error.value.body["error"]["type"] == "invalid_request_error"


def test_each_kind_is_answered_without_its_values(client, server, vault):
    make = client.beta.vaults.credentials.create
    made = [make(vault.id, auth=bearer(), display_name="one", metadata={"a": "b"}),
            make(vault.id, auth=oauth("https://other.example.com/")), make(vault.id, auth=variable())]
    assert raw(made[0]) == {
        "id": made[0].id, "type": "vault_credential", "vault_id": vault.id, "display_name": "one",
        "metadata": {"a": "b"}, "auth": {"type": "static_bearer", "mcp_server_url": URL},
        "created_at": raw(made[0])["created_at"], "updated_at": raw(made[0])["updated_at"],
        "archived_at": None}
    assert made[0].id.startswith("vcrd_")
    assert raw(made[1])["auth"] == {
        "type": "mcp_oauth", "mcp_server_url": "https://other.example.com/",
        "expires_at": raw(made[1])["auth"]["expires_at"],
        "refresh": {"client_id": "client-1", "token_endpoint": "https://auth.example.com/token",
                    "token_endpoint_auth": {"type": "client_secret_basic"}, "resource": None,
                    "scope": "read"}}
    assert raw(made[2])["auth"] == {
        "type": "environment_variable", "secret_name": "API_TOKEN",
        "networking": {"type": "unrestricted"}, "injection_location": {"body": True, "header": True}}
    listed = list(client.beta.vaults.credentials.list(vault.id, limit=2))
    assert [it.id for it in listed] == [it.id for it in reversed(made)]
    assert client.beta.vaults.credentials.retrieve(made[1].id, vault_id=vault.id) == made[1]
    said = json.dumps([raw(it) for it in listed]) + "".join(server.log)
    audit = client.get("/v1/audit", cast_to=object)
    said += json.dumps(audit)
    assert "very-secret" not in said
    assert any(it["action"] == "credential.create" and it["target"] == made[0].id for it in audit["data"])
    stored = b"".join(open(path, "rb").read() for path in glob.glob(os.path.join(server.data, "*.db*")))
    assert stored and b"very-secret" not in stored


def test_one_of_a_key_at_a_time(client, impatient, vault):
    make = impatient.beta.vaults.credentials.create
    first = make(vault.id, auth=bearer())
    make(vault.id, auth=variable())
    for again in (bearer("HTTPS://MCP.example.com:443/mcp/"), oauth(), variable(value="other")):
        with pytest.raises(anthropic.ConflictError) as error:
            make(vault.id, auth=again)
        assert error.value.response.headers["x-should-retry"] == "false"
    make(vault.id, auth=bearer("https://mcp.example.com/other"))
    archived = impatient.beta.vaults.credentials.archive(first.id, vault_id=vault.id)
    assert archived.archived_at and archived.auth.mcp_server_url == URL
    second = make(vault.id, auth=oauth())
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.vaults.credentials.update(
            first.id, vault_id=vault.id, auth={"type": "static_bearer", "token": "x"})
    listed = [it.id for it in impatient.beta.vaults.credentials.list(vault.id)]
    assert second.id in listed and first.id not in listed
    every = impatient.beta.vaults.credentials.list(vault.id, include_archived=True)
    assert first.id in [it.id for it in every]
    gone = impatient.beta.vaults.credentials.delete(second.id, vault_id=vault.id)
    assert (gone.id, gone.type) == (second.id, "vault_credential_deleted")
    with pytest.raises(anthropic.NotFoundError):
        impatient.beta.vaults.credentials.retrieve(second.id, vault_id=vault.id)
    other = impatient.beta.vaults.create(display_name="other")
    with pytest.raises(anthropic.NotFoundError):
        impatient.beta.vaults.credentials.retrieve(first.id, vault_id=other.id)


def test_a_vault_holds_twenty(client, vault):
    for n in range(20):
        client.beta.vaults.credentials.create(vault.id, auth=variable(f"V{n}"))
    with pytest.raises(anthropic.BadRequestError):
        client.beta.vaults.credentials.create(vault.id, auth=variable("ONE_MORE"))


def test_an_update_changes_what_it_names(client, vault):
    credentials = client.beta.vaults.credentials
    made = credentials.create(vault.id, auth=variable(injection_location={"header": True}),
                              metadata={"a": "1"})
    assert made.auth.injection_location.body is False
    changed = credentials.update(
        made.id, vault_id=vault.id, display_name="named", metadata={"a": None, "b": "2"},
        auth={"type": "environment_variable", "injection_location": {"body": True},
              "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]}})
    assert (changed.display_name, changed.metadata) == ("named", {"b": "2"})
    assert changed.auth.injection_location.body and changed.auth.injection_location.header
    assert changed.auth.networking.allowed_hosts == ["api.example.com"]
    for wrong in ({"type": "static_bearer", "token": "x"},
                  {"type": "environment_variable", "secret_name": "OTHER"},
                  {"type": "environment_variable", "injection_location": {"body": False, "header": False}}):
        with pytest.raises(anthropic.BadRequestError):
            credentials.update(made.id, vault_id=vault.id, auth=wrong)
    made = credentials.create(vault.id, auth=oauth())
    changed = credentials.update(made.id, vault_id=vault.id, auth={
        "type": "mcp_oauth", "expires_at": "2098-01-01T00:00:00Z", "access_token": "next",
        "refresh": {"scope": None, "token_endpoint_auth": {"type": "client_secret_post"}}})
    assert changed.auth.expires_at.year == 2098 and changed.auth.refresh.scope is None
    assert changed.auth.refresh.token_endpoint_auth.type == "client_secret_post"
    with pytest.raises(anthropic.BadRequestError):
        credentials.update(made.id, vault_id=vault.id, auth={
            "type": "mcp_oauth", "expires_at": "2001-01-01T00:00:00Z"})


def test_a_session_names_vaults_that_are_there(client, vault, agent, environment):
    make = client.beta.sessions.create
    session = make(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
    assert session.vault_ids == [vault.id]
    assert client.beta.sessions.retrieve(session.id).vault_ids == [vault.id]
    with pytest.raises(anthropic.NotFoundError):
        make(agent=agent.id, environment_id=environment.id, vault_ids=["vlt_0123456789"])
    client.beta.vaults.archive(vault.id)
    for wrong in (vault.id, agent.id):
        with pytest.raises(anthropic.BadRequestError):
            make(agent=agent.id, environment_id=environment.id, vault_ids=[wrong])


def said_by_tools(seen):
    return ["".join(part.text for part in it.content) for it in seen if it.type == "agent.tool_result"]


def test_programs_get_variables_as_long_as_they_are_there(client, provider, vault, agent, environment):
    credential = client.beta.vaults.credentials.create(vault.id, auth=variable(value="the value"))
    session = client.beta.sessions.create(
        agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
    ask = lambda: tool("bash", command='printf "<%s>" "$API_TOKEN"')
    provider.say(ask(), text("ok"))
    assert "<the value>" in said_by_tools(run(client, session, message("go")))[0]
    client.beta.vaults.credentials.update(
        credential.id, vault_id=vault.id, auth={"type": "environment_variable", "secret_value": "next"})
    provider.say(ask(), text("ok"))
    assert "<next>" in said_by_tools(run(client, session, message("go")))[0]
    client.beta.vaults.credentials.archive(credential.id, vault_id=vault.id)
    provider.say(ask(), text("ok"))
    assert "<>" in said_by_tools(run(client, session, message("go")))[0]


def test_a_limited_variable_limits_where_its_session_goes(client, provider, vault, agent, environment):
    client.beta.vaults.credentials.create(vault.id, auth=variable(
        networking={"type": "limited", "allowed_hosts": ["api.example.com"]}))
    session = client.beta.sessions.create(
        agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
    provider.say(tool("bash", command="curl -sS -m 5 http://elsewhere.example.org/ 2>&1 | head -c 300"), text("ok"))
    assert "not one of the environment's allowed hosts" in said_by_tools(run(client, session, message("go")))[0]
