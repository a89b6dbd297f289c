//! Money: what tokens cost, in whole millionths of a US dollar.
//!
//! There is no floating point in here. A cost that is not known is `None` and never zero.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::event::Usage;

/// Millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub i64);

/// Decimals of a dollar that are kept.
const DECIMALS: usize = 6;
const PER_DOLLAR: i64 = 1_000_000;
const PER_CENT: i64 = 10_000;

impl MicroUsd {
    /// Reads an amount of dollars such as `3`, `0.25` or `.5`: no sign, no exponent, six decimals.
    pub fn parse_dollars(text: &str) -> Option<MicroUsd> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + decimals.len() == 0 || !digits(whole) || !digits(decimals) {
            return None;
        }
        let (kept, rest) = decimals.split_at(decimals.len().min(DECIMALS));
        if rest.bytes().any(|byte| byte != b'0') {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let decimals: i64 = format!("{kept:0<DECIMALS$}").parse().ok()?;
        whole.checked_mul(PER_DOLLAR)?.checked_add(decimals).map(MicroUsd)
    }

    /// Rounded to the nearest whole cent.
    pub fn cents(self) -> i64 {
        self.0.saturating_add(PER_CENT / 2).div_euclid(PER_CENT)
    }

    /// The `MonetaryAmount` object of the Managed Agents API: whole cents, in a text.
    pub fn to_amount(self) -> Value {
        json!({"amount": self.cents().to_string(), "currency": "USD"})
    }
}

impl fmt::Display for MicroUsd {
    /// Dollars with six decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, decimals) =
            (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        write!(f, "{sign}{whole}.{decimals:06}")
    }
}

impl Serialize for MicroUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MicroUsd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<MicroUsd, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("not an amount of dollars");
        MicroUsd::parse_dollars(&text).ok_or_else(wrong)
    }
}

/// What one model request used, and what that costs if the model has a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub usage: Usage,
    pub cost: Option<MicroUsd>,
}

impl From<Usage> for Spent {
    /// Tokens without a price.
    fn from(usage: Usage) -> Spent {
        Spent { usage, cost: None }
    }
}

/// What a session has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of all requests whose model has a price.
    pub known: MicroUsd,
    /// Requests whose model has none: while there are any, the whole is not known.
    pub n_unpriced: i64,
}

impl Cost {
    pub fn total(self) -> Option<MicroUsd> {
        (self.n_unpriced == 0).then_some(self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly_or_not_at_all() {
        for (text, expected) in [
            ("3", Some(3_000_000)),
            ("0.25", Some(250_000)),
            (".5", Some(500_000)),
            ("1.", Some(1_000_000)),
            ("0.000001", Some(1)),
            ("0.0000010", Some(1)),
            ("0.0000011", None),
            ("-1", None),
            ("1e-3", None),
            ("1,5", None),
            (".", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(MicroUsd::parse_dollars(text), expected.map(MicroUsd), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_in_dollars_and_in_cents() {
        assert_eq!(MicroUsd(3712).to_string(), "0.003712");
        assert_eq!(MicroUsd(-12_000_001).to_string(), "-12.000001");
        assert_eq!(MicroUsd(4_999).cents(), 0);
        assert_eq!(MicroUsd(5_000).cents(), 1);
        assert_eq!(MicroUsd(1_230_000).cents(), 123);
    }

    #[test]
    fn one_request_without_a_price_makes_the_whole_unknown() {
        let known = Cost { known: MicroUsd(5), n_unpriced: 0 };
        assert_eq!(known.total(), Some(MicroUsd(5)));
        assert_eq!(Cost { n_unpriced: 1, ..known }.total(), None);
    }
}
