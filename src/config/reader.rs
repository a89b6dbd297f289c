//! Reads keys from flags, environment and file, and remembers which keys it was asked for.
//!
//! Invariants: every layer that gives a value is checked, also one that a stronger layer overrides,
//! so a mistake shows before it starts to matter. A key that nothing asked for is unknown: whoever
//! adds an option makes it known by reading it. Reading goes on after a problem, with the default
//! in the place of the wrong value; the caller must throw the result away if there are problems.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    problem::{Problem, Wrong, join},
    value::{self, Parsed, Raw},
};
use crate::domain::nearest::nearest;

/// Where an effective value came from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
        }
    }
}

/// One effective setting, for people to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key in the file, or the name of a variable that has none.
    pub key: String,
    /// The variable that sets it.
    pub environment: Option<String>,
    /// [`HIDDEN`] for a secret; null where nothing is set.
    pub value: Value,
    pub origin: Origin,
    /// A change takes effect at the next start only.
    pub needs_restart: bool,
}

/// Shown in the place of a secret.
pub const HIDDEN: &str = "***";

/// How the reader gets at files that the configuration names.
pub type Files<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// Stands for any name in the path of a known key, e.g. `webhooks.<name>.target`.
pub(super) const ANY: &str = "<name>";

/// Variables with our prefix that other parts of Bellpull read.
const VARIABLES_ELSEWHERE: [&str; 2] = ["BELLPULL_URL", "BELLPULL_API_KEY"];

/// `BELLPULL_TEST_*` belongs to the tests. The others are what Kubernetes puts into the environment
/// of every pod next to a service named `bellpull`, beside `BELLPULL_PORT=tcp://…`.
const PREFIXES_ELSEWHERE: [&str; 3] = ["BELLPULL_TEST_", "BELLPULL_SERVICE_", "BELLPULL_PORT_"];

/// Shorter secrets are accepted with a warning.
const SECRET_CHARS_MIN: usize = 16;

pub(super) struct Reader<'a> {
    pub(super) root: &'a Map<String, Value>,
    pub(super) environment: &'a BTreeMap<String, String>,
    /// By key.
    pub(super) flags: BTreeMap<&'static str, Cow<'a, str>>,
    pub(super) files: &'a Files<'a>,
    /// Relative paths of `{ file = … }` start here.
    pub(super) directory: &'a Path,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) settings: Vec<Setting>,
    known: BTreeSet<String>,
    variables: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        root: &'a Map<String, Value>,
        environment: &'a BTreeMap<String, String>,
        files: &'a Files<'a>,
    ) -> Reader<'a> {
        Reader {
            root,
            environment,
            flags: BTreeMap::new(),
            files,
            directory: Path::new(""),
            problems: Vec::new(),
            warnings: Vec::new(),
            settings: Vec::new(),
            known: BTreeSet::new(),
            variables: BTreeSet::new(),
        }
    }

    pub(super) fn problem(&mut self, key: &str, wrong: impl Into<Wrong>) {
        self.problems.push(Problem::new(key, wrong));
    }

    pub(super) fn warning(&mut self, key: &str, wrong: impl Into<Wrong>) {
        self.warnings.push(Problem::new(key, wrong));
    }

    /// A setting with a default. `key` is `section.key`, or a key of the top level.
    pub(super) fn get<T: Serialize>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> T {
        let (value, origin) = self.strongest(key, parse).unwrap_or((default, Origin::Default));
        self.note(key, Some(variable(key)), shown(&value), origin);
        value
    }

    /// A setting that may be absent.
    pub(super) fn optional<T: Serialize>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let found = self.strongest(key, parse);
        let origin = found.as_ref().map_or(Origin::Default, |(_, origin)| *origin);
        let value = found.map(|(value, _)| value);
        self.note(key, Some(variable(key)), shown(&value), origin);
        value
    }

    /// A setting that is never shown.
    pub(super) fn hidden<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let found = self.strongest(key, parse);
        let origin = found.as_ref().map_or(Origin::Default, |(_, origin)| *origin);
        self.note(key, Some(variable(key)), veiled(found.is_some()), origin);
        found.map(|(value, _)| value)
    }

    /// A variable that has no key in the file.
    pub(super) fn variable<T: Serialize>(
        &mut self,
        name: &'static str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.given_in_environment(name, parse);
        let origin = if value.is_some() { Origin::Environment } else { Origin::Default };
        self.note(name, Some(name.to_owned()), shown(&value), origin);
        value
    }

    pub(super) fn hidden_variable<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.given_in_environment(name, parse);
        let origin = if value.is_some() { Origin::Environment } else { Origin::Default };
        self.note(name, Some(name.to_owned()), veiled(value.is_some()), origin);
        value
    }

    /// The strongest layer that gives a value; all of them are checked.
    fn strongest<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<(T, Origin)> {
        self.known.insert(key.to_owned());
        let mut strongest = None;
        if let Some(value) = lookup(self.root, key)
            && let Some(value) = self.checked(key, parse(Raw::Value(value)))
        {
            strongest = Some((value, Origin::File));
        }
        if let Some(value) = self.given_in_environment(&variable(key), &parse) {
            strongest = Some((value, Origin::Environment));
        }
        if let Some(text) = self.flags.get(key).cloned() {
            let flag = flag(key);
            let parsed =
                if is_garbled(&text) { Err(GARBLED.into()) } else { parse(Raw::Text(&text)) };
            if let Some(value) = self.checked(&flag, parsed) {
                strongest = Some((value, Origin::Flag));
            }
        }
        strongest
    }

    /// An empty variable counts as not set: that is how compose files leave one out.
    fn given_in_environment<T>(
        &mut self,
        name: &str,
        parse: impl Fn(Raw<'_>) -> Parsed<T>,
    ) -> Option<T> {
        self.variables.insert(name.to_owned());
        let text = self.environment.get(name).filter(|text| !text.is_empty())?;
        let parsed = if is_garbled(text) { Err(GARBLED.into()) } else { parse(Raw::Text(text)) };
        self.checked(name, parsed)
    }

    pub(super) fn checked<T>(&mut self, key: &str, parsed: Parsed<T>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problem(key, wrong);
                None
            }
        }
    }

    pub(super) fn note(
        &mut self,
        key: &str,
        environment: Option<String>,
        value: Value,
        origin: Origin,
    ) {
        let needs_restart = super::needs_restart(key);
        let key = key.to_owned();
        self.settings.push(Setting { key, environment, value, origin, needs_restart });
    }

    /// Makes keys known that are read by [`Entry`] or by hand.
    pub(super) fn know(&mut self, table: &str, keys: &[&str]) {
        self.known.extend(keys.iter().map(|key| match table {
            "" => (*key).to_owned(),
            _ => format!("{table}.{key}"),
        }));
    }

    pub(super) fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// The entries of a table of named things, which may lie in another table; what is no table is
    /// reported by [`Reader::finish`].
    pub(super) fn entries(&self, table: &str) -> Vec<(&'a String, &'a Map<String, Value>)> {
        let mut path = table.split('.');
        let first = path.next().and_then(|key| self.root.get(key));
        let table = path.fold(first, |table, key| table?.get(key)).and_then(Value::as_object);
        let entries = table.into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name, value.as_object()?))).collect()
    }

    /// A secret of the file: its text, `{ file = … }` or `{ env = … }`.
    pub(super) fn secret(&mut self, at: &str, given: &Value) -> Option<SecretString> {
        let parsed = match given {
            Value::Object(table) => self
                .indirect(at, table, &["file", "env"])
                .map(|text| value::secret(Raw::Text(&text))),
            Value::String(_) => Some(value::secret(Raw::Value(given))),
            _ => Some(Err("must be a text, { file = \"…\" } or { env = \"…\" }".into())),
        };
        let secret = self.checked(at, parsed?)?;
        self.warn_if_weak(at, &secret);
        Some(secret)
    }

    pub(super) fn warn_if_weak(&mut self, at: &str, secret: &SecretString) {
        if secret.expose_secret().chars().count() < SECRET_CHARS_MIN {
            self.warning(
                at,
                Wrong::from(format!("has fewer than {SECRET_CHARS_MIN} characters"))
                    .hint("make one with `openssl rand -hex 32`"),
            );
        }
    }

    /// The text that a table points to: a file or a variable.
    pub(super) fn indirect(
        &mut self,
        at: &str,
        table: &Map<String, Value>,
        ways: &[&'static str],
    ) -> Option<String> {
        let mut given = table.iter().filter(|(_, value)| !value.is_null());
        let only = given.next().filter(|_| given.next().is_none());
        let way = only.and_then(|(key, value)| {
            let way = ways.iter().find(|way| **way == key.as_str())?;
            Some((*way, value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'))?))
        });
        match way {
            Some(("file", path)) => {
                let path = self.directory.join(path);
                let parsed = (self.files)(&path).map_err(|error| {
                    format!("the file `{}` cannot be read: {error}", path.display()).into()
                });
                self.checked(at, parsed)
            }
            Some((_, name)) => {
                self.variables.insert(name.to_owned());
                let text = self.environment.get(name).filter(|text| !text.is_empty()).cloned();
                if text.is_none() {
                    self.problem(at, format!("the variable `{name}` is not set, or empty"));
                }
                text
            }
            None => {
                let ways: Vec<_> = ways.iter().map(|way| format!("{{ {way} = \"…\" }}")).collect();
                self.problem(at, format!("as a table, must be {}", ways.join(" or ")));
                None
            }
        }
    }

    /// Reports what nothing asked for. `others_allowed`: the file is another program's as well, so
    /// unknown keys of its top level are only worth a warning.
    pub(super) fn finish(&mut self, others_allowed: bool) {
        let mut unknown = Vec::new();
        self.walk(self.root, "", "", &mut unknown);
        for Unknown { path, table, key } in unknown {
            let hint = self.known_near(&table, &key);
            let is_others = others_allowed && table.is_empty();
            let message =
                if is_others { "is not a key of Bellpull; ignored" } else { "unknown key" };
            let problem = Problem { key: path, message: message.to_owned(), hint };
            if is_others { self.warnings.push(problem) } else { self.problems.push(problem) }
        }
        self.finish_environment();
    }

    fn walk(
        &mut self,
        values: &Map<String, Value>,
        at: &str,
        table: &str,
        unknown: &mut Vec<Unknown>,
    ) {
        for (key, value) in values {
            let path = join(at, key);
            let inner = if self.has_below(&dotted(table, ANY)) && !table.is_empty() {
                dotted(table, ANY)
            } else {
                dotted(table, key)
            };
            // A dot inside a quoted key does not lead into a table.
            let is_plain = inner.ends_with(ANY) || !key.contains('.');
            if is_plain && self.known.contains(&inner) {
                continue;
            }
            match value {
                _ if !is_plain || !self.has_below(&inner) => {
                    unknown.push(Unknown { path, table: table.to_owned(), key: key.clone() });
                }
                Value::Object(values) => self.walk(values, &path, &inner, unknown),
                Value::Null => {}
                _ => self.problem(&path, "must be a table"),
            }
        }
    }

    /// Whether any known key lies below this table.
    fn has_below(&self, table: &str) -> bool {
        let below = format!("{table}.");
        self.known.range(below.clone()..).next().is_some_and(|key| key.starts_with(&below))
    }

    /// The known key that was meant: one of the same table, else the same word elsewhere.
    fn known_near(&self, table: &str, key: &str) -> Option<String> {
        if self.known.contains(&dotted(table, key)) {
            return Some("write the part before the dot as a table".to_owned());
        }
        let below = if table.is_empty() { String::new() } else { format!("{table}.") };
        let here = self.known.iter().filter_map(|known| known.strip_prefix(&below));
        let here = here.map(|rest| rest.split('.').next().unwrap_or(rest));
        if let Some(word) = nearest(key, here.filter(|word| *word != ANY)) {
            return Some(format!("did you mean `{word}`?"));
        }
        let elsewhere = self.known.iter().filter(|known| !known.contains(ANY));
        let elsewhere = elsewhere.filter(|known| nearest(key, known.rsplit('.').next()).is_some());
        elsewhere.min_by_key(|known| known.len()).map(|known| format!("did you mean `{known}`?"))
    }

    fn finish_environment(&mut self) {
        let ours = self.environment.iter().filter(|(name, _)| name.starts_with("BELLPULL_"));
        for (name, value) in ours {
            let is_known = self.variables.contains(name)
                || (name == "BELLPULL_PORT" && value.starts_with("tcp://"))
                || VARIABLES_ELSEWHERE.contains(&name.as_str())
                || PREFIXES_ELSEWHERE.iter().any(|prefix| name.starts_with(prefix));
            if !is_known {
                let near = nearest(name, self.variables.iter().map(String::as_str));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let message = "is not a variable of Bellpull; ignored".to_owned();
                self.warnings.push(Problem { key: name.clone(), message, hint });
            }
        }
    }
}

struct Unknown {
    path: String,
    /// The known path of the table that it is in.
    table: String,
    key: String,
}

/// One named thing of the file: a source or an agent.
pub(super) struct Entry<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    /// Path of its table, for messages.
    pub(super) at: String,
    pub(super) values: &'a Map<String, Value>,
}

impl<'a> Entry<'_, 'a> {
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.at, key)
    }

    pub(super) fn problem(&mut self, key: &str, wrong: impl Into<Wrong>) {
        self.reader.problem(&join(&self.at, key), wrong);
    }

    /// The value as it was given; null counts as not given.
    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn get<T>(&mut self, key: &str, parse: impl Fn(Raw<'_>) -> Parsed<T>) -> Option<T> {
        let parsed = parse(Raw::Value(self.raw(key)?));
        self.reader.checked(&join(&self.at, key), parsed)
    }
}

const GARBLED: &str = "is not valid UTF-8";

/// Flags and variables that were no UTF-8 have this character in the place of what was not.
fn is_garbled(text: &str) -> bool {
    text.contains(char::REPLACEMENT_CHARACTER)
}

/// The variable of a key: `BELLPULL_SECTION__KEY`, `BELLPULL_KEY` at the top level.
pub(super) fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

pub(super) fn variable(key: &str) -> String {
    format!("BELLPULL_{}", key.replace('.', "__").to_ascii_uppercase())
}

fn lookup<'a>(root: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let value = match key.split_once('.') {
        Some((section, key)) => root.get(section)?.as_object()?.get(key),
        None => root.get(key),
    };
    value.filter(|value| !value.is_null())
}

fn dotted(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn shown(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

pub(super) fn veiled(is_set: bool) -> Value {
    if is_set { HIDDEN.into() } else { Value::Null }
}
