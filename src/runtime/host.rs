//! The outside of one session, as its tools see it.

use std::path::{Path, PathBuf};

use crate::{
    id::{DeliveryId, Id, SessionId},
    store::{self, Store},
    tool::{self, DeliveredPayload},
};

pub(super) struct SessionHost<'a> {
    pub(super) store: &'a Store,
    pub(super) session_id: &'a SessionId,
}

impl tool::Host for SessionHost<'_> {
    fn session_id(&self) -> &SessionId {
        self.session_id
    }

    async fn delivery(&self, wanted: Option<DeliveryId>) -> Result<DeliveredPayload, tool::Error> {
        let missing = |what: &str| tool::Error::Model(what.to_owned());
        let found = self.store.session_delivery(self.session_id, wanted).await;
        let delivery_id = found.map_err(|error| match error {
            store::Error::NotFound => missing("this session has no such delivery"),
            other => tool::Error::Fatal(other.into()),
        })?;
        let body = self.store.delivery_body(&delivery_id).await.map_err(|error| match error {
            store::Error::NotFound => missing("the payload was erased or is past its retention"),
            other => tool::Error::Fatal(other.into()),
        })?;
        Ok(DeliveredPayload { delivery_id, content_type: body.content_type, bytes: body.bytes })
    }
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
