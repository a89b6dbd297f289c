//! What changed between two texts, line by line, with a few lines around each change.

/// Lines between the first and the last change that are compared; what is longer is shown as replaced.
const LINES_MAX: usize = 600;

/// Lines that stay the same around a change.
const AROUND: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Same(String),
    Gone(String),
    New(String),
    /// Lines that stay the same and are not shown.
    Gap,
}

/// Nothing where both are the same.
pub(super) fn lines(before: &str, after: &str) -> Vec<Line> {
    let before: Vec<&str> = before.lines().collect();
    let after: Vec<&str> = after.lines().collect();
    // What is the same at both ends costs nothing, however long it is.
    let begin = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let (rest_before, rest_after) = (&before[begin..], &after[begin..]);
    let ends = rest_before.iter().rev().zip(rest_after.iter().rev());
    let end = ends.take_while(|(one, other)| one == other).count();
    let between = |lines: &[&'_ str]| lines.len() - end;
    let changed = (&rest_before[..between(rest_before)], &rest_after[..between(rest_after)]);
    let same =
        |lines: &[&str]| lines.iter().map(|it| Line::Same((*it).to_owned())).collect::<Vec<_>>();
    // No more than what is shown of them.
    let mut all = same(&before[begin.saturating_sub(AROUND + 1)..begin]);
    all.extend(match changed.0.len().max(changed.1.len()) > LINES_MAX {
        true => replaced(changed.0, changed.1),
        false => compare(changed.0, changed.1),
    });
    let tail = &rest_before[between(rest_before)..];
    all.extend(same(&tail[..tail.len().min(AROUND + 1)]));
    let is_change = |line: &Line| matches!(line, Line::Gone(_) | Line::New(_));
    let mut out: Vec<Line> = Vec::new();
    for (n, line) in all.iter().enumerate() {
        let near = all[n.saturating_sub(AROUND)..all.len().min(n + AROUND + 1)].iter();
        if near.into_iter().any(is_change) {
            out.push(line.clone());
        } else if out.last().is_some_and(|last| *last != Line::Gap) {
            out.push(Line::Gap);
        }
    }
    if out.last() == Some(&Line::Gap) {
        out.pop();
    }
    out
}

/// Too much to be compared: what there was, then what there is, as far as anybody reads it.
fn replaced(before: &[&str], after: &[&str]) -> Vec<Line> {
    let gone = before.iter().take(LINES_MAX).map(|it| Line::Gone((*it).to_owned()));
    let new = after.iter().take(LINES_MAX).map(|it| Line::New((*it).to_owned()));
    gone.chain(new).collect()
}

/// By the longest sequence of lines that both have.
fn compare(before: &[&str], after: &[&str]) -> Vec<Line> {
    let width = after.len() + 1;
    // How long that sequence is from here on.
    let mut longest = vec![0_u32; (before.len() + 1) * width];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            longest[i * width + j] = if before[i] == after[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < before.len() || j < after.len() {
        let is_same = i < before.len() && j < after.len() && before[i] == after[j];
        let goes = j == after.len()
            || (i < before.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]);
        if is_same {
            out.push(Line::Same(before[i].to_owned()));
            (i, j) = (i + 1, j + 1);
        } else if goes {
            out.push(Line::Gone(before[i].to_owned()));
            i += 1;
        } else {
            out.push(Line::New(after[j].to_owned()));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let check = |before: &str, after: &str, expected: &str| {
            let shown = lines(before, after).into_iter().map(|line| match line {
                Line::Same(text) => format!(" {text}"),
                Line::Gone(text) => format!("-{text}"),
                Line::New(text) => format!("+{text}"),
                Line::Gap => "~".to_owned(),
            });
            assert_eq!(shown.collect::<Vec<_>>().join(""), expected);
        };
        check("a\nb\nc", "a\nb\nc", "");
        check("a\nb\nc", "a\nx\nc", " a-b+x c");
        check("1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\n5\n6\n7\n8\nz", " 7 8-9+z");
        check("1\n2\n3\n4\n5\n6\n7", "0\n1\n2\n3\n4\n5\n6\n7\n8", "+0 1 2~ 6 7+8");
        check("", "a", "+a");
        check("a\na", "a", " a-a");
        // A change far down in a long text is found.
        let long = (0..5_000).map(|n| format!("{n}\n")).collect::<String>();
        check(&format!("{long}end"), &format!("{long}END"), " 4998 4999-end+END");
    }
}
