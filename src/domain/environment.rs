//! An environment: where an agent's tools run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ManagedBy, Metadata, Problem, access::Network, check_metadata};
use crate::{clock::Timestamp, id::EnvironmentId};

/// Characters of a name, and of what an environment is for.
pub const NAME_CHARS_MAX: usize = 256;
pub const DESCRIPTION_CHARS_MAX: usize = 2048;

/// The environment that exists from the start.
pub const DEFAULT_NAME: &str = "default";

/// Of the environment that is made for a project that a source names.
pub fn name_of_project(project: &str) -> String {
    format!("project {project}")
}

/// How sessions share a project directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workspace {
    /// In place; sessions take turns.
    #[default]
    Shared,
    Worktree,
    Copy,
}

/// What an environment gives to the programs that run in it. Our extension, in both kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Programs {
    /// Commands that prepare a workspace, each once, in order, before its first turn works in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Environment variables by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
}

/// A value that everybody may see, or the name of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Variable {
    Plain(String),
    Secret { secret: String },
}

/// `config` of an environment. `cloud` is our sandbox with a fresh workspace; `local`, our
/// extension, works in a project directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EnvironmentConfig {
    Cloud {
        #[serde(default)]
        networking: Value,
        #[serde(default)]
        packages: Value,
        #[serde(flatten)]
        programs: Programs,
    },
    Local {
        project: String,
        #[serde(default)]
        workspace: Workspace,
        /// What is left out, as in environments of before, is `none`.
        #[serde(default = "no_network")]
        networking: Value,
        #[serde(flatten)]
        programs: Programs,
    },
    /// The client's: calls that work on files or run programs are carried out by it, and answered with
    /// `user.tool_result`.
    SelfHosted,
}

fn no_network() -> Value {
    json!({"type": "none"})
}

impl EnvironmentConfig {
    pub fn cloud() -> EnvironmentConfig {
        EnvironmentConfig::Cloud {
            networking: json!({"type": "unrestricted"}),
            packages: json!({"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [],
                "npm": [], "pip": []}),
            programs: Programs::default(),
        }
    }

    /// A project without anything else: its network is off.
    pub fn local(project: &str, workspace: Workspace) -> EnvironmentConfig {
        EnvironmentConfig::Local {
            project: project.to_owned(),
            workspace,
            networking: no_network(),
            programs: Programs::default(),
        }
    }

    /// Reads `config` as requests give it, with every default filled in. What is left out, and null,
    /// means a sandbox with an open network.
    pub fn parse(value: &Value) -> Result<EnvironmentConfig, Problem> {
        let mut problems = Vec::new();
        let config = EnvironmentConfig::read(value, &mut problems);
        match problems.into_iter().next() {
            None => Ok(config),
            Some(problem) => Err(problem),
        }
    }

    /// As [`EnvironmentConfig::parse`], with all problems. What is read means something only where there
    /// are none.
    pub fn read(value: &Value, problems: &mut Vec<Problem>) -> EnvironmentConfig {
        match value.get("type").and_then(Value::as_str) {
            None if value.is_null() => EnvironmentConfig::cloud(),
            Some("cloud") => {
                let known = ["type", "networking", "packages", "setup", "variables"];
                problems.extend(unknown_keys(value, "config", &known));
                let networking = networking(&value["networking"], "unrestricted");
                let networking = or_default(networking, problems);
                let packages = or_default(packages(&value["packages"]), problems);
                let any = packages.as_object().into_iter().flatten();
                let any =
                    any.into_iter().any(|(_, it)| it.as_array().is_some_and(|it| !it.is_empty()));
                if any && networking["allow_package_managers"] == false {
                    problems.push(Problem::new(
                        "config.packages",
                        "need `allow_package_managers` where networking is limited",
                    ));
                }
                EnvironmentConfig::Cloud {
                    networking,
                    packages,
                    programs: programs(value, problems),
                }
            }
            Some("local") => {
                let known = ["type", "project", "workspace", "networking", "setup", "variables"];
                problems.extend(unknown_keys(value, "config", &known));
                let project = value["project"].as_str().filter(|it| it.starts_with('/'));
                let project = project.map(str::to_owned).ok_or_else(|| {
                    Problem::new("config.project", "is required and must be an absolute path")
                });
                let workspace = match &value["workspace"] {
                    Value::Null => Ok(Workspace::default()),
                    given => Workspace::deserialize(given).map_err(|_| {
                        Problem::new("config.workspace", "must be `shared`, `worktree` or `copy`")
                    }),
                };
                EnvironmentConfig::Local {
                    project: or_default(project, problems),
                    workspace: or_default(workspace, problems),
                    networking: or_default(networking(&value["networking"], "none"), problems),
                    programs: programs(value, problems),
                }
            }
            Some("self_hosted") => EnvironmentConfig::SelfHosted,
            Some(_) | None => {
                let message = "must be `cloud`, `self_hosted` or `local`";
                problems.push(Problem::new("config.type", message));
                EnvironmentConfig::cloud()
            }
        }
    }

    /// Reads `config` as an update gives it: its kind stays, and what is left out, and null, stays as
    /// it is, also within `networking` of the same kind and within `packages`.
    pub fn change(&self, given: &Value) -> Result<EnvironmentConfig, Problem> {
        let Value::Object(given) = given else {
            return Err(Problem::new("config", "must be an object"));
        };
        let mut whole = serde_json::to_value(self).expect("a configuration is plain JSON");
        let kind = given.get("type").filter(|kind| !kind.is_null());
        match kind.map(|kind| kind.as_str().unwrap_or_default()) {
            None => {}
            Some(kind) if whole["type"] == kind => {}
            Some(kind @ ("cloud" | "local" | "self_hosted")) => {
                let was = whole["type"].as_str().unwrap_or_default();
                let message = format!("is `{was}` and cannot become `{kind}`");
                let problem = Problem::new("config.type", message);
                return Err(problem.with_code("invalid_config_type_change"));
            }
            Some(_) => {
                let message = "must be `cloud`, `self_hosted` or `local`";
                return Err(Problem::new("config.type", message));
            }
        }
        for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            let before = &mut whole[key];
            let goes_on = match key.as_str() {
                "networking" => before["type"] == value["type"],
                "packages" => before.is_object(),
                _ => false,
            };
            match (before.as_object_mut(), value) {
                (Some(before), Value::Object(value)) if goes_on => {
                    let given = value.iter().filter(|(_, value)| !value.is_null());
                    before.extend(given.map(|(key, value)| (key.clone(), value.clone())));
                }
                _ => *before = value.clone(),
            }
        }
        EnvironmentConfig::parse(&whole)
    }

    /// Whether its sessions work in one directory, and so one after the other.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, EnvironmentConfig::Local { workspace: Workspace::Shared, .. })
    }

    /// What its programs may reach, before it is asked where a session comes from.
    pub fn network(&self) -> Network {
        let networking = match self {
            EnvironmentConfig::Cloud { networking, .. }
            | EnvironmentConfig::Local { networking, .. } => networking,
            EnvironmentConfig::SelfHosted => return Network::None,
        };
        match networking["type"].as_str() {
            // What was stored without any is the API's default.
            None | Some("unrestricted") => Network::Unrestricted,
            Some("limited") => {
                let hosts = networking["allowed_hosts"].as_array().into_iter().flatten();
                let hosts = hosts.filter_map(Value::as_str).map(str::to_owned);
                Network::Limited(hosts.collect())
            }
            Some(_) => Network::None,
        }
    }

    /// Whether the hosts of package managers, which the operator names, may be reached too.
    pub fn allows_package_managers(&self) -> bool {
        match self {
            EnvironmentConfig::Cloud { networking, .. }
            | EnvironmentConfig::Local { networking, .. } => {
                networking["allow_package_managers"] == true
            }
            EnvironmentConfig::SelfHosted => false,
        }
    }

    /// Whether the MCP servers of agents may be asked, where the hosts that are reached are listed.
    pub fn allows_mcp_servers(&self) -> bool {
        match self {
            EnvironmentConfig::Cloud { networking, .. }
            | EnvironmentConfig::Local { networking, .. } => {
                networking["allow_mcp_servers"] == true
            }
            EnvironmentConfig::SelfHosted => false,
        }
    }

    pub fn programs(&self) -> Option<&Programs> {
        match self {
            EnvironmentConfig::Cloud { programs, .. }
            | EnvironmentConfig::Local { programs, .. } => Some(programs),
            EnvironmentConfig::SelfHosted => None,
        }
    }

    /// Whether its programs are given any secret.
    pub fn has_secrets(&self) -> bool {
        let variables = self.programs().map(|programs| programs.variables.values());
        variables.is_some_and(|mut all| all.any(|it| matches!(it, Variable::Secret { .. })))
    }

    /// Whether one can become the other: an environment keeps its kind.
    pub fn is_like(&self, other: &EnvironmentConfig) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub fn project(&self) -> Option<&str> {
        match self {
            EnvironmentConfig::Local { project, .. } => Some(project),
            EnvironmentConfig::Cloud { .. } | EnvironmentConfig::SelfHosted => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    pub id: EnvironmentId,
    pub name: String,
    pub description: Option<String>,
    pub config: EnvironmentConfig,
    pub metadata: Metadata,
    pub managed_by: ManagedBy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Environment {
    /// The `Environment` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "environment",
            "name": self.name,
            "description": self.description,
            "config": self.config,
            "metadata": self.metadata,
            "scope": "organization",
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
            "managed_by": self.managed_by.as_str(),
        })
    }
}

/// A change of an environment: a field left out stays.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentPatch {
    pub name: Option<String>,
    /// Null clears.
    pub description: Option<Option<String>>,
    /// Null and the empty text delete.
    pub metadata: BTreeMap<String, Option<String>>,
    pub config: Option<Value>,
}

impl EnvironmentPatch {
    /// The environment after the change, validated as a whole.
    pub fn apply(self, mut environment: Environment) -> Result<Environment, Problem> {
        environment.name = self.name.unwrap_or(environment.name);
        environment.description = self.description.unwrap_or(environment.description);
        if let Some(config) = self.config {
            environment.config = environment.config.change(&config)?;
        }
        let kept = |value: Option<String>| value.filter(|value| !value.is_empty());
        let metadata = self.metadata.into_iter().map(|(key, value)| (key, kept(value)));
        super::patch_metadata(&mut environment.metadata, metadata.collect());
        check_metadata(&environment.metadata)
            .map_err(|problem| problem.with_code(INVALID_METADATA))?;
        Ok(environment)
    }
}

/// The API's word for it, of environments only.
pub const INVALID_METADATA: &str = "invalid_metadata";

const SETUP_MAX: usize = 50;
const COMMAND_BYTES_MAX: usize = 16 * 1024;
const VARIABLES_MAX: usize = 100;
const VARIABLE_BYTES_MAX: usize = 32 * 1024;

/// Variables that decide what a program loads or runs, or that belong to the sandbox.
const RESERVED: [&str; 6] = ["PATH", "HOME", "BASH_ENV", "ENV", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// What was read, or nothing and the reason why not.
fn or_default<T: Default>(read: Result<T, Problem>, problems: &mut Vec<Problem>) -> T {
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        T::default()
    })
}

fn programs(value: &Value, problems: &mut Vec<Problem>) -> Programs {
    let setup = or_default(commands(&value["setup"]), problems);
    Programs { setup, variables: or_default(variables(&value["variables"]), problems) }
}

fn commands(value: &Value) -> Result<Vec<String>, Problem> {
    let at = "config.setup";
    let setup = match value {
        Value::Null => Vec::new(),
        given => Vec::<String>::deserialize(given)
            .map_err(|_| Problem::new(at, "must be a list of commands"))?,
    };
    let is_command =
        |it: &String| (1..=COMMAND_BYTES_MAX).contains(&it.len()) && !it.contains('\0');
    if setup.len() > SETUP_MAX || !setup.iter().all(is_command) {
        let message = format!(
            "must be up to {SETUP_MAX} commands of 1 to {COMMAND_BYTES_MAX} bytes without NUL"
        );
        return Err(Problem::new(at, message));
    }
    Ok(setup)
}

fn variables(value: &Value) -> Result<BTreeMap<String, Variable>, Problem> {
    let at = "config.variables";
    let given = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(given) if given.len() <= VARIABLES_MAX => given,
        _ => {
            let message = format!("must be an object with up to {VARIABLES_MAX} names");
            return Err(Problem::new(at, message));
        }
    };
    let mut variables = BTreeMap::new();
    for (name, value) in given {
        variables.insert(name.clone(), variable(name, value, &format!("{at}.{name}"))?);
    }
    Ok(variables)
}

/// Whether a variable of programs can have this name.
pub fn check_variable_name(name: &str, at: &str) -> Result<(), Problem> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let named = (1..=128).contains(&name.len())
        && name.bytes().all(is_name)
        && !name.as_bytes()[0].is_ascii_digit();
    if !named || RESERVED.contains(&name) || name.starts_with("BELLPULL_") {
        let message = "is no name of a variable that may be set: letters, digits and `_`, and none \
            that the sandbox sets itself";
        return Err(Problem::new(at, message));
    }
    Ok(())
}

fn variable(name: &str, value: &Value, at: &str) -> Result<Variable, Problem> {
    check_variable_name(name, at)?;
    match value {
        Value::String(text) if text.len() <= VARIABLE_BYTES_MAX && !text.contains('\0') => {
            Ok(Variable::Plain(text.clone()))
        }
        Value::Object(map) if map.len() == 1 && map.get("secret").is_some_and(Value::is_string) => {
            let secret = map["secret"].as_str().unwrap_or_default();
            super::secret::check_name(secret)
                .map_err(|problem| Problem::new(format!("{at}.secret"), problem.message))?;
            Ok(Variable::Secret { secret: secret.to_owned() })
        }
        _ => {
            let message = format!(
                "must be a text of up to {VARIABLE_BYTES_MAX} bytes, or {{\"secret\": \"<name>\"}}"
            );
            Err(Problem::new(at, message))
        }
    }
}

const MANAGERS: [&str; 6] = ["apt", "cargo", "gem", "go", "npm", "pip"];

fn packages(value: &Value) -> Result<Value, Problem> {
    let at = "config.packages";
    check_keys(value, at, &["type", "apt", "cargo", "gem", "go", "npm", "pip"])?;
    let mut resolved = json!({"type": "packages"});
    for manager in MANAGERS {
        resolved[manager] = texts(&value[manager], &format!("{at}.{manager}"))?;
    }
    Ok(resolved)
}

fn networking(value: &Value, default: &str) -> Result<Value, Problem> {
    let at = "config.networking";
    match value.get("type").and_then(Value::as_str) {
        None if value.is_null() => Ok(json!({"type": default})),
        Some(kind @ ("unrestricted" | "none")) => {
            check_keys(value, at, &["type"])?;
            Ok(json!({"type": kind}))
        }
        Some("limited") => {
            let names = ["type", "allow_mcp_servers", "allow_package_managers", "allowed_hosts"];
            check_keys(value, at, &names)?;
            let flag = |name: &str| match &value[name] {
                Value::Null => Ok(false),
                Value::Bool(flag) => Ok(*flag),
                _ => Err(Problem::new(format!("{at}.{name}"), "must be true or false")),
            };
            let hosts = texts(&value["allowed_hosts"], &format!("{at}.allowed_hosts"))?;
            let all = hosts.as_array().into_iter().flatten().filter_map(Value::as_str);
            if let Some(host) = all.into_iter().find(|host| !super::access::is_host(host)) {
                let message = format!("`{}` is no name of a host", super::text::one_line(host));
                return Err(Problem::new(format!("{at}.allowed_hosts"), message));
            }
            Ok(json!({
                "type": "limited",
                "allow_mcp_servers": flag("allow_mcp_servers")?,
                "allow_package_managers": flag("allow_package_managers")?,
                "allowed_hosts": hosts,
            }))
        }
        Some(_) | None => {
            let message = "must be `unrestricted`, `limited` or `none`";
            Err(Problem::new(format!("{at}.type"), message))
        }
    }
}

/// Entries of a list of texts.
const TEXTS_MAX: usize = 256;

fn texts(value: &Value, at: &str) -> Result<Value, Problem> {
    let wrong = || Problem::new(at, format!("must be a list of up to {TEXTS_MAX} texts"));
    match value {
        Value::Null => Ok(json!([])),
        Value::Array(list) if list.len() <= TEXTS_MAX && list.iter().all(Value::is_string) => {
            Ok(value.clone())
        }
        _ => Err(wrong()),
    }
}

fn check_keys(value: &Value, at: &str, known: &[&str]) -> Result<(), Problem> {
    match unknown_keys(value, at, known).into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(problem),
    }
}

fn unknown_keys(value: &Value, at: &str, known: &[&str]) -> Vec<Problem> {
    let map = match value {
        Value::Null => return Vec::new(),
        Value::Object(map) => map,
        _ => return vec![Problem::new(at, "must be an object")],
    };
    let unknown = map.keys().filter(|key| !known.contains(&key.as_str()));
    unknown.map(|key| Problem::new(format!("{at}.{key}"), "is not a field of it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let given = json!({"type": "local", "project": "/srv/a", "workspace": "worktree",
            "networking": {"type": "limited", "allowed_hosts": ["a.example"],
                "allow_package_managers": true},
            "setup": ["make deps"],
            "variables": {"A": "plain", "B": {"secret": "TOKEN"}}});
        let config = EnvironmentConfig::parse(&given).unwrap();
        let stored = serde_json::to_value(&config).unwrap();
        assert_eq!(stored["variables"], given["variables"]);
        assert_eq!(serde_json::from_value::<EnvironmentConfig>(stored).unwrap(), config);
        assert_eq!(config.network(), Network::Limited(vec!["a.example".to_owned()]));
        assert!(config.allows_package_managers());
        // As it was stored before there was more to it.
        let old = json!({"type": "local", "project": "/srv/a"});
        let old: EnvironmentConfig = serde_json::from_value(old).unwrap();
        assert_eq!(old, EnvironmentConfig::local("/srv/a", Workspace::Shared));
        assert_eq!(old.network(), Network::None);
        assert_eq!(EnvironmentConfig::cloud().network(), Network::Unrestricted);
    }

    #[test]
    fn what_an_update_leaves_out_stays() {
        let parse = |value| EnvironmentConfig::parse(&value).unwrap();
        let limited = |hosts: Value, managers: bool| json!({"type": "limited", "allowed_hosts": hosts, "allow_package_managers": managers});
        let before =
            parse(json!({"type": "cloud", "networking": limited(json!(["a.example"]), true),
            "packages": {"pip": ["a"]}, "setup": ["make"]}));
        let after = |change: Value| before.change(&change);
        assert_eq!(after(json!({"type": "cloud"})).unwrap(), before);
        let changed = after(json!({"type": "cloud", "packages": {"npm": ["b"], "pip": null},
            "networking": {"type": "limited", "allowed_hosts": null}}));
        let wanted =
            parse(json!({"type": "cloud", "networking": limited(json!(["a.example"]), true),
            "packages": {"pip": ["a"], "npm": ["b"]}, "setup": ["make"]}));
        assert_eq!(changed.unwrap(), wanted);
        let open = after(json!({"type": "cloud", "networking": {"type": "unrestricted"}}));
        assert_eq!(open.unwrap().network(), Network::Unrestricted);
        let closed = json!({"type": "cloud",
            "networking": {"type": "limited", "allow_package_managers": false}});
        assert_eq!(after(closed).unwrap_err().field, "config.packages");
        let other = after(json!({"type": "self_hosted"})).unwrap_err();
        assert_eq!(other.code, Some("invalid_config_type_change"));
        assert_eq!(after(json!({"packages": {}})).unwrap(), before, "its kind stays too");
        assert_eq!(after(json!({"type": 1})).unwrap_err().field, "config.type");
    }

    #[test]
    fn gaps_are_filled_and_mistakes_named() {
        let parse = |value| EnvironmentConfig::parse(&value);
        assert_eq!(parse(json!(null)).unwrap(), EnvironmentConfig::cloud());
        assert_eq!(parse(json!({"type": "cloud"})).unwrap(), EnvironmentConfig::cloud());
        let limited = parse(json!({"type": "cloud", "networking": {"type": "limited"},
            "packages": {"pip": []}}));
        assert_eq!(
            serde_json::to_value(limited.unwrap()).unwrap()["networking"],
            json!({"type": "limited", "allow_mcp_servers": false, "allow_package_managers": false,
                "allowed_hosts": []})
        );
        for (value, field) in [
            (json!({}), "config.type"),
            (json!({"type": "cloud", "x": 1}), "config.x"),
            (json!({"type": "cloud", "networking": {"type": "some"}}), "config.networking.type"),
            (
                json!({"type": "cloud", "networking": {"type": "limited",
                    "allowed_hosts": ["https://a.example"]}}),
                "config.networking.allowed_hosts",
            ),
            (json!({"type": "cloud", "setup": "make"}), "config.setup"),
            (json!({"type": "cloud", "setup": [""]}), "config.setup"),
            (json!({"type": "cloud", "variables": []}), "config.variables"),
            (json!({"type": "cloud", "variables": {"PATH": "x"}}), "config.variables.PATH"),
            (json!({"type": "cloud", "variables": {"1A": "x"}}), "config.variables.1A"),
            (json!({"type": "cloud", "variables": {"A": 1}}), "config.variables.A"),
            (
                json!({"type": "cloud", "variables": {"A": {"secret": "a b"}}}),
                "config.variables.A.secret",
            ),
            (json!({"type": "cloud", "packages": {"pip": "a"}}), "config.packages.pip"),
            (
                json!({"type": "cloud", "networking": {"type": "limited"},
                    "packages": {"pip": ["a"]}}),
                "config.packages",
            ),
            (json!({"type": "local", "project": "x"}), "config.project"),
            (json!({"type": "elsewhere"}), "config.type"),
        ] {
            assert_eq!(parse(value).unwrap_err().field, field);
        }
    }
}
