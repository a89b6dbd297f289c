//! As much of a browser as the stories need: cookies, forms, and a host.

use std::collections::BTreeMap;

use axum::body::Body;
use http::HeaderMap;
use http_body_util::BodyExt;

use super::super::{client::Call, server::Server};

pub struct Browser<'a> {
    pub server: &'a Server,
    pub host: String,
    /// One more header of every request.
    pub also: Option<(&'static str, &'static str)>,
    cookies: BTreeMap<String, String>,
}

pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// The first text between two others.
    pub fn between(&self, before: &str, after: &str) -> String {
        let rest = self.text.split_once(before).map(|(_, rest)| rest);
        let found = rest.and_then(|rest| rest.split_once(after)).map(|(found, _)| found);
        found.unwrap_or_else(|| panic!("no {before}…{after} in {}", self.text)).to_owned()
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        self.between(&format!("name=\"{name}\" value=\""), "\"")
    }
}

impl<'a> Browser<'a> {
    pub fn new(server: &'a Server) -> Browser<'a> {
        let host = "bell.example".to_owned();
        Browser { server, host, also: None, cookies: BTreeMap::new() }
    }

    pub async fn signed_in(server: &'a Server, key: &str) -> Browser<'a> {
        let mut browser = Browser::new(server);
        let page = browser.sign_in(key).await;
        assert_eq!(page.status, 303, "{}", page.text);
        browser
    }

    /// A request with the browser's cookies.
    pub fn call(&self, method: &str, path: &str) -> Call {
        let mut call = self.server.bare(method, path).header("host", &self.host);
        call = call.header("accept", "text/html");
        if let Some((name, value)) = self.also {
            call = call.header(name, value);
        }
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { call } else { call.header("cookie", cookies.join("; ")) }
    }

    pub fn form(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Call {
        let mut body = form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            body.append_pair(name, value);
        }
        let call = self.call(method, path);
        call.header("content-type", "application/x-www-form-urlencoded").body(body.finish())
    }

    pub async fn get(&self, path: &str) -> Page {
        page(self.call("GET", path)).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        page(self.form("POST", path, fields)).await
    }

    /// A form with the visitor's own token.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.csrf().await;
        let mut all = fields.to_vec();
        all.push(("csrf", &csrf));
        self.post(path, &all).await
    }

    /// A form, and the page that it leads to.
    pub async fn carry_out(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.submit(path, fields).await;
        match page.header("location").map(str::to_owned) {
            Some(place) => self.get(&place).await,
            None => page,
        }
    }

    pub async fn csrf(&self) -> String {
        self.get("/sessions").await.field("csrf")
    }

    pub async fn sign_in(&mut self, key: &str) -> Page {
        let form = self.get("/sign-in").await;
        self.keep(&form);
        let page = self.post("/sign-in", &[("key", key), ("csrf", &form.field("csrf"))]).await;
        self.keep(&page);
        page
    }

    /// The page of the default agent's webhook.
    pub fn webhook(&self) -> String {
        format!("/agents/{}/webhook", self.server.agent)
    }

    pub fn set_cookie(&mut self, pair: &str) {
        let (name, value) = pair.split_once('=').expect("a pair");
        self.cookies.insert(name.to_owned(), value.to_owned());
    }

    pub fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    fn keep(&mut self, page: &Page) {
        for cookie in page.headers.get_all("set-cookie") {
            let text = cookie.to_str().expect("ASCII");
            self.set_cookie(text.split(';').next().expect("a pair"));
        }
    }
}

async fn page(call: Call) -> Page {
    let (parts, body): (_, Body) = call.open().await.into_parts();
    let bytes = body.collect().await.expect("the body ends").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Page { status: parts.status.as_u16(), headers: parts.headers, text }
}
