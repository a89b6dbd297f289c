//! Rules about what other people's code comes along: licences, unwanted packages, duplicates.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use super::{Finding, none, root};

/// Licences that ask for no more than their text being kept. Cargo.toml says Apache-2.0 for us.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that do not ship with us: name, packages that may bring it all the same, why not.
const UNWANTED: &[(&str, &[&str], &str)] = &[
    ("openssl", &[], "TLS is rustls with ring"),
    ("openssl-sys", &[], "TLS is rustls with ring"),
    ("native-tls", &[], "TLS is rustls with ring"),
    ("aws-lc-rs", &[], "the one provider of rustls is ring; this one builds for minutes"),
    // In its own types, so out of our hands; nothing of ours uses it.
    ("chrono", &["rmcp"], "the one time library is jiff"),
    ("time", &[], "the one time library is jiff"),
    (
        "async-trait",
        // In their public traits, so out of our hands.
        &["tokio-postgres"],
        "traits have async functions of their own",
    ),
];

/// Packages that ship in two versions: name, versions but the newest, who holds them back.
const DUPLICATES: &[(&str, &str, &str)] = &[
    ("base64", "0.22", "postgres-protocol 0.6"),
    ("const-oid", "0.9", "x509-cert 0.2, which tokio-postgres-rustls uses for channel binding"),
    ("fallible-iterator", "0.2", "tokio-postgres 0.7; 0.3 is rusqlite's"),
    ("getrandom", "0.2", "ring 0.17"),
    ("syn", "2", "tracing-attributes 0.1 and other macros; at build time only"),
    ("tower-http", "0.6", "reqwest 0.13, for following redirects"),
];

/// The resolved graph of `cargo metadata`.
struct Graph {
    packages: BTreeMap<String, Value>,
    /// For each package what it uses when it ships or builds, without what only tests use.
    edges: BTreeMap<String, Vec<String>>,
    us: String,
}

impl Graph {
    /// For one platform, or for all of them.
    fn read(platform: Option<&str>) -> Graph {
        let metadata = metadata(platform);
        let text = |value: &Value| value.as_str().expect("is a text").to_owned();
        let list = |value: &Value| value.as_array().expect("is a list").clone();
        let ships = |kind: &Value| kind["kind"].is_null() || kind["kind"] == "build";
        let edges = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let uses = list(&node["deps"])
                .iter()
                .filter(|used| list(&used["dep_kinds"]).iter().any(ships))
                .map(|used| text(&used["pkg"]))
                .collect();
            (text(&node["id"]), uses)
        });
        let packages = list(&metadata["packages"]).into_iter();
        Graph {
            edges: edges.collect(),
            packages: packages.map(|package| (text(&package["id"]), package)).collect(),
            us: text(&metadata["resolve"]["root"]),
        }
    }

    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().expect("packages have names")
    }

    /// Everything that ships or builds what ships, ourselves included.
    fn shipped(&self) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![self.us.as_str()];
        while let Some(id) = ahead.pop() {
            if reached.insert(id) {
                ahead.extend(self.edges[id].iter().map(String::as_str));
            }
        }
        reached
    }
}

#[expect(clippy::disallowed_methods, reason = "cargo says by its environment which cargo it is")]
fn metadata(platform: Option<&str>) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let run = |offline: &[&str]| {
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--format-version", "1", "--locked"]).args(offline);
        command.args(platform.iter().flat_map(|platform| ["--filter-platform", platform]));
        command.current_dir(root()).output().expect("cargo can be run")
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        // A package that this platform does not build may not have been fetched yet.
        output = run(&[]);
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

#[test]
fn licences_are_permissive() {
    let graph = Graph::read(None);
    let mut findings: Vec<Finding> = Vec::new();
    for package in graph.packages.values() {
        let text = |key: &str| package[key].as_str().unwrap_or("?");
        let (name, version) = (text("name"), text("version"));
        match package["license"].as_str() {
            Some(licence) if satisfied(licence, LICENCES) => {}
            Some(licence) => findings.push(format!("{name} {version}: {licence}")),
            None => findings.push(format!("{name} {version}: says no licence")),
        }
    }
    none(
        &findings,
        "take another package. A further licence joins LICENCES in tests/it/tidy/packages.rs only \
         if it lets users of the binary do what Apache-2.0 lets them do.",
    );
}

#[test]
fn unwanted_packages_stay_out() {
    let graph = Graph::read(None);
    let shipped = graph.shipped();
    let mut findings = Vec::new();
    for (unwanted, excused, reason) in UNWANTED {
        let users: BTreeSet<&str> = shipped
            .iter()
            .filter(|id| graph.edges[**id].iter().any(|used| graph.name(used) == *unwanted))
            .map(|id| graph.name(id))
            .collect();
        for user in users.iter().filter(|user| !excused.contains(user)) {
            findings.push(format!("{user} uses {unwanted}: {reason}"));
        }
        for user in excused.iter().filter(|user| !users.contains(**user)) {
            findings.push(format!("{user} is excused for {unwanted} and does not use it"));
        }
    }
    none(
        &findings,
        "switch off the feature that brings it, or take another package; `cargo tree -i NAME` shows \
         the way. An excuse that is not needed leaves UNWANTED in tests/it/tidy/packages.rs.",
    );
}

#[test]
fn duplicate_versions_are_known() {
    // One fixed platform: the list must not depend on where the tests run.
    let graph = Graph::read(Some("x86_64-unknown-linux-gnu"));
    let mut versions: BTreeMap<&str, Vec<Vec<u64>>> = BTreeMap::new();
    for id in graph.shipped() {
        let version = graph.packages[id]["version"].as_str().expect("packages have versions");
        let numbers = version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
        versions.entry(graph.name(id)).or_default().push(numbers);
    }
    let mut found: BTreeSet<(&str, String)> = BTreeSet::new();
    for (name, versions) in &mut versions {
        versions.sort();
        versions.pop();
        found.extend(versions.iter().map(|version| (*name, series(version))));
    }
    let known: BTreeSet<(&str, String)> =
        DUPLICATES.iter().map(|(name, version, _)| (*name, (*version).to_owned())).collect();
    let new = found.difference(&known).map(|(name, old)| format!("{name} ships as {old} as well"));
    let gone = known.difference(&found).map(|(name, old)| format!("{name} {old} ships no more"));
    none(
        &new.chain(gone).collect::<Vec<_>>(),
        "update or avoid the package that holds the old version back (`cargo tree -i NAME@VERSION`), \
         or note it in DUPLICATES in tests/it/tidy/packages.rs; take out what is gone.",
    );
}

/// The part of a version that tells incompatible ones apart: 0.22.1 is 0.22, 2.0.119 is 2.
fn series(version: &[u64]) -> String {
    match version {
        [0, 0, patch, ..] => format!("0.0.{patch}"),
        [0, minor, ..] => format!("0.{minor}"),
        [major, ..] => major.to_string(),
        [] => String::new(),
    }
}

/// Whether an SPDX expression can be satisfied with these licences.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    // A slash is how older packages write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    words.reverse();
    let result = alternatives(&mut words, allowed);
    result && words.is_empty()
}

/// Reads from the end of `words`, which are in reverse order.
fn alternatives(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut any = conjunction(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        any |= conjunction(words, allowed);
    }
    any
}

fn conjunction(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut all = single(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        all &= single(words, allowed);
    }
    all
}

fn single(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    match words.pop() {
        Some("(") => {
            let inner = alternatives(words, allowed);
            words.pop() == Some(")") && inner
        }
        Some(licence) if words.last() == Some(&"WITH") => {
            words.pop();
            let exception = words.pop().unwrap_or_default();
            allowed.contains(&format!("{licence} WITH {exception}").as_str())
        }
        Some(licence) => allowed.contains(&licence),
        None => false,
    }
}

#[test]
fn licence_expressions_are_understood() {
    let check = |expression: &str, expected: bool| {
        let result = satisfied(expression, &["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
        assert_eq!(result, expected, "{expression}");
    };
    check("MIT", true);
    check("GPL-3.0-only", false);
    check("GPL-3.0-only OR MIT", true);
    check("GPL-3.0-only AND MIT", false);
    check("GPL-3.0-only/MIT", true);
    check("(GPL-3.0-only OR MIT) AND ISC", true);
    check("ISC AND (GPL-3.0-only OR AGPL-3.0-only)", false);
    check("MIT OR GPL-3.0-only AND AGPL-3.0-only", true);
    check("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true);
    check("Apache-2.0", false);
    check("(MIT", false);
    check("", false);
}
