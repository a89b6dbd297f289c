//! Style, scripts and drawings, inside the binary.
//!
//! Their address holds a hash over all of them, so a browser may keep them for ever and never shows a
//! new page with an old script. Under another hash, as from a page that was open during an update,
//! the same files are served and not kept.

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

use super::fault::Fault;
use crate::vault::{hash, hex};

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

static BASE: LazyLock<String> = LazyLock::new(|| {
    let mut names: Vec<Cow<'static, str>> = Assets::iter().collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        if let Some(file) = Assets::get(&name) {
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&file.metadata.sha256_hash());
        }
    }
    format!("/assets/{}", hex(&hash(&all)[..8]))
});

/// What the addresses of all assets begin with, no slash at the end.
pub(super) fn base() -> &'static str {
    &BASE
}

pub(super) async fn asset(Path((build, name)): Path<(String, String)>) -> Result<Response, Fault> {
    let file = Assets::get(&name).ok_or_else(|| Fault::not_found("There is no such file."))?;
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let current = base().strip_prefix("/assets/") == Some(build.as_str());
    let keep = if current { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)];
    Ok((headers, file.data.into_owned()).into_response())
}
