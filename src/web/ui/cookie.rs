//! The cookies: who is signed in, which sign-in form was shown, that somebody signed in here before, and
//! which light was chosen.
//!
//! All are for this site only and out of reach of scripts. The first three hold random text that means
//! something to this process alone. The name carries the port, because browsers do not tell ports apart and
//! two servers on one machine would sign each other's visitors out.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};

use super::super::Options;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookie {
    Visitor,
    Form,
    Known,
    Theme,
}

impl Cookie {
    fn name(self, options: &Options, secure: bool) -> String {
        let port = options.listen.port();
        match (self, secure) {
            // The prefix makes browsers refuse one that another host or an unsafe page has set.
            (Cookie::Visitor, true) if options.prefix().is_empty() => {
                format!("__Host-bellpull-{port}")
            }
            // That one is for whole hosts, and this one for a part of it.
            (Cookie::Visitor, true) => format!("__Secure-bellpull-{port}"),
            (Cookie::Visitor, false) => format!("bellpull-{port}"),
            (Cookie::Form, _) => format!("bellpull-{port}-form"),
            (Cookie::Known, _) => format!("bellpull-{port}-known"),
            (Cookie::Theme, _) => format!("bellpull-{port}-theme"),
        }
    }

    fn path(self, prefix: &str) -> String {
        match self {
            Cookie::Visitor | Cookie::Theme if prefix.is_empty() => "/".to_owned(),
            Cookie::Visitor | Cookie::Theme => prefix.to_owned(),
            Cookie::Form | Cookie::Known => format!("{prefix}/sign-in"),
        }
    }

    pub(super) fn read(self, options: &Options, headers: &HeaderMap) -> Option<String> {
        let name = self.name(options, is_secure(options, headers));
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    }

    /// The header that sets it; an empty value takes it away.
    pub(super) fn set(
        self,
        options: &Options,
        headers: &HeaderMap,
        value: &str,
        lives: Duration,
    ) -> HeaderValue {
        let secure = is_secure(options, headers);
        let name = self.name(options, secure);
        let seconds = if value.is_empty() { 0 } else { lives.as_secs() };
        let text = format!(
            "{name}={value}; Path={}; Max-Age={seconds}; HttpOnly; SameSite=Strict{}",
            self.path(options.prefix()),
            if secure { "; Secure" } else { "" }
        );
        HeaderValue::from_str(&text).expect("our cookies are ASCII")
    }
}

/// Whether the browser reaches us by https, as far as we are told.
fn is_secure(options: &Options, headers: &HeaderMap) -> bool {
    let public = options.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
    let forwarded = headers.get("x-forwarded-proto").and_then(|it| it.to_str().ok());
    // Several proxies make a list; the first one spoke with the browser.
    let forwarded = forwarded.and_then(|it| it.split(',').next()).map(str::trim);
    public || forwarded.is_some_and(|it| it.eq_ignore_ascii_case("https"))
}
