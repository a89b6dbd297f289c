"""Environments as the SDK makes, changes and removes them."""

import uuid

import anthropic
import pytest

NO_PACKAGES = {"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}


def make(client, **more):
    return client.beta.environments.create(**{"name": f"environment {uuid.uuid4()}", **more})


def plain(thing):
    return thing.to_dict(mode="json")


def code_of(refused):
    """The finer word of an error; older SDKs do not take it out of the body."""
    return refused.value.body["error"].get("details", {}).get("error_code")


def test_an_environment_is_answered_to_the_field(client):
    made = make(client)
    shown = plain(made)
    published = {"id", "archived_at", "config", "created_at", "description", "metadata", "name", "type",
                 "updated_at", "scope"}
    assert published <= set(shown)
    assert made.id.startswith("env_") and made.type == "environment"
    assert (made.archived_at, made.description, made.metadata) == (None, None, {})
    assert shown["config"] == {"type": "cloud", "networking": {"type": "unrestricted"},
                               "packages": NO_PACKAGES}
    assert plain(client.beta.environments.retrieve(made.id)) == shown


def test_an_update_keeps_what_it_leaves_out(client):
    networking = {"type": "limited", "allowed_hosts": ["packages.example.com"], "allow_package_managers": True}
    made = make(client, description="d", metadata={"a": "1", "b": "2", "c": "3"},
                config={"type": "cloud", "networking": networking, "packages": {"pip": ["rich"]}})
    whole = {**networking, "allow_mcp_servers": False}
    assert plain(made)["config"] == {"type": "cloud", "networking": whole,
                                     "packages": {**NO_PACKAGES, "pip": ["rich"]}}
    update = lambda **fields: client.beta.environments.update(made.id, **fields)
    assert plain(update()) == plain(made), "a change of nothing changes nothing"
    assert update(metadata={"a": None, "b": "", "d": "4"}).metadata == {"c": "3", "d": "4"}
    assert update(description="").description == ""
    assert update(description=None).description is None
    config = plain(update(config={"type": "cloud", "packages": {"npm": ["left-pad"]}}))["config"]
    assert config == {"type": "cloud", "networking": whole,
                      "packages": {**NO_PACKAGES, "pip": ["rich"], "npm": ["left-pad"]}}
    config = plain(update(config={"type": "cloud", "networking": {
        "type": "limited", "allow_mcp_servers": True}}))["config"]
    assert config["networking"] == {**whole, "allow_mcp_servers": True}
    config = plain(update(config={"type": "cloud", "networking": {"type": "unrestricted"}}))["config"]
    assert config["networking"] == {"type": "unrestricted"}
    renamed = update(name=made.name + "!")
    assert renamed.name == made.name + "!" and renamed.updated_at > made.updated_at


def test_names_are_unique_among_the_living(client):
    made, other = make(client), make(client)
    for attempt in (lambda: client.beta.environments.create(name=made.name),
                    lambda: client.beta.environments.update(other.id, name=made.name)):
        with pytest.raises(anthropic.ConflictError) as taken:
            attempt()
        assert taken.value.response.headers["x-should-retry"] == "false"
    client.beta.environments.archive(made.id)
    assert client.beta.environments.update(other.id, name=made.name).name == made.name


def test_archived_it_is_read_only(client, impatient, agent):
    made = make(client)
    session = client.beta.sessions.create(agent=agent.id, environment_id=made.id)
    archived = client.beta.environments.archive(made.id)
    assert archived.archived_at
    assert client.beta.environments.archive(made.id).archived_at == archived.archived_at
    for attempt in (
        lambda: impatient.beta.environments.update(made.id, description="late"),
        lambda: impatient.beta.sessions.create(agent=agent.id, environment_id=made.id),
    ):
        with pytest.raises(anthropic.BadRequestError) as refused:
            attempt()
        assert code_of(refused) == "environment_archived"
    assert client.beta.sessions.retrieve(session.id).environment_id == made.id
    listed = lambda **filters: made.id in [it.id for it in client.beta.environments.list(**filters)]
    assert not listed() and listed(include_archived=True)


def test_it_is_deleted_when_no_session_works_there(client, impatient, agent):
    made = make(client)
    session = client.beta.sessions.create(agent=agent.id, environment_id=made.id)
    with pytest.raises(anthropic.ConflictError):
        impatient.beta.environments.delete(made.id)
    client.beta.sessions.delete(session.id)
    deleted = client.beta.environments.delete(made.id)
    assert plain(deleted) == {"id": made.id, "type": "environment_deleted"}
    for attempt in (impatient.beta.environments.retrieve, impatient.beta.environments.delete,
                    impatient.beta.environments.archive):
        with pytest.raises(anthropic.NotFoundError):
            attempt(made.id)
    make(client, name=made.name)


@pytest.mark.parametrize("code, wrong", [
    ("invalid_metadata", {"metadata": {"k": "v" * 513}}),
    ("invalid_metadata", {"metadata": {str(n): "v" for n in range(17)}}),
    (None, {"name": ""}),
    (None, {"scope": "account"}),
    (None, {"config": {"type": "cloud", "networking": {"type": "limited"}, "packages": {"pip": ["a"]}}}),
    (None, {"config": {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["http://a"]}}}),
    (None, {"config": {"type": "cloud", "packages": {"pip": "a"}}}),
    (None, {"config": {"type": "moon"}}),
])
def test_what_cannot_be_is_refused(client, impatient, code, wrong):
    made = make(client)
    for attempt in (lambda: make(impatient, **wrong),
                    lambda: impatient.beta.environments.update(made.id, **wrong)):
        with pytest.raises(anthropic.BadRequestError) as refused:
            attempt()
        assert code_of(refused) == code, refused.value.body
    assert plain(client.beta.environments.retrieve(made.id)) == plain(made)


def test_its_kind_stays(client, impatient):
    made = make(client)
    with pytest.raises(anthropic.BadRequestError) as refused:
        impatient.beta.environments.update(made.id, config={"type": "self_hosted"})
    assert code_of(refused) == "invalid_config_type_change"
