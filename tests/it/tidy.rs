//! Rules about the source that the compiler does not know.
//!
//! A rule is a function from text to findings. One test shows on small bad examples that it bites,
//! another applies it to the repository and expects to find nothing. A finding says where; the test
//! says what to do about it. Exceptions are lists with reasons, and one that is no longer needed is
//! a finding too.

mod edges;
mod packages;
mod source;
mod text;

use std::path::{Path, PathBuf};

use source::{Krate, Token};

/// Modules that every other one may use. Among themselves they follow [`MODULES`].
const BASE: &[&str] = &["clock", "id", "domain"];

/// What a module may use besides itself and [`BASE`]. The map is a picture of the product:
/// ARCHITECTURE.md explains it, and changes with it.
const MODULES: &[(&str, Allowed)] = &[
    ("clock", Allowed::Only(&[])),
    ("id", Allowed::Only(&["clock"])),
    ("domain", Allowed::Only(&["clock", "id"])),
    ("signal", Allowed::Base(&[])),
    ("preview", Allowed::Base(&[])),
    ("metrics", Allowed::Base(&[])),
    ("projects", Allowed::Base(&[])),
    ("trust", Allowed::Base(&[])),
    ("fetch", Allowed::Base(&["trust"])),
    ("vault", Allowed::Base(&[])),
    ("store", Allowed::Base(&["metrics"])),
    ("ingest", Allowed::Base(&["vault", "store", "metrics", "fetch"])),
    ("agent", Allowed::Base(&[])),
    ("model", Allowed::Base(&["trust"])),
    ("tool", Allowed::Base(&[])),
    (
        "runtime",
        Allowed::Base(&[
            "agent", "model", "tool", "store", "vault", "signal", "preview", "fetch", "projects",
        ]),
    ),
    ("worker", Allowed::Base(&["runtime", "store", "signal", "vault"])),
    ("schedule", Allowed::Base(&["runtime", "store", "signal", "vault"])),
    ("outbox", Allowed::Base(&["runtime", "store", "signal", "vault", "fetch"])),
    (
        "web",
        Allowed::Base(&[
            "ingest",
            "vault",
            "store",
            "signal",
            "preview",
            "metrics",
            "projects",
            "schedule::cron",
            "schedule::words",
        ]),
    ),
    ("cli", Allowed::Base(&[])),
    ("app", Allowed::Everything),
    // Composes the Options of every module.
    ("config", Allowed::Everything),
];

/// The modules, or `module::part`, that a module may use.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Only(&'static [&'static str]),
    Base(&'static [&'static str]),
    Everything,
}

/// Longer functions than [`FUNCTION_LINES_MAX`]: `path: function`, and why it is one function.
const LONG_FUNCTIONS: &[(&str, &str)] = &[
    (
        "tests/it/store/differential.rs: run",
        "one flat match with an arm for each operation; splitting it would scatter the list",
    ),
    (
        "src/agent/transcript.rs: apply",
        "one flat match with an arm for each kind of event; splitting it would scatter the fold",
    ),
    (
        "src/config/tests.rs: every_key_of_every_section_has_a_variable",
        "one table with a line for each variable; splitting it would scatter the list",
    ),
];

const FUNCTION_LINES_MAX: usize = 90;
const FILE_LINES_MAX: usize = 700;

/// A place that breaks a rule, as `path:line: what is there`.
type Finding = String;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn library() -> Krate {
    Krate::read(root(), "src/lib.rs")
}

#[track_caller]
fn none(findings: &[Finding], advice: &str) {
    assert!(findings.is_empty(), "\n{}\n\nWhat to do: {advice}\n", findings.join("\n"));
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let krate = library();
    let findings: Vec<Finding> =
        krate.files.iter().flat_map(|file| edges::findings(MODULES, BASE, file)).collect();
    none(
        &findings,
        "hand the thing in from above (an argument, a small trait), or move it down into a module \
         that both may use. If the direction itself is wrong, change MODULES in tests/it/tidy.rs \
         and ARCHITECTURE.md in a commit of their own.",
    );
}

#[test]
fn every_source_file_is_compiled() {
    let mut reached: Vec<PathBuf> = Vec::new();
    let mut findings = Vec::new();
    for entry in ["src/lib.rs", "src/main.rs", "tests/it/main.rs"] {
        let krate = Krate::read(root(), entry);
        reached.extend(krate.files.into_iter().map(|file| file.path));
        findings.extend(krate.problems);
    }
    for path in text::files(root(), &["rs"]) {
        let mine = path.starts_with("src") || path.starts_with("tests");
        if mine && !reached.contains(&path) {
            findings.push(format!("{}: no `mod` leads here", path.display()));
        }
    }
    none(&findings, "declare the file with `mod`, at its usual place, or delete it.");
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Vec::new();
    let mut long_functions = Vec::new();
    for path in text::files(root(), &["rs"]) {
        let text = text::read(root(), &path);
        let n_lines = text.lines().count();
        if n_lines > FILE_LINES_MAX {
            findings.push(format!("{}: {n_lines} lines of {FILE_LINES_MAX}", path.display()));
        }
        for (name, line, n_lines) in text::functions(&source::tokens(&path, &text)) {
            if n_lines > FUNCTION_LINES_MAX {
                let excused = format!("{}: {name}", path.display());
                if LONG_FUNCTIONS.iter().all(|(function, _)| *function != excused) {
                    findings.push(format!(
                        "{}:{line}: `{name}` has {n_lines} lines of {FUNCTION_LINES_MAX}",
                        path.display()
                    ));
                }
                long_functions.push(excused);
            }
        }
    }
    for (function, _) in LONG_FUNCTIONS {
        if !long_functions.iter().any(|long| long == function) {
            findings.push(format!("{function} is in LONG_FUNCTIONS and not long"));
        }
    }
    none(
        &findings,
        "split it where a second topic begins. LONG_FUNCTIONS in tests/it/tidy.rs takes a function \
         that reads better in one piece, with the reason.",
    );
}

#[test]
fn words_that_do_not_stay() {
    let findings: Vec<Finding> = text::files(root(), text::WRITTEN)
        .iter()
        .flat_map(|path| text::banned_words(path, &text::read(root(), path)))
        .collect();
    none(
        &findings,
        "do it now, or say in parentheses right behind the word why not and when: `(after #12)`. \
         A path of one machine becomes a relative path, an option or an example such as /srv.",
    );
}

#[test]
fn links_between_documents_resolve() {
    let findings: Vec<Finding> = text::files(root(), &["md"])
        .iter()
        .flat_map(|path| text::dead_links(root(), path, &text::read(root(), path)))
        .collect();
    none(&findings, "correct the link, or the heading that it names.");
}

/// A rule about the tokens of one place: what is found there, if it breaks the rule.
type Rule = fn(&[Token]) -> Option<String>;

/// Applies a rule to all of the library but the modules that are its place, and unit tests.
fn outside(places: &[&str], rule: Rule) -> Vec<Finding> {
    let krate = library();
    let elsewhere = krate.files.iter().filter(|file| !places.contains(&file.top()));
    elsewhere.flat_map(|file| matches(&file.path, &file.tokens(), rule)).collect()
}

fn matches(path: &Path, tokens: &[Token], rule: Rule) -> Vec<Finding> {
    let found = |at: usize| {
        let what = rule(&tokens[at..])?;
        Some(format!("{}:{}: {what}", path.display(), tokens[at].line))
    };
    (0..tokens.len()).filter_map(found).collect()
}

/// What docs/invariants.md says was seen failing is still there to fail.
#[test]
fn tests_that_hold_invariants_exist() {
    let page = text::read(root(), Path::new("docs/invariants.md"));
    let rows = page.lines().filter_map(|line| line.rsplit(" | ").next()?.strip_suffix(" |"));
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let wanted: Vec<&str> = names.filter_map(|name| name.rsplit("::").next()).collect();
    assert!(wanted.len() > 40, "{wanted:?}");
    let known: Vec<String> = text::files(root(), &["rs"])
        .iter()
        .flat_map(|path| text::functions(&source::tokens(path, &text::read(root(), path))))
        .map(|(name, ..)| name)
        .collect();
    let is_missing = |name: &&str| !known.iter().any(|it| it == *name);
    let missing: Vec<Finding> =
        wanted.into_iter().filter(is_missing).map(|name| format!("no test `{name}`")).collect();
    none(&missing, "name the test that holds it now, after having seen it fail.");
}

#[test]
fn sql_is_in_store() {
    none(
        &outside(&["store"], sql),
        "give the store a method with the domain's verb for it. Prose that reads like SQL takes \
         other words.",
    );
}

#[test]
fn axum_is_in_web() {
    none(
        &outside(&["web", "app"], axum),
        "only web knows that HTTP is axum's: return a domain value and let web answer with it.",
    );
}

#[test]
fn the_environment_is_read_in_config() {
    none(
        &outside(&["config"], environment),
        "read it in config and pass on the value; only std::env's args, args_os, consts and \
         current_exe are fine elsewhere.",
    );
}

#[test]
fn the_time_is_asked_in_clock() {
    none(
        &outside(&["clock"], time),
        "take a `Timestamp` as an argument, or a `Clock` where time passes during the work.",
    );
}

/// What the simulation runs, in time that it makes itself.
const SIMULATED: &[&str] = &["worker", "runtime", "agent", "model", "tool"];

#[test]
fn whatever_is_simulated_waits_on_the_clock() {
    let krate = library();
    let files = krate.files.iter().filter(|file| SIMULATED.contains(&file.top()));
    let findings: Vec<Finding> =
        files.flat_map(|file| matches(&file.path, &file.tokens(), wait)).collect();
    none(&findings, "wait with `Clock::sleep` and `Clock::timeout`, which a simulation can move.");
}

fn sql(tokens: &[Token]) -> Option<String> {
    let words = text::words(tokens[0].string()?);
    let one_of = |at: usize, wanted: &str| words.get(at).is_some_and(|word| word == wanted);
    let statement = words.iter().enumerate().find_map(|(at, word)| match word.as_str() {
        "select" => words[at..].iter().any(|word| word == "from").then_some("select … from"),
        "insert" => one_of(at + 1, "into").then_some("insert into"),
        // update <table> set, update <table> <alias> set, update <table> as <alias> set
        "update" => (2..=4).any(|by| one_of(at + by, "set")).then_some("update … set"),
        "delete" => one_of(at + 1, "from").then_some("delete from"),
        _ => None,
    })?;
    Some(format!("`{statement}` in a text"))
}

fn axum(tokens: &[Token]) -> Option<String> {
    (tokens[0].text == "axum").then(|| "axum".to_owned())
}

fn environment(tokens: &[Token]) -> Option<String> {
    let paths: Vec<Vec<String>> = match tokens[0].text.as_str() {
        "use" => edges::imports(tokens).0.into_iter().map(|(_, path)| path).collect(),
        "std" if tokens[0].before != "use" && tokens.get(1)?.text == "::" => {
            let what = tokens.get(3).filter(|token| token.text == "::").and(tokens.get(4));
            let names = [Some(&tokens[0]), tokens.get(2), what];
            vec![names.iter().flatten().map(|token| token.text.clone()).collect()]
        }
        _ => Vec::new(),
    };
    let reads = |path: &&Vec<String>| {
        let harmless = ["args", "args_os", "consts", "current_exe"];
        let what = path.get(2).map_or("", String::as_str);
        path.starts_with(&["std".to_owned(), "env".to_owned()]) && !harmless.contains(&what)
    };
    paths.iter().find(reads).map(|path| path.join("::"))
}

fn time(tokens: &[Token]) -> Option<String> {
    if tokens[0].text == "SystemTime" {
        return Some("SystemTime".to_owned());
    }
    let clock = ["Instant", "Timestamp", "Zoned"].contains(&tokens[0].text.as_str());
    let asks = tokens.get(1)?.text == "::" && tokens.get(2)?.text == "now";
    (clock && asks).then(|| format!("{}::now", tokens[0].text))
}

fn wait(tokens: &[Token]) -> Option<String> {
    let waits = ["sleep", "sleep_until", "timeout", "timeout_at", "interval", "interval_at"];
    let [module, colons, what, ..] = tokens else { return None };
    let own = module.text == "time" && colons.text == "::" && waits.contains(&what.text.as_str());
    own.then(|| format!("time::{}", what.text))
}

/// Each rule finds what it is for and nothing beside it.
#[test]
fn the_rules_bite() {
    let check = |rule: Rule, code: &str, n_expected: usize| {
        let path = Path::new("example.rs");
        let found = matches(path, &source::tokens_without_tests(path, code), rule);
        assert_eq!(found.len(), n_expected, "{code}\n{found:?}");
    };
    check(sql, r#"f("select id\n from agents")"#, 1);
    check(sql, r##"f(r#"INSERT INTO agents values (1)"#)"##, 1);
    check(sql, r#"f("update agents as a set name = $1"); f("delete from agents")"#, 2);
    check(sql, r#"f("select an agent"); f("update the settings"); /* delete from */"#, 0);
    check(sql, "#[cfg(test)] mod tests { fn f() { g(\"delete from agents\") } }", 0);
    check(axum, "use axum::Router; fn f() -> axum::Json<u8> {}", 2);
    check(axum, "/// axum\nfn f() { g(\"axum::Json\") }", 0);
    check(environment, "fn f() { std::env::var(\"HOME\"); std::env::args_os(); }", 1);
    check(environment, "use std::{env, fs};", 1);
    check(environment, "use std::{env::{self, var}, fs}; use std::env::args;", 1);
    check(environment, "fn f() { S { a, env }; let std: env; std::fs::read(env) }", 0);
    check(environment, "use std::env; fn f() { env!(\"CARGO_PKG_VERSION\"); agent.env() }", 1);
    check(time, "use std::time::{Instant, SystemTime}; fn f() { Instant::now() }", 2);
    check(time, "fn f(t: Instant) { clock.now(); jiff::Timestamp::now() }", 1);
    check(wait, "use tokio::time::Instant; fn f() { clock.sleep(a); tokio::time::sleep(a) }", 1);
}
