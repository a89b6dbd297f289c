//! How a source decides about its deliveries, read once and asked with each of them.
//!
//! Invariants: what cannot be read is a problem of the source, told of where the source is made, and
//! a source that came to be with one holds its deliveries; what cannot be decided about a delivery
//! is held and never runs. Left out: who agents and environments are; that is the registry's.

use super::{Facts, Sender, condition::Condition, identify, wording::Wording};
use crate::domain::{
    Problem,
    source::{RuleVerdict, SourceDefinition, SourceRule, Target},
};

/// Rules of one source.
pub const RULES_MAX: usize = 100;

/// Actors that one source may ignore.
pub const ACTORS_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Policy {
    ignore_actors: Vec<String>,
    filter: Option<Condition>,
    rules: Vec<Rule>,
    own: Texts,
}

#[derive(Debug)]
struct Rule {
    when: Condition,
    verdict: Option<RuleVerdict>,
    reason: Option<String>,
    texts: Texts,
}

/// The templates of a source or a rule.
#[derive(Debug, Default)]
struct Texts {
    /// Of a target that is a key.
    key: Option<Wording>,
    message: Option<Wording>,
}

/// What is decided about a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Filtered(String),
    Held(String),
    /// By this rule of the source, or as the source itself says.
    Routed(Option<usize>),
}

impl Policy {
    /// Problems are at the field of the definition.
    pub(super) fn read(definition: &SourceDefinition) -> Result<Policy, Problem> {
        let sender = Sender::defined(definition)?;
        if !definition.ignore_actors.is_empty() && sender.actor.is_empty() {
            let wanted =
                "needs to know where the sender says who did it: name the place in `actor`";
            return Err(Problem::new("ignore_actors", wanted));
        }
        let filter = definition.filter.as_deref().map(Condition::read).transpose();
        let own = Texts::read(Some(&definition.target), definition.message.as_deref(), &sender)?;
        let rules = definition.rules.iter().enumerate().map(|(n, rule)| {
            let at = |problem: Problem| Problem {
                field: format!("rules[{n}].{}", problem.field),
                ..problem
            };
            Rule::read(rule, &sender).map_err(at)
        });
        Ok(Policy {
            ignore_actors: definition.ignore_actors.clone(),
            filter: filter.map_err(|message| Problem::new("filter", message))?,
            rules: rules.collect::<Result<_, _>>()?,
            own,
        })
    }

    pub(super) fn decide(&self, facts: &Facts<'_>) -> Decision {
        if let Some(actor) = self.own_actor(facts) {
            return Decision::Filtered(format!("it was done by `{actor}`, who is ignored here"));
        }
        match self.filter.as_ref().map(|filter| filter.holds(facts)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => {
                return Decision::Filtered("the source's filter does not want it".to_owned());
            }
            Some(Err(reason)) => return Decision::Held(format!("the filter failed: {reason}")),
        }
        self.by_rule(facts, |_| true)
    }

    /// By the first rule that fits, of those that are asked.
    fn by_rule(&self, facts: &Facts<'_>, is_asked: impl Fn(&Rule) -> bool) -> Decision {
        for (n, rule) in self.rules.iter().enumerate().filter(|(_, rule)| is_asked(rule)) {
            match rule.when.holds(facts) {
                Ok(false) => {}
                Ok(true) => return rule.decide(n),
                Err(reason) => return Decision::Held(format!("rules[{n}].when failed: {reason}")),
            }
        }
        Decision::Routed(None)
    }

    /// What a rule decides about a delivery that somebody wants to run: nothing keeps it back, so the
    /// filter, ignored actors and rules with a verdict are as if they were not there.
    pub(super) fn release(&self, facts: &Facts<'_>) -> Decision {
        self.by_rule(facts, |rule| rule.verdict.is_none())
    }

    fn own_actor(&self, facts: &Facts<'_>) -> Option<String> {
        if self.ignore_actors.is_empty() {
            return None;
        }
        identify::actor_among(facts.sender, facts.head, facts.payload, &self.ignore_actors)
    }

    /// The template of the key, where the target that counts is a key.
    pub(super) fn key(&self, rule: Option<usize>) -> Option<&Wording> {
        let own = |texts: &'_ Texts| texts.key.is_some();
        let of_rule = rule.map(|n| &self.rules[n].texts).filter(|texts| own(texts));
        of_rule.unwrap_or(&self.own).key.as_ref()
    }

    pub(super) fn message(&self, rule: Option<usize>) -> Option<&Wording> {
        let of_rule = rule.and_then(|n| self.rules[n].texts.message.as_ref());
        of_rule.or(self.own.message.as_ref())
    }
}

impl Rule {
    fn read(rule: &SourceRule, sender: &Sender) -> Result<Rule, Problem> {
        let when = Condition::read(&rule.when).map_err(|message| Problem::new("when", message))?;
        let goes_somewhere = rule.agent.is_some()
            || rule.environment_id.is_some()
            || rule.project.is_some()
            || rule.target.is_some()
            || rule.message.is_some();
        if rule.verdict.is_some() && goes_somewhere {
            return Err(Problem::new("verdict", "is given beside a route: keep one of them"));
        }
        if rule.verdict.is_none() && rule.reason.is_some() {
            return Err(Problem::new("reason", "belongs to a `verdict` only"));
        }
        if rule.environment_id.is_some() && rule.project.is_some() {
            let message = "is given beside `project`: keep one of them";
            return Err(Problem::new("environment_id", message));
        }
        let texts = Texts::read(rule.target.as_ref(), rule.message.as_deref(), sender)?;
        Ok(Rule { when, verdict: rule.verdict, reason: rule.reason.clone(), texts })
    }

    fn decide(&self, n: usize) -> Decision {
        let reason = |what: &str| match &self.reason {
            Some(reason) => reason.clone(),
            None => format!("rules[{n}] {what} it"),
        };
        match self.verdict {
            None => Decision::Routed(Some(n)),
            Some(RuleVerdict::Filtered) => Decision::Filtered(reason("filters")),
            Some(RuleVerdict::Held) => Decision::Held(reason("holds")),
        }
    }
}

impl Texts {
    fn read(
        target: Option<&Target>,
        message: Option<&str>,
        sender: &Sender,
    ) -> Result<Texts, Problem> {
        let key = match target {
            Some(Target::Key(template)) => {
                let key = Wording::of_key(template);
                Some(key.map_err(|message| Problem::new("target.key", message))?)
            }
            Some(Target::PresetKey) => {
                let template = preset_key(sender).map_err(|it| Problem::new("target", it))?;
                Some(Wording::of_key(template).map_err(|it| Problem::new("target", it))?)
            }
            Some(Target::NewSession | Target::Session(_)) | None => None,
        };
        let message = message.map(Wording::of_message).transpose();
        let message = message.map_err(|message| Problem::new("message", message))?;
        Ok(Texts { key, message })
    }
}

fn preset_key(sender: &Sender) -> Result<&str, String> {
    let hint = "write a template of your own";
    let preset = sender.preset.ok_or(format!("`key` is a preset's, and there is none; {hint}"))?;
    let none = || format!("the preset `{}` knows no key; {hint}", preset.id);
    preset.key.as_deref().ok_or_else(none)
}

/// Whether everything that a source says about its deliveries can be read and goes together.
pub fn check_policy(definition: &SourceDefinition) -> Result<(), Problem> {
    definition.check_pace()?;
    Policy::read(definition).map(|_| ())
}
