//! `listen`: the deliveries of a source, as they come, sent on to a URL of the developer's machine.
//!
//! The list is asked every second, so a connection that is lost costs time and nothing else.
//! Invariants: each delivery is sent on once, whatever the local server answers; none is left out
//! because it was stored after a younger one. That takes up to [`OVERLAP`], which is looked at again
//! each time. Left out: answers to the sender; it has its own.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    Exit,
    client::{PAGE_MAX, cause, read},
    context::{Context, str},
    failure::{Failure, Result},
    follow::Backoff,
    moment::{Moment, moment},
    style::{Look, look, size},
    table::one_line,
};
use crate::{
    clock::Timestamp,
    domain::text::printable,
    id::{DeliveryId, Id as _},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull listen code --forward http://127.0.0.1:3000/hook
  bellpull listen code --forward http://127.0.0.1:3000/hook --since 1h
  bellpull listen code --print --url https://bell.example.com --key $READ_KEY

Sends the raw body with the headers that were stored, once: nothing is retried, whatever the local
server answers, and the sender does not wait for it. Headers that carry a secret are stored without
their values and are left out. `bellpull replay DELIVERY` sends one again, as a new delivery.
Needs a key of scope `read`. Ctrl-C ends it.";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).multiple(true))]
pub struct Args {
    /// Source, by name or id
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to send each delivery, as a POST; http or https
    #[arg(long, value_name = "URL", group = "how", value_parser = url)]
    forward: Option<Url>,
    /// Print each delivery with its headers and its body
    #[arg(long, group = "how")]
    print: bool,
    /// Begin with those that came since then, such as `10m`, or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Seconds that the local server may take for its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

fn url(text: &str) -> std::result::Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) | Err(_) => Err("must begin with http:// or https://".to_owned()),
    }
}

const PERIOD: Duration = Duration::from_secs(1);

/// A delivery is stored some time after its id was made: its body has to arrive, and to be committed.
const OVERLAP: Duration = Duration::from_secs(120);

/// Headers that are about one connection, or that the new request has of its own.
const NOT_SENT: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// In the place of a value that carries a secret.
const REDACTED: &str = "[redacted]";

/// Says which delivery of Bellpull a request is.
const DELIVERY_HEADER: HeaderName = HeaderName::from_static("bellpull-delivery");

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("listen to the source `{}`", args.source);
    let path = ["v1", "sources", &args.source];
    let found = context.client.get(&what, &path, &[]).await;
    let found = context.or_nearest(found, &args.source, &["v1", "sources"], &["name"]).await?;
    let source = str(&found["id"]).to_owned();
    let since = args.since.map(|since| since.of(context.io.clock.now()));
    let mut listener = Listener { what, source, args, seen: Seen::default(), told: HashSet::new() };
    listener.seen.horizon = since;
    if since.is_none() {
        listener.pass_over_the_past(context).await?;
    }
    let http = listener.args.forward.as_ref().map(|url| local(url, listener.args.timeout));
    let http = http.transpose()?;
    let to = listener.args.forward.as_ref().map_or("this output", |url| url.as_str());
    let name = &listener.args.source;
    context.io.note(format!("listening to `{name}`; each delivery goes to {to} once"))?;
    let mut backoff = Backoff::new(None);
    loop {
        let wait = match listener.round(http.as_ref(), context).await {
            Ok(()) => {
                backoff.reset();
                PERIOD
            }
            Err(failure) if failure.is_passing() => {
                if backoff.is_first() {
                    context.io.note(format!("the connection is lost ({failure}), trying again"))?;
                }
                backoff.wait().unwrap_or(PERIOD)
            }
            Err(failure) => return Err(failure),
        };
        tokio::time::sleep(wait).await;
    }
}

/// For requests to the developer's own server.
fn local(url: &Url, timeout_seconds: u64) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .timeout(Duration::from_secs(timeout_seconds))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| Failure::new("prepare the connection", cause(&error)))
}

/// What was seen, as far back as something may still come.
#[derive(Debug, Default)]
struct Seen {
    /// Deliveries that came earlier are over; none is while nothing was there.
    horizon: Option<Timestamp>,
    ids: BTreeSet<String>,
}

impl Seen {
    /// Whether a delivery is new; it counts as seen from now on.
    fn note(&mut self, delivery: &Value) -> bool {
        if !self.ids.insert(str(&delivery["id"]).to_owned()) {
            return false;
        }
        if let Ok(at) = str(&delivery["received_at"]).parse::<Timestamp>() {
            let horizon = at.minus(OVERLAP);
            // Only a later one ends what may still come.
            if self.horizon.is_none_or(|known| known < horizon) {
                self.horizon = Some(horizon);
                self.ids = self.ids.split_off(DeliveryId::floor(horizon).as_str());
            }
        }
        true
    }

    fn has(&self, delivery: &Value) -> bool {
        self.ids.contains(str(&delivery["id"]))
    }
}

struct Listener {
    what: String,
    source: String,
    args: Args,
    seen: Seen,
    /// Headers of which it was told that they are left out.
    told: HashSet<String>,
}

/// What the local server made of a delivery.
struct Forwarded {
    status: std::result::Result<u16, String>,
    ms: u128,
}

impl Listener {
    /// What is there already is not sent on.
    async fn pass_over_the_past(&mut self, context: &Context<'_>) -> Result<()> {
        let query = [("source", self.source.as_str())];
        let path = ["v1", "deliveries"];
        let newest = context.client.page(&self.what, &path, &query, None, 1).await?.data;
        if let Some(newest) = newest.first() {
            self.seen.note(newest);
            let mut page = None;
            loop {
                let (listed, next) = self.page(context, page).await?;
                for delivery in &listed {
                    self.seen.note(delivery);
                }
                page = next;
                if page.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Deliveries from the horizon on, the oldest first.
    async fn page(
        &self,
        context: &Context<'_>,
        page: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>)> {
        let horizon = self.seen.horizon.map(|it| it.to_string());
        let mut query = vec![("source", self.source.as_str()), ("order", "asc")];
        query.extend(horizon.as_deref().map(|it| ("received_at[gte]", it)));
        let path = ["v1", "deliveries"];
        let page = page.as_deref();
        let listing = context.client.page(&self.what, &path, &query, page, PAGE_MAX).await?;
        Ok((listing.data, listing.next_page))
    }

    async fn round(
        &mut self,
        http: Option<&reqwest::Client>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let mut page = None;
        loop {
            let (listed, next) = self.page(context, page).await?;
            for delivery in &listed {
                if !self.seen.has(delivery) {
                    self.send_on(delivery, http, context).await?;
                    self.seen.note(delivery);
                }
            }
            page = next;
            if page.is_none() {
                return Ok(());
            }
        }
    }

    async fn send_on(
        &mut self,
        listed: &Value,
        http: Option<&reqwest::Client>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let id = str(&listed["id"]);
        let (delivery, body) = match self.fetch(id, context).await {
            Ok(fetched) => fetched,
            Err(failure) if failure.has_status(404) => {
                let status = Err("its payload is gone".to_owned());
                let forwarded = http.map(|_| Forwarded { status, ms: 0 });
                return self.tell(listed, None, forwarded, context);
            }
            Err(failure) => return Err(failure),
        };
        let (headers, left_out) = headers(&delivery);
        for name in left_out {
            if self.told.insert(name.clone()) {
                let name = one_line(&name);
                context.io.note(format!("the header `{name}` carries a secret and is left out"))?;
            }
        }
        let forwarded = match (http, &self.args.forward) {
            (Some(http), Some(url)) => {
                Some(forward(http, url, id, headers.clone(), body.clone(), context).await)
            }
            _ => None,
        };
        let shown = self.args.print.then_some((&headers, body.as_slice()));
        self.tell(&delivery, shown, forwarded, context)
    }

    async fn fetch(&self, id: &str, context: &Context<'_>) -> Result<(Value, Vec<u8>)> {
        let delivery = context.client.get(&self.what, &["v1", "deliveries", id], &[]).await?;
        let url = context.client.url(&["v1", "deliveries", id, "body"], &[])?;
        let answer = context.client.open(&self.what, url, &[]).await?;
        Ok((delivery, read(&self.what, answer).await?))
    }

    fn tell(
        &self,
        delivery: &Value,
        shown: Option<(&HeaderMap, &[u8])>,
        forwarded: Option<Forwarded>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        if context.json {
            let mut value = json!({"delivery": delivery, "forwarded": null});
            if let Some(it) = &forwarded {
                let (status, error) = (it.status.as_ref().ok(), it.status.as_ref().err());
                value["forwarded"] = json!({"status": status, "error": error, "ms": it.ms});
            }
            if let Some((_, body)) = shown {
                value["body"] = String::from_utf8_lossy(body).into();
            }
            return context.io.json_line(&value);
        }
        let style = context.io.style();
        let mut parts = vec![style.dim(str(&delivery["received_at"]).get(11..19).unwrap_or("-"))];
        match forwarded {
            Some(Forwarded { status: Ok(status), ms }) => {
                let good = (200..300).contains(&status);
                let look = if good { Look::Good } else { Look::Bad };
                parts.push(style.paint(look, &status.to_string()));
                parts.push(format!("{:>8}", format!("{ms} ms")));
            }
            Some(Forwarded { status: Err(why), .. }) => {
                parts.push(style.paint(Look::Bad, &format!("failed: {}", one_line(&why))));
            }
            None => {}
        }
        let badge = str(&delivery["status"]);
        parts.push(style.paint(look(badge), &one_line(badge)));
        parts.push(one_line(str(&delivery["event_type"])));
        parts.push(one_line(str(&delivery["id"])));
        let bytes = u64::try_from(delivery["body_bytes"].as_i64().unwrap_or(0)).unwrap_or(0);
        parts.push(style.dim(&size(bytes)));
        parts.retain(|part| !part.is_empty());
        context.io.line(parts.join("  "))?;
        if let Some((headers, body)) = shown {
            for (name, value) in headers {
                let value = one_line(&String::from_utf8_lossy(value.as_bytes()));
                context.io.line(format!("{} {value}", style.dim(&format!("{name}:"))))?;
            }
            let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
            context.io.line(format!("\n{}\n", printable(text.trim_end_matches('\n'))))?;
        }
        Ok(context.io.out.flush()?)
    }
}

/// Sends a delivery on, once.
async fn forward(
    http: &reqwest::Client,
    url: &Url,
    id: &str,
    mut headers: HeaderMap,
    body: Vec<u8>,
    context: &Context<'_>,
) -> Forwarded {
    if let Ok(id) = id.parse::<HeaderValue>() {
        headers.insert(DELIVERY_HEADER, id);
    }
    let began = context.io.clock.monotonic();
    let answer = http.post(url.clone()).headers(headers).body(body).send().await;
    let ms = (context.io.clock.monotonic() - began).as_millis();
    let status = match answer {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) if error.is_timeout() => Err("no answer in time".to_owned()),
        Err(error) => Err(cause(&error)),
    };
    Forwarded { status, ms }
}

/// The headers as they are sent on, and the names of those whose values are not there.
fn headers(delivery: &Value) -> (HeaderMap, Vec<String>) {
    let stored = delivery["headers"].as_object();
    let texts = |values: &Value| -> Vec<String> {
        let values = values.as_array().into_iter().flatten();
        values.map(|value| str(value).to_owned()).collect()
    };
    let connection = stored.and_then(|it| it.get("connection")).map(&texts).unwrap_or_default();
    let is_of_connection = |name: &str| {
        let mut named = connection.iter().flat_map(|value| value.split(','));
        NOT_SENT.contains(&name) || named.any(|it| it.trim().eq_ignore_ascii_case(name))
    };
    let (mut headers, mut left_out) = (HeaderMap::new(), Vec::new());
    for (name, values) in stored.into_iter().flatten() {
        if is_of_connection(name) {
            continue;
        }
        let Ok(known) = name.parse::<HeaderName>() else { continue };
        for value in texts(values) {
            if value == REDACTED {
                left_out.push(name.clone());
            } else if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(known.clone(), value);
            }
        }
    }
    (headers, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_sent_on_but_those_of_the_connection_and_secrets() {
        let delivery = json!({"headers": {
            "x-event": ["a", "b"], "host": ["bell.example"], "content-length": ["2"],
            "connection": ["keep-alive, X-Hop"], "x-hop": ["1"], "authorization": ["[redacted]"],
            "content-type": ["application/json"],
        }});
        let (headers, left_out) = headers(&delivery);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-event"]);
        assert_eq!(headers.get_all("x-event").iter().count(), 2);
        assert_eq!(left_out, ["authorization"]);
    }

    #[test]
    fn what_is_stored_late_is_new_and_nothing_is_new_twice() {
        let start = Timestamp(1_800_000_000_000);
        let delivery = |seconds: u64| {
            let at = start.plus(Duration::from_secs(seconds));
            json!({"id": DeliveryId::new(at), "received_at": at})
        };
        let (late, first, last) = (delivery(199), delivery(200), delivery(300));
        let mut seen = Seen::default();
        assert!(seen.note(&first) && !seen.note(&first));
        assert!(seen.note(&last) && seen.note(&late), "it came before the last");
        assert_eq!(seen.horizon, Some(start.plus(Duration::from_secs(180))));
        assert!(seen.has(&first) && seen.has(&late));
        seen.note(&delivery(320));
        assert_eq!(seen.ids.len(), 3, "what is over is forgotten");
    }

    #[test]
    fn only_addresses_of_http_are_sent_to() {
        for text in ["ftp://a/", "file:///etc/passwd", "127.0.0.1:3000", ""] {
            assert!(url(text).is_err(), "{text}");
        }
        assert!(url("http://127.0.0.1:3000/hook").is_ok() && url("https://a.example").is_ok());
    }
}
