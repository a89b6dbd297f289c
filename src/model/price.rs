//! Prices: what the operator says that tokens of a model cost.
//!
//! Invariant: whole numbers from end to end. A model that is not in the table has no price, and its
//! requests cost "unknown", not nothing.

use std::collections::BTreeMap;

use crate::domain::{cost::MicroUsd, event::Usage, model::ModelRef};

/// Prices of a model, per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    pub input: MicroUsd,
    pub output: MicroUsd,
    pub cache_read: MicroUsd,
    pub cache_write: MicroUsd,
}

const TOKENS: i128 = 1_000_000;

impl Price {
    /// Rounded up: a budget is never overrun because of rounding.
    pub fn of(&self, usage: &Usage) -> MicroUsd {
        let parts = [
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_input_tokens, self.cache_read),
            (usage.cache_creation_input_tokens, self.cache_write),
        ];
        let product = |(n, price): (i64, MicroUsd)| i128::from(n.max(0)) * i128::from(price.0);
        let sum: i128 = parts.into_iter().map(product).sum();
        MicroUsd(i64::try_from((sum + TOKENS - 1) / TOKENS).unwrap_or(i64::MAX))
    }
}

/// The price of a model under the name that the agent gives it, or under its provider's.
pub(super) fn find<'a>(
    prices: &'a BTreeMap<String, Price>,
    name: &str,
    model: &ModelRef,
) -> Option<&'a Price> {
    prices.get(name).or_else(|| prices.get(&model.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token_has_its_price_and_the_sum_is_rounded_up() {
        let price = Price {
            input: MicroUsd(3_000_000),
            output: MicroUsd(15_000_000),
            cache_read: MicroUsd(300_000),
            cache_write: MicroUsd(3_750_000),
        };
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 100,
            cache_read_input_tokens: 10_001,
            cache_creation_input_tokens: 2,
        };
        // 3000 + 1500 + 3000.3 + 7.5
        assert_eq!(price.of(&usage), MicroUsd(7508));
        assert_eq!(price.of(&Usage::default()), MicroUsd(0));
        let absurd = Usage { output_tokens: i64::MAX, ..Usage::default() };
        assert_eq!(price.of(&absurd), MicroUsd(i64::MAX));
    }

    #[test]
    fn a_price_is_found_by_either_name() {
        let free = MicroUsd(0);
        let price = Price { input: free, output: free, cache_read: free, cache_write: free };
        let prices = BTreeMap::from([("qwen3".to_owned(), price), ("openai/x".to_owned(), price)]);
        let found = |name: &str| find(&prices, name, &ModelRef::parse(name, true)).is_some();
        assert!(found("qwen3") && found("openai/qwen3") && found("openai/x"));
        assert!(!found("x") && !found("claude-x"));
    }
}
