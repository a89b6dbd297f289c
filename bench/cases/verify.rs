//! What it costs to check one signature: the gate alone, in this process, on one thread.

use std::{hint::black_box, time::Instant};

use bellpull::{
    clock::Timestamp,
    domain::{secret::SecretName, verifier::Verifier},
    id::{Id, WebhookRequestId},
    ingest::{Draft, Endpoint, Head, Held, Payload, Secrets, prove, sign},
};
use http::{HeaderMap, Method};
use serde_json::json;

use crate::{
    Plan,
    report::{Report, median, range},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Bytes of the bodies.
const SIZES: [usize; 3] = [1024, 16 * 1024, 1024 * 1024];

/// Checks of one round, fewer where each is long.
fn n_checks(bytes: usize) -> usize {
    (64 * 1024 * 1024 / bytes).clamp(100, 50_000)
}

pub fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let stripe = json!({"type": "hmac", "header": "Stripe-Signature", "separator": ",",
        "scheme": "v1", "template": "{timestamp}.{body}",
        "timestamp": {"entry": "t", "tolerance_seconds": 300}});
    let shapes = [
        ("HMAC-SHA256 of the body, as GitHub", json!({"type": "hmac", "header": "X-Signature"})),
        ("HMAC-SHA256 of time and body, as Stripe", stripe),
    ];
    let mut rows = Vec::new();
    for (what, shape) in shapes {
        let verifier = Verifier::read(&shape).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        for bytes in SIZES {
            let micros: Vec<f64> =
                (0..plan.rounds).map(|_| round(&verifier, bytes)).collect::<Result<_, _>>()?;
            rows.push(vec![
                what.to_owned(),
                format!("{} KiB", bytes / 1024),
                format!("{:.1} µs", median(&micros)),
                range(&micros.iter().map(|it| it * 1000.0).collect::<Vec<_>>()) + " ns",
            ]);
        }
    }
    report.table("One signature", &["gate", "body", "median", "range"], &rows);
    Ok(())
}

/// Microseconds of one check, on average.
fn round(verifier: &Verifier, bytes: usize) -> anyhow::Result<f64> {
    let draft = Draft {
        method: Method::POST,
        url: "https://bell.example/api/webhook/s".to_owned(),
        headers: HeaderMap::new(),
        body: vec![b'x'; bytes].into(),
    };
    let held = Held { secret: Some(SECRET), box_key: None };
    let signed = sign(verifier, held, &draft, "id", NOW).map_err(anyhow::Error::msg)?.sent;
    let name = SecretName { name: "S".to_owned(), version: 1 };
    let secrets = Secrets::of(name, SECRET.into());
    let head: Head = signed.head(Endpoint::Source("s".to_owned()), WebhookRequestId::new(NOW));
    let payload = Payload::new(&signed.headers, signed.body);
    let n = n_checks(bytes);
    let started = Instant::now();
    for _ in 0..n {
        let passed = prove(verifier, &secrets, black_box(&head), black_box(&payload), NOW);
        black_box(passed).map_err(anyhow::Error::msg)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / n as f64)
}
