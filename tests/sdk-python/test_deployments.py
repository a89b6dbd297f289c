"""Deployments and their runs as the SDK makes and drives them."""

import datetime

import anthropic
import pytest
from conftest import message, until
from provider import text


@pytest.fixture
def make(client, agent, environment):
    def make(**more):
        return client.beta.deployments.create(**{
            "name": "nightly", "agent": agent.id, "environment_id": environment.id,
            "initial_events": [message("Report.")], **more})
    return make


def cron(expression, timezone="UTC"):
    return {"type": "cron", "expression": expression, "timezone": timezone}


def rests(client, session_id):
    until("the session rests", lambda: client.beta.sessions.retrieve(session_id).status == "idle")


def test_a_deployment_is_answered_to_the_field(client, make, agent, environment):
    made = make(schedule=cron("0 9 * * 1-5", "Europe/Berlin"), description="d", metadata={"a": "b"},
                budget={"type": "limit", "max_list_cost": {"amount": "250", "currency": "USD"}})
    assert made.id.startswith("depl_") and made.type == "deployment"
    assert (made.name, made.description, made.metadata) == ("nightly", "d", {"a": "b"})
    assert made.agent.to_dict() == {"type": "agent", "id": agent.id, "version": 1}
    assert made.environment_id == environment.id
    assert [it.to_dict() for it in made.initial_events] == [message("Report.")]
    assert (made.status, made.paused_reason, made.archived_at) == ("active", None, None)
    assert (made.resources, made.vault_ids) == ([], [])
    assert made.budget.max_list_cost.amount == "250"
    assert (made.schedule.type, made.schedule.expression) == ("cron", "0 9 * * 1-5")
    assert (made.schedule.timezone, made.schedule.last_run_at) == ("Europe/Berlin", None)
    upcoming = made.schedule.upcoming_runs_at
    assert len(upcoming) == 5 and upcoming == sorted(upcoming)
    assert all(it > datetime.datetime.now(datetime.timezone.utc) for it in upcoming)
    assert client.beta.deployments.retrieve(made.id) == made
    by_hand = make()
    assert by_hand.schedule is None and by_hand.budget is None
    for field in type(by_hand).model_fields:
        assert field == "budget" or field in by_hand.model_fields_set, field


@pytest.mark.parametrize("schedule, said", [
    (cron("61 * * * *"), "minute `61`"),
    (cron("0 9 * *"), "has 4 fields"),
    (cron("@daily"), "five fields"),
    (cron("0 0 L * *"), "not supported"),
    (cron("0 0 30 2 *"), "never comes"),
    (cron("0 9 * * *", "Europe/Atlantis"), "no time zone"),
    ({"type": "cron", "expression": "0 9 * * *"}, "schedule.timezone"),
    ({"type": "rrule", "expression": "0 9 * * *", "timezone": "UTC"}, "schedule.type"),
])
def test_a_wrong_schedule_is_refused_with_the_reason(make, schedule, said):
    with pytest.raises(anthropic.BadRequestError) as error:
        make(schedule=schedule)
    assert said in error.value.message


def test_wrong_fields_are_refused(make, client):
    for more in [{"initial_events": []}, {"name": ""}, {"name": "x" * 257}, {"resources": [{"type": "file"}]},
                 {"initial_events": [{"type": "user.interrupt"}]}, {"agent": 1}, {"extra_body": {"x": 1}},
                 {"resources": [{"type": "github_repository", "url": "https://github.com/a/b"}]},
                 {"metadata": {str(n): "" for n in range(17)}}]:
        with pytest.raises(anthropic.BadRequestError):
            make(**more)
    for more in [{"agent": "agent_00000000000000000000000000"}, {"environment_id": "env_0"},
                 {"resources": [{"type": "file", "file_id": "file_0"}]}]:
        with pytest.raises(anthropic.NotFoundError):
            make(**more)
    with pytest.raises(anthropic.NotFoundError):
        client.beta.deployments.retrieve("depl_0")


def test_a_run_by_hand_starts_a_session_that_works_at_once(client, provider, make):
    deployment = make()
    provider.say(text("Reported."))
    run = client.beta.deployments.run(deployment.id)
    assert run.id.startswith("drun_") and run.type == "deployment_run"
    assert (run.deployment_id, run.error, run.trigger_context.type) == (deployment.id, None, "manual")
    assert run.agent == deployment.agent
    rests(client, run.session_id)
    session = client.beta.sessions.retrieve(run.session_id)
    assert session.deployment_id == deployment.id
    events = list(client.beta.sessions.events.list(session.id))
    said = [it.content[0].text for it in events if it.type in ("user.message", "agent.message")]
    assert said == ["Report.", "Reported."]
    assert [it.id for it in client.beta.sessions.list(deployment_id=deployment.id)] == [session.id]
    assert client.beta.deployment_runs.retrieve(run.id) == run
    assert client.beta.deployments.retrieve(deployment.id).schedule is None


def test_a_budget_and_a_file_go_with_every_session(client, make):
    file = client.files.upload(file=("a.txt", b"a", "text/plain"))
    path = "/workspace/a.txt"
    deployment = make(budget={"type": "limit", "max_list_cost": {"amount": "7", "currency": "USD"}},
                      resources=[{"type": "file", "file_id": file.id, "mount_path": path}])
    assert deployment.resources[0].to_dict() == {"type": "file", "file_id": file.id, "mount_path": path}
    session = client.beta.sessions.retrieve(client.beta.deployments.run(deployment.id).session_id)
    assert session.budget.max_list_cost.amount == "7"
    assert [it.mount_path for it in session.resources] == [path]
    rests(client, session.id)
    client.files.delete(file.id)
    failed = client.beta.deployments.run(deployment.id)
    assert (failed.session_id, failed.error.type) == (None, "file_not_found_error")
    assert client.beta.deployments.retrieve(deployment.id).status == "active", "runs by hand do not pause"


def test_pause_and_unpause(client, make):
    deployment = make(schedule=cron("0 0 1 1 *"))
    for _ in range(2):
        paused = client.beta.deployments.pause(deployment.id)
        assert (paused.status, paused.paused_reason.type) == ("paused", "manual")
    assert len(paused.schedule.upcoming_runs_at) == 5
    assert client.beta.deployments.run(deployment.id).session_id, "it may be run by hand all the same"
    assert deployment.id in [it.id for it in client.beta.deployments.list(status="paused")]
    assert deployment.id not in [it.id for it in client.beta.deployments.list(status="active")]
    for _ in range(2):
        active = client.beta.deployments.unpause(deployment.id)
        assert (active.status, active.paused_reason) == ("active", None)


def test_an_update_changes_what_it_names(client, make, agent):
    before = make(description="d", metadata={"a": "1", "b": "2"}, schedule=cron("0 9 * * *"))
    client.beta.agents.update(agent.id, system="Be brief.")
    after = client.beta.deployments.update(before.id, name="weekly", metadata={"a": None, "c": "3"})
    assert (after.name, after.description, after.metadata) == ("weekly", "d", {"b": "2", "c": "3"})
    assert (after.agent.version, after.schedule, after.initial_events) == (
        1, before.schedule, before.initial_events)
    assert after.updated_at > before.updated_at
    again = client.beta.deployments.update(before.id, agent=agent.id, description="", schedule=None,
                                           initial_events=[message("Other.")])
    assert (again.agent.version, again.description, again.schedule) == (2, None, None)
    assert again.initial_events[0].content[0].text == "Other."
    pinned = client.beta.deployments.update(before.id, agent={"type": "agent", "id": agent.id, "version": 1})
    assert pinned.agent.version == 1
    for wrong in [{"name": ""}, {"name": None}, {"initial_events": []}, {"agent": None},
                  {"schedule": cron("x")}]:
        with pytest.raises(anthropic.BadRequestError):
            client.beta.deployments.update(before.id, **wrong)


def test_an_archived_one_starts_nothing(client, impatient, make):
    deployment = make(schedule=cron("* * * * *"))
    for _ in range(2):
        archived = client.beta.deployments.archive(deployment.id)
        assert archived.archived_at and archived.status == "active"
        assert archived.schedule.upcoming_runs_at == []
    for call in (impatient.beta.deployments.run, impatient.beta.deployments.pause,
                 impatient.beta.deployments.unpause, impatient.beta.deployments.update):
        with pytest.raises(anthropic.ConflictError) as error:
            call(deployment.id)
        assert error.value.response.headers["x-should-retry"] == "false"
    assert deployment.id not in [it.id for it in client.beta.deployments.list()]
    assert deployment.id in [it.id for it in client.beta.deployments.list(include_archived=True)]
    with pytest.raises(anthropic.BadRequestError):
        client.beta.deployments.list(include_archived=True, status="paused")


def test_the_deployments_of_an_archived_agent_are_archived(client, make, agent, environment):
    deployment = make(schedule=cron("* * * * *"))
    client.beta.agents.archive(agent.id)
    assert client.beta.deployments.retrieve(deployment.id).archived_at
    with pytest.raises(anthropic.BadRequestError):
        make()


def test_lists_have_pages_and_filters(client, make, agent):
    made = [make() for _ in range(5)]
    ids = [it.id for it in reversed(made)]
    assert [it.id for it in client.beta.deployments.list(agent_id=agent.id, limit=2)] == ids
    page = client.beta.deployments.list(agent_id=agent.id, limit=2)
    assert len(page.data) == 2 and page.next_page
    early = made[0].created_at - datetime.timedelta(seconds=1)
    assert not list(client.beta.deployments.list(agent_id=agent.id, created_at_lte=early))
    assert len(list(client.beta.deployments.list(agent_id=agent.id, created_at_gte=early))) == 5
    runs = [client.beta.deployments.run(made[0].id) for _ in range(3)]
    listed = lambda **more: [it.id for it in client.beta.deployment_runs.list(deployment_id=made[0].id, **more)]
    ids = [it.id for it in reversed(runs)]
    assert listed() == listed(limit=1) == listed(has_error=False) == listed(trigger_type="manual") == ids
    assert listed(has_error=True) == listed(trigger_type="schedule") == []
    assert listed(created_at_gt=runs[-1].created_at) == listed(created_at_lt=early) == []
    assert listed(created_at_gte=early, created_at_lte=runs[-1].created_at) == ids
    assert list(client.beta.deployment_runs.list(deployment_id="depl_0")) == []
    assert list(client.beta.deployment_runs.list(deployment_id="nonsense")) == []
    with pytest.raises(anthropic.BadRequestError):
        client.beta.deployment_runs.list(page="x")


def test_a_schedule_starts_sessions(client, provider, make):
    deployment = make(schedule=cron("* * * * *"))
    due = deployment.schedule.upcoming_runs_at[0]
    # Its minute may take its time.
    for _ in range(2):
        try:
            run = until("its minute comes", lambda: next(iter(
                client.beta.deployment_runs.list(deployment_id=deployment.id, trigger_type="schedule")), None))
            break
        except AssertionError:
            pass
    client.beta.deployments.pause(deployment.id)
    assert run.trigger_context.type == "schedule" and run.trigger_context.scheduled_at == due
    rests(client, run.session_id)
    after = client.beta.deployments.retrieve(deployment.id)
    assert after.schedule.last_run_at and after.schedule.last_run_at >= due


def test_vaults_go_with_a_deployment(client, make):
    vault = client.beta.vaults.create(display_name="of a deployment")
    made = make(vault_ids=[vault.id])
    assert made.vault_ids == [vault.id]
    run = client.beta.deployments.run(made.id)
    assert client.beta.sessions.retrieve(run.session_id).vault_ids == [vault.id]
    client.beta.vaults.archive(vault.id)
    run = client.beta.deployments.run(made.id)
    assert (run.session_id, run.error.type) == (None, "vault_archived_error")
