//! `bellpull check` on broken setups: every problem is named in one run, and nothing is changed.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use serde_json::Value;

use crate::support::process::{Process, command};

/// Runs `check`: whether all is good, and what was found, by what was looked at.
fn check(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (bool, BTreeMap<String, (bool, String)>) {
    let mut command = command();
    command.args(["check", "--json"]).args(arguments).envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let good = report["ok"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!good)), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
    let findings = report["findings"].as_array().unwrap().iter().map(|finding| {
        let text = |key: &str| finding[key].as_str().unwrap().to_owned();
        (text("what"), (finding["ok"].as_bool().unwrap(), text("message")))
    });
    (good, findings.collect())
}

/// That something is wrong with this, and that all of these say so.
fn wrong(found: &BTreeMap<String, (bool, String)>, what: &str, named: &[&str]) {
    let (is_good, message) = found.get(what).unwrap_or_else(|| panic!("no `{what}`: {found:#?}"));
    assert!(!is_good, "{what}: {message}");
    for text in named {
        assert!(message.contains(text), "{what}: {text}: {message}");
    }
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("bellpull.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn few_open_files_are_warned_about() {
    let binary = command().get_program().to_owned();
    let script = "ulimit -n 1024; exec \"$0\" check --json --listen 127.0.0.1:0 --data-dir \"$1\"";
    let data = tempfile::tempdir().unwrap();
    let mut shell = std::process::Command::new("sh");
    let shell = shell.args(["-c", script]).arg(binary).arg(data.path()).env_remove("HOME");
    let said = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let findings = report["findings"].as_array().unwrap();
    let files = findings.iter().find(|it| it["what"] == "open files").unwrap();
    assert_eq!(files["ok"], true, "a warning is no failure: {files}");
    let message = files["message"].as_str().unwrap();
    assert!(
        message.starts_with("1024 at most\nwarning: ") && message.contains("LimitNOFILE"),
        "{message}"
    );
}

#[tokio::test]
async fn everything_that_is_wrong_beside_a_database_is_named_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Process::serve(&data, &[]).await;
    assert!(server.terminate().await.success());
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    std::fs::write(data.join("vault.key"), other).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let config = write(
        directory.path(),
        r#"
        [limits]
        body_bytes_max = -1
        free_disk = 3
        [wroker]
        turns_max = 3
        [agents.lucy]
        model = "claude-opus-4-5"
        [agents.max]
        model = "openai/gpt-6.1-sol"
        [environments.gone]
        type = "local"
        project = "/nowhere/either"
        [webhooks.projectless]
        project = "/nowhere/at/all"
        [webhooks.agentless]
        agent = "nobody"
        [webhooks.strange]
        preset = "no-such-sender"
        secret = "s3cr3t-0123456789"
        "#,
    );
    let data = data.to_str().unwrap();
    let arguments = ["--config", &config, "--data-dir", data, "--listen", &listen];
    let (good, found) = check(&arguments, &[]);
    assert!(!good);
    let keys = ["limits.body_bytes_max", "limits.free_disk", "wroker", "webhooks.strange.preset"];
    wrong(&found, "configuration", &keys);
    wrong(&found, "environments", &["`gone`: its project `/nowhere/either` is not a directory"]);
    wrong(&found, "address", &[&listen]);
    wrong(&found, "vault key", &["does not open this database's secrets"]);
    let named = ["`lucy`", "`ANTHROPIC_API_KEY`", "`max`", "`OPENAI_API_KEY`"];
    wrong(&found, "models", &named);
    wrong(&found, "sources", &["`projectless`", "/nowhere/at/all", "`agentless`", "`nobody`"]);
    // What is good is not drawn into it.
    assert!(found["database"].0 && found["data directory"].0, "{found:#?}");

    // Once all is mended, nothing is left to say.
    let config = write(directory.path(), "[agents.lucy]\nmodel = \"claude-opus-4-5\"\n");
    std::fs::remove_file(Path::new(data).join("vault.key")).unwrap();
    std::fs::remove_dir_all(data).unwrap();
    let arguments = ["--config", &config, "--data-dir", data, "--listen", "127.0.0.1:0"];
    let (good, found) = check(&arguments, &[("ANTHROPIC_API_KEY", "s3cr3t-key-0123456789")]);
    assert!(good, "{found:#?}");
    assert!(!Path::new(data).exists(), "a look makes nothing");
}

#[test]
fn everything_that_is_wrong_without_a_database_is_named_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    drop(std::fs::write(directory.path().join("file"), ""));
    let data = directory.path().join("file/data");
    let config = write(
        directory.path(),
        &format!(
            "listen = \"{listen}\"\npublic_url = \"no url\"\n[retention]\nbodies_days = \"long\"\n\
             [agents.lucy]\nmodel = \"claude-opus-4-5\"\n[webhooks.shop]\nproject = \"/nowhere\"\n"
        ),
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://bell:s3cr3t-password@{closed}/bell");
    let environment = [
        ("BELLPULL_DATABASE_URL", url.as_str()),
        ("BELLPULL_VAULT_KEY", "s3cr3t-and-not-base64"),
        ("BELLPULL_LOG__FORMAT", "xml"),
        ("BELLPULL_NO_SUCH_THING", "1"),
    ];
    let arguments = ["--config", &config, "--data-dir", data.to_str().unwrap()];
    let (good, found) = check(&arguments, &environment);
    assert!(!good);
    let keys = [
        "public_url",
        "retention.bodies_days",
        "BELLPULL_LOG__FORMAT",
        "BELLPULL_NO_SUCH_THING",
        "BELLPULL_VAULT_KEY",
    ];
    wrong(&found, "configuration", &keys);
    wrong(&found, "data directory", &["is not a directory"]);
    wrong(&found, "address", &[&listen]);
    wrong(&found, "database", &[]);
    wrong(&found, "models", &["`lucy`", "`ANTHROPIC_API_KEY`"]);
    wrong(&found, "sources", &["`shop`", "/nowhere"]);
    assert!(!found.contains_key("vault key"), "it was said already: {found:#?}");
}

#[test]
fn a_file_that_cannot_be_parsed_hides_nothing_that_was_given_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let config = write(directory.path(), "[webhooks.shop\nsecret = \"s3cr3t-0123456789\"\n");
    let (good, found) = check(&["--config", &config, "--listen", &listen], &[]);
    assert!(!good);
    wrong(&found, "configuration", &["line 1"]);
    wrong(&found, "address", &[&listen]);
    for may_be_in_the_file in ["data directory", "database", "vault key", "sources"] {
        assert!(!found.contains_key(may_be_in_the_file), "{may_be_in_the_file}: {found:#?}");
    }
}
