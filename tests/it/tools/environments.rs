//! Where a session's files are, by its environment.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::turn::{results, with_config};
use crate::{
    model::story::Story,
    support::{model_server::Reply, process::until},
};

/// A server whose agent may work in projects, and one of these.
struct Works {
    story: Story,
    project: PathBuf,
    _directory: tempfile::TempDir,
}

impl Works {
    async fn new(script: impl IntoIterator<Item = Reply>) -> Works {
        Works::with("", script).await
    }

    async fn with(settings: &str, script: impl IntoIterator<Item = Reply>) -> Works {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        std::fs::create_dir(&project).unwrap();
        std::fs::write(project.join("a.txt"), "committed\n").unwrap();
        let root = directory.path().display();
        let projects = format!("[projects]\nroots = [\"{root}\"]\n{settings}\n");
        let story = with_config(&projects, script).await;
        Works { story, project, _directory: directory }
    }

    /// A git repository that would execute a lot.
    fn repository(&self) {
        let marker = self.project.with_file_name("executed");
        let script = format!("#!/bin/sh\ntouch {}\ncat\n", marker.display());
        let run = self.project.with_file_name("run.sh");
        std::fs::write(&run, &script).unwrap();
        git(&self.project, &["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(self.project.join(".gitattributes"), "*.txt filter=evil\n").unwrap();
        git(&self.project, &["add", "."]);
        git(&self.project, &["commit", "--quiet", "-m", "first"]);
        let run = run.to_str().unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(run, mode).unwrap();
        for key in [
            "filter.evil.smudge",
            "filter.evil.clean",
            "core.fsmonitor",
            "core.sshCommand",
            "core.alternateRefsCommand",
            "uploadpack.packObjectsHook",
        ] {
            git(&self.project, &["config", key, run]);
        }
        for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
            std::fs::copy(run, self.project.join(".git/hooks").join(hook)).unwrap();
        }
    }

    fn executed(&self) -> bool {
        self.project.with_file_name("executed").exists()
    }

    async fn environment(&self, workspace: &str) -> String {
        let config = json!({"type": "local", "project": self.project, "workspace": workspace});
        let body = json!({"name": workspace, "config": config});
        let made = self.story.server.post("/v1/environments", body).await;
        made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// A session that works until it is idle again, and what its tools answered.
    async fn session(&self, environment: &str) -> (String, Vec<(String, bool)>) {
        let server = &self.story.server;
        let agents = server.get("/v1/agents").await;
        let agents = agents["data"].as_array().unwrap();
        let agent = agents.iter().find(|it| it["name"] == "concierge").unwrap();
        let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
        let body = json!({"agent": agent["id"], "environment_id": environment,
            "initial_events": [message]});
        let session = server.post("/v1/sessions", body).await["id"].as_str().unwrap().to_owned();
        let events = until("the session is idle", async || {
            let path = format!("/v1/sessions/{session}/events?limit=1000");
            let events = server.get(&path).await["data"].as_array().unwrap().clone();
            events.iter().any(|it| it["type"] == "session.status_idle").then_some(events)
        })
        .await;
        (session, results(&events))
    }

    fn own(&self, session: &str) -> PathBuf {
        self.story.database().with_file_name("workspaces").join(session)
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*"])
        .args(["-c", "commit.gpgSign=false"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn reads(path: &str) -> Reply {
    Reply::text(&[]).and_calls(&[("read", json!({"file_path": path}))])
}

fn reads_and_writes() -> [Reply; 2] {
    let calls = [
        ("read", json!({"file_path": "a.txt"})),
        ("write", json!({"file_path": "a.txt", "content": "changed\n"})),
        ("write", json!({"file_path": ".git/hooks/pre-commit", "content": "evil"})),
    ];
    [Reply::text(&[]).and_calls(&calls), Reply::text(&["Done."])]
}

#[track_caller]
fn was_read_and_written(results: &[(String, bool)]) {
    assert_eq!(results[0], ("committed\n".to_owned(), false));
    assert_eq!(results[1], ("wrote over `/workspace/a.txt`, 8 bytes".to_owned(), false));
    assert!(results[2].1 && results[2].0.contains("executed by other programs"), "{results:?}");
}

#[tokio::test]
async fn a_shared_project_is_worked_on_in_place() {
    let works = Works::new(reads_and_writes()).await;
    let environment = works.environment("shared").await;
    let (_, results) = works.session(&environment).await;
    was_read_and_written(&results);
    assert_eq!(std::fs::read_to_string(works.project.join("a.txt")).unwrap(), "changed\n");
    let entries = std::fs::read_dir(&works.project).unwrap().count();
    assert_eq!(entries, 1, "nothing of ours is left in it");
}

#[tokio::test]
async fn a_copy_leaves_the_project_as_it_is() {
    let works = Works::new(reads_and_writes()).await;
    std::fs::create_dir(works.project.join("sub")).unwrap();
    std::fs::write(works.project.with_file_name("secret"), "the secret").unwrap();
    symlink("../../secret", works.project.join("sub/out")).unwrap();
    symlink("../a.txt", works.project.join("sub/in")).unwrap();
    assert!(Command::new("mkfifo").arg(works.project.join("pipe")).status().unwrap().success());
    let environment = works.environment("copy").await;
    let (session, results) = works.session(&environment).await;
    was_read_and_written(&results);
    assert_eq!(std::fs::read_to_string(works.project.join("a.txt")).unwrap(), "committed\n");
    let work = works.own(&session).join("work");
    assert_eq!(std::fs::read_to_string(work.join("a.txt")).unwrap(), "changed\n");
    assert!(work.join("sub/out").is_symlink() && work.join("sub/in").is_symlink());
    assert!(!work.join("pipe").exists(), "what never ends is not copied");

    works.story.models.then(reads("sub/out"));
    works.story.models.then(Reply::text(&["No."]));
    let (_, results) = works.session(&environment).await;
    assert!(results[0].1 && results[0].0.contains("outside"), "{results:?}");
}

#[tokio::test]
async fn a_copy_has_bounds() {
    let works =
        Works::with("copy_entries_max = 100", [reads("a.txt"), Reply::text(&["No."])]).await;
    for n in 0..100 {
        std::fs::write(works.project.join(n.to_string()), "").unwrap();
    }
    let environment = works.environment("copy").await;
    let (session, results) = works.session(&environment).await;
    assert!(
        results[0].1 && results[0].0.contains("`projects.copy_entries_max` (100)"),
        "{results:?}"
    );
    assert!(!works.own(&session).join("work").exists());
}

#[tokio::test]
async fn a_worktree_is_a_branch_of_its_own_and_executes_nothing() {
    let [first, last] = reads_and_writes();
    let commit =
        "git -c user.name=t -c user.email=t@example.com commit -qam second; git log --oneline";
    let commits = Reply::text(&[]).and_calls(&[("bash", json!({"command": commit}))]);
    let works = Works::new([first, commits, last]).await;
    works.repository();
    let _ = std::fs::remove_file(works.project.with_file_name("executed"));
    let environment = works.environment("worktree").await;
    let (session, results) = works.session(&environment).await;
    was_read_and_written(&results);
    assert!(!works.executed(), "nothing of the project was executed");
    assert_eq!(std::fs::read_to_string(works.project.join("a.txt")).unwrap(), "committed\n");
    let work = works.own(&session).join("work");
    let head = std::fs::read_to_string(work.join(".git/HEAD")).unwrap();
    assert_eq!(head.trim(), format!("ref: refs/heads/bellpull/{session}"));
    let hooks = std::fs::read_dir(work.join(".git/hooks"));
    assert_eq!(hooks.map_or(0, Iterator::count), 0);
    let config = std::fs::read_to_string(work.join(".git/config")).unwrap();
    assert!(!config.contains("run.sh") && !config.contains("remote"), "{config}");
    // It is a whole repository: the agent commits, and the project does not change.
    assert_eq!(results[3].0.lines().count(), 2, "{results:?}");
    assert_eq!(git(&work, &["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(git(&works.project, &["rev-list", "--count", "--all"]), "1");
}

#[tokio::test]
async fn what_is_no_repository_has_no_worktree() {
    let works = Works::new([]).await;
    let config = json!({"type": "local", "project": works.project, "workspace": "worktree"});
    let body = json!({"name": "w", "config": config});
    let answer = works.story.server.post("/v1/environments", body).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("git repository"), "{answer}");
}

#[tokio::test]
async fn a_project_that_is_not_allowed_any_more_is_left_alone() {
    let works = Works::new([reads("a.txt"), Reply::text(&["No."])]).await;
    let environment = works.environment("shared").await;
    works.story.configure(|text| {
        let line = text.lines().find(|line| line.starts_with("roots")).unwrap().to_owned();
        text.replace(&line, "roots = []")
    });
    let Works { story, project, _directory } = works;
    let works = Works { story: story.restart().await, project, _directory };
    let (_, results) = works.session(&environment).await;
    assert!(results[0].1 && results[0].0.contains("under none of `projects.roots`"), "{results:?}");
}

#[tokio::test]
async fn setup_and_variables_are_there_before_the_first_command() {
    let bash = |command: &str| Reply::text(&[]).and_calls(&[("bash", json!({"command": command}))]);
    let script = [
        bash("cat made; echo $PLAIN $TOKEN"),
        bash("cat made"),
        Reply::text(&["Done."]),
        bash("cat made"),
        Reply::text(&["No."]),
    ];
    let works = Works::new(script).await;
    let server = &works.story.server;
    server.post("/v1/secrets", json!({"name": "THE.TOKEN", "value": "from-the-vault"})).await;
    let config = json!({"type": "local", "project": works.project, "workspace": "copy",
        "setup": ["echo $PLAIN >> made", "echo second >> made"],
        "variables": {"PLAIN": "plain", "TOKEN": {"secret": "THE.TOKEN"}}});
    let body = json!({"name": "prepared", "config": config});
    let made = server.post("/v1/environments", body).await;
    let (_, results) = works.session(made["id"].as_str().unwrap()).await;
    assert!(results[0].0.contains("plain\nsecond\nplain from-the-vault"), "{results:?}");
    assert_eq!(results[1].0.matches("second").count(), 1, "each runs once: {results:?}");

    let config = json!({"type": "cloud", "setup": ["echo oops >&2; exit 3"]});
    let made = server.post("/v1/environments", json!({"name": "broken", "config": config})).await;
    let (_, results) = works.session(made["id"].as_str().unwrap()).await;
    let (told, is_error) = &results[0];
    assert!(*is_error && told.contains("setup failed") && told.contains("oops"), "{results:?}");
}

#[tokio::test]
async fn workspaces_of_sessions_that_are_gone_are_removed() {
    let works = Works::new([reads("a.txt"), Reply::text(&["Done."])]).await;
    let environment = works.environment("copy").await;
    let (session, _) = works.session(&environment).await;
    let workspaces = works.own(&session).with_file_name("");
    let gone = workspaces.join("sesn_0000000000000000000000gone");
    std::fs::create_dir_all(gone.join("work/deep")).unwrap();
    std::fs::create_dir(workspaces.join("else")).unwrap();
    let Works { story, project, _directory } = works;
    let works = Works { story: story.restart().await, project, _directory };
    until("it is removed", async || (!gone.exists()).then_some(())).await;
    assert!(works.own(&session).join("work/a.txt").exists());
    assert!(workspaces.join("else").exists());
}
