//! Environments from the command line.

use serde_json::json;

use super::bell::Bell;

#[tokio::test]
async fn environments_are_made_changed_archived_and_deleted() {
    let bell = Bell::hang().await;
    let line = ["environments", "create", "--name", "fetching", "--type", "cloud"];
    let hosts = ["--allow-host", "api.example.com", "--allow-host", "*.example.org"];
    let setup = ["--setup", "npm ci", "--setup", "make deps", "--json"];
    let made = bell.run(&[&line[..], &hosts, &setup].concat()).await.json();
    assert_eq!(made["config"]["networking"]["type"], "limited");
    assert_eq!(
        made["config"]["networking"]["allowed_hosts"],
        json!(["api.example.com", "*.example.org"])
    );
    assert_eq!(made["config"]["setup"], json!(["npm ci", "make deps"]));
    let id = made["id"].as_str().unwrap();

    let list = bell.run(&["environments"]).await.fine();
    let row = list.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{list}"));
    assert!(row.contains("fetching") && row.contains("cloud") && row.contains("limited"), "{row}");
    let shown = bell.run(&["environments", "show", "fetching"]).await.fine();
    assert_eq!(shown.matches("\nreaches ").count(), 2, "{shown}");
    assert_eq!(shown.matches("\nsetup ").count(), 2, "{shown}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("more.json");
    std::fs::write(&file, r#"{"description": "from the file", "name": "not this"}"#).unwrap();
    let file = file.to_str().unwrap();
    let line = ["environments", "update", "fetching", "--from", file, "--name", "offline"];
    let changed = bell.run(&[&line[..], &["--network", "none", "--json"]].concat()).await.json();
    assert_eq!((&changed["name"], &changed["id"]), (&json!("offline"), &json!(id)));
    assert_eq!(changed["description"], "from the file");
    assert_eq!(changed["config"]["networking"], json!({"type": "none"}));
    assert_eq!(changed["config"]["setup"], json!(["npm ci", "make deps"]), "it stays");

    let refusals = [
        (&["update", "offline"][..], "there is nothing to change"),
        (&["update", "offline", "--type", "self_hosted"], "cannot become `self_hosted`"),
        (&["create", "--name", "x"], "an environment needs `--type`"),
        (&["create", "--name", "x", "--type", "local"], "config.project"),
        (&["update", "offline", "--network", "none", "--allow-host", "a.example"], "is for"),
        (&["show", "offlin"], "did you mean `offline`?"),
        (&["archive", "default", "--yes"], "keeps its name and its place"),
    ];
    for (line, why) in refusals {
        let refused = bell.run(&[&["environments"], line].concat()).await;
        assert_ne!(refused.exit, bellpull::cli::Exit::Fine, "{line:?}");
        assert!(refused.err.contains(why), "{line:?}: {}", refused.err);
    }
    bell.run(&["environments", "archive", "offline", "--yes"]).await.fine();
    let living = bell.run(&["environments", "list"]).await.fine();
    assert!(!living.contains(id), "{living}");
    let all = bell.run(&["environments", "list", "--archived"]).await.fine();
    assert!(all.contains(id) && all.contains("archived"), "{all}");
    let deleted = bell.run(&["environments", "delete", id, "--yes"]).await.fine();
    assert_eq!(deleted, format!("{id}  deleted\n"));
}
