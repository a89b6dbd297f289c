//! The source as the rules see it: files found by following `mod`, and their tokens.
//!
//! Comments and documentation are no tokens, `::` is one, and each token knows in which module it
//! stands, also inside `mod name { … }`.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The files that one crate root reaches.
#[derive(Debug)]
pub struct Krate {
    pub files: Vec<File>,
    /// `mod` declarations that lead nowhere.
    pub problems: Vec<String>,
}

#[derive(Debug)]
pub struct File {
    /// Relative to the repository.
    pub path: PathBuf,
    /// The module's name from the crate root: `["domain", "agent"]`, empty for the root itself.
    pub module: Vec<String>,
    /// Whether a `#[cfg(test)]` stands on the way here.
    pub test: bool,
    text: String,
}

/// One token, with what rules need to know about where it stands.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    /// The text of the token before it, empty for the first.
    pub before: String,
    pub line: usize,
    pub module: Rc<Vec<String>>,
}

impl Token {
    /// The inside of a string literal, escapes and all.
    pub fn string(&self) -> Option<&str> {
        let start = self.text.find('"')?;
        let prefix = &self.text[..start];
        let end = self.text.rfind('"').filter(|end| *end > start)?;
        ["", "r", "b", "br", "c", "cr"]
            .contains(&prefix.trim_end_matches('#'))
            .then(|| &self.text[start + 1..end])
    }
}

impl File {
    /// The top-level module, empty for the crate root.
    pub fn top(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    /// The tokens of what ships: nothing of a test.
    pub fn tokens(&self) -> Vec<Token> {
        if self.test {
            return Vec::new();
        }
        flatten(&parse(&self.path, &self.text), &self.module, false)
    }
}

impl Krate {
    pub fn read(root: &Path, entry: &str) -> Krate {
        let mut krate = Krate { files: Vec::new(), problems: Vec::new() };
        krate.follow(root, Path::new(entry), Vec::new(), false);
        krate
    }

    fn follow(&mut self, root: &Path, path: &Path, module: Vec<String>, test: bool) {
        let text = super::text::read(root, path);
        let children = declared(parse(path, &text), &mut Vec::new());
        let directory = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") | None => path.with_file_name(""),
            Some(_) => path.with_extension(""),
        };
        self.files.push(File { path: path.to_owned(), module: module.clone(), test, text });
        for child in children {
            let place = child.name.iter().fold(directory.clone(), |place, name| place.join(name));
            let candidates = [place.with_extension("rs"), place.join("mod.rs")];
            match candidates.iter().find(|candidate| root.join(candidate).is_file()) {
                Some(found) => {
                    let module = module.iter().chain(&child.name).cloned().collect();
                    self.follow(root, found, module, test || child.test);
                }
                None => self.problems.push(format!(
                    "{}:{}: `mod {}` has no file at its usual place",
                    path.display(),
                    child.line,
                    child.name.join("::")
                )),
            }
        }
    }
}

/// A `mod name;`, with the inline modules around it in its name.
#[derive(Debug)]
struct Declared {
    name: Vec<String>,
    test: bool,
    line: usize,
}

fn declared(stream: TokenStream, outer: &mut Vec<String>) -> Vec<Declared> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut found = Vec::new();
    let mut test = false;
    for (at, tree) in trees.iter().enumerate() {
        test |= is_cfg_test(&trees, at);
        if let (true, Some(TokenTree::Ident(name))) = (is_word(tree, "mod"), trees.get(at + 1)) {
            outer.push(name.to_string());
            match trees.get(at + 2) {
                Some(TokenTree::Group(body)) => {
                    let inner = declared(body.stream(), outer);
                    let inherited = inner
                        .into_iter()
                        .map(|child| Declared { test: child.test || test, ..child });
                    found.extend(inherited);
                }
                _ => found.push(Declared {
                    name: outer.clone(),
                    test,
                    line: name.span().start().line,
                }),
            }
            outer.pop();
        }
        if ends_item(tree) {
            test = false;
        }
    }
    found
}

/// All tokens of a text, tests included.
pub fn tokens(path: &Path, text: &str) -> Vec<Token> {
    flatten(&parse(path, text), &[], true)
}

/// The tokens of a text but for its `#[cfg(test)]` items.
pub fn tokens_without_tests(path: &Path, text: &str) -> Vec<Token> {
    flatten(&parse(path, text), &[], false)
}

/// As [`tokens_without_tests`], in a given module.
pub fn tokens_in(module: &[&str], text: &str) -> Vec<Token> {
    let module: Vec<String> = module.iter().map(ToString::to_string).collect();
    flatten(&parse(Path::new("example.rs"), text), &module, false)
}

fn parse(path: &Path, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{} is not Rust: {error}", path.display()))
}

fn flatten(stream: &TokenStream, module: &[String], tests: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut walk = Walk { tokens: &mut tokens, tests };
    walk.stream(stream.clone(), &Rc::new(module.to_vec()));
    tokens
}

struct Walk<'a> {
    tokens: &'a mut Vec<Token>,
    tests: bool,
}

impl Walk<'_> {
    fn stream(&mut self, stream: TokenStream, module: &Rc<Vec<String>>) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut skipping = false;
        for (at, tree) in trees.iter().enumerate() {
            skipping |= !self.tests && is_cfg_test(&trees, at);
            if !skipping && !is_documentation(&trees, at) {
                self.tree(&trees, at, module);
            }
            if ends_item(tree) {
                skipping = false;
            }
        }
    }

    fn tree(&mut self, trees: &[TokenTree], at: usize, module: &Rc<Vec<String>>) {
        let tree = &trees[at];
        let TokenTree::Group(group) = tree else {
            let text = tree.to_string();
            // The second colon of `::` joins the first.
            if let Some(last) = self.tokens.last_mut()
                && at > 0
                && text == ":"
                && last.text == ":"
                && is_joint(&trees[at - 1])
            {
                last.text.push(':');
                return;
            }
            self.push(text, tree.span().start().line, module);
            return;
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => ("", ""),
        };
        let inner = match (at.checked_sub(2).map(|at| &trees[at]), at.checked_sub(1)) {
            (Some(word), Some(name)) if is_word(word, "mod") && open == "{" => {
                let mut inner = module.to_vec();
                inner.push(trees[name].to_string());
                Rc::new(inner)
            }
            _ => Rc::clone(module),
        };
        self.push(open.to_owned(), group.span_open().start().line, module);
        self.stream(group.stream(), &inner);
        self.push(close.to_owned(), group.span_close().end().line, module);
    }

    fn push(&mut self, text: String, line: usize, module: &Rc<Vec<String>>) {
        let before = self.tokens.last().map(|token| token.text.clone()).unwrap_or_default();
        self.tokens.push(Token { text, before, line, module: Rc::clone(module) });
    }
}

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_joint(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.spacing() == proc_macro2::Spacing::Joint)
}

/// Whether an item may end with this token: `;`, or a body in braces.
fn ends_item(tree: &TokenTree) -> bool {
    is_punct(tree, ';')
        || matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn is_cfg_test(trees: &[TokenTree], at: usize) -> bool {
    let attribute = is_punct(&trees[at], '#').then(|| trees.get(at + 1)).flatten();
    matches!(attribute, Some(TokenTree::Group(group)) if group.stream().to_string() == "cfg (test)")
}

/// Whether the tree belongs to `#[doc = "…"]` or `#![doc = "…"]`, which is how comments with three
/// slashes arrive.
fn is_documentation(trees: &[TokenTree], at: usize) -> bool {
    let is_doc = |tree: Option<&TokenTree>| {
        matches!(tree, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket
            && group.stream().into_iter().next().is_some_and(|first| is_word(&first, "doc")))
    };
    match &trees[at] {
        tree if is_punct(tree, '#') => {
            is_doc(trees.get(at + 1))
                || (trees.get(at + 1).is_some_and(|tree| is_punct(tree, '!'))
                    && is_doc(trees.get(at + 2)))
        }
        tree if is_punct(tree, '!') => {
            at > 0 && is_punct(&trees[at - 1], '#') && is_doc(trees.get(at + 1))
        }
        tree => is_doc(Some(tree)) && at > 0 && !matches!(trees[at - 1], TokenTree::Ident(_)),
    }
}

#[test]
fn tokens_are_what_ships() {
    let code = "//! axum\n/// doc\nuse a::b; #[cfg(test)] #[x] fn t() {} mod m { fn f() { \"s\" } }\n\
                #[cfg(test)] mod tests { fn g() {} } fn h() {}";
    let tokens = tokens_in(&["top"], code);
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(
        texts.join(" "),
        "use a :: b ; mod m { fn f ( ) { \"s\" } } fn h ( ) { }",
        "no comment, no test"
    );
    let literal = tokens.iter().find(|token| token.string().is_some()).expect("there is one");
    assert_eq!(literal.string(), Some("s"));
    assert_eq!(*literal.module, ["top", "m"]);
    assert_eq!(literal.line, 3);
}

#[test]
fn declarations_are_found_inside_inline_modules() {
    let code = "mod a; mod b { pub mod c; } #[cfg(test)] mod tests; mod d;";
    let found = declared(parse(Path::new("example.rs"), code), &mut Vec::new());
    let shown: Vec<String> =
        found.iter().map(|child| format!("{} {}", child.name.join("::"), child.test)).collect();
    assert_eq!(shown, ["a false", "b::c false", "tests true", "d false"]);
}
