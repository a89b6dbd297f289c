//! Around every page: the right host, headers that leave little to be abused, and who is looking.
//!
//! A page of another site can make a browser send requests here, and a name that somebody else owns
//! can be made to point here. So the `Host` must be ours before anything else is looked at, a
//! visitor is known by a cookie that other sites cannot send, and a form brings the visitor's token.

use std::net::IpAddr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};

use super::{
    super::{App, Options, Sandbox, auth::MASTER, frame, prefix, status::Trouble},
    cookie::Cookie,
    fault::Fault,
    form,
    looks::{self, Wants},
    theme::Theme,
    visitors::{Hash, same},
};
use crate::{domain::text::clean, id::RequestId, ingest::Caller, store::Change};

/// Nothing is loaded but our own files, nothing runs inline, and nobody frames us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    answer(app, request, |request| next.run(request)).await
}

pub(super) async fn answer<F: Future<Output = Response>>(
    app: App,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let id = frame::id_of::<RequestId>(&mut request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_form = method == Method::POST;
    let mut response = if host_is_ours(&app.options(), request.headers(), request.uri()) {
        next(request).await
    } else {
        Fault::misdirected().into_response()
    };
    if is_form {
        app.looks.note_change();
    }
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        response = fault.answer(&id, &method, &path);
    }
    let mut response = form::mark(response, &path).await;
    let headers = response.headers_mut();
    // A file that is downloaded brings a stricter one.
    let policy = headers.entry(header::CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    prefix::outward(response, app.options().prefix())
}

/// Whether the browser asked for this server by a name that is its own: that of the public URL, the
/// address it listens on, or this machine's names for itself. Ports do not matter: a name that
/// somebody else owns is the danger.
fn host_is_ours(options: &Options, headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(name_of) else { return false };
    // A request line may name a host of its own.
    if uri.authority().is_some_and(|it| name_of(it.as_str()).as_ref() != Some(&host)) {
        return false;
    }
    let public = options.public_url.as_deref().and_then(|url| url.split_once("://"));
    let public = public.and_then(|(_, rest)| rest.split('/').next()).and_then(name_of);
    if public.as_ref() == Some(&host) {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let listen = options.listen.ip();
            address.is_loopback() || (address == listen && !listen.is_unspecified())
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The name or address in `host[:port]`, in lower case, without brackets and the last dot.
fn name_of(authority: &str) -> Option<String> {
    let authority = authority.trim_end_matches('/');
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_fine = port.is_empty()
        || port.strip_prefix(':').is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit()));
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (port_is_fine && !host.is_empty()).then_some(host)
}

/// Whoever is signed in, with a key that still opens something.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// The key's name, as the audit log knows it.
    pub(super) name: String,
    pub(super) may_change: bool,
    pub(super) csrf: String,
    pub(super) entry: Hash,
    pub(super) theme: Theme,
    /// The page that is looked at; the overview's path where there is none to come back to.
    pub(super) here: String,
    /// What is wrong with the server, for the top of every page.
    pub(super) trouble: Option<Trouble>,
    /// How much needs a person, for the navigation.
    pub(super) needs: Option<String>,
}

impl Visitor {
    /// A change by this visitor.
    pub(super) fn change(
        &self,
        action: &'static str,
        target: impl ToString,
        details: serde_json::Value,
    ) -> Change {
        Change { actor: self.name.clone(), action, target: target.to_string(), details }
    }

    fn find(app: &App, parts: &Parts) -> Option<Visitor> {
        let options = app.options();
        let token = Cookie::Visitor.read(&options, &parts.headers)?;
        let now = app.store.clock().now();
        let found = app.visitors.find(&token, now, is_active(&parts.uri))?;
        let snapshot = app.ingest.registry.snapshot();
        match snapshot.holder(&found.key) {
            Some(caller) if caller.may_read() => Some(Visitor {
                may_change: caller.is_admin(),
                name: name_of_caller(caller),
                csrf: found.csrf,
                entry: found.entry,
                theme: Theme::of(&options, &parts.headers),
                here: here(parts),
                trouble: app.sandbox.as_ref().and_then(Sandbox::trouble),
                needs: None,
            }),
            Some(_) | None => {
                app.visitors.forget(&found.entry);
                None
            }
        }
    }
}

/// Where to come back to after a form that stands on every page.
fn here(parts: &Parts) -> String {
    let path = parts.uri.path_and_query().filter(|_| parts.method == Method::GET);
    path.map_or("/", |it| it.as_str()).to_owned()
}

/// Whether the key that an entry was made with still opens the pages.
pub(super) fn still_opens(app: &App, entry: &Hash) -> bool {
    let key = app.visitors.key(entry, app.store.clock().now());
    let holder = key.and_then(|key| app.ingest.registry.snapshot().holder(&key));
    holder.is_some_and(|caller| caller.may_read())
}

pub(super) fn name_of_caller(caller: Caller) -> String {
    match caller {
        Caller::Master => MASTER.to_owned(),
        Caller::Box => "box key".to_owned(),
        Caller::Key { name, .. } => name,
    }
}

/// What a page asks for by itself says nothing about anybody being there.
fn is_active(uri: &Uri) -> bool {
    !uri.path().ends_with("/live") && !uri.query().is_some_and(|it| it.contains("part="))
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Visitor, Response> {
        let mut visitor = Visitor::find(app, parts).ok_or_else(|| to_sign_in(app, parts))?;
        if is_active(&parts.uri) {
            // A page without the number is better than none.
            let counted = looks::needs(app, Wants::Lately).await.ok();
            visitor.needs = counted.and_then(|counted| counted.counts.shown());
        }
        Ok(visitor)
    }
}

/// Whoever is signed in with a key that may change something.
#[derive(Debug)]
pub(super) struct Changer(pub(super) Visitor);

impl Changer {
    fn of(visitor: Visitor) -> Result<Changer, Fault> {
        if visitor.may_change {
            return Ok(Changer(visitor));
        }
        let text =
            "This key may only read. Sign in with a key of scope `admin` to change something.";
        Err(Fault::forbidden(text))
    }
}

impl FromRequestParts<App> for Changer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Changer, Response> {
        let visitor = Visitor::from_request_parts(parts, app).await?;
        Changer::of(visitor).map_err(IntoResponse::into_response)
    }
}

/// Sends whoever is not signed in to where that is done.
fn to_sign_in(app: &App, parts: &Parts) -> Response {
    let header = |name: &str| parts.headers.get(name).and_then(|it| it.to_str().ok());
    if is_fragment(&parts.headers) {
        // The page as a whole has to go, not the part that was asked for.
        let seen = header("hx-current-url").and_then(|it| it.parse::<Uri>().ok());
        let place = sign_in_place(seen.as_ref(), app.options().prefix());
        let headers = [("hx-redirect", place)];
        return (StatusCode::UNAUTHORIZED, headers).into_response();
    }
    let arrived = header("sec-fetch-site") == Some("cross-site")
        && header("sec-fetch-mode") == Some("navigate")
        && parts.method == Method::GET;
    if arrived && Cookie::Visitor.read(&app.options(), &parts.headers).is_none() {
        // A link on another site: the browser held the cookie back. Asked again by a page of our
        // own, it sends it if there is one.
        // Without an icon of its own it would ask for one.
        let page = "<!doctype html><title>Bellpull</title><link rel=\"icon\" href=\"data:,\">\
            <meta http-equiv=\"refresh\" content=\"0\">";
        return Html(page).into_response();
    }
    let seen = (parts.method == Method::GET).then_some(&parts.uri);
    Redirect::to(&sign_in_place(seen, "")).into_response()
}

/// Where to sign in, and to come back to what was asked for.
fn sign_in_place(seen: Option<&Uri>, prefix: &str) -> String {
    let wanted = seen.and_then(Uri::path_and_query).map(http::uri::PathAndQuery::as_str);
    let wanted = wanted.map(|it| prefix::without(it, prefix).unwrap_or(it));
    match wanted.filter(|it| *it != "/") {
        None => "/sign-in".to_owned(),
        Some(wanted) => {
            let next: String = form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
            format!("/sign-in?next={next}")
        }
    }
}

/// Whether htmx asks, for a part of a page.
pub(super) fn is_fragment(headers: &HeaderMap) -> bool {
    headers.get("hx-request").is_some_and(|it| it == "true")
}

/// Whether a browser says that a page of somebody else sent this.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|it| it != b"same-origin" && it != b"none")
}

/// Fields of a form, or of a query.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn parse(bytes: &[u8]) -> Fields {
        let pairs = form_urlencoded::parse(bytes);
        Fields(pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Written again as a form sends it, without what only this one form has: its token.
    pub(super) fn encoded(&self) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        let fields = self.0.iter().filter(|(name, _)| name != "csrf");
        out.extend_pairs(fields);
        out.finish()
    }

    /// Fields whose names begin so, with the rest of the name.
    pub(super) fn beginning_with<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, &**value)))
    }

    /// All values of a field that may be there more than once.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// Whether any of these says something.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.text(name).is_some_and(|it| !it.trim().is_empty()))
    }

    /// Whether a list that is open looks its first page up again.
    pub(super) fn is_again(&self) -> bool {
        self.text("part").is_some() && self.text("page").is_none()
    }

    /// A field that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }
}

impl FromRequestParts<App> for Fields {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Fields, Self::Rejection> {
        // As the API's queries: what is looked for goes to the database. Forms are judged as they are.
        let Fields(fields) = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
        Ok(Fields(
            fields.into_iter().map(|(name, value)| (name, clean(&value).into_owned())).collect(),
        ))
    }
}

/// The fields of a form that was sent by a page of ours, with the headers that came along.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) headers: HeaderMap,
    pub(super) fields: Fields,
}

impl FromRequest<App> for Form {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &App) -> Result<Form, Fault> {
        let headers = request.headers().clone();
        if is_foreign(&headers) {
            return Err(Fault::forbidden("This form was sent by a page of another site."));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if !kind.is_some_and(|it| it.starts_with("application/x-www-form-urlencoded")) {
            return Err(Fault::invalid("This is not a form of ours."));
        }
        let body = Bytes::from_request(request, app).await;
        let body = body.map_err(|_| Fault::invalid("The form is too large, or did not arrive."))?;
        Ok(Form { headers, fields: Fields::parse(&body) })
    }
}

/// A form of a visitor, with the visitor's own token: of any, also of one who may only read.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) visitor: Visitor,
    pub(super) form: Form,
}

/// A form of a visitor who may change something. What changes anything takes this one.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) visitor: Visitor,
    pub(super) form: Form,
}

impl FromRequest<App> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Posted, Response> {
        let Sent { visitor, form } = Sent::from_request(request, app).await?;
        let Changer(visitor) = Changer::of(visitor).map_err(IntoResponse::into_response)?;
        Ok(Posted { visitor, form })
    }
}

impl FromRequest<App> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Sent, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, app).await?;
        let request = Request::from_parts(parts, body);
        let form = Form::from_request(request, app).await.map_err(IntoResponse::into_response)?;
        let header = form.headers.get("x-csrf-token").and_then(|it| it.to_str().ok());
        let given = header.or(form.fields.text("csrf")).unwrap_or_default();
        if !same(given, &visitor.csrf) {
            return Err(Fault::stale_form().into_response());
        }
        Ok(Sent { visitor, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_open_the_pages() {
        let mut options = Options::new("192.0.2.7:4100".parse().unwrap());
        options.public_url = Some("https://Bell.example.com/below".to_owned());
        let check = |host: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            let uri = Uri::from_static("/agents");
            assert_eq!(host_is_ours(&options, &headers, &uri), expected, "{host}");
        };
        for host in ["bell.example.com", "BELL.example.com:8443", "bell.example.com."] {
            check(host, true);
        }
        for host in ["localhost", "localhost:4100", "127.0.0.1:1", "127.8.8.8", "[::1]:4100"] {
            check(host, true);
        }
        for host in ["a.localhost", "192.0.2.7:4100"] {
            check(host, true);
        }
        for host in [
            "example.com",
            "bell.example.com.evil.example",
            "evil.example:4100",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.8",
            "[::1",
            "localhost:x",
            "",
        ] {
            check(host, false);
        }
        let mut two = HeaderMap::new();
        two.append(header::HOST, "localhost".parse().unwrap());
        two.append(header::HOST, "localhost".parse().unwrap());
        assert!(!host_is_ours(&options, &two, &Uri::from_static("/")));
        let mut one = HeaderMap::new();
        one.insert(header::HOST, "localhost".parse().unwrap());
        assert!(!host_is_ours(&options, &one, &Uri::from_static("http://evil.example/")));
        assert!(!host_is_ours(&options, &HeaderMap::new(), &Uri::from_static("/")));
    }

    #[test]
    fn an_address_for_everybody_is_no_name() {
        let options = Options::new("0.0.0.0:4100".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "0.0.0.0:4100".parse().unwrap());
        assert!(!host_is_ours(&options, &headers, &Uri::from_static("/")));
    }
}
