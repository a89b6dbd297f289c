//! Ways out of the workspace, all of them closed.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::Bench;

/// A secret beside the workspace, and every way there.
fn with_ways_out() -> Bench {
    let bench = Bench::new();
    let secret = bench.outside("secret");
    std::fs::write(&secret, "the secret").unwrap();
    std::fs::create_dir(bench.outside("elsewhere")).unwrap();
    symlink(&secret, bench.at("absolute")).unwrap();
    symlink("../secret", bench.at("relative")).unwrap();
    symlink("absolute", bench.at("twice")).unwrap();
    symlink("..", bench.at("up")).unwrap();
    symlink("/", bench.at("top")).unwrap();
    symlink("/proc/self/root", bench.at("magic")).unwrap();
    symlink("../elsewhere", bench.at("directory")).unwrap();
    symlink("../elsewhere/new", bench.at("nothing")).unwrap();
    bench
}

#[tokio::test]
async fn no_path_and_no_link_leads_out() {
    let bench = with_ways_out();
    let secret = bench.outside("secret");
    let direct = secret.to_str().unwrap();
    for path in [
        direct,
        "/etc/passwd",
        "../secret",
        "/workspace/../secret",
        "/session/../secret",
        "a/../../secret",
        "absolute",
        "relative",
        "twice",
        "up/secret",
        "top/etc/passwd",
        "magic/etc/passwd",
        "/proc/self/environ",
        "/workspace/up/up/up/up/etc/passwd",
        "directory/new",
        "nothing",
    ] {
        let error = bench.read(path).await.unwrap_err();
        assert!(!error.contains("the secret"), "{path}: {error}");
        assert!(error.contains("outside") || error.contains("there is no"), "{path}: {error}");
        assert!(bench.write(path, "x").await.is_err(), "{path}");
        assert!(bench.edit(path, "the", "a").await.is_err(), "{path}");
    }
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "the secret");
    assert_eq!(std::fs::read_dir(bench.outside("elsewhere")).unwrap().count(), 0);
}

#[tokio::test]
async fn links_within_are_followed() {
    let bench = Bench::new();
    bench.put("real/file", "one");
    symlink("real", bench.at("link")).unwrap();
    symlink("real/file", bench.at("alias")).unwrap();
    assert_eq!(bench.read("link/file").await.unwrap(), "one");
    bench.edit("alias", "one", "two").await.unwrap();
    assert_eq!(bench.text("real/file"), "two");
    assert!(bench.at("alias").is_symlink(), "the link stays one");
    bench.write("link/deep/new", "three").await.unwrap();
    assert_eq!(bench.text("real/deep/new"), "three");
}

#[tokio::test]
async fn what_others_execute_is_not_written_by_any_way() {
    let bench = Bench::new();
    bench.put(".git/config", "[core]\n");
    bench.put(".git/hooks/pre-commit", "#!/bin/sh\n");
    bench.put("sub/.git", "gitdir: ../.git/modules/sub\n");
    symlink(".git/hooks", bench.at("hooks")).unwrap();
    symlink(".git/config", bench.at("config")).unwrap();
    symlink(".git/hooks/post-commit", bench.at("dangling")).unwrap();
    for path in [
        ".git/config",
        ".git/hooks/pre-commit",
        ".git/hooks/new/one",
        ".GIT/hooks/post-checkout",
        ".git/info/attributes",
        "sub/.git",
        "new/.git/hooks/x",
        "hooks/pre-commit",
        "hooks/new",
        "config",
        ".husky/pre-commit",
        ".envrc",
        ".vscode/tasks.json",
        "sub/../.git/config",
    ] {
        let error = bench.write(path, "evil").await.unwrap_err();
        assert!(error.contains("executed by other programs"), "{path}: {error}");
    }
    assert!(bench.edit("config", "[core]", "[alias]").await.is_err());
    assert_eq!(bench.read("config").await.unwrap(), "[core]\n", "reading is fine");
    assert!(!bench.at("new").exists() && !bench.at(".husky").exists(), "nothing was made");
    // A link to nothing is replaced, not followed.
    bench.write("dangling", "mine").await.unwrap();
    assert!(!bench.at(".git/hooks/post-commit").exists());
    bench.write(".gitignore", "target\n").await.unwrap();
}

#[tokio::test]
async fn what_never_ends_is_not_read() {
    let bench = Bench::new();
    let made = std::process::Command::new("mkfifo").arg(bench.at("pipe")).status().unwrap();
    assert!(made.success());
    let error = bench.read("pipe").await.unwrap_err();
    assert!(error.contains("is no plain file"), "{error}");
    assert!(bench.write("pipe", "x").await.is_err());
    let range = json!({"file_path": "pipe", "view_range": [1, 2]});
    assert!(bench.call("read", range).await.is_err());
}

/// Somebody swaps a directory for a link while files are written through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_leads_nowhere() {
    let bench = Bench::new();
    std::fs::create_dir(bench.outside("elsewhere")).unwrap();
    std::fs::create_dir_all(bench.at(".git/hooks")).unwrap();
    std::fs::create_dir(bench.at("a")).unwrap();
    symlink("../elsewhere", bench.at("out")).unwrap();
    symlink(".git/hooks", bench.at("hooks")).unwrap();
    let (a, links) = (bench.at("a"), [bench.at("out"), bench.at("hooks")]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let stop = stop.clone();
        move || {
            // Twice each, so that it is the directory again.
            for link in links.iter().flat_map(|link| [link, link]).cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let here = rustix::fs::CWD;
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(here, &a, here, link, exchange).unwrap();
            }
        }
    });
    let mut n_written = 0;
    for n in 0..500 {
        n_written += usize::from(bench.write(&format!("a/{n}"), "x").await.is_ok());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(n_written > 0, "the way in is open now and then");
    assert_eq!(std::fs::read_dir(bench.outside("elsewhere")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(bench.at(".git/hooks")).unwrap().count(), 0);
}
