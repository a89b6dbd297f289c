//! The tools, on real files: what a model asks for, and what it is told.

mod environments;
mod files;
mod links;
mod search;
mod turn;
mod web;

use std::{path::PathBuf, sync::Arc};

use bellpull::{
    clock::Timestamp,
    domain::event::plain_text,
    id::{DeliveryId, Id, SessionId},
    tool::{self, DeliveredPayload, Error, Options, Workspace},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One session's tools, on a directory of their own.
struct Bench {
    session: SessionId,
    options: Options,
    workspace: Arc<Workspace>,
    directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Options::default())
    }

    fn with(options: Options) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let (root, files) = (directory.path().join("work"), directory.path().join("session"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&files).unwrap();
        let workspace = Arc::new(Workspace::open(&root, &files).unwrap());
        Bench { session: SessionId::new(Timestamp(0)), options, workspace, directory }
    }

    /// A path in the workspace, on this machine.
    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("work").join(path)
    }

    /// A path outside of it.
    fn outside(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    /// What the model is told: an answer, or what it did wrong.
    async fn call(&self, name: &str, input: Value) -> Result<String, String> {
        match tool::run(self, name, &input).await {
            Ok(blocks) => Ok(plain_text(&blocks)),
            Err(Error::Model(message)) => Err(message),
            Err(Error::Fatal(error)) => panic!("{name} {input}: {error:#}"),
        }
    }

    async fn read(&self, path: &str) -> Result<String, String> {
        self.call("read", json!({"file_path": path})).await
    }

    async fn write(&self, path: &str, content: &str) -> Result<String, String> {
        self.call("write", json!({"file_path": path, "content": content})).await
    }

    async fn edit(&self, path: &str, old: &str, new: &str) -> Result<String, String> {
        let input = json!({"file_path": path, "old_string": old, "new_string": new});
        self.call("edit", input).await
    }
}

impl tool::Host for Bench {
    fn session_id(&self) -> &SessionId {
        &self.session
    }

    fn options(&self) -> &Options {
        &self.options
    }

    async fn delivery(&self, _: Option<DeliveryId>) -> Result<DeliveredPayload, Error> {
        Err(Error::Model("no delivery is here".to_owned()))
    }

    async fn page(&self, _: &str) -> Result<tool::web_fetch::Page, Error> {
        Err(Error::Model("no web is here".to_owned()))
    }

    async fn workspace(&self) -> Result<Arc<Workspace>, Error> {
        Ok(self.workspace.clone())
    }
}
