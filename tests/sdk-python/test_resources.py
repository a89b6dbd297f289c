"""What is mounted into sessions, as the SDK does it and as the agent's tools see it."""

import os

import anthropic
import pytest
from conftest import message, run, until
from provider import text, tool


@pytest.fixture
def file(client):
    return client.files.upload(file=("data.csv", b"a,b\n1,2\n", "text/csv"))


@pytest.fixture
def make(client, agent, environment):
    def make(*resources, **more):
        return client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, resources=list(resources), **more)
    return make


def mounted(file, path=None):
    return {"type": "file", "file_id": file.id, **({"mount_path": path} if path else {})}


def results(seen):
    return [it.content[0].text for it in seen if it.type == "agent.tool_result"]


def test_a_mounted_file_is_read_by_the_tools(client, provider, make, file, server):
    session = make(mounted(file), mounted(file, "/workspace/in/data.csv"))
    default = f"/mnt/session/uploads/{file.id}"
    one, two = session.resources
    assert one.id.startswith("sesrsc_") and one.id != two.id
    assert [(it.type, it.mount_path) for it in session.resources] == [
        ("file", default), ("file", "/workspace/in/data.csv")]
    assert one.file_id != file.id and one.created_at and one.updated_at
    assert client.beta.sessions.retrieve(session.id).resources == session.resources
    provider.say(tool("read", file_path=default), tool("read", file_path="in/data.csv"),
                 tool("write", file_path=default, content="x"), text("Done."))
    seen = results(run(client, session, message("Read.")))
    assert "1,2" in seen[0] and "1,2" in seen[1] and "only read" in seen[2]
    # The session's own, whatever becomes of the first one.
    client.files.delete(file.id)
    assert client.files.download(one.file_id).read() == b"a,b\n1,2\n"
    ids = {it.id for it in client.beta.files.list(scope_id=session.id)}
    assert ids == {one.file_id, two.file_id}
    place = os.path.join(server.data, "workspaces", session.id, "work", "in", "data.csv")
    assert os.stat(place).st_mode & 0o777 == 0o444


def test_what_is_removed_vanishes_and_what_is_added_is_there(client, provider, make, file):
    session = make(mounted(file, "/workspace/a.csv"), mounted(file, "/mnt/session/uploads/deep/a.csv"))
    first, second = session.resources
    provider.say(tool("read", file_path="a.csv"), text("Done."))
    assert "1,2" in results(run(client, session, message("Read.")))[0]
    for resource in (first, second):
        removed = client.beta.sessions.resources.delete(resource.id, session_id=session.id)
        assert removed.to_dict() == {"id": resource.id, "type": "session_resource_deleted"}
    added = client.beta.sessions.resources.add(session.id, **mounted(file, "/mnt/session/uploads/b.csv"))
    assert (added.type, added.mount_path) == ("file", "/mnt/session/uploads/b.csv")
    assert client.beta.sessions.resources.retrieve(added.id, session_id=session.id) == added
    assert list(client.beta.sessions.resources.list(session.id)) == [added]
    assert client.beta.sessions.retrieve(session.id).resources == [added]
    provider.say(tool("read", file_path="a.csv"), tool("read", file_path="/mnt/session/uploads/deep/a.csv"),
                 tool("read", file_path="/mnt/session/uploads/b.csv"), text("Done."))
    seen = results(run(client, session, message("Read.")))
    assert "there is no" in seen[0] and "there is no" in seen[1] and "1,2" in seen[2]


def test_programs_see_what_is_mounted_and_cannot_change_it(client, provider, make, file):
    session = make(mounted(file, "/mnt/session/uploads/a.csv"))
    provider.say(tool("bash", command="cat /mnt/session/uploads/a.csv; echo x > /mnt/session/uploads/a.csv; "
                                      "rm -f /mnt/session/uploads/a.csv; cat /mnt/session/uploads/a.csv"),
                 text("Done."))
    seen = results(run(client, session, message("Look.")))[0]
    if "cannot run" in seen or "sandbox" in seen:
        pytest.skip("nothing runs on this machine: " + seen)
    assert seen.count("1,2") == 2, seen


def test_a_link_does_not_lead_a_file_out_of_the_workspace(client, provider, make, file, tmp_path):
    session = make()
    provider.say(tool("bash", command=f"ln -s {tmp_path} out; ln -s /tmp here"), text("Done."))
    run(client, session, message("Link."))
    client.beta.sessions.resources.add(session.id, **mounted(file, "/workspace/out/a.csv"))
    provider.say(tool("read", file_path="out/a.csv"), text("Done."))
    seen = run(client, session, message("Read."))
    assert "1,2" not in str(results(seen))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [
    "/etc/passwd", "data.csv", "/workspace/../etc/a", "/mnt/session/uploads/../../a", "/workspace",
    "/workspace/.git/hooks/pre-commit", "/mnt/session/outputs/a", "/workspace/a//b", "/workspace/a\n"])
def test_paths_that_lead_out_are_refused(make, file, client, path):
    with pytest.raises(anthropic.BadRequestError) as error:
        make(mounted(file, path))
    assert "resources[0].mount_path" in error.value.message
    session = make()
    with pytest.raises(anthropic.BadRequestError) as error:
        client.beta.sessions.resources.add(session.id, **mounted(file, path))
    assert "mount_path" in error.value.message


def test_what_cannot_be_mounted_is_refused(client, impatient, make, file):
    session = make(mounted(file))
    resources = impatient.beta.sessions.resources
    with pytest.raises(anthropic.BadRequestError) as error:
        make({"type": "github_repository", "url": "https://github.com/a/b"})
    assert "`local`" in error.value.message
    with pytest.raises(anthropic.BadRequestError):
        make(mounted(file), mounted(file))
    with pytest.raises(anthropic.BadRequestError) as error:
        resources.add(session.id, **mounted(file))
    assert "another resource" in error.value.message
    above, below = mounted(file, "/workspace/p"), mounted(file, "/workspace/p/q")
    for one, other in ((above, below), (below, above)):
        with pytest.raises(anthropic.BadRequestError):
            make(one, other)
        with pytest.raises(anthropic.BadRequestError):
            resources.add(make(one).id, **other)
    with pytest.raises(anthropic.NotFoundError):
        make({"type": "file", "file_id": "file_0"})
    with pytest.raises(anthropic.NotFoundError):
        resources.add("sesn_0", **mounted(file))
    with pytest.raises(anthropic.NotFoundError):
        resources.list("sesn_0")
    for call in (resources.retrieve, resources.delete):
        with pytest.raises(anthropic.NotFoundError):
            call("sesrsc_0", session_id=session.id)
        with pytest.raises(anthropic.NotFoundError):
            call(session.resources[0].id, session_id=make().id)
    with pytest.raises(anthropic.BadRequestError):
        resources.update(session.resources[0].id, session_id=session.id, authorization_token="t")
    client.beta.sessions.archive(session.id)
    with pytest.raises(anthropic.ConflictError):
        resources.add(session.id, **mounted(file, "/workspace/x"))


def test_lists_of_resources_have_pages(client, make, file):
    session = make(*[mounted(file, f"/workspace/{n}") for n in range(5)])
    listed = client.beta.sessions.resources.list(session.id, limit=2)
    assert len(listed.data) == 2 and listed.next_page
    assert [it.mount_path for it in listed] == [f"/workspace/{n}" for n in range(5)]


def test_odd_names_are_handed_in_too(client, provider, make):
    session = make()
    outputs = "/mnt/session/outputs"
    provider.say(tool("bash", command=f"cd {outputs}; printf a > $'two\\nlines.txt'; printf bb > $'\\xff.txt'"),
                 text("Done."))
    run(client, session, message("Hand in."))
    listed = {it.filename: it.size_bytes for it in client.beta.files.list(scope_id=session.id)}
    assert listed == {"twolines.txt": 1, "xff.txt": 2}


def test_what_is_handed_in_is_a_file_of_the_session(client, provider, make):
    session = make()
    provider.say(tool("write", file_path="/mnt/session/outputs/deep/report.csv", content="a\n1\n"), text("Done."))
    run(client, session, message("Hand in."))
    [first] = client.beta.files.list(scope_id=session.id)
    assert (first.filename, first.mime_type, first.size_bytes) == ("report.csv", "text/csv", 4)
    assert first.scope.to_dict() == {"type": "session", "id": session.id}
    assert client.files.download(first.id).read() == b"a\n1\n"
    # What is not changed stays the same file; what is changed is another one.
    provider.say(tool("read", file_path="/mnt/session/outputs/deep/report.csv"), text("Done."))
    run(client, session, message("Look."))
    assert [it.id for it in client.beta.files.list(scope_id=session.id)] == [first.id]
    provider.say(tool("write", file_path="/mnt/session/outputs/deep/report.csv", content="a\n22\n"),
                 tool("bash", command="ln -s /etc /mnt/session/outputs/etc; ln -s /etc/passwd /mnt/session/outputs/p; "
                                      "mkfifo /mnt/session/outputs/f; echo x > /mnt/session/outputs/x.txt"),
                 text("Done."))
    seen = results(run(client, session, message("Again.")))
    listed = {it.filename: it for it in client.beta.files.list(scope_id=session.id)}
    assert set(listed) - {"x.txt"} == {"report.csv"}, seen
    assert listed["report.csv"].id != first.id and listed["report.csv"].size_bytes == 5
    with pytest.raises(anthropic.NotFoundError):
        client.files.retrieve_metadata(first.id)
