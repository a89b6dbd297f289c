//! Long answers: the model gets both ends, and the whole is a file that it can read.
//!
//! Invariant: nothing of an answer is lost, and no answer is longer than its bound, but for the
//! line that says where the rest is. The file lies among the session's own files, where nothing that
//! the agent runs can change it.

use std::{io::Write as _, path::Path};

use super::{Error, Workspace, workspace::FILES};
use crate::{clock::Timestamp, id::random_bits};

/// Directory of whole answers, in the session's own files.
const DIRECTORY: &str = "outputs";

/// The text as it is, or cut in its middle with the whole in a file. Waits for a disk.
pub fn bounded(
    workspace: &Workspace,
    tool: &str,
    text: String,
    bytes_max: usize,
) -> Result<String, Error> {
    if text.len() <= bytes_max {
        return Ok(text);
    }
    let name = format!("{tool}-{:032x}.txt", random_bits(Timestamp(0)));
    keep(&workspace.files().join(DIRECTORY), &name, text.as_bytes())
        .map_err(|error| Error::Fatal(anyhow::Error::new(error).context("keep a long answer")))?;
    Ok(cut(&text, bytes_max, &format!("{FILES}/{DIRECTORY}/{name}")))
}

fn keep(directory: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::File::create_new(directory.join(name))?.write_all(bytes)
}

/// Both ends of a text that is longer than its bound, whole lines where that costs little.
pub fn cut(text: &str, bytes_max: usize, whole_at: &str) -> String {
    let half = bytes_max / 2;
    let head = &text[..text.floor_char_boundary(half)];
    let tail = &text[text.ceil_char_boundary(text.len() - half)..];
    let near = half - half / 8;
    let head = head.rfind('\n').filter(|at| *at >= near).map_or(head, |at| &head[..=at]);
    let tail = tail.find('\n').filter(|at| *at <= half - near).map_or(tail, |at| &tail[at + 1..]);
    let n_left_out = text.len() - head.len() - tail.len();
    let newline = if head.ends_with('\n') { "" } else { "\n" };
    format!(
        "{head}{newline}[{n_left_out} of {} bytes left out here; the whole is in {whole_at}]\n{tail}",
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_both_ends_and_says_where_the_rest_is() {
        let lines: String = (0..1000).map(|n| format!("line {n} ü\n")).collect();
        for bytes_max in [100, 101, 1000, 9999] {
            let cut = cut(&lines, bytes_max, "/session/outputs/x");
            assert!(cut.len() < bytes_max + 100, "{bytes_max}: {}", cut.len());
            assert!(cut.starts_with("line 0 ü\n") && cut.ends_with("line 999 ü\n"), "{cut}");
            assert!(cut.contains("the whole is in /session/outputs/x]"), "{cut}");
        }
        let one = cut(&"ü".repeat(1000), 101, "f");
        assert!(one.starts_with("üüü") && one.ends_with("üüü"), "{one}");
    }

    #[test]
    fn the_whole_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (root, files) = (directory.path().join("root"), directory.path().join("files"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&files).unwrap();
        let workspace = Workspace::open(&root, &files).unwrap();
        let long = "abc\n".repeat(1000);
        let short = bounded(&workspace, "bash", "short".to_owned(), 100).unwrap();
        assert_eq!(short, "short");
        let answer = bounded(&workspace, "bash", long.clone(), 100).unwrap();
        let path = answer.split("the whole is in ").nth(1).unwrap().split(']').next().unwrap();
        let place = workspace.place(path).unwrap();
        let kept = std::io::read_to_string(workspace.open_file(&place).unwrap()).unwrap();
        assert_eq!(kept, long);
    }
}
