//! The client as a whole, against a server that answers what the test says.

mod following;
pub(super) mod server;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use expect_test::{Expect, expect};
use serde_json::json;

use self::server::{Answer, Server};
use super::{Command, Exit, Io, run};

#[derive(Debug, clap::Parser)]
#[command(name = "bellpull")]
struct Top {
    #[command(subcommand)]
    command: Command,
}

/// A stream that the test reads afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

/// Runs a command line against the server.
async fn ran(url: &str, line: &[&str], input: &'static str, change: impl FnOnce(&mut Io)) -> Ran {
    let words = ["bellpull"].iter().chain(line).copied();
    let command = Top::try_parse_from(words).unwrap().command;
    let environment = BTreeMap::from([
        ("BELLPULL_URL".to_owned(), url.to_owned()),
        ("BELLPULL_API_KEY".to_owned(), "test-key".to_owned()),
    ]);
    let (out, err) = (Shared::default(), Shared::default());
    let mut io = Io::plain(input.as_bytes(), out.clone(), err.clone());
    change(&mut io);
    let exit = run(command, &environment, "nowhere".into(), &mut io).await;
    Ran { exit, out: out.text(), err: err.text() }
}

async fn check(server: &Server, line: &[&str], expected: &Expect) {
    let Ran { exit, out, err } = ran(&server.url(), line, "", |_| {}).await;
    let text = format!("{out}--- {exit:?}\n{err}").replace(&server.url(), "http://server");
    expected.assert_eq(&text);
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Top::command().debug_assert();
}

#[test]
fn options_of_all_commands_go_anywhere_behind_the_command() {
    for line in [
        "deliveries --json show dlv_1",
        "deliveries show dlv_1 --json",
        "deliveries show --json dlv_1",
    ] {
        let words = ["bellpull"].into_iter().chain(line.split(' '));
        let command = Top::try_parse_from(words).unwrap().command;
        assert!(command.global().json, "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_wrong_use() {
    for line in [
        "send",
        "send --agent a",
        "send --agent a --token t --source s",
        "send --session s --token t",
        "send --source s text",
        "tail --until-idle",
        "deliveries --status lost",
        "deliveries --limit 0",
        "sources create a --target t --session-key k",
        "sources create a --secret s --secret-stdin",
        "keys create a",
        "keys create a --scope everything",
        "agents create --system a --system-file b",
    ] {
        let words = ["bellpull"].into_iter().chain(line.split(' '));
        let error = Top::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[tokio::test]
async fn errors_say_what_failed_then_what_the_server_says_then_what_to_do() {
    let server = Server::start(|request| match request.path() {
        "/v1/deliveries" => Answer::error(401, "authentication_error", "the key is unknown"),
        "/v1/sources/strpe" => Answer::error(404, "not_found_error", "there is no such source"),
        "/v1/sources" => Answer::json(&json!({"data": [{"name": "stripe"}], "next_page": null})),
        "/v1/secrets" => Answer::error(403, "permission_error", "this key may only read"),
        "/v1/agents" => Answer::new(502, "text/html", "<html>bad gateway</html>"),
        _ => Answer::error(404, "not_found_error", "there is nothing here"),
    });
    check(
        &server,
        &["deliveries"],
        &expect![[r#"
        --- Failed
        error: could not list the deliveries: the key is unknown
          request req_1
        hint: the key came from the variable BELLPULL_API_KEY
    "#]],
    )
    .await;
    check(
        &server,
        &["sources", "pause", "strpe"],
        &expect![[r#"
        --- Failed
        error: could not pause the source `strpe`: there is nothing here
          request req_1
        hint: did you mean `stripe`?
    "#]],
    )
    .await;
    check(
        &server,
        &["secrets", "generate", "A"],
        &expect![[r#"
            --- Failed
            error: could not set the secret `A`: this key may only read
              request req_1
            hint: the key came from the variable BELLPULL_API_KEY
        "#]],
    )
    .await;
    check(
        &server,
        &["agents"],
        &expect![[r#"
        --- Failed
        error: could not list the agents: the server answered 502 Bad Gateway
        hint: that does not sound like a Bellpull server; `--url` or BELLPULL_URL names it
    "#]],
    )
    .await;
}

#[tokio::test]
async fn what_was_mixed_up_is_told_apart() {
    let server = Server::start(|_| Answer::error(404, "not_found_error", "there is nothing here"));
    check(
        &server,
        &["sessions", "show", "dlv_1"],
        &expect![[r#"
        --- Failed
        error: could not show the session `dlv_1`: there is nothing here
          request req_1
        hint: `dlv_1` reads like a delivery; see `bellpull deliveries`
    "#]],
    )
    .await;
    check(
        &server,
        &["deliveries", "--limit", "3", "show", "dlv_1"],
        &expect![[r#"
        --- WrongUse
        error: filters are for the list
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_run_is_told_how_to_start() {
    let Ran { exit, err, .. } = ran("http://127.0.0.1:1", &["keys"], "", |_| {}).await;
    assert_eq!(exit, Exit::Failed);
    let lines: Vec<&str> = err.lines().collect();
    assert!(
        lines[0].starts_with(
            "error: could not list the keys: http://127.0.0.1:1 cannot be reached: Connection refused"
        ),
        "{err}"
    );
    assert_eq!(
        lines[1],
        "hint: start the server with `bellpull serve`, or name another one with `--url` or \
         BELLPULL_URL"
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_quiet() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server =
        Server::start(|_| Answer::json(&json!({"data": [{"id": "x"}], "next_page": null})));
    let ran = ran(&server.url(), &["deliveries"], "", |io| io.out = Box::new(Gone)).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Fine, ""));
}

#[tokio::test]
async fn a_list_is_one_document_from_as_many_pages_as_it_takes() {
    let server = Server::start(|request| {
        let page: usize = request.query("page").map_or(0, |page| page.parse().unwrap());
        let limit: usize = request.query("limit").unwrap().parse().unwrap();
        let data: Vec<_> =
            (page..page + limit).map(|n| json!({"id": format!("dlv_{n}")})).collect();
        Answer::json(&json!({"data": data, "next_page": (page + limit).to_string()}))
    });
    let ran = ran(&server.url(), &["deliveries", "--json", "--limit", "250"], "", |_| {}).await;
    let list: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 250);
    assert_eq!(list["data"][249]["id"], "dlv_249");
    assert_eq!(list["next_page"], "250");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn the_key_goes_to_the_api_and_never_to_an_agents_endpoint() {
    let server = Server::start(|_| {
        Answer::new(202, "application/json", r#"{"status":"held","delivery_id":"dlv_1"}"#)
    });
    let line = ["send", "--agent", "agent_1", "--token", "t", "--id", "7", "-H", "X-Kind: a"];
    let sent = ran(&server.url(), &line, "{\"a\" :1}", |_| {}).await;
    assert_eq!(sent.exit, Exit::Fine, "{sent:?}");
    assert_eq!(sent.out, "held  dlv_1\n");
    let requests = server.requests();
    let request = &requests[0];
    assert_eq!(request.line, "POST /api/agents/agent_1/webhook");
    assert_eq!(request.header("authorization"), Some("Bearer t"));
    assert_eq!(request.header("idempotency-key"), Some("7"));
    assert_eq!(request.header("x-kind"), Some("a"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.body, b"{\"a\" :1}", "byte for byte");

    ran(&server.url(), &["send", "--source", "s", "--data", "1"], "", |_| {}).await;
    ran(&server.url(), &["send", "--source", "s", "--basic", "u:p"], "no json", |_| {}).await;
    let requests = server.requests();
    assert_eq!(requests[1].header("authorization"), Some("Bearer test-key"));
    assert_eq!(requests[2].header("authorization"), Some("Basic dTpw"));
    assert_eq!(requests[2].header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn a_payload_must_be_there_and_be_what_it_says() {
    let server = Server::start(|_| Answer::json(&json!({"status": "accepted"})));
    let url = server.url();
    let wrong = ran(&url, &["send", "--source", "s", "--data", "{"], "", |_| {}).await;
    assert_eq!(wrong.exit, Exit::WrongUse);
    assert!(wrong.err.contains("is not JSON"), "{}", wrong.err);
    let line = ["send", "--source", "s", "--data", "{", "-H", "Content-Type: text/x"];
    assert_eq!(ran(&url, &line, "", |_| {}).await.exit, Exit::Fine);
    let typed = ran(&url, &["send", "--source", "s"], "", |io| io.input_is_terminal = true).await;
    assert_eq!(typed.exit, Exit::WrongUse);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_secret_is_read_from_the_input_and_not_shown() {
    let server = Server::start(|_| Answer::json(&json!({"name": "A"})));
    let line = ["secrets", "set", "A", "--overlap", "60"];
    let ran = ran(&server.url(), &line, "s3cret\r\n", |_| {}).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Fine, "A  set\n"));
    let body: serde_json::Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
    assert_eq!(body, json!({"name": "A", "value": "s3cret", "overlap_seconds": 60}));
}

#[tokio::test]
async fn what_cannot_be_undone_is_asked_for_where_somebody_can_answer() {
    let server = Server::start(|_| Answer::json(&json!({"id": "dlv_1"})));
    let url = server.url();
    let line = ["deliveries", "erase", "dlv_1"];
    let asked = |io: &mut Io| io.input_is_terminal = true;
    let no = ran(&url, &line, "n\n", asked).await;
    assert_eq!(no.exit, Exit::Failed);
    assert_eq!(no.err, "Erase body and message of `dlv_1`, for good? [y/N] ");
    assert_eq!(server.requests().len(), 0);
    assert_eq!(ran(&url, &line, "y\n", asked).await.exit, Exit::Fine);
    assert_eq!(
        ran(&url, &["deliveries", "erase", "dlv_1", "--yes"], "", asked).await.exit,
        Exit::Fine
    );
    assert_eq!(ran(&url, &line, "", |_| {}).await.exit, Exit::Fine);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_body_is_raw_in_a_pipe_and_harmless_on_a_terminal() {
    let server =
        Server::start(|_| Answer::new(200, "application/json", "{\"a\":\"\u{1b}[2J\"}\r\n"));
    let line = ["deliveries", "show", "dlv_1", "--body"];
    let piped = ran(&server.url(), &line, "", |_| {}).await;
    assert_eq!(piped.out, "{\"a\":\"\u{1b}[2J\"}\r\n");
    let shown = ran(&server.url(), &line, "", |io| io.out_is_terminal = true).await;
    assert_eq!(shown.out, "{\"a\":\"\\u{1b}[2J\"}\n");
}

#[tokio::test]
async fn names_cannot_lead_to_another_route() {
    let server = Server::start(|_| Answer::json(&json!({})));
    for name in ["..", ".", ""] {
        let ran = ran(&server.url(), &["secrets", "delete", name], "", |_| {}).await;
        assert_eq!(ran.exit, Exit::WrongUse, "{name}");
    }
    ran(&server.url(), &["secrets", "delete", "a/../b?c#d"], "", |_| {}).await;
    assert_eq!(server.requests()[0].line, "DELETE /v1/secrets/a%2F..%2Fb%3Fc%23d");
}

#[tokio::test]
async fn an_agent_is_found_by_its_name_if_only_one_has_it() {
    let agents = json!({"data": [
        {"id": "agent_1", "name": "lucy"}, {"id": "agent_2", "name": "max"},
        {"id": "agent_3", "name": "max"}], "next_page": null});
    let server = Server::start(move |request| match request.path() {
        "/v1/agents" => Answer::json(&agents),
        path => Answer::json(&json!({"id": path, "version": 1})),
    });
    check(
        &server,
        &["agents", "pause", "lucy"],
        &expect![[r#"
        id       /api/agents/agent_1/pause
        version  1
        state    active
        --- Fine
    "#]],
    )
    .await;
    check(
        &server,
        &["agents", "pause", "max"],
        &expect![[r#"
        --- WrongUse
        error: `max` is the name of 2 agents
        hint: name one by its id: agent_2, agent_3
    "#]],
    )
    .await;
    check(
        &server,
        &["agents", "pause", "luci"],
        &expect![[r#"
            --- Failed
            error: could not find the agent `luci`: there is no agent of this name or id
            hint: did you mean `lucy`?
        "#]],
    )
    .await;
}

#[test]
fn the_key_is_not_in_debug_output() {
    let line = ["bellpull", "send", "--source", "s", "--key", "hunter2", "--token", "hunter2"];
    let command = Top::try_parse_from(line).unwrap().command;
    assert!(!format!("{command:?}").contains("hunter2"));
}
