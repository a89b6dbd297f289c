//! What the operator decides: one tree of options, read from flags, environment and file.
//!
//! [`Config::load`] is pure over its inputs and reports every problem at once; [`read`] is the thin
//! part around it that touches the machine, and the only place that asks for environment variables.
//! Invariant: a configuration with any problem is refused as a whole, so what is running is always
//! one configuration that somebody wrote. Nothing here looks at the database or the network; that a
//! declared agent or directory exists is found out where it is needed.

mod agent;
mod budgets;
mod callback;
mod environment;
mod format;
mod mcp;
mod problem;
mod reader;
mod sandbox;
mod section;
mod source;
mod value;
pub mod watch;

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

pub use self::{
    agent::DeclaredAgent,
    callback::DeclaredCallback,
    environment::DeclaredEnvironment,
    format::FileText,
    mcp::McpConfig,
    problem::{Problem, Problems},
    reader::{Files, HIDDEN, Origin, Setting},
    section::{Log, LogFormat, Metrics, Turns, Web},
    source::DeclaredSource,
    value::data_dir_default,
};
use self::{reader::Reader, watch::Watch};
use crate::{
    ingest, model, outbox,
    runtime::{self, Projects},
    schedule, store, tool, web, worker,
};

/// Everything that the operator decides and that is not a resource.
#[derive(Debug)]
pub struct Config {
    /// Where the database, the keys and the workspaces are.
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// PostgreSQL; SQLite in the data directory when absent.
    pub database_url: Option<SecretString>,
    /// Scheme, host and port under which senders reach this server, and the path below which a proxy
    /// serves it, if it does; no slash at the end.
    pub public_url: Option<String>,
    /// The first admin API key. One is made at the first start when absent.
    pub master_key: Option<SecretString>,
    /// Wraps the secrets at rest: 32 bytes in base64. A file in the data directory holds it when absent.
    pub vault_key: Option<SecretString>,
    pub models: model::Options,
    pub limits: ingest::Options,
    pub store: store::Options,
    pub retention: store::Retention,
    pub worker: worker::Options,
    pub tools: tool::Options,
    pub turns: Turns,
    pub outbox: outbox::Options,
    pub sandbox: tool::sandbox::Options,
    pub shells: runtime::shells::Options,
    pub mcp: McpConfig,
    pub projects: Projects,
    pub metrics: Metrics,
    pub web: Web,
    pub schedule: schedule::Options,
    pub files: web::Files,
    pub log: Log,
}

/// The resources that the file declares. They are read-only everywhere else.
#[derive(Debug, Default)]
pub struct Declared {
    /// `apiKey`: passes sources that have no gate of their own, and nothing else.
    pub box_key: Option<SecretString>,
    pub sources: Vec<DeclaredSource>,
    pub agents: Vec<DeclaredAgent>,
    pub environments: Vec<DeclaredEnvironment>,
}

/// What the flags of `serve` give.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub database_url: Option<SecretString>,
    pub public_url: Option<String>,
}

/// A configuration without problems.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub declared: Declared,
    /// Every setting with its effective value and where that came from.
    pub settings: Vec<Setting>,
    pub warnings: Vec<Problem>,
}

/// Keys, or sections with a dot at the end, whose change takes effect at the next start only.
const NEEDS_RESTART: [&str; 14] = [
    "listen",
    "data_dir",
    "database_url",
    "store.",
    "worker.",
    "turns.",
    "budgets.",
    "tools.",
    "sandbox.",
    "shell.",
    "egress.",
    "schedule.",
    "mcp.",
    "log.format",
];

/// Whether a change of this setting waits for the next start. A variable without a key in the file
/// cannot change before.
pub(crate) fn needs_restart(key: &str) -> bool {
    let is_variable = key.starts_with(|char: char| char.is_ascii_uppercase());
    is_variable
        || NEEDS_RESTART.iter().any(|it| key == *it || (it.ends_with('.') && key.starts_with(it)))
}

impl Config {
    /// The configuration that these inputs make, or everything that is wrong with them. A flag wins
    /// over a variable, that over the file, that over the default.
    pub fn load(
        file: Option<&FileText>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
        files: &Files<'_>,
    ) -> Result<Loaded, Problems> {
        Config::inspect(file, environment, flags, files).outcome()
    }

    fn inspect(
        file: Option<&FileText>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
        files: &Files<'_>,
    ) -> Inspected {
        let (root, syntax) = match file.map(format::parse) {
            None => (Map::new(), Vec::new()),
            Some(Ok(root)) => (root, Vec::new()),
            Some(Err(problems)) => (Map::new(), problems),
        };
        let mut reader = Reader::new(&root, environment, files);
        reader.flags = by_key(flags);
        let file_is_known = syntax.is_empty();
        reader.problems = syntax;
        if let Some(file) = file {
            let origin = if flags.config.is_some() { Origin::Flag } else { Origin::Environment };
            let path = Value::from(file.path.display().to_string());
            reader.note(CONFIG_VARIABLE, Some(CONFIG_VARIABLE.to_owned()), path, origin);
            reader.directory = file.path.parent().unwrap_or(Path::new(""));
        }
        let config = read_config(&mut reader);
        let declared = read_declared(&mut reader, &config.outbox.allowed_private_hosts);
        reader.finish(root.get("apiKey").is_some_and(|value| !value.is_null()));
        let Reader { problems, warnings, settings, .. } = reader;
        let loaded = Loaded { config, declared, settings, warnings };
        Inspected { loaded, problems, file_is_known }
    }

    /// The keys in which `new` differs from what is running and that wait for the next start.
    pub fn waiting_for_restart(&self, new: &Config) -> Vec<&'static str> {
        let url = |config: &Config| {
            config.database_url.as_ref().map(|url| url.expose_secret().to_owned())
        };
        [
            ("listen", self.listen != new.listen),
            ("data_dir", self.data_dir != new.data_dir),
            ("database_url", url(self) != url(new)),
            ("store", self.store != new.store),
            ("worker", self.worker != new.worker),
            ("tools", self.tools != new.tools),
            ("turns", self.turns != new.turns),
            ("sandbox", self.sandbox != new.sandbox),
            ("shell", self.shells != new.shells),
            ("schedule", self.schedule != new.schedule),
            ("mcp", self.mcp != new.mcp),
            ("log.format", self.log.format != new.log.format),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// What could be read, beside everything that is wrong: for whoever looks on behind a problem.
#[derive(Debug)]
pub struct Inspected {
    /// A wrong value is its default here: ask whether it is certain.
    pub loaded: Loaded,
    pub problems: Vec<Problem>,
    /// It could be read and parsed, or there is none.
    pub file_is_known: bool,
}

impl Inspected {
    /// Whether a key of the top level, or a variable, has the value that a server would start with.
    pub fn is_certain(&self, key: &str) -> bool {
        let names = [key.to_owned(), reader::variable(key), reader::flag(key)];
        let is_wrong = self.problems.iter().any(|problem| names.contains(&problem.key));
        let may_be_in_the_file = !self.file_is_known
            && self.loaded.settings.iter().any(|setting| {
                setting.key == key
                    && setting.origin < Origin::Environment
                    && setting.environment.as_deref() != Some(key)
            });
        !is_wrong && !may_be_in_the_file
    }

    fn outcome(self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() { Ok(self.loaded) } else { Err(Problems(self.problems)) }
    }
}

/// The path of every key that a file may have; `<name>` stands for the name of what it declares.
pub fn known_keys() -> Vec<String> {
    let (root, environment) = (Map::new(), BTreeMap::new());
    let mut reader = Reader::new(&root, &environment, &|_| Err(io::Error::other("not read")));
    read_config(&mut reader);
    read_declared(&mut reader, &[]);
    reader.known().iter().cloned().collect()
}

const CONFIG_VARIABLE: &str = "BELLPULL_CONFIG";
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4100);

fn by_key(flags: &Flags) -> BTreeMap<&'static str, Cow<'_, str>> {
    let Flags { config: _, data_dir, listen, database_url, public_url } = flags;
    [
        ("data_dir", data_dir.as_deref().map(Path::to_string_lossy)),
        ("listen", listen.as_deref().map(Cow::Borrowed)),
        ("database_url", database_url.as_ref().map(|url| url.expose_secret().into())),
        ("public_url", public_url.as_deref().map(Cow::Borrowed)),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

fn read_config(reader: &mut Reader<'_>) -> Config {
    let data_dir = data_dir_default(reader.environment);
    let config = Config {
        data_dir: reader.get("data_dir", data_dir, value::path),
        listen: reader.get("listen", LISTEN_DEFAULT, value::address),
        database_url: reader.hidden("database_url", value::database_url),
        public_url: reader.optional("public_url", value::public_url),
        master_key: reader.hidden_variable("BELLPULL_MASTER_KEY", value::secret),
        vault_key: reader.hidden_variable("BELLPULL_VAULT_KEY", value::vault_key),
        models: section::models(reader),
        limits: section::limits(reader),
        store: section::store(reader),
        retention: section::retention(reader),
        worker: section::worker(reader),
        tools: section::tools(reader),
        turns: section::turns(reader),
        outbox: section::outbox(reader),
        sandbox: sandbox::sandbox(reader),
        shells: sandbox::shells(reader),
        mcp: mcp::mcp(reader),
        projects: section::projects(reader),
        metrics: section::metrics(reader),
        web: section::web(reader),
        schedule: section::schedule(reader),
        files: section::files(reader),
        log: section::log(reader),
    };
    if let Some(key) = &config.master_key {
        reader.warn_if_weak("BELLPULL_MASTER_KEY", key);
    }
    // Servers that share a database must share the key, and a file is on one machine only.
    let is_set = reader.environment.get("BELLPULL_VAULT_KEY").is_some_and(|key| !key.is_empty());
    if config.database_url.is_some() && !is_set {
        reader.problem(
            "BELLPULL_VAULT_KEY",
            problem::Wrong::from("must be given with PostgreSQL")
                .hint("make one with `openssl rand -base64 32`, the same for every server"),
        );
    }
    config
}

fn read_declared(reader: &mut Reader<'_>, near: &[String]) -> Declared {
    reader.know("", &["apiKey"]);
    let given = reader.root.get("apiKey").filter(|value| !value.is_null());
    let box_key = given.and_then(|value| reader.secret("apiKey", value));
    if let Some(key) = &box_key
        && reader.environment.get("BELLPULL_MASTER_KEY").is_some_and(|it| it == key.expose_secret())
    {
        reader.problem("apiKey", "must not be the master key, which passes no webhook");
    }
    let origin = if given.is_some() { Origin::File } else { Origin::Default };
    reader.note("apiKey", None, reader::veiled(given.is_some()), origin);
    Declared {
        box_key,
        sources: source::read(reader, given.is_some(), near),
        agents: agent::read(reader, near),
        environments: environment::read(reader),
    }
}

/// The configuration of this process, and what to watch for a change of it.
#[derive(Debug)]
pub struct Read {
    pub outcome: Result<Loaded, Problems>,
    /// The files that were looked at, as they were just before; also after a failure, so that the
    /// next change is seen.
    pub watch: Watch,
}

/// Reads the file that the flags or the environment name, and loads. Reloading is the same again.
pub fn read(flags: &Flags) -> Read {
    let (inspected, watch) = look(flags);
    Read { outcome: inspected.outcome(), watch }
}

/// As [`read`], with what could be read where something is wrong.
pub fn inspect(flags: &Flags) -> Inspected {
    look(flags).0
}

fn look(flags: &Flags) -> (Inspected, Watch) {
    let environment = environment();
    let watch = RefCell::new(Watch::default());
    let open = |path: &Path, bytes_max: u64| {
        watch.borrow_mut().add(path);
        read_bounded(path, bytes_max)
    };
    let variable = environment.get(CONFIG_VARIABLE).filter(|path| !path.is_empty());
    let path = flags.config.clone().or_else(|| variable.map(PathBuf::from));
    let file = path.map(|path| match open(&path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(FileText { path, bytes }),
        Err(error) => {
            let message = format!("the file cannot be read: {error}");
            Err(Problem::new(path.display().to_string(), message))
        }
    });
    let text = |path: &Path| {
        let bytes = open(path, NAMED_FILE_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| io::Error::other("is not valid UTF-8"))
    };
    let load = |file: Option<&FileText>| Config::inspect(file, &environment, flags, &text);
    let inspected = match file.transpose() {
        Ok(file) => load(file.as_ref()),
        Err(problem) => {
            let mut inspected = load(None);
            inspected.problems.insert(0, problem);
            inspected.file_is_known = false;
            inspected
        }
    };
    (inspected, watch.into_inner())
}

/// No configuration that a person wrote is larger.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Room for the longest system prompt; secrets are shorter.
const NAMED_FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The environment of this process. What is no UTF-8 carries U+FFFD in its place, which the reader
/// refuses wherever it matters.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment; everybody else is handed the map"
)]
pub fn environment() -> BTreeMap<String, String> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

#[cfg(test)]
mod tests;
