//! Environments that the config file declares: made, changed with a reload, and let go.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::process::{Process, until};

async fn call(server: &Process, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = server.http.request(method, format!("{}{path}", server.url));
    let mut request = request.bearer_auth(server.admin_key());
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn environments(server: &Process) -> Vec<Value> {
    let (_, list) = call(server, Method::GET, "/v1/environments", None).await;
    list["data"].as_array().unwrap().clone()
}

async fn shop(server: &Process) -> Option<Value> {
    environments(server).await.into_iter().find(|it| it["name"] == "shop")
}

fn write(directory: &Path, environments: &str) -> String {
    let root = directory.display();
    let text = format!(
        "[projects]\nroots = [\"{root}\"]\n{environments}\n\
         [webhooks.door]\npreset = \"bearer\"\nsecret = \"token-of-the-door\"\n\
         environment = \"{}\"\n",
        if environments.contains("environments.shop") { "shop" } else { "default" }
    );
    let path = directory.join("bellpull.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_file_declares_environments_and_a_reload_changes_them() {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let local = format!(
        "[environments.shop]\ntype = \"local\"\nproject = \"{}\"\nworkspace = \"copy\"\n",
        project.display()
    );
    let config = write(directory.path(), &local);
    let server = Process::serve(&directory.path().join("data"), &["--config", &config]).await;
    let made = shop(&server).await.expect("it is there from the start");
    assert_eq!(made["managed_by"], "file");
    assert_eq!(made["config"]["workspace"], "copy");
    assert_eq!(made["config"]["networking"], json!({"type": "none"}));
    let (_, source) = call(&server, Method::GET, "/v1/sources/door", None).await;
    assert_eq!(source["environment_id"], made["id"], "{source}");

    let path = format!("/v1/environments/{}", made["id"].as_str().unwrap());
    for (method, path, body) in [
        (Method::POST, path.clone(), Some(json!({"description": "mine"}))),
        (Method::POST, format!("{path}/archive"), Some(json!({}))),
        (Method::DELETE, path.clone(), None),
    ] {
        let (status, answer) = call(&server, method, &path, body).await;
        assert_eq!(status, 409, "{answer}");
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(said.contains("declared in the config file"), "{said}");
    }

    // Changed in place: the same environment, with all that the file says and no more.
    write(directory.path(), &format!("{local}setup = [\"make deps\"]\ndescription = \"wares\"\n"));
    let changed = until("the reload changes it", async || {
        shop(&server).await.filter(|it| it["description"] == "wares")
    })
    .await;
    assert_eq!(changed["id"], made["id"]);
    assert_eq!(changed["config"]["setup"], json!(["make deps"]));
    write(directory.path(), &local);
    let back = until("the reload takes it back", async || {
        shop(&server).await.filter(|it| it["description"].is_null())
    })
    .await;
    assert_eq!(back["config"], made["config"]);

    // A mistake is refused as a whole, and what is there stays.
    write(directory.path(), "[environments.shop]\ntype = \"local\"\nworkspace = \"shard\"\n");
    until("the mistakes are named", async || {
        let log = server.log();
        let named = ["environments.shop.project", "environments.shop.workspace"];
        named.iter().all(|key| log.contains(key)).then_some(())
    })
    .await;
    assert_eq!(shop(&server).await.unwrap()["config"], made["config"]);

    // Of another kind it is another one, and the source goes with the name.
    write(directory.path(), "[environments.shop]\ntype = \"cloud\"\n");
    let other = until("it becomes another one", async || {
        shop(&server).await.filter(|it| it["config"]["type"] == "cloud")
    })
    .await;
    assert_ne!(other["id"], made["id"]);
    let (_, old) = call(&server, Method::GET, &path, None).await;
    assert!(old["archived_at"].is_string(), "{old}");
    until("the source works there", async || {
        let (_, source) = call(&server, Method::GET, "/v1/sources/door", None).await;
        (source["environment_id"] == other["id"]).then_some(())
    })
    .await;

    // Out of the file it is anybody's.
    write(directory.path(), "");
    until("it is let go", async || shop(&server).await.filter(|it| it["managed_by"] == "api"))
        .await;
    let path = format!("/v1/environments/{}", other["id"].as_str().unwrap());
    let (status, _) =
        call(&server, Method::POST, &path, Some(json!({"description": "mine"}))).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_an_agents_endpoint_leaves_to_tools_is_the_files_to_say() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bellpull.toml");
    let config = path.to_str().unwrap();
    let declare = |tools: &str| {
        let text = format!("[agents.lucy]\nmodel = \"rehearsal\"\n{tools}");
        std::fs::write(&path, text).unwrap();
    };
    declare("webhook_tools = \"read_only\"\n");
    let server = Process::serve(&directory.path().join("data"), &["--config", config]).await;
    let (_, agents) = call(&server, Method::GET, "/v1/agents", None).await;
    let agents = agents["data"].as_array().unwrap().iter();
    let agent = agents.clone().find(|it| it["name"] == "lucy").unwrap()["id"].as_str().unwrap();
    let (_, sources) = call(&server, Method::GET, "/v1/sources?kind=agent&limit=100", None).await;
    let sources = sources["data"].as_array().unwrap();
    let source = sources.iter().find(|it| it["agent_id"] == agent).expect("its endpoint");
    assert_eq!(source["webhook_tools"], "read_only");
    let source = format!("/v1/sources/{}", source["id"].as_str().unwrap());
    let body = Some(json!({"webhook_tools": "as_usual"}));
    let (status, answer) = call(&server, Method::POST, &source, body).await;
    assert_eq!(status, 409, "{answer}");
    declare("");
    until("what is left out is as usual", async || {
        let (_, shown) = call(&server, Method::GET, &source, None).await;
        (shown["webhook_tools"] == "as_usual").then_some(())
    })
    .await;
}
