//! Which module uses which: every path that begins with `crate`, `self` or `super`, in `use`
//! declarations with all their braces and anywhere else.

use super::{
    Allowed, Finding,
    source::{File, Token},
};

/// A path that was used, from the crate root.
#[derive(Debug)]
struct Use {
    path: Vec<String>,
    line: usize,
}

pub fn findings(table: &[(&str, Allowed)], base: &[&str], file: &File) -> Vec<Finding> {
    // The crate root only declares its modules.
    if file.module.is_empty() {
        return Vec::new();
    }
    let place = |line: usize| format!("{}:{line}", file.path.display());
    let Some((top, allowed)) = table.iter().find(|(name, _)| *name == file.top()) else {
        return vec![format!("{}: the module `{}` is not in the table", place(1), file.top())];
    };
    uses(&file.tokens())
        .into_iter()
        .filter_map(|used| {
            let problem = judge(table, base, (top, *allowed), &used.path)?;
            Some(format!("{}: {problem}", place(used.line)))
        })
        .collect()
}

fn judge(
    table: &[(&str, Allowed)],
    base: &[&str],
    (top, allowed): (&str, Allowed),
    path: &[String],
) -> Option<String> {
    let shown = path.join("::");
    let Some(first) = path.first().filter(|first| *first != "*") else {
        return Some("takes in the whole crate, which hides what is used".to_owned());
    };
    if first == top {
        return None;
    }
    if table.iter().all(|(name, _)| name != first) {
        return Some(format!("`crate::{shown}` is not in a module of the table"));
    }
    let among = |list: &[&str]| {
        list.iter().any(|entry| shown == *entry || shown.starts_with(&format!("{entry}::")))
    };
    let fine = match allowed {
        Allowed::Only(list) => among(list),
        Allowed::Base(list) => among(base) || among(list),
        Allowed::Everything => true,
    };
    (!fine).then(|| format!("`{top}` may not use `{shown}`"))
}

/// Every path into the crate itself.
fn uses(tokens: &[Token]) -> Vec<Use> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1).map_or("", |next| next.text.as_str());
        if token.text == "use" {
            let (imports, n_tokens) = imports(&tokens[at..]);
            found.extend(imports.iter().filter_map(|(token, path)| absolute(token, path)));
            at += n_tokens;
        } else if is_relative(&token.text) && next == "::" {
            let mut segments = vec![token.text.clone()];
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text == "::")
                && tokens.get(at + 1).is_some_and(|token| is_name(&token.text))
            {
                segments.push(tokens[at + 1].text.clone());
                at += 2;
            }
            found.extend(absolute(token, &segments));
        } else {
            at += 1;
        }
    }
    found
}

/// What the `use` declaration at the start of `tokens` names, each with the token where it is named,
/// and the number of tokens read. `a::{self}` is `a`; a name behind `as` does not count.
pub fn imports(tokens: &[Token]) -> (Vec<(&Token, Vec<String>)>, usize) {
    // `impl Trait + use<'a>` is the other meaning of the word.
    if tokens.get(1).is_none_or(|token| token.text == "<") {
        return (Vec::new(), 1);
    }
    let mut found = Vec::new();
    let end = tree(tokens, 1, &[], &mut found);
    (found, end)
}

/// Reads one tree of a `use` declaration, which begins at `at`, and says where it ends.
fn tree<'a>(
    tokens: &'a [Token],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(&'a Token, Vec<String>)>,
) -> usize {
    let first = at;
    let mut segments = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = tree(tokens, at, &segments, found);
                    if tokens.get(at).is_some_and(|token| token.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "self" if !segments.is_empty() => at += 1,
            text if is_name(text) || text == "*" => {
                segments.push(text.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    if let Some(token) = tokens.get(first) {
        found.push((token, segments));
    }
    at.max(first + 1)
}

/// The path from the crate root; nothing for one that leads to another crate.
fn absolute(token: &Token, segments: &[String]) -> Option<Use> {
    let mut path = match segments.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => token.module.to_vec(),
        _ => return None,
    };
    for segment in segments {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                path.pop();
            }
            name => path.push(name.to_owned()),
        }
    }
    Some(Use { path, line: token.line })
}

fn is_relative(text: &str) -> bool {
    matches!(text, "crate" | "self" | "super")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

#[test]
fn every_form_of_a_path_is_seen() {
    use super::source::tokens_in;
    let check = |code: &str, expected: &[&str]| {
        let found = uses(&tokens_in(&["web", "hooks"], code));
        let paths: Vec<String> = found.iter().map(|used| used.path.join("::")).collect();
        assert_eq!(paths, expected, "{code}");
    };
    check("use crate::store::Store;", &["store::Store"]);
    check(
        "pub(crate) use crate::{a, b::{self, c::D as E, f::*}, g};",
        &["a", "b", "b::c::D", "b::f::*", "g"],
    );
    check("use crate as all; use crate::*;", &["", "*"]);
    check("use std::{fs, sync::Arc}; use serde::Serialize;", &[]);
    check("fn f(x: crate::id::Id) -> Vec<crate::store::Row> {}", &["id::Id", "store::Row"]);
    check(
        "use super::error; fn f() { super::super::store::g(); self::h() }",
        &["web::error", "store::g", "web::hooks::h"],
    );
    check(
        "mod m { use super::super::super::store::X; use super::y; }",
        &["store::X", "web::hooks::y"],
    );
    check(
        "fn f(self, other: &Self) { self.x; Self::y() } impl A { fn g() -> impl B + use<> {} }",
        &[],
    );
    check("macro_rules! m { () => { $crate::store::f() } }", &["store::f"]);
    check("/// [`crate::store`]\n#[cfg(test)] mod tests { use crate::store; }", &[]);
    check("use {crate::a, super::b}; use crate::c::{};", &["a", "web::b"]);
}

#[test]
fn the_table_is_applied() {
    let table = super::MODULES;
    let check = |from: &str, path: &str, fine: bool| {
        let path: Vec<String> =
            path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let (name, allowed) = table.iter().find(|(name, _)| *name == from).expect("is in it");
        let problem = judge(table, super::BASE, (name, *allowed), &path);
        assert_eq!(problem.is_none(), fine, "{from} -> {path:?}: {problem:?}");
    };
    check("web", "store::Store", true);
    check("web", "web::error", true);
    check("web", "domain::agent", true);
    check("web", "schedule::cron::next", true);
    check("web", "schedule::due", false);
    check("web", "schedule", false);
    check("web", "runtime::drive", false);
    check("ingest", "agent::step", false);
    check("agent", "store", false);
    check("clock", "id::Id", false);
    check("domain", "store", false);
    check("app", "runtime", true);
    check("app", "nowhere::x", false);
    check("web", "", false);
    check("web", "*", false);
}
