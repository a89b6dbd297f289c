//! A vault and its credentials: adding one, a new value for one, trying one, putting one away.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::{
    super::{
        super::{App, input::Within, managed::vaults},
        fault::Fault,
        guard::{Changer, Fields, Posted, Visitor},
        session::Badge,
        view::{Moment, Shell},
    },
    Confirm, Given, Wrong, actor, answer, body, done, is_archived_shown, listed, no_such, notice,
    shell,
};
use crate::{
    clock::Timestamp,
    domain::{
        credential::{Auth, CREDENTIALS_MAX, Credential, Networking},
        text::printable,
    },
    id::{CredentialId, VaultId},
};

/// Credentials of one vault on its page: those in use, and as many that were put away.
const SHOWN_MAX: usize = 5 * CREDENTIALS_MAX;

#[derive(Template)]
#[template(path = "manage/vault.html")]
struct Page {
    shell: Shell,
    id: String,
    name: String,
    archived: Option<Moment>,
    rows: Vec<Row>,
    with_archived: bool,
    given: Given,
    notice: Option<&'static str>,
}

struct Row {
    id: String,
    name: String,
    kind: &'static str,
    /// Whether it can be tried at its server.
    is_oauth: bool,
    /// What it is for: a URL or a variable.
    what: String,
    /// Where its value may go, or until when it is good.
    note: Option<String>,
    expires: Option<Moment>,
    version: i64,
    changed: Moment,
    state: Badge,
    is_archived: bool,
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    show(&app, visitor, &id, &query, Given::default()).await
}

pub(in crate::web::ui) async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let vault: VaultId = id.parse().map_err(|_| no_such("vault"))?;
    let fields = form.fields;
    let wanted = json!({"display_name": fields.text("display_name"), "auth": auth(&fields)});
    let at = super::super::super::input::At(vault);
    let made = vaults::create_credential(State(app.clone()), actor(&visitor), at, body(wanted)?);
    match answer(made.await)? {
        Ok(_) => Ok(done(format_args!("/vaults/{id}"), "stored")),
        Err(problem) => {
            let given = Given::wrong(fields, problem);
            show(&app, visitor, &id, &Fields::parse(b""), given).await
        }
    }
}

/// The `auth` of the API that a form means. What was left empty is left out.
fn auth(fields: &Fields) -> Value {
    let text = |name: &str| fields.text(name);
    let url = text("mcp_server_url");
    match text("kind").unwrap_or_default() {
        "environment_variable" => {
            let hosts = listed(text("allowed_hosts").unwrap_or_default());
            let networking = match hosts.is_empty() {
                true => json!({"type": "unrestricted"}),
                false => json!({"type": "limited", "allowed_hosts": hosts}),
            };
            json!({
                "type": "environment_variable",
                "secret_name": text("secret_name"),
                "secret_value": text("value"),
                "networking": networking,
            })
        }
        "mcp_oauth" => {
            let mut auth = json!({
                "type": "mcp_oauth",
                "mcp_server_url": url,
                "access_token": text("value"),
            });
            if text("refresh_token").is_some() || text("token_endpoint").is_some() {
                let secret = text("client_secret");
                let kind = if secret.is_some() { "client_secret_post" } else { "none" };
                let mut endpoint_auth = json!({"type": kind});
                if let Some(secret) = secret {
                    endpoint_auth["client_secret"] = secret.into();
                }
                auth["refresh"] = json!({
                    "client_id": text("client_id"),
                    "refresh_token": text("refresh_token"),
                    "token_endpoint": text("token_endpoint"),
                    "token_endpoint_auth": endpoint_auth,
                });
            }
            auth
        }
        kind => json!({"type": kind, "mcp_server_url": url, "token": text("value")}),
    }
}

pub(in crate::web::ui) async fn rotate(
    State(app): State<App>,
    Path((vault, credential)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let (found, at) = find(&app, &vault, &credential).await?;
    let value = form.fields.text("value");
    let field = match found.auth {
        Auth::StaticBearer { .. } => "token",
        Auth::McpOauth { .. } => "access_token",
        Auth::EnvironmentVariable { .. } => "secret_value",
    };
    if value.is_none() {
        let given = Given::only(Wrong::of("value", "Fill in the new value."));
        return show(&app, visitor, &vault, &Fields::parse(b""), given).await;
    }
    let wanted = body(json!({"auth": {"type": found.auth.kind(), field: value}}))?;
    let changed = vaults::update_credential(State(app.clone()), actor(&visitor), at, wanted).await;
    match answer(changed)? {
        Ok(_) => Ok(done(format_args!("/vaults/{vault}"), "rotated")),
        Err(problem) => {
            let given = Given::only(problem);
            show(&app, visitor, &vault, &Fields::parse(b""), given).await
        }
    }
}

pub(in crate::web::ui) async fn validate(
    State(app): State<App>,
    Path((vault, credential)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (_, at) = find(&app, &vault, &credential).await?;
    let problem = match answer(vaults::validate(State(app.clone()), at).await)? {
        Ok(said) if said["status"] == "valid" => {
            return Ok(done(format_args!("/vaults/{vault}"), "valid"));
        }
        Ok(said) => {
            let status = said["status"].as_str().unwrap_or("unknown");
            format!(
                "The credential was tried and does not work now: {}. Rotate its value, or try \
                 again later if its server is away.",
                printable(status)
            )
            .into()
        }
        Err(problem) => problem,
    };
    let given = Given::only(problem);
    show(&app, posted.visitor, &vault, &Fields::parse(b""), given).await
}

pub(in crate::web::ui) async fn ask_archive(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path((vault, credential)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let (found, _) = find(&app, &vault, &credential).await?;
    Confirm {
        shell: shell(&app, visitor, "vaults").0,
        title: format!("Archive the credential {}?", named(&found)),
        text: "Its value is erased at once and cannot be brought back. Sessions go on without it.",
        action: format!("/vaults/{vault}/credentials/{credential}/archive"),
        button: "Archive it and erase the value",
        back: format!("/vaults/{vault}"),
    }
    .page()
}

pub(in crate::web::ui) async fn archive(
    State(app): State<App>,
    Path((vault, credential)): Path<(String, String)>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (_, at) = find(&app, &vault, &credential).await?;
    vaults::archive_credential(State(app), actor(&posted.visitor), at).await.map(drop)?;
    Ok(done(format_args!("/vaults/{vault}"), "archived"))
}

async fn find(
    app: &App,
    vault: &str,
    credential: &str,
) -> Result<(Credential, Within<VaultId, CredentialId>), Fault> {
    let vault: VaultId = vault.parse().map_err(|_| no_such("vault"))?;
    let id: CredentialId = credential.parse().map_err(|_| no_such("credential"))?;
    let (found, _) = app.store.credential(&vault, &id).await?;
    Ok((found, Within(vault, id)))
}

pub(super) async fn show(
    app: &App,
    visitor: Visitor,
    id: &str,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let vault = super::vaults::find(app, id).await?;
    let with_archived = is_archived_shown(query) || vault.archived_at.is_some();
    let found = app.store.credentials(&vault.id, with_archived, None, SHOWN_MAX).await?;
    let (shell, now) = shell(app, visitor, "vaults");
    let page = Page {
        shell,
        id: vault.id.to_string(),
        name: printable(&vault.display_name),
        archived: vault.archived_at.map(|at| Moment::new(at, now)),
        rows: found.data.iter().map(|credential| row(credential, now)).collect(),
        with_archived,
        notice: notice(query),
        given,
    };
    page.given.answer(&page)
}

/// What people call it: its name, or what it is for.
fn named(credential: &Credential) -> String {
    let what = match &credential.auth {
        Auth::StaticBearer { mcp_server_url } | Auth::McpOauth { mcp_server_url, .. } => {
            mcp_server_url
        }
        Auth::EnvironmentVariable { secret_name, .. } => secret_name,
    };
    printable(credential.display_name.as_ref().unwrap_or(what))
}

fn row(credential: &Credential, now: Timestamp) -> Row {
    let (kind, what, note, expires) = match &credential.auth {
        Auth::StaticBearer { mcp_server_url } => {
            ("token for an MCP server", mcp_server_url.clone(), None, None)
        }
        Auth::McpOauth { mcp_server_url, expires_at, refresh } => {
            let note = match refresh {
                Some(_) => "renewed by itself",
                None => "not renewed: it has no refresh token",
            };
            ("OAuth for an MCP server", mcp_server_url.clone(), Some(note.to_owned()), *expires_at)
        }
        Auth::EnvironmentVariable { secret_name, networking, .. } => {
            let note = match networking {
                Networking::Unrestricted => "for any host".to_owned(),
                Networking::Limited { allowed_hosts } => {
                    format!("only for {}", printable(&allowed_hosts.join(", ")))
                }
            };
            ("environment variable", secret_name.clone(), Some(note), None)
        }
    };
    let is_late = expires.is_some_and(|at| at <= now);
    let state = match (credential.archived_at, is_late) {
        (Some(_), _) => Badge { class: "over", word: "archived" },
        (None, true) => Badge { class: "waiting", word: "expired" },
        (None, false) => Badge { class: "done", word: "sealed" },
    };
    Row {
        id: credential.id.to_string(),
        name: named(credential),
        kind,
        is_oauth: matches!(credential.auth, Auth::McpOauth { .. }),
        what: printable(&what),
        note,
        expires: expires.map(|at| Moment::new(at, now)),
        version: credential.version,
        changed: Moment::new(credential.updated_at, now),
        state,
        is_archived: credential.archived_at.is_some(),
    }
}
