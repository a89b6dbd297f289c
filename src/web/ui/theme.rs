//! Light or dark: what the visitor's browser wants, unless the visitor said otherwise here.
//!
//! The choice is a cookie, so that a page comes in the right light at once and without a script.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    super::{App, Options},
    cookie::Cookie,
    fault::Fault,
    guard::{Sent, is_fragment},
    place,
};

/// A light, as the page, the form and the cookie name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Theme {
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(super) const ALL: [Theme; 3] = [Theme::Auto, Theme::Light, Theme::Dark];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Theme::Auto => "auto",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    fn parse(text: &str) -> Option<Theme> {
        Theme::ALL.into_iter().find(|theme| theme.as_str() == text)
    }

    pub(super) fn of(options: &Options, headers: &HeaderMap) -> Theme {
        let chosen = Cookie::Theme.read(options, headers);
        chosen.as_deref().and_then(Theme::parse).unwrap_or_default()
    }
}

/// How long a choice is remembered: a year.
const LIFE: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// Remembers the choice of a visitor; also of one who may only read.
pub(super) async fn choose(State(app): State<App>, sent: Sent) -> Result<Response, Fault> {
    let form = sent.form;
    let theme = form.fields.text("theme").and_then(Theme::parse);
    let theme = theme.ok_or_else(|| Fault::invalid("A theme is `auto`, `light` or `dark`."))?;
    let cookie = Cookie::Theme.set(&app.options(), &form.headers, theme.as_str(), LIFE);
    let mut response = if is_fragment(&form.headers) {
        // A script has changed the light of the page already.
        StatusCode::NO_CONTENT.into_response()
    } else {
        Redirect::to(place::back(&form.fields, "/")).into_response()
    };
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
