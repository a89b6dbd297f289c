//! Rules about text: lengths, words and links.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::{Finding, source::Token};

/// Endings of the files that people write here.
pub const WRITTEN: &[&str] = &[
    "rs", "md", "toml", "sql", "html", "css", "js", "mjs", "ts", "sh", "yml", "yaml", "test", "run",
];

/// Directories with what others wrote or tools made.
const FOREIGN: &[&str] = &[".git", "target", "node_modules", "vendor"];

/// The files of the repository with one of these endings, relative to it. A file without an ending
/// is taken by its name.
pub fn files(root: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(root.join(&directory)).expect("the repository can be read");
        for entry in entries {
            let entry = entry.expect("the repository can be read");
            let name = entry.file_name().into_string().expect("file names are UTF-8");
            let path = directory.join(&name);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !FOREIGN.contains(&name.as_str()) {
                    directories.push(path);
                }
            } else if endings.contains(&name.rsplit('.').next().unwrap_or_default()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn read(root: &Path, path: &Path) -> String {
    fs::read_to_string(root.join(path))
        .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// Name, first line and number of lines of every function that has a body.
pub fn functions(tokens: &[Token]) -> Vec<(String, usize, usize)> {
    let named = tokens.iter().enumerate().filter(|(_, token)| token.before == "fn");
    named
        .filter_map(|(at, name)| {
            let body = tokens[at..].iter().scan(0_usize, |depth, token| {
                match token.text.as_str() {
                    "(" | "[" | "{" => *depth += 1,
                    ")" | "]" | "}" => *depth = depth.checked_sub(1)?,
                    ";" if *depth == 0 => return None,
                    _ => {}
                }
                Some((*depth, token))
            });
            let is_name =
                name.text.starts_with(|first: char| first.is_alphabetic() || first == '_');
            let (_, end) = body.skip(1).find(|(depth, token)| *depth == 0 && token.text == "}")?;
            is_name.then(|| (name.text.clone(), name.line, end.line - name.line + 1))
        })
        .collect()
}

/// Words in lower case, cut at white space (also an escaped line break) and quotes.
pub fn words(text: &str) -> Vec<String> {
    text.replace("\\n", " ")
        .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ';' | '"' | '\\'))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Notes to oneself without a reason, and places that exist on one machine only.
pub fn banned_words(path: &Path, text: &str) -> Vec<Finding> {
    // In two pieces, so that this file does not contain them.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let mut report =
            |what: &str| findings.push(format!("{}:{}: `{what}`", path.display(), line + 1));
        for note in notes {
            for (at, _) in content.match_indices(note) {
                let inside = |c: char| c.is_alphanumeric() || c == '_';
                let rest = &content[at + note.len()..];
                let whole = !content[..at].ends_with(inside) && !rest.starts_with(inside);
                let reasoned = rest
                    .strip_prefix('(')
                    .and_then(|rest| rest.split_once(')'))
                    .is_some_and(|(reason, _)| !reason.trim().is_empty());
                if whole && !reasoned {
                    report(note);
                }
            }
        }
        for place in places {
            for (at, _) in content.match_indices(place) {
                // A part of a longer path or of an address is something else.
                if !content[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}".contains(c)) {
                    report(place);
                }
            }
        }
    }
    findings
}

/// Relative links of a Markdown text whose file or heading does not exist.
pub fn dead_links(root: &Path, path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
        let file = if file.is_empty() {
            path.to_owned()
        } else {
            normal(&path.with_file_name("").join(file.trim_start_matches('/')))
        };
        let place = root.join(&file);
        let dead = if !place.exists() {
            true
        } else if heading.is_empty() || place.extension().is_none_or(|ending| ending != "md") {
            false
        } else {
            !headings(&read(root, &file)).iter().any(|known| known == heading)
        };
        if dead {
            findings.push(format!("{}:{line}: `{target}` leads nowhere", path.display()));
        }
    }
    findings
}

/// Lines of a Markdown text that are prose, numbered, without `code`.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(line, content)| {
        if content.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        // Every second piece between back-ticks is code.
        let pieces = content.split('`').enumerate();
        let kept: String = pieces
            .filter(|(n, _)| n % 2 == 0)
            .map(|(_, piece)| piece)
            .collect::<Vec<_>>()
            .join("``");
        (!fenced).then_some((line + 1, kept))
    })
}

/// Targets of `[text](target)` and `[name]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        for (at, _) in content.match_indices("](") {
            if let Some((inside, _)) = content[at + 2..].split_once(')') {
                // What follows the target is a title.
                let target = inside.split_whitespace().next().unwrap_or_default();
                found.push((line, target.trim_matches(['<', '>']).to_owned()));
            }
        }
        if let Some((name, target)) = content.split_once("]: ")
            && name.starts_with('[')
            && !name.contains(']')
        {
            found.push((line, target.trim().trim_matches(['<', '>']).to_owned()));
        }
    }
    found
}

/// The anchors that code hosts make from headings.
fn headings(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        found.push(anchor);
    }
    found
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
        normal
    })
}

#[test]
fn functions_are_measured_from_name_to_brace() {
    let code = "trait T { fn none(&self); fn some(&self) {} }\n\
                fn long<const N: usize>(\n  x: [u8; { 3 }],\n) -> fn(u8) -> u8 {\n  if x { y } else { z }\n}\n";
    let found = functions(&super::source::tokens(Path::new("example.rs"), code));
    assert_eq!(found, [("some".to_owned(), 1, 1), ("long".to_owned(), 2, 5)]);
}

#[test]
fn banned_words_are_found() {
    let check = |text: &str, n_expected: usize| {
        let found = banned_words(Path::new("example.md"), text);
        assert_eq!(found.len(), n_expected, "{text}: {found:?}");
    };
    let note = concat!("TO", "DO");
    check(&format!("// {note}: later"), 1);
    check(&format!("// {note}() later"), 1);
    check(&format!("// {note}(when the schema is frozen): later"), 0);
    check(&format!("A{note}S and {note}LIST"), 0);
    let place = concat!("/wo", "rk/");
    check(&format!("cd {place}main; see https://example.com{place}"), 1);
}

#[test]
fn dead_links_are_found() {
    let check = |text: &str, n_expected: usize| {
        let found = dead_links(super::root(), Path::new("tests/example.md"), text);
        assert_eq!(found.len(), n_expected, "{text}: {found:?}");
    };
    check("[a](it/main.rs) [b](../Cargo.toml) [c](https://example.com) `[d](no)`", 0);
    check("[a](main.rs) and [b](no.md#x 'title')", 2);
    check("```\n[a](no)\n```\n[name]: no.md", 1);
    assert_eq!(headings("# A `b`, c-d\n```\n# no\n```\n## E"), ["a-b-c-d", "e"]);
}
