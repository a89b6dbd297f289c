//! Output as it comes: both ends in memory, and the whole in a file once it is too much to answer.
//!
//! Invariant: memory stays within a bound, whatever comes. Nothing is lost: bytes that are no text are
//! kept in the file and replaced in the answer.

use std::{
    collections::VecDeque,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tokio::{fs::File, io::AsyncWriteExt as _};

use super::shell::Files;
use crate::{clock::Timestamp, id::random_bits};

#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    shown_at: PathBuf,
    /// The beginning, up to half of what may be answered; and the newest of the rest, of that length.
    head: Vec<u8>,
    tail: VecDeque<u8>,
    half: usize,
    bytes: u64,
    whole: Option<(File, PathBuf)>,
}

impl Spool {
    pub(super) fn new(files: &Files, answer_bytes_max: usize) -> Spool {
        Spool {
            directory: files.outputs.clone(),
            shown_at: files.shown_at.clone(),
            head: Vec::new(),
            tail: VecDeque::new(),
            half: (answer_bytes_max / 2).max(1),
            bytes: 0,
            whole: None,
        }
    }

    /// Bytes that came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        let n_head = bytes.len().min(self.half - self.head.len());
        let fits = self.tail.len() + bytes.len() - n_head <= self.half;
        if !fits && self.whole.is_none() {
            let (mut file, path) = create(&self.directory, &self.shown_at).await?;
            file.write_all(&self.head).await?;
            let (first, second) = self.tail.as_slices();
            file.write_all(first).await?;
            file.write_all(second).await?;
            self.whole = Some((file, path));
        }
        if let Some((file, _)) = &mut self.whole {
            file.write_all(bytes).await?;
        }
        self.head.extend_from_slice(&bytes[..n_head]);
        let rest = &bytes[n_head..];
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        let n_over = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..n_over);
        self.tail.extend(rest);
        Ok(())
    }

    /// What is answered.
    pub(super) async fn finish(mut self) -> io::Result<String> {
        let tail = self.tail.make_contiguous();
        let Some((mut file, path)) = self.whole else {
            // As one: a character may lie on the seam.
            let whole = [&self.head[..], tail].concat();
            return Ok(String::from_utf8_lossy(&whole).into_owned());
        };
        file.flush().await?;
        let n_left_out = self.bytes - (self.head.len() + tail.len()) as u64;
        let head = String::from_utf8_lossy(whole_lines(&self.head, false)).into_owned();
        let tail = String::from_utf8_lossy(whole_lines(tail, true)).into_owned();
        let newline = if head.ends_with('\n') { "" } else { "\n" };
        let (path, bytes) = (path.display(), self.bytes);
        Ok(format!(
            "{head}{newline}[about {n_left_out} of {bytes} bytes left out here; the whole is in \
             {path}]\n{tail}"
        ))
    }
}

/// Without the broken line at its end, or at its beginning, where that costs little.
fn whole_lines(bytes: &[u8], is_tail: bool) -> &[u8] {
    let near = bytes.len() / 8;
    if is_tail {
        let end = bytes.iter().take(near).position(|byte| *byte == b'\n');
        return end.map_or(bytes, |end| &bytes[end + 1..]);
    }
    let end = bytes.iter().rev().take(near).position(|byte| *byte == b'\n');
    end.map_or(bytes, |end| &bytes[..bytes.len() - end])
}

async fn create(directory: &Path, shown_at: &Path) -> io::Result<(File, PathBuf)> {
    tokio::fs::create_dir_all(directory).await?;
    let name = format!("bash-{:032x}.txt", random_bits(Timestamp(0)));
    let file = File::create_new(directory.join(&name)).await?;
    // Whoever programs run as reads it.
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).await?;
    Ok((file, shown_at.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Files {
        Files {
            outputs: directory.join("outputs"),
            shown_at: "/session/outputs".into(),
            mark: directory.join("mark"),
        }
    }

    #[tokio::test]
    async fn little_is_answered_whole_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&files(directory.path()), 100);
        for byte in "äöü\n".repeat(14).into_bytes() {
            spool.write(&[byte]).await.unwrap();
        }
        assert_eq!(spool.finish().await.unwrap(), "äöü\n".repeat(14));
        assert!(!directory.path().join("outputs").exists());
    }

    #[tokio::test]
    async fn much_is_cut_in_the_middle_and_is_whole_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let lines: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        for piece in [1, 7, 100, 100_000] {
            let mut spool = Spool::new(&files(directory.path()), 200);
            for bytes in lines.as_bytes().chunks(piece) {
                spool.write(bytes).await.unwrap();
            }
            let answer = spool.finish().await.unwrap();
            assert!(answer.starts_with("line 0\n") && answer.ends_with("line 999\n"), "{answer}");
            assert!(answer.len() < 400, "{answer}");
            let name = answer.split("/session/outputs/").nth(1).unwrap().split(']').next().unwrap();
            let kept = std::fs::read_to_string(directory.path().join("outputs").join(name));
            assert_eq!(kept.unwrap(), lines);
        }
    }

    #[tokio::test]
    async fn what_is_no_text_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&files(directory.path()), 100);
        spool.write(b"a\xff\xfeb").await.unwrap();
        assert_eq!(spool.finish().await.unwrap(), "a\u{fffd}\u{fffd}b");
    }
}
