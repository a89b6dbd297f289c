"""Files as the SDK uploads, lists and downloads them."""

import base64
import io
import urllib.request

import anthropic
import pytest

from conftest import run
from mcp_server import PNG
from provider import text


def test_a_file_comes_back_as_it_was(client):
    data = bytes(range(256)) * 3000
    made = client.files.upload(file=("data.bin", data, "application/x-thing"))
    assert made.id.startswith("file_") and made.type == "file"
    assert (made.filename, made.mime_type, made.size_bytes) == ("data.bin", "application/x-thing", len(data))
    assert made.downloadable is True and made.expires_at is None
    assert client.files.retrieve_metadata(made.id) == made
    got = client.files.download(made.id)
    assert got.read() == data
    headers = got.headers
    assert headers["content-type"] == "application/x-thing"
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert client.files.delete(made.id).to_dict() == {"id": made.id, "type": "file_deleted"}
    for call in (client.files.retrieve_metadata, client.files.download, client.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(made.id)


@pytest.mark.parametrize("size", [0, 1, 262143, 262144, 262145, 1048576])
def test_files_of_any_size(client, size):
    made = client.files.upload(file=("a.txt", b"x" * size, "text/plain"))
    assert made.size_bytes == size
    assert client.files.download(made.id).read() == b"x" * size


@pytest.mark.parametrize("name, kept", [
    ("größe 日本.csv", "größe 日本.csv"),
    ("../../etc/passwd", "passwd"),
    ("..\\..\\a.txt", "a.txt"),
    ("a\u202etxt.exe", "atxt.exe"),
    ("..", "unnamed.txt"),
])
def test_names_are_made_safe(client, name, kept):
    made = client.files.upload(file=(name, b"x", "text/plain"))
    assert made.filename == kept
    headers = client.files.download(made.id).headers
    assert headers["content-disposition"].isascii()


def test_the_type_is_guessed_where_nobody_says_it(client):
    assert client.files.upload(file=io.BytesIO(b"{}")).mime_type
    assert client.files.upload(file=("a.json", b"{}", "application/octet-stream")).mime_type == "application/json"


def test_lists_have_both_shapes_of_pages(client, server):
    made = [client.files.upload(file=(f"{n}.txt", b"x")).id for n in range(5)]
    newest = list(reversed(made))
    assert [it.id for it in client.files.list(limit=2)][:5] == newest
    assert [it.id for it in client.beta.files.list(limit=2)][:5] == newest
    ids = client.files.list(ids=[made[1], made[3], made[3], "file_0", "nonsense"])
    assert [it.id for it in ids] == [made[3], made[1]] and ids.next_page is None

    def get(query):
        import json
        request = urllib.request.Request(server.url + "/v1/files?beta=true&" + query, headers={
            "x-api-key": server.key, "anthropic-version": "2023-06-01",
            "anthropic-beta": "files-api-2025-04-14"})
        return json.load(urllib.request.urlopen(request))
    # As the SDKs before 0.118 page.
    page = get("limit=2")
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, newest[0], newest[1])
    page = get(f"limit=2&after_id={page['last_id']}")
    assert [it["id"] for it in page["data"]] == newest[2:4]
    page = get(f"limit=1&before_id={newest[2]}")
    assert [it["id"] for it in page["data"]] == [newest[1]] and page["has_more"]
    page = get(f"limit=2&before_id={newest[2]}")
    assert [it["id"] for it in page["data"]] == newest[:2] and not page["has_more"]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"page": "x"}, {"ids": [made[0]], "limit": 3}):
        with pytest.raises(anthropic.BadRequestError):
            client.files.list(**wrong)
    with pytest.raises(anthropic.BadRequestError):
        client.beta.files.list(scope_id="file_0")
    assert list(client.beta.files.list(scope_id="sesn_0")) == []


def test_a_file_may_expire(client):
    made = client.files.upload(file=("a.txt", b"x"), expires_in_seconds=3600)
    assert (made.expires_at - made.created_at).total_seconds() == 3600
    for seconds in (3599, 7776001):
        with pytest.raises(anthropic.BadRequestError) as error:
            client.files.upload(file=("a.txt", b"x"), expires_in_seconds=seconds)
        assert "expires_in_seconds" in error.value.message


def test_what_is_no_upload_is_refused(server):
    def post(body, content_type):
        request = urllib.request.Request(server.url + "/v1/files", data=body, method="POST", headers={
            "x-api-key": server.key, "content-type": content_type})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        return error.value.code, error.value.read().decode()

    form = "multipart/form-data; boundary=b"
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'
    for body, kind, said in [
        (b"{}", "application/json", "multipart/form-data"),
        (b"x", "multipart/form-data", "multipart/form-data"),
        (b"", form, "cannot be read"),
        (b"--b--\r\n", form, "file: is required"),
        (b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nx\r\n--b--\r\n', form, "purpose"),
        (part + part + b"--b--\r\n", form, "more than once"),
        (part, form, "cannot be read"),
        (part + b"--b--\r\n" * 3, form, ""),
    ][:7]:
        code, answer = post(body, kind)
        assert code == 400 and said in answer, answer


def test_a_file_is_shown_to_the_model(client, provider, agent, environment):
    picture = client.beta.files.upload(file=("dot.png", PNG, "image/png"))
    note = client.beta.files.upload(file=("note.txt", b"ding", "text/plain"))
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    named = lambda kind, file: {"type": kind, "source": {"type": "file", "file_id": file.id}}
    provider.say(text("A dot."))
    run(client, session, {"type": "user.message",
                          "content": [named("image", picture), named("document", note)]})
    [request] = provider.requests
    sources = [it["source"] for it in request["messages"][0]["content"]]
    assert sources[0] == {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    assert sources[1] == {"type": "text", "media_type": "text/plain", "data": "ding"}
    with pytest.raises(anthropic.BadRequestError, match="media_type"):
        client.beta.sessions.events.send(session.id, events=[
            {"type": "user.message", "content": [named("image", note)]}])
    client.beta.files.delete(picture.id)
    with pytest.raises(anthropic.NotFoundError):
        client.beta.sessions.events.send(session.id, events=[
            {"type": "user.message", "content": [named("image", picture)]}])
