//! `glob` and `grep`.

use std::{
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use bellpull::tool::Options;
use serde_json::json;

use super::Bench;

impl Bench {
    async fn glob(&self, pattern: &str, path: &str) -> Result<String, String> {
        self.call("glob", json!({"pattern": pattern, "path": path})).await
    }

    async fn grep(&self, pattern: &str, path: &str) -> Result<String, String> {
        self.call("grep", json!({"pattern": pattern, "path": path})).await
    }
}

fn project() -> Bench {
    let bench = Bench::new();
    bench.put(".gitignore", "# built\n/target/\n*.log\n!kept.log\n");
    bench.put("Cargo.toml", "[package]\n");
    bench.put("src/main.rs", "fn main() {\n    run();\n}\n");
    bench.put("src/deep/run.rs", "pub fn run() {}\n");
    bench.put("target/debug/built.rs", "fn built() {}\n");
    bench.put("noise.log", "fn noise\n");
    bench.put("kept.log", "fn kept\n");
    bench.put(".git/objects/x.rs", "fn object() {}\n");
    bench.put("blob.bin", b"fn \0binary");
    bench
}

#[tokio::test]
async fn files_are_found_the_newest_first() {
    let bench = project();
    let older = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(bench.at("src/main.rs")).unwrap().set_modified(older).unwrap();
    assert_eq!(
        bench.glob("**/*.rs", ".").await.unwrap(),
        "/workspace/src/deep/run.rs\n/workspace/src/main.rs"
    );
    assert_eq!(
        bench.glob("/workspace/src/*.rs", "/workspace").await.unwrap(),
        "/workspace/src/main.rs"
    );
    assert_eq!(bench.glob("*.{toml,log}", ".").await.unwrap().lines().count(), 2);
    assert_eq!(bench.glob("*.rs", ".").await.unwrap(), "no file in `/workspace` fits `*.rs`");
    let built = bench.glob("**", "target").await.unwrap();
    assert_eq!(built, "/workspace/target/debug/built.rs", "who asks for it sees it");
    for (pattern, path, told) in [
        ("[", ".", "cannot be read"),
        ("*", "nowhere", "there is no"),
        ("*", "Cargo.toml", "is no directory"),
        ("*", "..", "outside"),
        ("*", "/etc", "outside"),
    ] {
        let error = bench.glob(pattern, path).await.unwrap_err();
        assert!(error.contains(told), "{pattern} {path}: {error}");
    }
}

#[tokio::test]
async fn lines_are_found_with_their_place() {
    let bench = project();
    let mut found: Vec<String> =
        bench.grep(r"fn \w+", ".").await.unwrap().lines().map(str::to_owned).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "/workspace/kept.log:1: fn kept",
            "/workspace/src/deep/run.rs:1: pub fn run() {}",
            "/workspace/src/main.rs:1: fn main() {",
        ]
    );
    assert_eq!(bench.grep("^}$", "src/main.rs").await.unwrap(), "/workspace/src/main.rs:3: }");
    assert_eq!(bench.grep("(?i)FN B", "target").await.unwrap().lines().count(), 1);
    assert_eq!(bench.grep("nothing", ".").await.unwrap(), "nothing in `/workspace` fits");
    assert!(bench.grep("(", ".").await.unwrap_err().contains("cannot be read"));
    assert!(bench.grep("x", "nowhere").await.unwrap_err().contains("there is no"));
    assert!(bench.grep(r"\w{1000}{1000}", ".").await.unwrap_err().contains("cannot be read"));
}

#[tokio::test]
async fn searches_follow_no_link() {
    let bench = project();
    std::fs::create_dir(bench.outside("elsewhere")).unwrap();
    std::fs::write(bench.outside("elsewhere/secret.rs"), "fn secret\n").unwrap();
    symlink("../elsewhere", bench.at("out")).unwrap();
    symlink("../elsewhere/secret.rs", bench.at("secret.rs")).unwrap();
    symlink(".", bench.at("round")).unwrap();
    let found = bench.glob("**", ".").await.unwrap();
    assert!(!found.contains("elsewhere") && !found.contains("round/"), "{found}");
    assert_eq!(bench.grep("secret", ".").await.unwrap(), "nothing in `/workspace` fits");
    assert!(bench.grep("secret", "secret.rs").await.unwrap_err().contains("outside"));
    assert!(bench.glob("*", "out").await.unwrap_err().contains("outside"));
}

#[tokio::test]
async fn searches_have_bounds() {
    let bench = Bench::with(Options {
        search_entries_max: 300,
        search_bytes_max: 20_000,
        answer_bytes_max: 2000,
        ..Options::default()
    });
    for n in 0..250 {
        bench.put(&format!("a/{n}.txt"), "x\n");
    }
    let found = bench.glob("a/*", ".").await.unwrap();
    assert_eq!(found.lines().count(), 201);
    assert!(found.ends_with("[the newest 200 of 250 files]"), "{found}");
    for n in 0..100 {
        bench.put(&format!("b/{n}.txt"), "x\n");
    }
    let found = bench.glob("**", ".").await.unwrap();
    assert!(found.ends_with("[there are more than 300 entries; give a deeper `path`]"), "{found}");
    bench.put("long/lines.txt", "x\n".repeat(1000));
    let found = bench.grep("x", "long").await.unwrap();
    assert!(found.contains("left out here; the whole is in /session/outputs/grep-"), "{found}");
    bench.put("big/file.txt", "x".repeat(30_000));
    let found = bench.grep("x", "big").await.unwrap();
    assert!(found.contains("[1 large files were passed over]"), "{found}");
}
