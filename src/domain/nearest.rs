//! The known word nearest to a mistyped one, for hints.
//!
//! Words are compared without case, `-` and `_`, so `api_key` finds `apiKey`. No hint is better than
//! a wrong one: a candidate must be within two slips of a finger, one for short words.

/// The candidate that was probably meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = bare(word);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &bare(candidate)), candidate))
        .filter(|(distance, _)| *distance <= slips_max(word.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn slips_max(n_chars: usize) -> usize {
    match n_chars {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// Longer words than any key are not worth the quadratic comparison.
const CHARS_MAX: usize = 64;

fn bare(word: &str) -> Vec<char> {
    word.chars()
        .filter(|char| !matches!(char, '-' | '_'))
        .take(CHARS_MAX)
        .map(|char| char.to_ascii_lowercase())
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, char) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(char != other);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            let swapped =
                row > 0 && column > 0 && *char == right[column - 1] && left[row - 1] == *other;
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["apiKey", "webhooks", "lease_seconds", "poll_ms", "public"];
        for (word, expected) in [
            ("api_key", Some("apiKey")),
            ("APIKEY", Some("apiKey")),
            ("webhook", Some("webhooks")),
            ("webohoks", Some("webhooks")),
            ("lease-second", Some("lease_seconds")),
            ("lease_ms", None),
            ("pol_ms", Some("poll_ms")),
            ("theme", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn a_swap_is_one_slip() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("abc"), &chars("acb")), 1);
        assert_eq!(distance(&chars("abc"), &chars("")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
