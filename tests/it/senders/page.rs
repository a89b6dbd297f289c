//! The page about senders is the table: neither says anything that the other does not.

use std::fmt::Write;

use bellpull::{
    domain::handshake::{Answered, Handshake},
    ingest::{Demanded, Preset, presets},
};
use expect_test::expect_file;

#[test]
fn the_page_about_senders_is_the_table() {
    let mut page = "# Senders\n\n\
        What the presets know; [webhooks.md](webhooks.md) says how to use one and what the words of a gate mean.\n\
        *Session* is what `target = \"key\"` makes one session of each value of, and *Actor* is where `ignore_actors` looks.\n\
        This page is made from `src/ingest/presets`: `UPDATE_EXPECT=1 cargo test the_page_about_senders` writes it anew.\n\n\
        *Rests on* says what an entry was taken from; what is called unverified was found in no document.\n\
        Nothing here was tried against the sender itself.\n"
        .to_owned();
    for preset in presets() {
        write(&mut page, preset);
    }
    expect_file!["../../../docs/senders.md"].assert_eq(&page);
}

fn write(page: &mut String, preset: &Preset) {
    let mut line = |text: &str| writeln!(page, "{text}").expect("a text grows");
    line(&format!("\n## {}\n\n`preset = \"{}\"`\n", preset.title, preset.id));
    let mut item = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            line(&format!("- {name}: {text}"));
        }
    };
    item("Set up", Some(preset.setup.clone()));
    item("Delivery", places(&preset.identity));
    let window = preset.body_hash_window_seconds;
    let equal = format!("equal bodies within {window} s are one, where no id is found");
    item("Without an id", (window > 0).then_some(equal));
    item("Event type", places(&preset.event_type));
    item("Session", preset.key.as_ref().map(|key| format!("`{key}`")));
    item("Actor", places(&preset.actor));
    for handshake in &preset.handshakes {
        item("Handshake", Some(self::handshake(handshake)));
    }
    item("Answer", preset.answer.as_ref().map(answer));
    item("Expects", preset.expects.clone());
    item("Repeats", preset.retries.clone());
    item("Mind", preset.notes.clone());
    let unverified: Vec<_> = preset.unverified.iter().map(|fact| fact.name()).collect();
    let rests = preset.evidence.map(|evidence| match &unverified[..] {
        [] => evidence.text().to_owned(),
        facts => format!("{}; unverified: {}", evidence.text(), facts.join(", ")),
    });
    item("Rests on", rests);
    let gate = toml::to_string(&preset.verifier).expect("a verifier is TOML");
    line(&format!("\n```toml\n{}\n```", gate.trim_end()));
}

fn answer(answer: &Demanded) -> String {
    let body = match (&answer.body, answer.status) {
        (_, 204) => ", without a body".to_owned(),
        (None, _) => String::new(),
        (Some(body), _) if body.is_empty() => ", with an empty body".to_owned(),
        (Some(body), _) => format!(", with `{body}`"),
    };
    format!("{} in the place of 202{body}", answer.status)
}

fn places(fields: &[impl ToString]) -> Option<String> {
    let shown: Vec<_> = fields.iter().map(|field| format!("`{}`", field.to_string())).collect();
    (!shown.is_empty()).then(|| shown.join(", else "))
}

fn handshake(handshake: &Handshake) -> String {
    let mut text = format!("`{}`", handshake.method.as_str());
    let mut add = |piece: String| text.push_str(&piece);
    let mut and = " with";
    for (field, value) in &handshake.when {
        add(format!("{and} `{field}` = `{value}`"));
        and = " and";
    }
    for place in &handshake.empty {
        add(format!("{and} an empty list at `{}`", place.0));
        and = " and";
    }
    if let Some(field) = &handshake.challenge {
        add(format!("{and} a challenge at `{field}`"));
        and = " and";
    }
    if let Some(field) = &handshake.token {
        add(format!("{and} the verify token at `{field}`"));
    }
    for field in &handshake.lacks {
        add(format!(", without `{field}`"));
    }
    add(match handshake.answered {
        Answered::Before => ", answered to anybody: ".to_owned(),
        Answered::After => ", answered after the gate: ".to_owned(),
        Answered::Window => ", answered in a window, and the secret from then on: ".to_owned(),
    });
    let reply = &handshake.reply;
    add(reply.status.to_string());
    for (name, value) in &reply.headers {
        add(format!(", `{name}: {value}`"));
    }
    if let Some(body) = &reply.text {
        add(format!(", the text `{body}`"));
    }
    if let Some(body) = &reply.json {
        add(format!(", the JSON `{body}`"));
    }
    text
}
