//! The sandbox from inside: each story is a real command in a real sandbox.

mod egress;
mod escapes;
mod limits;
mod shells;
mod turn;

use std::{path::Path, sync::Arc, time::Duration};

use bellpull::{
    clock::Clock,
    tool::{
        sandbox::{self, Sandbox, Spec, State},
        shell::{self, Files, Handle, Ran, Slot},
    },
};
use tokio::sync::Mutex;

/// A sandbox, and the workspace of one session.
pub struct World {
    directory: tempfile::TempDir,
    pub sandbox: Sandbox,
    slot: Arc<Mutex<Slot>>,
    pub options: shell::Options,
    pub network: Option<std::path::PathBuf>,
    pub environment: Vec<(String, String)>,
}

/// Longer than any command here takes.
const PATIENT: Duration = Duration::from_secs(60);

impl World {
    pub async fn new() -> World {
        World::with(sandbox::Options::default()).await
    }

    pub async fn with(options: sandbox::Options) -> World {
        World::at(tempfile::tempdir().unwrap(), options).await
    }

    pub async fn at(directory: tempfile::TempDir, options: sandbox::Options) -> World {
        let place = directory.path().join("sandbox");
        let binary = Some(env!("CARGO_BIN_EXE_bellpull").into());
        let sandbox = Sandbox::open(options, &place, binary, &Clock::system()).await;
        assert!(
            !matches!(sandbox.state(), State::Refused(_)),
            "the tests of the sandbox need one: {:?}",
            sandbox.state()
        );
        let world = World {
            directory,
            sandbox,
            slot: Arc::default(),
            options: shell::Options::default(),
            network: None,
            environment: Vec::new(),
        };
        std::fs::create_dir(world.workspace()).unwrap();
        world.give(&world.workspace());
        world
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn workspace(&self) -> std::path::PathBuf {
        self.path().join("workspace")
    }

    /// To whoever programs run as.
    pub fn give(&self, path: &Path) {
        if let Some((user, group)) = self.sandbox.owner() {
            std::os::unix::fs::lchown(path, Some(user), Some(group)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                for entry in std::fs::read_dir(path).unwrap() {
                    self.give(&entry.unwrap().path());
                }
            }
        }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.workspace().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.give(&self.workspace());
    }

    pub fn spec(&self) -> Spec {
        Spec {
            workspace: self.workspace(),
            writable: true,
            network: self.network.clone(),
            environment: self.environment.clone(),
            ..Spec::default()
        }
    }

    pub async fn handle(&self) -> Handle {
        Handle {
            slot: self.slot.clone().lock_owned().await,
            sandbox: self.sandbox.clone(),
            spec: self.spec(),
            files: Files {
                outputs: self.path().join("outputs"),
                shown_at: "/session/outputs".into(),
                mark: self.path().join("mark"),
            },
            options: self.options.clone(),
            clock: Clock::system(),
        }
    }

    pub async fn run(&self, command: &str) -> Ran {
        self.run_within(command, PATIENT).await
    }

    pub async fn run_within(&self, command: &str, timeout: Duration) -> Ran {
        self.handle().await.run(command, timeout).await.unwrap()
    }

    /// What a command says.
    pub async fn said(&self, command: &str) -> String {
        self.run(command).await.output.trim_end().to_owned()
    }
}

/// Whether a process of this machine has this text in its command line. Sandboxes cannot hide theirs
/// from outside.
pub fn is_running(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|it| it.file_name().as_encoded_bytes()[0].is_ascii_digit()).any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    })
}
