"""Outcomes as the SDK defines, follows and looks them up: a grader over HTTP says whether the work is done."""

import json
import threading

import pytest

from conftest import message, new_only, run, until
from provider import text
from test_events import refusal, told

RUBRIC = {"type": "text", "content": "- the second line rhymes"}
ENDS = ("session.status_idle", "session.status_terminated")


def outcome(**more):
    return {"type": "user.define_outcome", "description": "Write a poem.", "rubric": RUBRIC, **more}


def says(verdict, explanation):
    return text(json.dumps({"verdict": verdict, "explanation": explanation}))


@pytest.fixture
def session(client, agent, environment):
    return client.beta.sessions.create(agent=agent.id, environment_id=environment.id)


def evaluations(client, session):
    return client.beta.sessions.retrieve(session.id).outcome_evaluations


def test_an_outcome_is_revised_until_it_is_reached(client, provider, session):
    provider.say(text("roses are red"), says("needs_revision", "the second line is missing"),
                 text("roses are red, and so is my bed"), says("satisfied", "it rhymes"))
    seen = run(client, session, outcome(max_iterations=5))
    assert [event.type for event in seen] == [
        "session.status_running", "user.define_outcome",
        "span.model_request_start", "agent.message", "span.model_request_end",
        "span.outcome_evaluation_start", "span.model_request_start", "span.model_request_end",
        "span.outcome_evaluation_end",
        "span.model_request_start", "agent.message", "span.model_request_end",
        "span.outcome_evaluation_start", "span.model_request_start", "span.model_request_end",
        "span.outcome_evaluation_end", "session.status_idle"]
    defined, ends = seen[1], [event for event in seen if event.type == "span.outcome_evaluation_end"]
    starts = [event for event in seen if event.type == "span.outcome_evaluation_start"]
    assert defined.outcome_id.startswith("outc_") and defined.processed_at
    assert (defined.description, defined.max_iterations) == ("Write a poem.", 5)
    assert defined.rubric.to_dict() == RUBRIC
    assert [(end.result, end.explanation, end.iteration) for end in ends] == [
        ("needs_revision", "the second line is missing", 0), ("satisfied", "it rhymes", 1)]
    assert [end.outcome_evaluation_start_id for end in ends] == [start.id for start in starts]
    assert {event.outcome_id for event in starts + ends} == {defined.outcome_id}
    assert (ends[0].usage.input_tokens, ends[0].usage.output_tokens) == (100, 20)
    assert seen[-1].stop_reason.type == "end_turn"
    [shown] = evaluations(client, session)
    assert shown.completed_at
    assert shown.to_dict(mode="json") == {
        "type": "outcome_evaluation", "outcome_id": defined.outcome_id, "description": "Write a poem.",
        "result": "satisfied", "iteration": 1, "explanation": "it rhymes",
        "completed_at": shown.to_dict(mode="json")["completed_at"]}
    # The grader saw the task, the rubric and the work, and has no tools; the agent never saw the rubric.
    grader = json.dumps(provider.requests[1])
    assert "Write a poem." in grader and "the second line rhymes" in grader and "roses are red" in grader
    assert not provider.requests[1].get("tools")
    assert "the second line rhymes" not in json.dumps(provider.requests[2])
    assert "the second line is missing" in json.dumps(provider.requests[2])
    # It is a list like any other, and the session goes on as a conversation.
    listed = list(client.beta.sessions.events.list(session.id, types=["user.define_outcome"]))
    assert [event.id for event in listed] == [defined.id]
    provider.say(text("You are welcome."))
    assert run(client, session, message("Thank you."))[-1].stop_reason.type == "end_turn"


def test_the_answer_to_a_definition_is_processed_on_receipt(client, provider, session):
    said = client.beta.sessions.events.send(session.id, events=[outcome()]).data[0]
    assert said.type == "user.define_outcome" and said.processed_at and said.max_iterations is None
    until("it has ended", lambda: evaluations(client, session)[0].completed_at)
    assert evaluations(client, session)[0].outcome_id == said.outcome_id


def test_iterations_end_with_the_agents_last_word(client, provider, session):
    provider.say(text("roses"), says("needs_revision", "no rhyme"), text("roses, noes"),
                 says("needs_revision", "no rhyme"), text("I cannot rhyme."))
    seen = run(client, session, outcome(max_iterations=2))
    results = [event.result for event in seen if event.type == "span.outcome_evaluation_end"]
    assert results == ["needs_revision", "max_iterations_reached"]
    said = [event.content[0].text for event in seen if event.type == "agent.message"]
    assert said[-1] == "I cannot rhyme."
    assert evaluations(client, session)[0].result == "max_iterations_reached"
    # Another one is as good as the first.
    provider.say(text("violets"), says("failed", "that is no poem"))
    run(client, session, outcome())
    assert [it.result for it in evaluations(client, session)] == ["max_iterations_reached", "failed"]
    assert evaluations(client, session)[1].explanation == "that is no poem"


def test_what_is_no_verdict_is_no_success(client, provider, session):
    provider.say(text("roses"), text("This is a very good poem, I am satisfied."))
    seen = run(client, session, outcome())
    assert [event.result for event in seen if event.type == "span.outcome_evaluation_end"] == ["failed"]


def test_an_interrupt_ends_the_evaluation(client, provider, session):
    go_on = threading.Event()

    def slow(_):
        go_on.wait(60)
        return says("satisfied", "too late")

    provider.say(text("roses"), slow)
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[outcome()])
        seen = []
        for event in stream:
            seen.append(event)
            if event.type == "span.outcome_evaluation_start":
                until("it is evaluated", lambda: evaluations(client, session)[0].result == "evaluating")
                client.beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
            if event.type in ENDS:
                break
    go_on.set()
    end = next(event for event in seen if event.type == "span.outcome_evaluation_end")
    start = next(event for event in seen if event.type == "span.outcome_evaluation_start")
    assert (end.result, end.outcome_evaluation_start_id) == ("interrupted", start.id)
    assert seen[-1].stop_reason.type == "end_turn"
    assert evaluations(client, session)[0].result == "interrupted"


def test_a_file_is_a_rubric(client, provider, session):
    file = client.files.upload(file=("rubric.md", b"- it has four lines", "text/markdown"))
    rubric = {"type": "file", "file_id": file.id}

    def judge(body):
        assert "it has four lines" in json.dumps(body)
        return says("satisfied", "four")

    # What was read stays, whatever becomes of the file.
    def write(_):
        client.files.delete(file.id)
        return text("a\nb\nc\nd")

    provider.say(write, judge)
    seen = run(client, session, outcome(rubric=rubric))
    assert seen[1].rubric.to_dict() == rubric
    assert evaluations(client, session)[0].result == "satisfied"
    assert told(refusal(lambda: client.beta.sessions.events.send(
        session.id, events=[outcome(rubric=rubric)]))).startswith("events[0].rubric.file_id")


@pytest.mark.parametrize("data, why", [
    (b"\xff\xfe\x00", "no UTF-8"), (b" \n", "without any text"), (b"x" * 262145, "more than 262144"),
    (b"x" * 2_000_000, "more than 262144")])
def test_files_that_are_no_rubric(client, session, data, why):
    file = client.files.upload(file=("rubric.md", data, "text/plain"))
    event = outcome(rubric={"type": "file", "file_id": file.id})
    said = told(refusal(lambda: client.beta.sessions.events.send(session.id, events=[event])))
    assert said.startswith("events[0].rubric.file_id") and why in said
    assert evaluations(client, session) == []


def test_there_is_one_at_a_time(client, provider, session):
    go_on = threading.Event()

    def slow(_):
        go_on.wait(60)
        return text("roses")

    provider.say(slow, says("satisfied", "fine"))
    client.beta.sessions.events.send(session.id, events=[outcome()])
    said = told(refusal(lambda: client.beta.sessions.events.send(session.id, events=[outcome()])))
    assert said.startswith("events[0].type") and "one at a time" in said
    go_on.set()
    until("it has ended", lambda: evaluations(client, session)[0].completed_at)
    assert [it.result for it in evaluations(client, session)] == ["satisfied"]


def test_a_session_can_begin_with_one(client, provider, agent, environment):
    def make(*events):
        return client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, initial_events=list(events))

    provider.say(text("roses"), says("satisfied", "fine"))
    session = make(message("You are a poet."), outcome())
    assert session.status == "running"
    until("it has ended", lambda: evaluations(client, session)[0].completed_at)
    assert evaluations(client, session)[0].result == "satisfied"
    assert told(refusal(lambda: make(outcome(), outcome()))).startswith("initial_events")
    missing = {"type": "file", "file_id": "file_01a01a01a01a01a01a01a01a01"}
    assert told(refusal(lambda: make(message("a"), outcome(rubric=missing)))).startswith(
        "initial_events[1].rubric.file_id")


@new_only
def test_a_deployment_can_begin_with_one(client, provider, agent, environment):
    file = client.files.upload(file=("rubric.md", b"- it has four lines", "text/markdown"))

    def make(*events):
        return client.beta.deployments.create(
            name="poems", agent=agent.id, environment_id=environment.id, initial_events=list(events))

    deployment = make(outcome(rubric={"type": "file", "file_id": file.id}))
    [kept] = deployment.initial_events
    assert kept.type == "user.define_outcome" and kept.rubric.file_id == file.id
    assert "outcome_id" not in kept.to_dict()
    outcomes = set()
    for _ in range(2):
        provider.say(text("a"), says("satisfied", "fine"))
        run_of = client.beta.deployments.run(deployment.id)
        started = client.beta.sessions.retrieve(run_of.session_id)
        until("it has ended", lambda: evaluations(client, started)[0].completed_at)
        outcomes.add(evaluations(client, started)[0].outcome_id)
        assert evaluations(client, started)[0].result == "satisfied"
    assert len(outcomes) == 2
    client.files.delete(file.id)
    assert client.beta.deployments.run(deployment.id).error.type == "file_not_found_error"
    assert told(refusal(lambda: make(outcome(), outcome()))).startswith("initial_events")
    assert told(refusal(lambda: make(outcome(rubric={"type": "file", "file_id": file.id})))).startswith(
        "initial_events[0].rubric.file_id")
