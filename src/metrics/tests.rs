//! The text itself is judged by another implementation's parser in `tests/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const DOCS: &str = include_str!("../../docs/operations.md");

/// Metrics in which everything was counted once.
fn full() -> Arc<Metrics> {
    let metrics = Metrics::new(Timestamp(1_800_000_000_000));
    let second = Duration::from_secs(1);
    metrics.source(&SourceKind::Named, "shop").count(Received::Accepted);
    metrics.unknown_source(true).count(Received::Refused);
    metrics.answered(Duration::from_micros(700));
    metrics.taken(second);
    metrics.turn_ended(TurnEnd::EndTurn, second);
    metrics.turn_put_off();
    metrics.lease_lost();
    let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
    let spent = Spent { usage, cost: Some(MicroUsd(1_250_001)) };
    metrics.model_asked("claude", "ok", second, &spent);
    metrics.model_asked("qwen", "ok", second, &Spent::from(usage));
    metrics.committed(second);
    metrics.batched(3);
    metrics.store_failed("unavailable");
    metrics.pruned("bodies", 7);
    metrics.set_free_disk(4096);
    metrics.message_sent("sent", second);
    metrics.set_outgoing(3, second);
    metrics
}

fn waiting(name: &str) -> Waiting {
    let oldest = Some(Duration::from_millis(1500));
    Waiting { kind: SourceKind::Named, name: name.to_owned(), sessions: 2, oldest }
}

/// Every sample, by its name with labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn what_was_counted_is_told() {
    let metrics = full();
    let (_turn, _stream) = (metrics.turn_runs(), metrics.stream_opens());
    drop(metrics.turn_runs());
    let text = metrics.text(&[waiting("shop")]);
    let samples = samples(&text);
    for (name, value) in [
        (r#"bellpull_webhook_requests_total{kind="named",source="shop",result="accepted"}"#, 1.0),
        (
            r#"bellpull_webhook_requests_total{kind="agent",source="(unknown)",result="refused"}"#,
            1.0,
        ),
        ("bellpull_accept_duration_seconds_sum", 0.0007),
        (r#"bellpull_accept_duration_seconds_bucket{le="0.0005"}"#, 0.0),
        (r#"bellpull_accept_duration_seconds_bucket{le="0.001"}"#, 1.0),
        (r#"bellpull_accept_duration_seconds_bucket{le="+Inf"}"#, 1.0),
        ("bellpull_accept_duration_seconds_count", 1.0),
        (r#"bellpull_turns_total{result="end_turn"}"#, 1.0),
        ("bellpull_turns_running", 1.0),
        ("bellpull_streams_open", 1.0),
        (r#"bellpull_model_tokens_total{model="claude",kind="output"}"#, 5.0),
        (r#"bellpull_model_cost_dollars_total{model="claude"}"#, 1.250001),
        (r#"bellpull_model_unpriced_requests_total{model="qwen"}"#, 1.0),
        (r#"bellpull_store_commit_accepts_bucket{le="2.0"}"#, 0.0),
        (r#"bellpull_store_commit_accepts_bucket{le="4.0"}"#, 1.0),
        ("bellpull_store_commit_accepts_sum", 3.0),
        (r#"bellpull_waiting_sessions{kind="named",source="shop"}"#, 2.0),
        (r#"bellpull_oldest_waiting_seconds{kind="named",source="shop"}"#, 1.5),
        ("bellpull_free_disk_bytes", 4096.0),
        ("process_start_time_seconds", 1_800_000_000.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}\n{text}");
    }
    let unpriced = r#"bellpull_model_unpriced_requests_total{model="claude"}"#;
    assert!(!samples.contains_key(unpriced), "an unknown price is not a price of nothing");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_nobody_knows_is_not_told_as_nothing() {
    let text = full().text(&[Waiting { oldest: None, ..waiting("shop") }]);
    assert!(text.contains("bellpull_waiting_sessions{") && !text.contains("oldest_waiting"));
}

#[test]
fn labels_have_a_bounded_number_of_values() {
    let metrics = Metrics::new(Timestamp(0));
    metrics.set_options(&Options { names_max: 2 });
    for name in ["a", "b", "c", "d", "a"] {
        metrics.source(&SourceKind::Named, name).count(Received::Held);
        metrics.model_asked(name, "ok", Duration::ZERO, &Spent::default());
    }
    let text = metrics.text(&["a", "b", "c"].map(waiting));
    let samples = samples(&text);
    for (source, n) in [("a", 2.0), ("b", 1.0), ("(other)", 2.0)] {
        let name = format!(
            r#"bellpull_webhook_requests_total{{kind="named",source="{source}",result="held"}}"#
        );
        assert_eq!(samples.get(name.as_str()), Some(&n), "{name}");
        let name = format!(r#"bellpull_model_requests_total{{model="{source}",result="ok"}}"#);
        assert_eq!(samples.get(name.as_str()), Some(&n), "{name}");
    }
    assert!(!text.contains(r#""c""#) && !text.contains(r#""d""#), "{text}");
}

#[test]
fn a_label_stays_in_its_line() {
    let metrics = Metrics::new(Timestamp(0));
    let model = format!("\u{1b}[31m\"\\\n{}", "x".repeat(500));
    metrics.model_asked(&model, "ok", Duration::ZERO, &Spent::default());
    let text = metrics.text(&[]);
    assert!(text.contains(r#"{model="\\u{1b}[31m\"\\\nxxx"#), "{text}");
    assert!(text.lines().all(|line| line.len() < 300), "{text}");
}

/// The table in the docs is what is served: names, types and labels.
#[test]
fn the_docs_show_every_metric() {
    let text = full().text(&[waiting("shop")]);
    let mut served = BTreeSet::new();
    for line in text.lines() {
        let Some(described) = line.strip_prefix("# TYPE ") else { continue };
        let (name, kind) = described.split_once(' ').unwrap();
        let shown = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        let sample = if kind == "histogram" { format!("{name}_count") } else { shown.clone() };
        let sample = text.lines().find(|line| {
            line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let labels = sample.unwrap().split_once('{').map_or("", |(_, rest)| rest);
        let labels = labels.split(r#"","#).filter_map(|label| label.split_once('='));
        let labels: Vec<String> = labels.map(|(label, _)| format!("`{label}`")).collect();
        served.insert([format!("`{shown}`"), kind.to_owned(), labels.join(", ")]);
    }
    let prefixes = ["| `bellpull_", "| `process_"];
    let rows = DOCS.lines().filter(|line| prefixes.iter().any(|it| line.starts_with(it)));
    let cell = |row: &str, at: usize| row.split('|').nth(at).unwrap().trim().to_owned();
    let documented = rows.map(|row| [cell(row, 1), cell(row, 2), cell(row, 3)]).collect();
    // The alerts, too, ask for nothing that is not served.
    for word in DOCS.split(|char: char| !char.is_alphanumeric() && char != '_') {
        let is_served = served.iter().any(|[name, ..]| {
            let name = name.trim_matches('`');
            word == name
                || ["_bucket", "_count", "_sum"].iter().any(|it| word == format!("{name}{it}"))
        });
        assert!(!word.starts_with("bellpull_") || is_served, "{word}");
    }
    let missing: Vec<_> = served.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&served).collect();
    assert!(missing.is_empty() && gone.is_empty(), "missing: {missing:#?}\ngone: {gone:#?}");
}
