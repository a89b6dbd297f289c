//! The outside of one session, as its tools see it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::OnceCell;

use super::{Runtime, credentials, setup, workspaces};
use crate::{
    domain::{
        access::{self, Network},
        environment::EnvironmentConfig,
        session::Session,
        toolset::Domains,
    },
    fetch::pages::Page,
    id::{DeliveryId, Id, SessionId},
    store,
    tool::{self, DeliveredPayload, Workspace},
};

pub(super) struct SessionHost<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) session_id: &'a SessionId,
    /// Prepared once in a turn.
    pub(super) workspace: &'a OnceCell<Arc<Workspace>>,
}

impl tool::Host for SessionHost<'_> {
    fn session_id(&self) -> &SessionId {
        self.session_id
    }

    fn options(&self) -> &tool::Options {
        &self.runtime.options.tools
    }

    async fn page(&self, url: &str) -> Result<tool::web_fetch::Page, tool::Error> {
        let options = &self.runtime.options;
        let Site { session, config, allowed } = self.site().await?;
        let domains = Domains::of(&session.agent.tools, tool::web_fetch::NAME);
        let tokens_max = domains.content_tokens_max;
        // What the agent's author named is allowed by name, as what the source names.
        let allowed = allowed.map(|mut named| {
            for domain in &domains.allowed {
                named.extend([domain.clone(), format!("*.{domain}")]);
            }
            named
        });
        let network = access::network(config.network(), allowed.as_deref());
        let may = move |host: &str| match () {
            () if !network.reaches(host) => Err(match network {
                Network::None => "this session has no network".to_owned(),
                _ => format!("this session's network does not reach `{host}`"),
            }),
            () if !domains.may(host) => Err(format!("this agent may not fetch from `{host}`")),
            () => Ok(()),
        };
        let page = options.pages.get(url, options.tools.page_bytes_max, may).await;
        let page = page.map_err(|why| tool::Error::Model(format!("it was not fetched: {why}")))?;
        let Page { url, status, content_type, body, is_cut } = page;
        Ok(tool::web_fetch::Page { url, status, content_type, body, is_cut, tokens_max })
    }

    async fn workspace(&self) -> Result<Arc<Workspace>, tool::Error> {
        self.workspace.get_or_try_init(|| self.prepare()).await.cloned()
    }

    async fn shell(&self) -> Result<tool::shell::Handle, tool::Error> {
        let Some(shells) = &self.runtime.shells else {
            return Err(tool::Error::Model("this server runs no programs".to_owned()));
        };
        let Site { session, config, allowed } = self.site().await?;
        let Runtime { store, vault, options, .. } = self.runtime;
        let given = credentials::variables(&session.vault_ids, store, vault.as_deref()).await?;
        let network = given.narrow(shells.policy(&config, allowed.as_deref()));
        let workspace = self.workspace().await?;
        let mut handle = shells.of(self.session_id, &workspace, network).await?;
        if let Some(programs) = config.programs() {
            handle.spec.environment = setup::variables(programs, store, vault.as_deref()).await?;
            // What the session was given counts, where its environment has the same name.
            let is_given = |name: &String| given.values.iter().any(|(it, _)| it == name);
            handle.spec.environment.retain(|(name, _)| !is_given(name));
            handle.spec.environment.extend(given.values);
            let marks = setup::marks(&options.workspaces, &workspace);
            setup::run(&handle, programs, &marks).await?;
        }
        Ok(handle)
    }

    async fn delivery(&self, wanted: Option<DeliveryId>) -> Result<DeliveredPayload, tool::Error> {
        let missing = |what: &str| tool::Error::Model(what.to_owned());
        let found = self.runtime.store.session_delivery(self.session_id, wanted).await;
        let delivery_id = found.map_err(|error| match error {
            store::Error::NotFound => missing("this session has no such delivery"),
            other => tool::Error::Fatal(other.into()),
        })?;
        let body =
            self.runtime.store.delivery_body(&delivery_id).await.map_err(|error| match error {
                store::Error::NotFound => {
                    missing("the payload was erased or is past its retention")
                }
                other => tool::Error::Fatal(other.into()),
            })?;
        Ok(DeliveredPayload { delivery_id, content_type: body.content_type, bytes: body.bytes })
    }
}

impl SessionHost<'_> {
    async fn prepare(&self) -> Result<Arc<Workspace>, tool::Error> {
        let options = &self.runtime.options;
        let config = self.site().await?.config;
        let projects = options.projects.load_full();
        let shells = self.runtime.shells.as_ref();
        let owner = shells.and_then(|shells| shells.sandbox().owner());
        let (workspaces, id) = (&options.workspaces, self.session_id);
        let workspace = workspaces::prepare(workspaces, id, &config, &projects, owner).await?;
        workspaces::mounts::sync(&self.runtime.store, id, &workspace).await?;
        Ok(workspace)
    }

    /// Where the session works, and what it may reach if something from outside is in it.
    async fn site(&self) -> Result<Site, tool::Error> {
        let fatal = |error: store::Error| tool::Error::Fatal(error.into());
        let store = &self.runtime.store;
        let session = store.session(self.session_id).await.map_err(fatal)?;
        let environment = store.environment(&session.environment_id).await.map_err(fatal)?;
        let allowed = match &session.source_id {
            Some(source) => {
                let source = store.source(source).await.map_err(fatal)?;
                Some(source.definition.allowed_hosts)
            }
            // A person began it, and a delivery came later.
            None => match store.session_delivery(self.session_id, None).await {
                Ok(_) => Some(Vec::new()),
                Err(store::Error::NotFound) => None,
                Err(error) => return Err(fatal(error)),
            },
        };
        Ok(Site { session, config: environment.config, allowed })
    }
}

struct Site {
    session: Session,
    config: EnvironmentConfig,
    /// Hosts that its source names; `None` for what only people wrote to.
    allowed: Option<Vec<String>>,
}

/// Whether an earlier turn has put a payload there, in either form.
pub(super) async fn is_placed(workspace: &Path, delivery: &DeliveryId) -> bool {
    for extension in EXTENSIONS {
        let path = place_of(workspace, delivery, extension);
        if tokio::fs::try_exists(path).await.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// Of payloads that are JSON, and of others.
const EXTENSIONS: [&str; 2] = ["json", "txt"];

fn place_of(workspace: &Path, delivery: &DeliveryId, extension: &str) -> PathBuf {
    workspace.join("deliveries").join(format!("{}.{extension}", delivery.as_str()))
}

/// Puts a delivery's raw payload into the session's workspace, for tools that read files. Written
/// beside its place and moved there, so that a reader never sees half of it.
pub(super) async fn place_payload(
    workspace: &Path,
    payload: &DeliveredPayload,
) -> std::io::Result<()> {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&payload.bytes).is_ok();
    let path = place_of(workspace, &payload.delivery_id, EXTENSIONS[usize::from(!is_json)]);
    if let Some(directory) = path.parent() {
        tokio::fs::create_dir_all(directory).await?;
    }
    let unfinished = path.with_extension("part");
    tokio::fs::write(&unfinished, &payload.bytes).await?;
    tokio::fs::rename(&unfinished, &path).await
}
