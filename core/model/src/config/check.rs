//! Cross references: names given twice, names that nothing bears, matchers that no alert can satisfy.

use std::collections::{BTreeMap, BTreeSet};

use super::alerts::SEVERITIES;
use super::decode::{Decoder, Finding, listed, shortened};
use super::diagnostic::did_you_mean;
use crate::alert::matcher::{MatchOp, Matcher};
use crate::alert::route::LOG_RECEIVER;
use crate::alert::rule::{ALERT_LABELS, WEIR_TROUBLE};

/// What was declared and used on the way through the file.
#[derive(Default)]
pub(super) struct References {
    pub(super) sources: Declared,
    pub(super) rules: Declared,
    pub(super) receivers: Declared,
    pub(super) health_checks: Declared,
    pub(super) receiver_uses: Vec<Use>,
    /// The matchers of each rule and route, with their places.
    pub(super) matcher_groups: Vec<Vec<(Matcher, usize, String)>>,
    /// Labels that rules set, with the values they set.
    pub(super) rule_labels: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
pub(super) struct Declared {
    names: Vec<Use>,
    /// An entry had no readable name: what seems not to exist may be that one.
    pub(super) incomplete: bool,
}

/// A name and where it stands.
pub(super) struct Use {
    pub(super) name: String,
    pub(super) offset: usize,
    pub(super) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declares {
    Source,
    Rule,
    Receiver,
    HealthCheck,
}

impl References {
    pub(super) fn declare(
        &mut self,
        what: Declares,
        name: Option<&str>,
        offset: usize,
        path: String,
    ) {
        let declared = match what {
            Declares::Source => &mut self.sources,
            Declares::Rule => &mut self.rules,
            Declares::Receiver => &mut self.receivers,
            Declares::HealthCheck => &mut self.health_checks,
        };
        match name {
            Some(name) => declared.names.push(Use {
                name: name.to_owned(),
                offset,
                path,
            }),
            None => declared.incomplete = true,
        }
    }
}

impl Declared {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|declared| declared.name.as_str())
    }
}

impl Decoder<'_> {
    /// Checks what can only be known once the whole file is read.
    pub(super) fn check(&mut self) {
        let references = std::mem::take(&mut self.references);
        for (what, declared) in [
            ("source", &references.sources),
            ("rule", &references.rules),
            ("receiver", &references.receivers),
            ("health check", &references.health_checks),
        ] {
            self.check_unique(what, declared);
        }
        self.check_reserved(&references);
        self.check_receivers(&references);
        for group in &references.matcher_groups {
            self.check_matchers(group, &references);
        }
    }

    fn check_unique(&mut self, what: &str, declared: &Declared) {
        let mut first: BTreeMap<&str, &Use> = BTreeMap::new();
        for it in &declared.names {
            if let Some(earlier) = first.get(it.name.as_str()) {
                let line = self.line(earlier.offset);
                let finding =
                    Finding::new(format!("there is already a {what} named `{}`", it.name));
                self.error(
                    it.offset,
                    &it.path,
                    finding.help(format!("the first is in line {line}")),
                );
            } else {
                first.insert(&it.name, it);
            }
        }
    }

    fn check_reserved(&mut self, references: &References) {
        let reserved = [
            (
                &references.receivers,
                LOG_RECEIVER,
                "the receiver `log` always exists",
            ),
            (
                &references.rules,
                WEIR_TROUBLE,
                "the rule `weir_trouble` is built in and always on",
            ),
        ];
        for (declared, name, message) in reserved {
            for it in declared.names.iter().filter(|it| it.name == name) {
                self.error(
                    it.offset,
                    &it.path,
                    Finding::new(message).help("choose another name"),
                );
            }
        }
    }

    fn check_receivers(&mut self, references: &References) {
        let mut names: Vec<&str> = references.receivers.names().collect();
        names.push(LOG_RECEIVER);
        let mut misspelt = false;
        for it in &references.receiver_uses {
            if names.contains(&it.name.as_str()) || references.receivers.incomplete {
                continue;
            }
            misspelt = true;
            let help = did_you_mean(&it.name, names.iter().copied());
            let help = help.unwrap_or_else(|| format!("there are {}", listed(&names)));
            let finding = Finding::new(format!(
                "there is no receiver named `{}`",
                shortened(&it.name)
            ));
            self.error(it.offset, &it.path, finding.help(help));
        }
        // Without a route that is told there, once for all; with a misspelt one it may be the one that is meant.
        if references.receiver_uses.is_empty() || misspelt {
            return;
        }
        for it in &references.receivers.names {
            if !references
                .receiver_uses
                .iter()
                .any(|used| used.name == it.name)
            {
                let finding = Finding::new(format!(
                    "nothing is ever sent to the receiver `{}`",
                    it.name
                ));
                self.warning(
                    it.offset,
                    &it.path,
                    finding.help("name it in a route or as `fallback`"),
                );
            }
        }
    }

    /// All matchers of a group must be satisfiable together by the values that their label can have.
    fn check_matchers(&mut self, group: &[(Matcher, usize, String)], references: &References) {
        let mut labels: Vec<&str> = ALERT_LABELS.to_vec();
        labels.extend(references.rule_labels.keys().map(String::as_str));
        let mut checked = BTreeSet::new();
        for (matcher, offset, path) in group {
            let label = matcher.label.as_str();
            if !labels.contains(&label) {
                let help = match did_you_mean(label, labels.iter().copied()) {
                    Some(help) => format!("{help} (there are {})", listed(&labels)),
                    None => format!("there are {}", listed(&labels)),
                };
                self.error(
                    *offset,
                    path,
                    Finding::new(format!("no alert has a label `{label}`")).help(help),
                );
                continue;
            }
            let Some(values) = values_of(label, references) else {
                continue;
            };
            if !values.iter().any(|value| matcher.matches_value(value)) {
                let values: Vec<_> = values
                    .into_iter()
                    .filter(|value| !value.is_empty())
                    .collect();
                let help = did_you_mean(&matcher.value, values.iter().copied())
                    .filter(|_| matcher.op == MatchOp::Equal)
                    .unwrap_or_else(|| format!("`{label}` can be {}", listed(&values)));
                self.error(
                    *offset,
                    path,
                    Finding::new(format!("no alert can match `{matcher}`")).help(help),
                );
                // Told for this one; together with its neighbours it would be told again.
                checked.insert(label);
            } else if checked.insert(label) {
                let same = || group.iter().filter(|(other, _, _)| other.label == label);
                let together = values
                    .iter()
                    .any(|value| same().all(|(other, _, _)| other.matches_value(value)));
                let each = same()
                    .all(|(other, _, _)| values.iter().any(|value| other.matches_value(value)));
                if !together && each {
                    let finding = Finding::new(format!(
                        "no alert can match these matchers on `{label}` together"
                    ));
                    self.error(
                        *offset,
                        path,
                        finding
                            .help("all of them must match; for \"one or the other\" use =~\"a|b\""),
                    );
                }
            }
        }
    }
}

/// The values that a label can have, where that is known; empty = an alert without it.
fn values_of<'r>(label: &str, references: &'r References) -> Option<Vec<&'r str>> {
    let (mut values, optional): (Vec<&str>, bool) = match label {
        "severity" => (SEVERITIES.iter().map(|(name, _)| *name).collect(), false),
        "source" if !references.sources.incomplete => (references.sources.names().collect(), true),
        "rule" if !references.rules.incomplete => (
            references.rules.names().chain([WEIR_TROUBLE]).collect(),
            false,
        ),
        other => (
            references
                .rule_labels
                .get(other)?
                .iter()
                .map(String::as_str)
                .collect(),
            true,
        ),
    };
    if optional {
        values.push("");
    }
    Some(values)
}
