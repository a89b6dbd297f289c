//! `read`, `write` and `edit`.

use std::os::unix::fs::PermissionsExt as _;

use bellpull::{
    domain::event::Block,
    tool::{self, Options},
};
use serde_json::json;

use super::Bench;

#[tokio::test]
async fn a_file_is_written_read_and_edited() {
    let bench = Bench::new();
    let answer = bench.write("src/new/main.rs", "fn main() {}\n").await;
    assert_eq!(answer.unwrap(), "wrote `/workspace/src/new/main.rs`, 13 bytes");
    assert_eq!(bench.read("/workspace/src/new/main.rs").await.unwrap(), "fn main() {}\n");
    assert_eq!(bench.read("./src/../src/new/main.rs").await.unwrap(), "fn main() {}\n");
    let answer = bench.edit("src/new/main.rs", "{}", "{ run() }").await.unwrap();
    assert_eq!(answer, "changed `/workspace/src/new/main.rs` in line 1");
    assert_eq!(bench.text("src/new/main.rs"), "fn main() { run() }\n");
    let answer = bench.write("src/new/main.rs", "").await.unwrap();
    assert_eq!(answer, "wrote over `/workspace/src/new/main.rs`, 0 bytes");
    assert!(bench.read("src/new/main.rs").await.unwrap().contains("is empty"));
}

#[tokio::test]
async fn a_file_keeps_its_mode_and_others_keep_theirs() {
    let bench = Bench::new();
    bench.put("run.sh", "old");
    std::fs::set_permissions(bench.at("run.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::hard_link(bench.at("run.sh"), bench.outside("kept")).unwrap();
    bench.write("run.sh", "new").await.unwrap();
    let mode = std::fs::metadata(bench.at("run.sh")).unwrap().permissions().mode();
    assert_eq!((bench.text("run.sh").as_str(), mode & 0o7777), ("new", 0o750));
    assert_eq!(std::fs::read_to_string(bench.outside("kept")).unwrap(), "old");
    let names = std::fs::read_dir(bench.at("")).unwrap().count();
    assert_eq!(names, 1, "nothing unfinished stays");
}

#[tokio::test]
async fn an_edit_wants_one_place_or_all() {
    let bench = Bench::new();
    bench.put("a.txt", "one\ntwo\none\n");
    let error = bench.edit("a.txt", "one", "1").await.unwrap_err();
    assert!(error.contains("2 times") && error.contains("in the lines 1, 3"), "{error}");
    let error = bench.edit("a.txt", "three", "3").await.unwrap_err();
    assert!(error.contains("is not in `/workspace/a.txt`"), "{error}");
    let error = bench.edit("a.txt", "one  two", "3").await.unwrap_err();
    assert!(error.contains("with other spaces or line breaks"), "{error}");
    assert!(bench.edit("a.txt", "", "3").await.unwrap_err().contains("empty"));
    assert!(bench.edit("a.txt", "one", "one").await.unwrap_err().contains("the same"));
    assert_eq!(bench.text("a.txt"), "one\ntwo\none\n", "nothing was changed");
    let all = json!({"file_path": "a.txt", "old_string": "one", "new_string": "1",
        "replace_all": true});
    let answer = bench.call("edit", all).await.unwrap();
    assert_eq!(answer, "changed 2 places of `/workspace/a.txt`, the first in line 1");
    assert_eq!(bench.text("a.txt"), "1\ntwo\n1\n");
    bench.put("dos.txt", "a\r\nb\r\n");
    let error = bench.edit("dos.txt", "a\nb", "c").await.unwrap_err();
    assert!(error.contains("its lines end in \\r\\n"), "{error}");
}

#[tokio::test]
async fn a_long_file_is_read_by_lines() {
    let bench = Bench::with(Options { read_bytes_max: 1000, ..Options::default() });
    let lines: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
    bench.put("long.txt", &lines);
    let error = bench.read("long.txt").await.unwrap_err();
    assert!(error.contains("more than 1000 bytes; give `view_range`"), "{error}");
    let range = async |first: i64, last: i64| {
        let input = json!({"file_path": "long.txt", "view_range": [first, last]});
        bench.call("read", input).await
    };
    let part = range(500, 501).await.unwrap();
    assert_eq!(part, "line 500\nline 501\n[lines 500 to 501 of `/workspace/long.txt`]");
    assert!(range(999, -1).await.unwrap().starts_with("line 999\nline 1000\n[lines 999 to the"));
    assert!(range(1, -1).await.unwrap_err().contains("take fewer"));
    assert!(range(1001, 1002).await.unwrap_err().contains("has no line 1001"));
    for (first, last) in [(0, 1), (2, 1), (1, -2), (-1, -1)] {
        assert!(range(first, last).await.unwrap_err().contains("`view_range` is [first, last]"));
    }
    assert!(bench.edit("long.txt", "line 1\n", "x").await.unwrap_err().contains("more than the"));
}

#[tokio::test]
async fn what_a_model_can_see_is_shown() {
    let bench = Bench::with(Options { media_bytes_max: 100, ..Options::default() });
    bench.put("a.png", b"\x89PNG\r\n\x1a\nrest");
    bench.put("a.pdf", b"%PDF-1.7 rest");
    bench.put("big.png", [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 200]].concat());
    let read = async |path: &str| {
        tool::run(&bench, "read", &json!({"file_path": path})).await.map_err(|it| it.to_string())
    };
    let Block::Image { source } = &read("a.png").await.unwrap()[0] else { panic!("no image") };
    assert_eq!(source["media_type"], "image/png");
    assert_eq!(source["data"], "iVBORw0KGgpyZXN0");
    assert!(matches!(&read("a.pdf").await.unwrap()[0], Block::Document { .. }));
    assert!(read("big.png").await.unwrap_err().contains("more than the 100 bytes"));
    bench.put("a.bin", b"a\0b");
    assert!(bench.read("a.bin").await.unwrap_err().contains("is no text"));
    bench.put("latin.txt", b"gr\xf6\xdfe");
    assert!(bench.read("latin.txt").await.unwrap().starts_with("gr\u{fffd}\u{fffd}e\n[bytes"));
}

#[tokio::test]
async fn mistakes_are_told() {
    let bench = Bench::new();
    bench.put("dir/file", "");
    for (name, input, told) in [
        ("read", json!({"file_path": "nowhere"}), "there is no `/workspace/nowhere`"),
        ("read", json!({"file_path": "dir"}), "is a directory"),
        ("read", json!({"file_path": "dir/file/x"}), "is no directory"),
        ("read", json!({"file_path": ""}), "a path has"),
        ("read", json!({"file_path": "a\u{0}b"}), "a path has"),
        ("read", json!({"path": "dir"}), "the input does not fit"),
        ("write", json!({"file_path": "dir", "content": ""}), "is a directory"),
        ("write", json!({"file_path": "/workspace", "content": ""}), "is a directory"),
        ("write", json!({"file_path": "dir/file/x", "content": ""}), "is no directory"),
        ("write", json!({"file_path": "/session/x", "content": ""}), "is only read"),
        ("write", json!({"file_path": "x".repeat(300), "content": ""}), "too long a name"),
        ("nonsense", json!({}), "there is no tool `nonsense`"),
    ] {
        let error = bench.call(name, input.clone()).await.unwrap_err();
        assert!(error.contains(told), "{name} {input}: {error}");
    }
}
