//! Any changed byte of what proves a delivery is refused: of the body, the timestamp, the id, the
//! signature and the URL.

use bellpull::clock::Timestamp;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;

use super::cases::{Case, cases};
use crate::{support, web::server::Server};

/// Presets of every shape, with the headers of which no byte may change.
const COVERED: [(&str, &[&str]); 44] = [
    ("github", &["X-Hub-Signature-256"]),
    ("gitea", &["X-Gitea-Signature"]),
    ("vercel", &["x-vercel-signature"]),
    ("intercom", &["X-Hub-Signature"]),
    ("shopify", &["X-Shopify-Hmac-Sha256"]),
    ("typeform", &["Typeform-Signature"]),
    ("airtable", &["X-Airtable-Content-MAC"]),
    ("slack", &["X-Slack-Request-Timestamp", "X-Slack-Signature"]),
    ("zoom", &["x-zm-request-timestamp", "x-zm-signature"]),
    ("zendesk", &["X-Zendesk-Webhook-Signature", "X-Zendesk-Webhook-Signature-Timestamp"]),
    ("box", &["box-delivery-timestamp", "box-signature-primary"]),
    ("hubspot", &["X-HubSpot-Request-Timestamp", "X-HubSpot-Signature-v3"]),
    (
        "twitch",
        &[
            "Twitch-Eventsub-Message-Id",
            "Twitch-Eventsub-Message-Timestamp",
            "Twitch-Eventsub-Message-Signature",
        ],
    ),
    ("paddle", &["Paddle-Signature"]),
    ("calendly", &["Calendly-Webhook-Signature"]),
    ("gitlab", &["webhook-id", "webhook-timestamp", "webhook-signature"]),
    ("square", &["x-square-hmacsha256-signature"]),
    ("trello", &["X-Trello-Webhook"]),
    ("twilio", &["X-Twilio-Signature"]),
    ("discord", &["X-Signature-Timestamp", "X-Signature-Ed25519"]),
    (
        "sendgrid",
        &["X-Twilio-Email-Event-Webhook-Timestamp", "X-Twilio-Email-Event-Webhook-Signature"],
    ),
    ("netlify", &["X-Webhook-Signature"]),
    ("adyen", &["HmacSignature"]),
    ("linear", &["Linear-Signature"]),
    ("paypal", &["PAYPAL-TRANSMISSION-ID", "PAYPAL-TRANSMISSION-TIME", "PAYPAL-TRANSMISSION-SIG"]),
    ("bitbucket", &["X-Hub-Signature"]),
    ("bitbucket-dc", &["X-Hub-Signature"]),
    ("jira", &["X-Hub-Signature"]),
    ("notion", &["X-Notion-Signature"]),
    ("asana", &["X-Hook-Signature"]),
    ("dropbox", &["X-Dropbox-Signature"]),
    ("line", &["X-Line-Signature"]),
    ("meta", &["X-Hub-Signature-256"]),
    ("sentry", &["Sentry-Hook-Signature"]),
    ("grafana", &["X-Grafana-Alerting-Signature"]),
    ("lemon-squeezy", &["X-Signature"]),
    ("razorpay", &["X-Razorpay-Signature"]),
    ("woocommerce", &["X-WC-Webhook-Signature"]),
    ("hmac", &["X-Signature"]),
    // Their headers hold entries that do not count as well, of which any byte may change.
    ("circleci", &[]),
    ("pagerduty", &[]),
    ("stripe", &[]),
    ("svix", &["svix-id", "svix-timestamp"]),
    ("standard-webhooks", &["webhook-id", "webhook-timestamp"]),
];

/// What a byte may become in a header.
fn visible() -> impl Strategy<Value = u8> {
    0x21..0x7f_u8
}

/// A case, which part of it changes, where, and into what.
fn change() -> impl Strategy<Value = (usize, usize, prop::sample::Index, u8, u8)> {
    (0..COVERED.len(), 0..4_usize, any::<prop::sample::Index>(), visible(), 1..=255_u8)
}

#[test]
fn any_changed_byte_is_refused() {
    let all = cases();
    let covered: Vec<(Case, &[&str])> = COVERED
        .iter()
        .map(|(preset, headers)| {
            let has = |case: &&Case| headers.iter().all(|it| case.headers.contains_key(*it));
            let case = all.cases.iter().find(|case| case.preset == *preset && has(case));
            (case.unwrap_or_else(|| panic!("{preset} has a case")).clone(), *headers)
        })
        .collect();
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(async {
        let server = Server::since(Timestamp(all.now * 1000)).await;
        for (case, _) in &covered {
            case.make(&server).await;
            assert!(!case.is_refused(&server).await, "{} as it is", case.preset);
        }
        server
    });
    let n_cases = if support::full() { 20_000 } else { 2_000 };
    let mut runner = TestRunner::new(Config { cases: n_cases, ..Config::default() });
    let outcome = runner.run(&change(), |(case, part, at, byte, mask)| {
        let (case, headers) = &covered[case];
        let mut changed = case.clone();
        // The body is a part like the others, and so is what a sender that signs URLs signs of it.
        match headers.get(part % (headers.len() + 1)) {
            Some(header) => {
                let value = changed.headers[*header].as_str().expect("a text");
                let mut bytes = value.as_bytes().to_vec();
                let at = at.index(bytes.len());
                // Hexadecimal in capitals is the same signature.
                prop_assume!(!bytes[at].eq_ignore_ascii_case(&byte));
                bytes[at] = byte;
                changed.headers[*header] = String::from_utf8(bytes).expect("it is ASCII").into();
                let refused = runtime.block_on(changed.is_refused(&server));
                prop_assert!(refused, "{}: {header} with byte {at} as {byte}", case.preset);
            }
            None => {
                let mut bytes = case.body.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
                // Of a form its fields are signed, and `%2b` is the same letter as `%2B`.
                let fields = |body: &[u8]| form_urlencoded::parse(body).into_owned().collect();
                let (before, after): (Vec<_>, Vec<_>) =
                    (fields(case.body.as_bytes()), fields(&bytes));
                prop_assume!(case.preset != "twilio" || before != after);
                let call = changed.call(&server).body(bytes);
                let status = runtime.block_on(call.send()).status;
                prop_assert_eq!(status, 401, "{}: body with byte {} changed", case.preset, at);
            }
        }
        Ok(())
    });
    outcome.expect("nothing changed is let in");
}
