//! Somebody who is signed in and looks at pages, without a browser around: what is timed is the server.

use anyhow::{Context, ensure};
use reqwest::{Client, Response, header, redirect::Policy};

use crate::server::Server;

/// What browsers unpack. The client here does not, so that what is counted is what came.
const ENCODINGS: &str = "gzip, deflate, br, zstd";

pub struct Visitor {
    http: Client,
    base: String,
    /// The cookie, as it is sent.
    cookie: String,
}

impl Visitor {
    pub async fn sign_in(server: &Server) -> anyhow::Result<Visitor> {
        // Where a form leads to is not wanted, only its cookie.
        let http = Client::builder().no_proxy().tls_certs_only([]).redirect(Policy::none());
        let (http, base) = (http.build()?, format!("http://{}", server.address));
        let form = http.get(format!("{base}/sign-in")).send().await?.error_for_status()?;
        let cookie = cookie_of(&form)?;
        let form = form.text().await?;
        let token = form.split_once("name=\"csrf\" value=\"").map(|(_, rest)| rest);
        let token = token.and_then(|rest| rest.split('"').next()).context("a form's token")?;
        let fields = format!("key={}&csrf={token}", server.admin_key()?);
        let request = http.post(format!("{base}/sign-in")).header(header::COOKIE, cookie);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let signed_in = request.body(fields).send().await?.error_for_status()?;
        let cookie = cookie_of(&signed_in)?;
        Ok(Visitor { http, base, cookie })
    }

    /// A page, to its end, for reading it.
    pub async fn look(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.page(path, "identity").await?.text().await?)
    }

    /// A page, to its end, as a browser asks for it: how many bytes of it came.
    pub async fn load(&self, path: &str) -> anyhow::Result<usize> {
        Ok(self.page(path, ENCODINGS).await?.bytes().await?.len())
    }

    async fn page(&self, path: &str, encodings: &str) -> anyhow::Result<Response> {
        let request = self.http.get(format!("{}{path}", self.base));
        let request = request.header(header::ACCEPT_ENCODING, encodings);
        let page = request.header(header::COOKIE, &self.cookie).send().await?;
        ensure!(page.status() == 200, "{path} was answered with {}", page.status());
        Ok(page)
    }
}

fn cookie_of(answer: &Response) -> anyhow::Result<String> {
    let set = answer.headers().get(header::SET_COOKIE).context("a cookie")?.to_str()?;
    Ok(set.split(';').next().unwrap_or_default().to_owned())
}
