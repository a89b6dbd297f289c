//! Which server, and with which key: flags first, then variables, then the data directory.
//!
//! Where the key came from is remembered, because that is what a person needs to know when the
//! server refuses it.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use reqwest::Url;
use secrecy::SecretString;

use super::failure::{Failure, Result};

const URL_DEFAULT: &str = "http://127.0.0.1:4100";
const URL_VARIABLE: &str = "BELLPULL_URL";
const KEY_VARIABLE: &str = "BELLPULL_API_KEY";
const DATA_DIR_VARIABLE: &str = "BELLPULL_DATA_DIR";

/// Written by the server at its first start when it was given no key.
const KEY_FILE: &str = "admin.key";

/// No key is longer.
const KEY_BYTES_MAX: u64 = 4096;

/// What every command of the client takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server and output")]
pub struct Global {
    /// Where the server is.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "Where the server is [env: BELLPULL_URL] [default: http://127.0.0.1:4100]"
    )]
    pub url: Option<String>,
    /// API key [env: BELLPULL_API_KEY] [default: what `admin.key` in the data directory says]
    #[arg(long, global = true, value_name = "KEY")]
    pub key: Option<SecretString>,
    /// Data directory of the server, for its `admin.key` [env: BELLPULL_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print what the API answers, as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where to call, and as whom.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) base: Url,
    pub(super) key: Option<SecretString>,
    pub(super) key_from: KeyFrom,
}

#[derive(Debug)]
pub(super) enum KeyFrom {
    Flag,
    Variable,
    File(PathBuf),
    /// Nowhere: the file that was tried, and what was wrong with it.
    Nowhere(PathBuf, String),
}

impl Connection {
    pub(super) fn new(
        global: &Global,
        environment: &BTreeMap<String, String>,
        data_dir_default: PathBuf,
    ) -> Result<Connection> {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let url = global.url.as_deref().or_else(|| variable(URL_VARIABLE).map(String::as_str));
        let base = base(url.unwrap_or(URL_DEFAULT))?;
        let data_dir = global.data_dir.clone();
        let data_dir = data_dir.or_else(|| variable(DATA_DIR_VARIABLE).map(PathBuf::from));
        let path = data_dir.unwrap_or(data_dir_default).join(KEY_FILE);
        let (key, key_from) = match (&global.key, variable(KEY_VARIABLE)) {
            (Some(key), _) => (Some(key.clone()), KeyFrom::Flag),
            (None, Some(key)) => (Some(SecretString::from(key.as_str())), KeyFrom::Variable),
            (None, None) => match read_key(&path) {
                Ok(key) => (Some(key), KeyFrom::File(path)),
                Err(why) => (None, KeyFrom::Nowhere(path, why)),
            },
        };
        Ok(Connection { base, key, key_from })
    }

    /// The key, if somebody gave it for this call. The one in the file is the server's own.
    pub(super) fn given_key(&self) -> Option<&SecretString> {
        match self.key_from {
            KeyFrom::Flag | KeyFrom::Variable => self.key.as_ref(),
            KeyFrom::File(_) | KeyFrom::Nowhere(..) => None,
        }
    }
}

impl KeyFrom {
    /// What to do when the server says 401.
    pub(super) fn hint(&self) -> String {
        match self {
            KeyFrom::Flag => "the key came from `--key`".to_owned(),
            KeyFrom::Variable => format!("the key came from the variable {KEY_VARIABLE}"),
            KeyFrom::File(path) => format!(
                "the key came from `{}`; `--data-dir` or {DATA_DIR_VARIABLE} names the data \
                 directory of another server",
                path.display()
            ),
            KeyFrom::Nowhere(path, why) => format!(
                "no key was sent: there is no `--key`, no {KEY_VARIABLE}, and `{}` {why}",
                path.display()
            ),
        }
    }
}

fn base(text: &str) -> Result<Url> {
    let refuse = |why: &str| Err(Failure::wrong(format!("`{text}` is no URL of a server: {why}")));
    match Url::parse(text) {
        Err(_) if !text.contains("://") => refuse("it must begin with http:// or https://"),
        Err(error) => refuse(&error.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            refuse("it must begin with http:// or https://")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            // The text holds a password.
            Err(Failure::wrong("the URL holds a user name").hint("the key goes to `--key`"))
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            refuse("it must end with the path")
        }
        Ok(url) => Ok(url),
    }
}

fn read_key(path: &Path) -> std::result::Result<SecretString, String> {
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("does not exist".to_owned())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if text.trim().is_empty() => Err("is empty".to_owned()),
        Ok(_) => Ok(SecretString::from(text.trim())),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn global() -> Global {
        Global { url: None, key: None, data_dir: None, json: false }
    }

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flags_win_over_variables_and_those_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("admin.key"), "from-file\n").unwrap();
        let key = |global: &Global, environment: &BTreeMap<String, String>| {
            let connection = Connection::new(global, environment, dir.path().to_owned()).unwrap();
            (connection.key.unwrap().expose_secret().to_owned(), connection.base.to_string())
        };
        let none = environment(&[("BELLPULL_API_KEY", "")]);
        assert_eq!(key(&global(), &none), ("from-file".into(), "http://127.0.0.1:4100/".into()));
        let some =
            environment(&[("BELLPULL_API_KEY", "k"), ("BELLPULL_URL", "https://a.example/b")]);
        assert_eq!(key(&global(), &some), ("k".into(), "https://a.example/b".into()));
        let flags = Global { url: Some("http://c".into()), key: Some("f".into()), ..global() };
        assert_eq!(key(&flags, &some), ("f".into(), "http://c/".into()));
    }

    #[test]
    fn a_missing_key_is_told_with_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(&[("BELLPULL_DATA_DIR", &dir.path().display().to_string())]);
        let connection = Connection::new(&global(), &environment, "elsewhere".into()).unwrap();
        let hint = connection.key_from.hint();
        let path = dir.path().join("admin.key").display().to_string();
        assert!(hint.contains(&path) && hint.contains("does not exist"), "{hint}");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for url in ["localhost:4100", "127.0.0.1", "ftp://x", "http://u:p@x", "http://x/?a", ""] {
            assert!(base(url).is_err(), "{url}");
        }
    }
}
