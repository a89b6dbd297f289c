//! The example and the docs say what the reader knows, no less and no more.

use super::*;

const EXAMPLE: &str = include_str!("../../../bellpull.example.toml");
const DOCS: &str = include_str!("../../../docs/configuration.md");

const BOX_KEYS: [(&str, &str); 3] = [
    ("BELLPULL_BOX_KEY", "0123456789abcdef"),
    ("TICKETS_WEBHOOK_SECRET", "0123456789abcdef"),
    ("BELLPULL_VAULT_KEY", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ="),
];

/// The example with its examples made real.
fn uncommented() -> String {
    let lines = EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything that was loaded and may be shown, and how the secrets were.
fn dump(loaded: &Loaded) -> String {
    let secrets: Vec<_> = loaded.declared.sources.iter().map(|it| expose(&it.secret)).collect();
    format!("{loaded:#?} {:?} {secrets:?}", expose(&loaded.declared.box_key))
}

#[test]
fn the_example_is_the_defaults() {
    let defaults = load_toml("");
    let example = load_toml(EXAMPLE);
    assert_eq!(format!("{:?}", example.config), format!("{:?}", defaults.config));
    assert_eq!(example.warnings, []);
    assert!(example.declared.sources.is_empty() && example.declared.agents.is_empty());
    // Every key that has a default is there, not only mentioned.
    for setting in &example.settings {
        let has_default = setting.key != "data_dir" && !setting.value.is_null();
        if has_default && setting.key != CONFIG_VARIABLE {
            assert_eq!(setting.origin, Origin::File, "{}", setting.key);
        }
    }
}

#[test]
fn the_example_shows_every_key() {
    let loaded = toml(&uncommented(), &BOX_KEYS).load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.declared.sources.len(), 5);
    assert_eq!(loaded.declared.agents.len(), 1);
    assert_eq!(loaded.declared.environments.len(), 2);

    let table: toml::Table = uncommented().parse().unwrap();
    for key in known_keys() {
        let path: Vec<&str> = key.split('.').collect();
        assert!(shows(&table, &path), "`{key}` is not in bellpull.example.toml");
    }
}

/// Whether a table has a value at a path in which `<name>` stands for any key.
fn shows(table: &toml::Table, path: &[&str]) -> bool {
    let Some((key, rest)) = path.split_first() else { return true };
    table.iter().filter(|(name, _)| *key == "<name>" || name == key).any(|(_, value)| {
        rest.is_empty() || value.as_table().is_some_and(|table| shows(table, rest))
    })
}

#[test]
fn the_docs_show_every_key_and_variable() {
    for key in known_keys() {
        let name = key.rsplit('.').next().unwrap_or(&key);
        let wanted = if key.contains("<name>") { name } else { &key };
        assert!(DOCS.contains(&format!("`{wanted}`")), "`{key}` is not in docs/configuration.md");
    }
    let loaded = load_toml("");
    for name in loaded.settings.iter().filter_map(|setting| setting.environment.as_ref()) {
        assert!(DOCS.contains(&format!("`{name}`")), "`{name}` is not in docs/configuration.md");
    }
    for key in NEEDS_RESTART {
        let key = format!("`{}`", if key.ends_with('.') { format!("{key}*") } else { key.into() });
        assert!(DOCS.contains(&key), "{key} is not in docs/configuration.md");
    }
}

#[test]
fn toml_and_json_give_equal_results() {
    let from_toml = toml(&uncommented(), &BOX_KEYS).load().unwrap();
    let table: toml::Table = uncommented().parse().unwrap();
    let text = serde_json::to_string(&table).unwrap();
    let mut from_json = Given { environment: &BOX_KEYS, ..json(&text) }.load().unwrap();
    for setting in &mut from_json.settings {
        if setting.key == CONFIG_VARIABLE {
            setting.value = "/etc/bellpull/bellpull.toml".into();
        }
    }
    assert_eq!(dump(&from_toml), dump(&from_json));
}

#[test]
fn the_docs_show_every_default() {
    for setting in load_toml("").settings.iter().filter(|setting| setting.key.contains('.')) {
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.key)));
        let shown = match &setting.value {
            Value::Number(number) => format!("| {} |", with_commas(&number.to_string())),
            Value::String(text) => format!("| `{text}` |"),
            other => format!("| `{other}` |"),
        };
        assert!(row.is_some_and(|row| row.contains(&shown)), "{}: {shown}", setting.key);
    }
}

/// The unit and the values of a setting, as its own refusal of nonsense names them.
fn wanted(key: &str) -> Option<String> {
    let variable = format!("BELLPULL_{}", key.replace('.', "__").to_ascii_uppercase());
    let problems = toml("", &[(&variable, "\u{1}nonsense")]).load().err()?;
    let message = &problems.0.iter().find(|problem| problem.key == variable)?.message;
    if let Some(range) = message.strip_prefix("must be a whole number from ") {
        let (range, unit) = range.strip_suffix(')')?.split_once(" (")?;
        return Some(format!("| {unit} | {}", range.replace('_', ",")));
    }
    let choice = match message.as_str() {
        "must be true or false" => "`true`, `false`".to_owned(),
        other => other.strip_prefix("must be `")?.replace(" or ", ", ").replacen("", "`", 1),
    };
    Some(format!("| {choice} |"))
}

#[test]
fn the_docs_show_every_range() {
    // What these take is said in words.
    let in_words = [
        "log.filter",
        "outbox.allowed_private_hosts",
        "projects.roots",
        "sandbox.paths",
        "egress.ports",
        "egress.package_hosts",
        "mcp.allowed_private_hosts",
    ];
    let settings = load_toml("").settings;
    for Setting { key, .. } in settings.iter().filter(|setting| setting.key.contains('.')) {
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("`{key}` has no row"));
        match wanted(key) {
            Some(wanted) => {
                let rest = row.split_once(&wanted).map(|(_, rest)| rest);
                let whole = |rest: &str| wanted.ends_with('|') || rest.starts_with([',', ' ']);
                assert!(rest.is_some_and(whole), "{row}\nshould have: {wanted}");
            }
            // Dollars are no whole number.
            None if key.ends_with("_cost_usd") => assert!(row.contains("| dollars |"), "{row}"),
            None => assert!(in_words.contains(&key.as_str()), "what does `{key}` take?"),
        }
    }
}

#[test]
fn the_docs_show_no_key_that_is_gone() {
    let known = known_keys();
    for row in DOCS.lines() {
        let Some(key) = row.strip_prefix("| `").and_then(|row| row.split('`').next()) else {
            continue;
        };
        let is_key = key.contains('.') && !key.contains(' ');
        assert!(!is_key || known.iter().any(|known| known == key), "{row}");
    }
}

fn with_commas(digits: &str) -> String {
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}
