//! Where the programs of a session go, and what is mounted for them.

use serde_json::{Value, json};

use super::{KEY, Server, World, calls, text, tool};
use crate::support::{model_server::Reply, process::until};

fn bash(command: &str) -> (&'static str, Value) {
    ("bash", json!({ "command": command }))
}

async fn environment(server: &Server, networking: Value) -> String {
    let config = json!({"type": "cloud", "networking": networking});
    let body = json!({"name": "limited", "config": config});
    text(&server.post("/v1/environments", body).await["id"])
}

fn ask(host: &str) -> String {
    format!(
        "exec 5<>/dev/tcp/127.0.0.1/3128; printf 'GET http://{host}/ HTTP/1.1\\r\\n\\r\\n' >&5; \
         timeout 10 cat <&5; exec 5>&-"
    )
}

/// Asks for a host in the background once there is a file `go`, and then makes a file `gone`.
fn ask_later(host: &str) -> (&'static str, Value) {
    let ask = ask(host);
    bash(&format!(
        "(until [ -e go ]; do sleep 0.05; done; {ask}; touch gone) >log 2>&1 & echo begun"
    ))
}

/// Lets what [`ask_later`] began ask, and waits until it has its answer.
async fn let_it_ask(world: &World, session: &str) {
    std::fs::write(world.file(session, "go"), "").unwrap();
    let gone = world.file(session, "gone");
    until("it has asked", async || gone.exists().then_some(())).await;
}

async fn results(server: &Server, session: &str) -> Vec<Value> {
    let events = server.events(session).await;
    events.into_iter().filter(|event| event["type"] == "agent.tool_result").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_refused_loses_nothing_that_it_was_to_tell() {
    let world = World::sqlite(vec![calls(&[bash("touch made; sleep 86431")])]).await;
    let server = world.serve().await;
    let networking = json!({"type": "limited", "allowed_hosts": ["good.example"]});
    let environment = environment(&server, networking).await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let place = json!({ "environment_id": environment });
    let session = server.session_with(&agent, place).await;
    let made = world.file(&session, "made");
    until("the call is carried out", async || made.exists().then_some(())).await;
    server.0.kill();

    // Something is in doubt, and what the agent says about it is about something else.
    let nonsense = json!({"effect": "sevt_nonsense", "outcome": "happened", "note": "it is there"});
    let (gate, settles) = calls(&[("settle_effect", nonsense)]).held();
    for reply in [calls(&[ask_later("evil.example")]), settles, Reply::text(&["done"])] {
        world.models.then(reply);
    }
    let server = world.serve().await;
    until("it has begun", async || (results(&server, &session).await.len() == 2).then_some(()))
        .await;
    let_it_ask(&world, &session).await;
    gate.open();
    server.rest_for(&session, "end_turn").await;
    let results = results(&server, &session).await;
    assert!(results[2]["content"].to_string().contains("is not in doubt"), "{}", results[2]);
    assert_eq!(results[2]["egress"][0]["host"], "evil.example", "{}", results[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shell_did_is_told_though_another_took_its_place() {
    let script = vec![
        calls(&[ask_later("evil.example")]),
        Reply::text(&["begun"]),
        calls(&[bash("echo mine")]),
        Reply::text(&["done"]),
        calls(&[bash("echo again")]),
        Reply::text(&["done"]),
    ];
    let world = World::sqlite(script).await.with("BELLPULL_SHELL__SHELLS_MAX", "1");
    let server = world.serve().await;
    let networking = json!({"type": "limited", "allowed_hosts": ["good.example"]});
    let environment = environment(&server, networking).await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let place = json!({ "environment_id": environment });
    let session = server.session_with(&agent, place.clone()).await;
    server.rest_for(&session, "end_turn").await;
    let_it_ask(&world, &session).await;
    let other = server.session_with(&agent, place).await;
    server.rest_for(&other, "end_turn").await;
    assert_eq!(results(&server, &other).await[0].get("egress"), None, "it is not the other's");
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "again"}]});
    server.say(&session, message).await;
    until("it is answered and rests", async || {
        let is_at_rest = server.events(&session).await.pop()?["type"] == "session.status_idle";
        (is_at_rest && results(&server, &session).await.len() == 2).then_some(())
    })
    .await;
    let results = results(&server, &session).await;
    assert_eq!(results[1]["egress"][0]["host"], "evil.example", "{}", results[1]);
    assert!(results[1]["content"].to_string().contains("new shell"), "{}", results[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_that_is_refused_is_an_event_with_the_calls_result() {
    let twice = format!("{}; {}; {}", ask("evil.example"), ask("evil.example"), ask("127.0.0.1"));
    let script = vec![
        calls(&[bash(&twice), bash("echo quiet")]),
        calls(&[bash(&ask("evil.example:8080"))]),
        Reply::text(&["done"]),
    ];
    let world = World::sqlite(script).await;
    let server = world.serve().await;
    let networking = json!({"type": "limited", "allowed_hosts": ["good.example"]});
    let environment = environment(&server, networking).await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let place = json!({ "environment_id": environment });
    let session = server.session_with(&agent, place).await;
    server.rest_for(&session, "end_turn").await;
    let events = server.events(&session).await;
    let results: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "agent.tool_result").collect();
    let refused = |host: &str, port: u16, reason: &str| json!({"host": host, "port": port, "decision": "refused", "reason": reason});
    let why = "this host is not one of the environment's allowed hosts";
    assert_eq!(
        results[0]["egress"],
        json!([refused("evil.example", 80, why), refused("127.0.0.1", 80, why)]),
        "each once"
    );
    assert_eq!(results[1].get("egress"), None, "a call that goes nowhere has nothing to say");
    let why = "this port is not one that may be gone to";
    assert_eq!(results[2]["egress"], json!([refused("evil.example", 8080, why)]));
}

async fn upload(server: &Server, name: &str, content: &str) -> String {
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: text/plain\r\n\r\n{content}\r\n--x--\r\n"
    );
    let request = server.0.http.post(format!("{}/v1/files", server.0.url)).bearer_auth(KEY);
    let request = request.header("content-type", "multipart/form-data; boundary=x").body(body);
    let answer = request.send().await.unwrap().text().await.unwrap();
    let file: Value = serde_json::from_str(&answer).unwrap();
    text(&file["id"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_whose_place_is_taken_is_lost_alone_and_the_agent_is_told() {
    let script = vec![
        calls(&[bash("mkdir -p taken/by-a-directory && ln -s /etc way && echo made")]),
        Reply::text(&["done"]),
        calls(&[bash("cat free; ls -d taken")]),
        calls(&[bash("rmdir taken/by-a-directory taken")]),
        Reply::text(&["done"]),
        calls(&[bash("cat taken")]),
        Reply::text(&["done"]),
    ];
    let world = World::sqlite(script).await;
    let server = world.serve().await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let session = server.session(&agent).await;
    server.rest_for(&session, "end_turn").await;
    for (name, path) in [("a", "taken"), ("b", "way/passwd"), ("c", "free")] {
        let file = upload(&server, name, &format!("the content of {path}")).await;
        let mount_path = format!("/workspace/{path}");
        let mount = json!({"type": "file", "file_id": file, "mount_path": mount_path});
        server.post(&format!("/v1/sessions/{session}/resources"), mount).await;
    }
    let go_on = async |n: usize| {
        let content = json!([{"type": "text", "text": "go on"}]);
        server.say(&session, json!({"type": "user.message", "content": content})).await;
        until("it is done", async || {
            let events = server.events(&session).await;
            let idle = events.iter().filter(|it| it["type"] == "session.status_idle").count();
            (idle == n).then_some(())
        })
        .await;
    };
    let said = async |nth: usize| -> String {
        let events = server.events(&session).await;
        let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
        let result = results.clone().nth(nth).unwrap_or_else(|| panic!("{events:#?}"));
        let blocks = result["content"].as_array().unwrap().iter();
        blocks.map(|block| text(&block["text"])).collect()
    };
    go_on(2).await;
    let told = said(1).await;
    assert!(told.starts_with("the content of free"), "everything else is there: {told}");
    assert!(told.contains("a file cannot be mounted at `/workspace/taken`"), "{told}");
    assert!(told.contains("`/workspace/taken` is a directory"), "{told}");
    assert!(told.contains("a file cannot be mounted at `/workspace/way/passwd`"), "{told}");
    assert!(!said(2).await.contains("mounted"), "it is told once in a turn");
    // With its place free again it comes with the next turn.
    go_on(3).await;
    assert!(said(3).await.starts_with("the content of taken"), "{}", said(3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_have_a_limit_of_open_files_of_their_own() {
    let script = vec![calls(&[bash("ulimit -Sn; ulimit -Hn")]), Reply::text(&["done"])];
    let world = World::sqlite(script).await.with("BELLPULL_SANDBOX__OPEN_FILES_MAX", "300");
    let server = world.serve().await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let session = server.session(&agent).await;
    server.rest_for(&session, "end_turn").await;
    assert_eq!(server.results(&session).await, ["300\n300"]);
}
