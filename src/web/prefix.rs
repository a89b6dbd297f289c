//! A path in front of everything, where a proxy serves this server below one: `/bellpull`.
//!
//! It is the path of the public URL. Handlers and templates know nothing of it: they name places from
//! the root, [`without`] takes the prefix off what comes in, whether or not the proxy did so already, and
//! [`outward`] puts it before every place that an answer of the pages names. Invariant: what a person or
//! a sender wrote is not touched, because it is never inside of a tag. Left out: URLs in the answers of
//! the API, which begin with the public URL anyway.

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::Response,
};
use futures_util::TryStreamExt;

use super::Options;

/// Attributes that name places.
const ATTRIBUTES: [&str; 6] = ["href", "action", "src", "hx-get", "hx-post", "hx-sse:connect"];

/// And headers.
const HEADERS: [&str; 2] = ["location", "hx-redirect"];

impl Options {
    /// What stands before every path, without a slash at its end; mostly nothing.
    pub(super) fn prefix(&self) -> &str {
        let rest = self.public_url.as_deref().and_then(|url| url.split_once("://"));
        rest.and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or_default()
    }
}

/// A path and what follows it without the prefix; nothing where it has none.
pub(super) fn without<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return None;
    }
    let rest = path.strip_prefix(prefix)?;
    match rest.as_bytes().first() {
        None => Some("/"),
        Some(b'/') => Some(rest),
        Some(_) => None,
    }
}

/// Makes a request one for the same place without the prefix; tells whether it had it.
pub(super) fn inward(request: &mut Request, prefix: &str) -> bool {
    let asked = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let (path, query) = match asked.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (asked, String::new()),
    };
    let place = without(path, prefix).and_then(|it| format!("{it}{query}").parse::<Uri>().ok());
    match place {
        Some(place) => {
            *request.uri_mut() = place;
            true
        }
        None => false,
    }
}

/// An answer of the pages, with the prefix before every place that it names.
pub(super) fn outward(response: Response, prefix: &str) -> Response {
    if prefix.is_empty() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    for name in HEADERS {
        let place = parts.headers.get(name).and_then(|it| it.to_str().ok());
        let place = place.filter(|it| it.starts_with('/')).map(|it| format!("{prefix}{it}"));
        if let Some(place) = place.and_then(|it| HeaderValue::try_from(it).ok()) {
            parts.headers.insert(name, place);
        }
    }
    if !is_markup(&parts.headers) {
        return Response::from_parts(parts, body);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    let prefix = prefix.to_owned();
    // A page comes in one piece, and a frame of a stream too.
    let pieces = body.into_data_stream().map_ok(move |piece| match std::str::from_utf8(&piece) {
        Ok(html) => Bytes::from(prefixed(html, &prefix)),
        Err(_) => piece,
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

fn is_markup(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    [&b"text/html"[..], b"text/event-stream"].iter().any(|it| kind.starts_with(it))
}

/// HTML with the prefix in its tags.
fn prefixed(html: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(html.len() + html.len() / 16);
    let mut rest = html;
    while let Some(begin) = rest.find('<') {
        out.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let (tag, after) = rest.split_at(rest.find('>').map_or(rest.len(), |end| end + 1));
        rest = after;
        let mut tag = tag;
        while let Some(at) = tag.find("=\"/") {
            let name = tag[..at].rsplit(' ').next().unwrap_or_default();
            let is_place = ATTRIBUTES.contains(&name) && !tag[at + 3..].starts_with('/');
            out.push_str(&tag[..at + 2]);
            if is_place {
                out.push_str(prefix);
            }
            tag = &tag[at + 2..];
        }
        out.push_str(tag);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_tags_have_the_prefix_and_nothing_else_has() {
        let check = |html: &str, expected: &str| assert_eq!(prefixed(html, "/b"), expected);
        check(r#"<a href="/x?a=1">"/x"</a>"#, r#"<a href="/b/x?a=1">"/x"</a>"#);
        check(
            r#"<a class="a" href="/">x href="/y"</a>"#,
            r#"<a class="a" href="/b/">x href="/y"</a>"#,
        );
        check(
            r#"<form method="post" action="/x" hx-post="/x">"#,
            r#"<form method="post" action="/b/x" hx-post="/b/x">"#,
        );
        check(r#"<input name="back" value="/x">"#, r#"<input name="back" value="/x">"#);
        check(
            r##"<use href="#i"/><a href="//e.example">"##,
            r##"<use href="#i"/><a href="//e.example">"##,
        );
        check(
            r#"<div hx-sse:connect="/live" hx-swap="x">"#,
            r#"<div hx-sse:connect="/b/live" hx-swap="x">"#,
        );
        check(
            "data: <a data-href=\"/x\" href=\"/y\">\n\n",
            "data: <a data-href=\"/x\" href=\"/b/y\">\n\n",
        );
        check("no tag, <", "no tag, <");
    }

    #[test]
    fn a_prefix_ends_where_a_name_does() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(without(path, "/b"), expected);
        check("/b", Some("/"));
        check("/b/", Some("/"));
        check("/b/agents", Some("/agents"));
        check("/bell", None);
        check("/agents/b", None);
        assert_eq!(without("/agents", ""), None);
    }
}
