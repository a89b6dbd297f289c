//! Vaults and their credentials, in the shapes of the Managed Agents API.
//!
//! A credential is what may be said aloud ([`Auth`]) and what may not ([`Secrets`]), which is sealed as
//! one value and never answered. Invariants: what a credential is for (its server's URL or its
//! variable's name) never changes, and neither does its kind; two that are for the same thing are not
//! in one vault at a time. Left out: sealing, storing and using them.

use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Metadata, Problem, access::is_host, environment, secret::VALUE_BYTES_MAX, text};
use crate::{
    clock::Timestamp,
    id::{CredentialId, VaultId},
};

/// Credentials of one vault that are not archived.
pub const CREDENTIALS_MAX: usize = 20;

/// Vaults of one session.
pub const VAULTS_MAX: usize = 64;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// Hosts of one credential.
const HOSTS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub struct Vault {
    pub id: VaultId,
    pub display_name: String,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Vault {
    /// The `Vault` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "vault",
            "display_name": self.display_name,
            "metadata": self.metadata,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        })
    }
}

/// What may be said about a credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    pub id: CredentialId,
    pub vault_id: VaultId,
    pub display_name: Option<String>,
    pub metadata: Metadata,
    pub auth: Auth,
    /// Of the sealed value: grows with each change of it.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Credential {
    /// The `Credential` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "vault_credential",
            "vault_id": self.vault_id,
            "display_name": self.display_name,
            "metadata": self.metadata,
            "auth": self.auth,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        })
    }
}

/// What a credential is for and how it is used: everything but the values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    StaticBearer {
        mcp_server_url: String,
    },
    McpOauth {
        mcp_server_url: String,
        expires_at: Option<Timestamp>,
        refresh: Option<Refresh>,
    },
    EnvironmentVariable {
        secret_name: String,
        networking: Networking,
        injection_location: InjectionLocation,
    },
}

/// How an access token is renewed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refresh {
    pub client_id: String,
    pub token_endpoint: String,
    pub token_endpoint_auth: EndpointAuth,
    pub resource: Option<String>,
    pub scope: Option<String>,
}

/// How the client says who it is when it renews a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EndpointAuth {
    None,
    ClientSecretBasic,
    ClientSecretPost,
}

/// Where the value of a variable may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Networking {
    Unrestricted,
    Limited { allowed_hosts: Vec<String> },
}

/// Parts of a request that the value of a variable may be put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InjectionLocation {
    pub body: bool,
    pub header: bool,
}

/// The values of a credential, as they are sealed. Those that it does not have are left out.
#[derive(Clone, Default, Deserialize)]
pub struct Secrets {
    /// A bearer's token, or the access token of OAuth, or a variable's value.
    pub value: SecretText,
    #[serde(default)]
    pub refresh_token: Option<SecretText>,
    #[serde(default)]
    pub client_secret: Option<SecretText>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// What is sealed.
    pub fn to_text(&self) -> SecretString {
        let mut map = Map::new();
        map.insert("value".to_owned(), self.value.expose().into());
        for (key, value) in
            [("refresh_token", &self.refresh_token), ("client_secret", &self.client_secret)]
        {
            if let Some(value) = value {
                map.insert(key.to_owned(), value.expose().into());
            }
        }
        Value::Object(map).to_string().into()
    }

    /// What [`Secrets::to_text`] wrote.
    pub fn parse(text: &SecretString) -> Option<Secrets> {
        serde_json::from_str(text.expose_secret()).ok()
    }
}

/// A text that is never shown by accident.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct SecretText(SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> SecretText {
        SecretText(text.into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl SecretText {
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Auth {
    pub fn kind(&self) -> &'static str {
        match self {
            Auth::StaticBearer { .. } => "static_bearer",
            Auth::McpOauth { .. } => "mcp_oauth",
            Auth::EnvironmentVariable { .. } => "environment_variable",
        }
    }

    /// What it is for: one of the same key is in a vault at a time.
    pub fn key(&self) -> String {
        match self {
            Auth::StaticBearer { mcp_server_url } | Auth::McpOauth { mcp_server_url, .. } => {
                format!("url {}", server_key(mcp_server_url))
            }
            Auth::EnvironmentVariable { secret_name, .. } => format!("variable {secret_name}"),
        }
    }

    /// Whether it is the one for an MCP server.
    pub fn serves(&self, server_url: &str) -> bool {
        match self {
            Auth::StaticBearer { mcp_server_url } | Auth::McpOauth { mcp_server_url, .. } => {
                server_key(mcp_server_url) == server_key(server_url)
            }
            Auth::EnvironmentVariable { .. } => false,
        }
    }

    /// Reads `auth` of a new credential.
    pub fn create(given: &Value, now: Timestamp) -> Result<(Auth, Secrets), Problem> {
        let form = Form::of(given, "auth")?;
        match form.kind()? {
            "static_bearer" => {
                form.only(&["type", "token", "mcp_server_url"])?;
                let value = form.secret("token")?.ok_or_else(|| form.missing("token"))?;
                let auth = Auth::StaticBearer { mcp_server_url: form.server_url()? };
                Ok((auth, Secrets { value, ..Secrets::default() }))
            }
            "mcp_oauth" => create_oauth(&form, now),
            "environment_variable" => create_variable(&form),
            _ => Err(form.wrong_kind()),
        }
    }

    /// Applies `auth` of an update: what is left out stays. Tells whether a value changed.
    pub fn update(
        &mut self,
        secrets: &mut Secrets,
        given: &Value,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let form = Form::of(given, "auth")?;
        let kind = self.kind();
        if form.kind()? != kind {
            let message = format!("is `{kind}` and cannot be changed");
            return Err(Problem::new("auth.type", message));
        }
        match self {
            Auth::StaticBearer { .. } => {
                form.fixed(&["mcp_server_url"])?;
                form.only(&["type", "token"])?;
                Ok(replace(&mut secrets.value, form.secret("token")?))
            }
            Auth::McpOauth { expires_at, refresh, .. } => {
                form.fixed(&["mcp_server_url"])?;
                form.only(&["type", "access_token", "expires_at", "refresh"])?;
                if let Some(at) = form.future("expires_at", now)? {
                    *expires_at = Some(at);
                }
                let changed = replace(&mut secrets.value, form.secret("access_token")?);
                let renewed = match form.object("refresh")? {
                    Some(form) => update_refresh(refresh.as_mut(), secrets, &form)?,
                    None => false,
                };
                Ok(changed || renewed)
            }
            Auth::EnvironmentVariable { networking, injection_location, .. } => {
                form.fixed(&["secret_name"])?;
                form.only(&["type", "injection_location", "networking", "secret_value"])?;
                if !form.value("networking").is_null() {
                    *networking = form.networking()?;
                }
                if let Some(given) = form.given("injection_location") {
                    *injection_location = location(given, *injection_location)?;
                }
                Ok(replace(&mut secrets.value, variable_value(&form)?))
            }
        }
    }
}

fn replace(value: &mut SecretText, fresh: Option<SecretText>) -> bool {
    let changes = fresh.is_some();
    *value = fresh.unwrap_or_else(|| value.clone());
    changes
}

fn create_oauth(form: &Form<'_>, now: Timestamp) -> Result<(Auth, Secrets), Problem> {
    form.only(&["type", "access_token", "mcp_server_url", "expires_at", "refresh"])?;
    let value = form.secret("access_token")?.ok_or_else(|| form.missing("access_token"))?;
    let mut secrets = Secrets { value, ..Secrets::default() };
    let mut refresh = None;
    if let Some(form) = form.object("refresh")? {
        form.only(&[
            "client_id",
            "refresh_token",
            "token_endpoint",
            "token_endpoint_auth",
            "resource",
            "scope",
        ])?;
        let token = form.secret("refresh_token")?;
        secrets.refresh_token = Some(token.ok_or_else(|| form.missing("refresh_token"))?);
        let auth = form.object("token_endpoint_auth")?;
        let auth = auth.ok_or_else(|| form.missing("token_endpoint_auth"))?;
        let endpoint_auth = auth.endpoint_auth()?;
        secrets.client_secret = auth.secret("client_secret")?;
        if endpoint_auth != EndpointAuth::None && secrets.client_secret.is_none() {
            return Err(auth.missing("client_secret"));
        }
        refresh = Some(Refresh {
            client_id: form.text("client_id", 2048)?.ok_or_else(|| form.missing("client_id"))?,
            token_endpoint: form.url("token_endpoint")?,
            token_endpoint_auth: endpoint_auth,
            resource: form.text("resource", 2048)?,
            scope: form.text("scope", 4096)?,
        });
    }
    let expires_at = form.future("expires_at", now)?;
    let mcp_server_url = form.server_url()?;
    Ok((Auth::McpOauth { mcp_server_url, expires_at, refresh }, secrets))
}

fn update_refresh(
    refresh: Option<&mut Refresh>,
    secrets: &mut Secrets,
    form: &Form<'_>,
) -> Result<bool, Problem> {
    form.fixed(&["client_id", "token_endpoint", "resource"])?;
    form.only(&["refresh_token", "scope", "token_endpoint_auth"])?;
    let Some(refresh) = refresh else {
        let message = "was not given when the credential was made: make another one";
        return Err(Problem::new("auth.refresh", message));
    };
    if let Some(scope) = form.given("scope") {
        refresh.scope = if scope.is_null() { None } else { form.text("scope", 4096)? };
    }
    let mut changes = false;
    if let Some(token) = form.secret("refresh_token")? {
        secrets.refresh_token = Some(token);
        changes = true;
    }
    if let Some(auth) = form.object("token_endpoint_auth")? {
        refresh.token_endpoint_auth = auth.endpoint_auth()?;
        if let Some(secret) = auth.secret("client_secret")? {
            secrets.client_secret = Some(secret);
            changes = true;
        }
        if refresh.token_endpoint_auth != EndpointAuth::None && secrets.client_secret.is_none() {
            return Err(auth.missing("client_secret"));
        }
    }
    Ok(changes)
}

/// No program can be given a variable with NUL.
fn variable_value(form: &Form<'_>) -> Result<Option<SecretText>, Problem> {
    let value = form.secret("secret_value")?;
    match value.as_ref().is_some_and(|value| value.expose().contains('\0')) {
        true => Err(Problem::new("auth.secret_value", "must not contain NUL")),
        false => Ok(value),
    }
}

fn create_variable(form: &Form<'_>) -> Result<(Auth, Secrets), Problem> {
    form.only(&["type", "networking", "secret_name", "secret_value", "injection_location"])?;
    let secret_name = form.text("secret_name", 255)?.ok_or_else(|| form.missing("secret_name"))?;
    environment::check_variable_name(&secret_name, "auth.secret_name")?;
    let value = variable_value(form)?.ok_or_else(|| form.missing("secret_value"))?;
    let injection_location = match form.given("injection_location") {
        None | Some(Value::Null) => InjectionLocation { body: true, header: true },
        Some(given) => location(given, InjectionLocation { body: false, header: false })?,
    };
    let networking = form.networking()?;
    let auth = Auth::EnvironmentVariable { secret_name, networking, injection_location };
    Ok((auth, Secrets { value, ..Secrets::default() }))
}

fn location(given: &Value, before: InjectionLocation) -> Result<InjectionLocation, Problem> {
    let at = "auth.injection_location";
    let form = Form::of(given, at)?;
    form.only(&["body", "header"])?;
    let flag = |key: &str, before: bool| match form.given(key) {
        None => Ok(before),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Problem::new(form.at(key), "must be true or false")),
    };
    let after = InjectionLocation {
        body: flag("body", before.body)?,
        header: flag("header", before.header)?,
    };
    if !after.body && !after.header {
        return Err(Problem::new(at, "must have `body` or `header` set to true"));
    }
    Ok(after)
}

/// A JSON object of a request and where it stands.
struct Form<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

impl<'a> Form<'a> {
    fn of(value: &'a Value, at: &str) -> Result<Form<'a>, Problem> {
        match value {
            Value::Object(map) => Ok(Form { map, at: at.to_owned() }),
            _ => Err(Problem::new(at, "must be an object")),
        }
    }

    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.at)
    }

    fn missing(&self, key: &str) -> Problem {
        Problem::new(self.at(key), "is required")
    }

    fn given(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    fn value(&self, key: &str) -> &'a Value {
        self.map.get(key).unwrap_or(&Value::Null)
    }

    fn kind(&self) -> Result<&'a str, Problem> {
        self.value("type").as_str().ok_or_else(|| self.wrong_kind())
    }

    fn wrong_kind(&self) -> Problem {
        let message = "must be `static_bearer`, `mcp_oauth` or `environment_variable`";
        Problem::new(self.at("type"), message)
    }

    fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Problem::new(self.at(&text::one_line(key)), "is not a field of it")),
        }
    }

    fn fixed(&self, keys: &[&str]) -> Result<(), Problem> {
        match keys.iter().find(|key| self.map.contains_key(**key)) {
            None => Ok(()),
            Some(key) => Err(Problem::new(self.at(key), "cannot be changed")),
        }
    }

    fn object(&self, key: &str) -> Result<Option<Form<'a>>, Problem> {
        match self.value(key) {
            Value::Null => Ok(None),
            value => Form::of(value, &self.at(key)).map(Some),
        }
    }

    fn text(&self, key: &str, chars_max: usize) -> Result<Option<String>, Problem> {
        match self.value(key) {
            Value::Null => Ok(None),
            Value::String(given) if (1..=chars_max).contains(&given.chars().count()) => {
                Ok(Some(text::clean(given).into_owned()))
            }
            _ => {
                let message = format!("must be a text of 1 to {chars_max} characters");
                Err(Problem::new(self.at(key), message))
            }
        }
    }

    /// As it was given: nothing is trimmed or cleaned.
    fn secret(&self, key: &str) -> Result<Option<SecretText>, Problem> {
        match self.value(key) {
            Value::Null => Ok(None),
            Value::String(given) if (1..=VALUE_BYTES_MAX).contains(&given.len()) => {
                Ok(Some(given.clone().into()))
            }
            _ => {
                let message = format!("must be a text of 1 to {VALUE_BYTES_MAX} bytes");
                Err(Problem::new(self.at(key), message))
            }
        }
    }

    fn url(&self, key: &str) -> Result<String, Problem> {
        let given = self.text(key, URL_BYTES_MAX)?.ok_or_else(|| self.missing(key))?;
        check_server_url(&given).map_err(|message| Problem::new(self.at(key), message))?;
        Ok(given)
    }

    fn server_url(&self) -> Result<String, Problem> {
        self.url("mcp_server_url")
    }

    fn future(&self, key: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(given) = self.text(key, 64)? else { return Ok(None) };
        let at: Timestamp =
            given.parse().map_err(|_| Problem::new(self.at(key), "must be a time of RFC 3339"))?;
        if at <= now {
            return Err(Problem::new(self.at(key), "must be in the future"));
        }
        Ok(Some(at))
    }

    fn endpoint_auth(&self) -> Result<EndpointAuth, Problem> {
        let (auth, known): (_, &[&str]) = match self.value("type").as_str() {
            Some("none") => (EndpointAuth::None, &["type"]),
            Some("client_secret_basic") => {
                (EndpointAuth::ClientSecretBasic, &["type", "client_secret"])
            }
            Some("client_secret_post") => {
                (EndpointAuth::ClientSecretPost, &["type", "client_secret"])
            }
            _ => {
                let message = "must be `none`, `client_secret_basic` or `client_secret_post`";
                return Err(Problem::new(self.at("type"), message));
            }
        };
        self.only(known)?;
        Ok(auth)
    }

    fn networking(&self) -> Result<Networking, Problem> {
        let form = self.object("networking")?.ok_or_else(|| self.missing("networking"))?;
        match form.value("type").as_str() {
            Some("unrestricted") => {
                form.only(&["type"])?;
                Ok(Networking::Unrestricted)
            }
            Some("limited") => {
                form.only(&["type", "allowed_hosts"])?;
                let wrong = || {
                    let message = format!(
                        "must be a list of 1 to {HOSTS_MAX} names of hosts, such as \
                         `api.example.com` or `*.example.com`"
                    );
                    Problem::new(form.at("allowed_hosts"), message)
                };
                let list = form.value("allowed_hosts").as_array().ok_or_else(wrong)?;
                let hosts: Option<Vec<String>> = list
                    .iter()
                    .map(|it| it.as_str().filter(|it| is_host(it)).map(str::to_owned))
                    .collect();
                let hosts = hosts.filter(|it| (1..=HOSTS_MAX).contains(&it.len()));
                Ok(Networking::Limited { allowed_hosts: hosts.ok_or_else(wrong)? })
            }
            _ => Err(Problem::new(form.at("type"), "must be `unrestricted` or `limited`")),
        }
    }
}

/// Why a text is no URL of an MCP server or of what belongs to one.
pub fn check_server_url(given: &str) -> Result<Url, String> {
    let odd = given.len() > URL_BYTES_MAX
        || given.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\');
    let url = Url::parse(given).ok().filter(|_| !odd);
    let url = url.filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
    let Some(url) = url else {
        return Err("must be a URL such as `https://mcp.example.com/mcp`".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must be a URL without a user name and without `#`".to_owned());
    }
    Ok(url)
}

/// As [`check_server_url`], for a URL that everybody sees who may read: no token may be in its query.
pub fn check_shown_url(given: &str) -> Result<(), String> {
    let url = check_server_url(given)?;
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase().replace(['-', '_'], "");
        let words = ["token", "secret", "password", "passwd", "apikey", "accesskey", "signature"];
        words.iter().any(|word| name.contains(word))
            || ["key", "auth", "sig", "code"].contains(&&*name)
    };
    match url.query_pairs().find(|(name, value)| is_secret(name) && !value.is_empty()) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "has `{}` in its query, which everybody could read: a token is a credential of a vault",
            text::one_line(&name)
        )),
    }
}

/// A URL as credentials are matched by it: scheme and host in lower case, no default port, no slash at
/// its end. Path and query count.
pub fn server_key(url: &str) -> String {
    match Url::parse(url) {
        Ok(parsed) => {
            let query = parsed.query().map(|it| format!("?{it}")).unwrap_or_default();
            let origin = parsed.origin().ascii_serialization();
            format!("{origin}{}{query}", parsed.path().trim_end_matches('/'))
        }
        Err(_) => url.to_owned(),
    }
}

/// Whether a probe of a credential succeeded, and what answered if not.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    pub has_refresh_token: bool,
    /// `valid`, `invalid` or `unknown`.
    pub status: &'static str,
    /// The step that failed, with what the server answered to it.
    pub probe: Option<(&'static str, Option<Answered>)>,
    /// How the renewal of the token ended, where one was tried.
    pub refresh: Option<(&'static str, Option<Answered>)>,
}

/// An answer over HTTP, as it may be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered {
    pub body: String,
    pub body_truncated: bool,
    pub content_type: String,
    pub status_code: u16,
}

impl Validation {
    /// The `CredentialValidation` object of the Managed Agents API.
    pub fn to_json(&self, credential: &Credential, at: Timestamp) -> Value {
        json!({
            "type": "vault_credential_validation",
            "credential_id": credential.id,
            "vault_id": credential.vault_id,
            "has_refresh_token": self.has_refresh_token,
            "status": self.status,
            "mcp_probe": self.probe.as_ref().map(|(method, answered)| {
                json!({"method": method, "http_response": answered})
            }),
            "refresh": self.refresh.as_ref().map(|(status, answered)| {
                json!({"status": status, "http_response": answered})
            }),
            "validated_at": at,
        })
    }
}

#[cfg(test)]
mod tests;
