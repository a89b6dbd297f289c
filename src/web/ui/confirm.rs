//! The question before what cannot be taken back, on a page of its own.

use askama::Template;
use axum::response::Response;

use super::{fault::Fault, page as rendered, view::Shell};

#[derive(Debug, Template)]
#[template(path = "confirm.html")]
pub(super) struct Confirm {
    pub(super) shell: Shell,
    pub(super) title: String,
    /// What happens then.
    pub(super) text: &'static str,
    /// Where the form goes.
    pub(super) action: String,
    pub(super) button: &'static str,
    pub(super) back: String,
}

impl Confirm {
    pub(super) fn page(self) -> Result<Response, Fault> {
        rendered(&self)
    }
}
