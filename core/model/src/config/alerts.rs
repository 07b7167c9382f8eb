//! The `alerts` section: rules, receivers, the route tree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Declares, Use};
use super::decode::{Decoder, Fields, Finding, describe, join};
use super::diagnostic::did_you_mean;
use super::sections::{DAY, MINUTE, SECOND, YEAR, declared_name, text_map};
use super::tree::{Field, Kind, Node};
use super::values::parse_duration;
use super::{Alerts, Deadman, EMAIL, Handler, Rate, ReceiverConfig, email, plugin};
use crate::alert::matcher::{Matcher, is_label_name};
use crate::alert::notification::Severity;
use crate::alert::route::{LOG_RECEIVER, Route};
use crate::alert::rule::{ALERT_LABELS, RESOLVE_AFTER, Rule, When};

pub(super) const SEVERITIES: [(&str, Severity); 4] = [
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
    ("critical", Severity::Critical),
];

const WHENS: [&str; 6] = [
    "ExecutionFailed",
    "ExecutionLost",
    "ExecutionCompleted",
    "QueueEmpty",
    "SourceUnreachable",
    "ResourceOver",
];

pub(super) fn alerts(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Alerts> {
    let mut fields = d.fields(node, path)?;
    let rules = fields
        .optional(d, "rules", |d, node, path| d.list(node, path, rule))
        .unwrap_or_default();
    let receivers = fields
        .optional(d, "receivers", |d, node, path| d.list(node, path, receiver))
        .unwrap_or_default();
    let route = fields.optional(d, "route", |d, node, path| route(d, node, path, None));
    let fallback = fields.optional(d, "fallback", receiver_use);
    let deadman = fields.optional(d, "deadman", deadman);
    if !fields.has("route") && !receivers.is_empty() {
        let finding = Finding::new("there is no `route`: every alert goes to the log alone");
        d.warning(
            fields.offset,
            path,
            finding.help(format!(
                "write route: (receiver: \"{}\")",
                receivers[0].name
            )),
        );
    }
    fields.finish(d);
    let route = route.unwrap_or_else(|| Route::to(LOG_RECEIVER));
    Some(Alerts {
        rules,
        receivers,
        route,
        fallback,
        deadman,
    })
}

fn rule(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Rule> {
    let Some(mut fields) = d.fields(node, path) else {
        d.references.rules.incomplete = true;
        return None;
    };
    let name = declared_name(d, &mut fields, Declares::Rule);
    let when = fields.required(d, "when", when);
    let severity = fields.optional(d, "severity", |d, node, path| {
        d.word(node, path, &SEVERITIES)
    });
    let pending_for =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, Duration::ZERO, YEAR);
    let pending_for = fields.optional(d, "for", pending_for).unwrap_or_default();
    if fields.has("for") && when.is_some_and(|when| !when.is_state()) {
        let finding = Finding::new("`for` has no effect here")
            .help("only a state can last: SourceUnreachable, ResourceOver");
        d.warning(fields.offset_of("for"), &join(path, "for"), finding);
    }
    let matchers = matchers(d, &mut fields);
    let repeat_interval =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, MINUTE, YEAR);
    let repeat_interval = fields.optional(d, "repeat_interval", repeat_interval);
    let resolve_after =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, MINUTE, YEAR);
    let resolve_after = fields
        .optional(d, "resolve_after", resolve_after)
        .unwrap_or(RESOLVE_AFTER);
    let notify_resolved = fields
        .optional(d, "notify_resolved", Decoder::bool)
        .unwrap_or_else(|| when.as_ref().is_some_and(When::is_state));
    let labels = fields.optional(d, "labels", labels).unwrap_or_default();
    let annotations = fields
        .optional(d, "annotations", text_map)
        .unwrap_or_default();
    let annotations = annotations
        .into_iter()
        .map(|(_, key, value)| (key, value))
        .collect();
    fields.finish(d);
    Some(Rule {
        name: name?,
        when: when?,
        severity,
        pending_for,
        matchers,
        repeat_interval,
        resolve_after,
        notify_resolved,
        labels,
        annotations,
    })
}

/// A bare name or `Name(...)`; both mean the defaults.
fn when(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<When> {
    let (name, fields): (&str, &[Field]) = match &node.kind {
        Kind::Word(name) => (name, &[]),
        Kind::Call { name, fields } => (name, fields),
        _ => {
            let help = match &node.kind {
                Kind::Text(text) if WHENS.contains(&text.as_str()) => {
                    format!("leave the quotes out: {text}")
                }
                Kind::PositionalCall { name } => format!("name the fields: {name}(field: value)"),
                _ => format!("there are {}", WHENS.join(", ")),
            };
            let finding =
                Finding::new("expected a kind such as ExecutionFailed or QueueEmpty(min_jobs: 5)");
            d.error(node.offset, path, finding.found(describe(node)).help(help));
            return None;
        }
    };
    let mut fields = d.open(node.offset, path, fields);
    let when = match name {
        "ExecutionFailed" => When::ExecutionFailed,
        "ExecutionLost" => When::ExecutionLost,
        "ExecutionCompleted" => When::ExecutionCompleted,
        "QueueEmpty" => {
            let min_jobs =
                |d: &mut Decoder<'_>, node: &Node, path: &str| d.count(node, path, 1, 1_000_000);
            When::QueueEmpty {
                min_jobs: fields.optional(d, "min_jobs", min_jobs).unwrap_or(1),
            }
        }
        "SourceUnreachable" => {
            let after = |d: &mut Decoder<'_>, node: &Node, path: &str| {
                d.duration(node, path, SECOND, DAY * 30)
            };
            When::SourceUnreachable {
                after: fields.optional(d, "after", after).unwrap_or(MINUTE * 2),
            }
        }
        "ResourceOver" => When::ResourceOver,
        unknown => {
            let help = did_you_mean(unknown, WHENS)
                .unwrap_or_else(|| format!("there are {}", WHENS.join(", ")));
            d.error(
                node.offset,
                path,
                Finding::new("no such kind of rule")
                    .found(describe(node))
                    .help(help),
            );
            return None;
        }
    };
    fields.finish(d);
    Some(when)
}

fn labels(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (offset, name, value) in text_map(d, node, path)? {
        if ALERT_LABELS.contains(&name.as_str()) {
            d.error(
                offset,
                path,
                Finding::new(format!("the label `{name}` is set by weir")),
            );
        } else if !is_label_name(&name) {
            let finding = Finding::new(
                "expected a label name: letters, digits and `_`, not starting with a digit",
            );
            d.error(
                offset,
                path,
                finding.found(format!("\"{}\"", super::decode::shortened(&name))),
            );
        } else {
            d.references
                .rule_labels
                .entry(name.clone())
                .or_default()
                .insert(value.clone());
            labels.insert(name, value);
        }
    }
    Some(labels)
}

fn receiver(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ReceiverConfig> {
    let Some(mut fields) = d.fields(node, path) else {
        d.references.receivers.incomplete = true;
        return None;
    };
    let name = declared_name(d, &mut fields, Declares::Receiver);
    let handler = if fields.text_of("handler") == Some(EMAIL) {
        let email = email::email(d, &mut fields);
        email.map(|email| Handler::Email(Box::new(email)))
    } else {
        let entry = plugin::entry(d, &mut fields, "handler");
        entry.map(|entry| Handler::Plugin(Box::new(entry)))
    };
    let rate = fields.optional(d, "rate", rate);
    fields.finish(d);
    Some(ReceiverConfig {
        name: name?,
        handler: handler?,
        rate,
    })
}

/// `20/m`: a count, and `s`, `m`, `h`, `d` or a duration.
fn rate(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Rate> {
    let text = d.text(node, path)?;
    let rate = text.split_once('/').and_then(|(count, per)| {
        let count = count
            .trim()
            .parse()
            .ok()
            .filter(|count| (1..=10_000).contains(count))?;
        let per = per.trim();
        let per = parse_duration(per).or_else(|| parse_duration(&format!("1{per}")))?;
        (SECOND..=DAY).contains(&per).then_some(Rate { count, per })
    });
    if rate.is_none() {
        let finding =
            Finding::new("expected a rate such as \"20/m\" or \"100/h\"").found(describe(node));
        d.error(node.offset, path, finding);
    }
    rate
}

fn route(d: &mut Decoder<'_>, node: &Node, path: &str, parent: Option<&str>) -> Option<Route> {
    let mut fields = d.fields(node, path)?;
    let own = match parent {
        None => fields.required(d, "receiver", receiver_use),
        Some(_) => fields.optional(d, "receiver", receiver_use),
    };
    let receiver = own
        .or_else(|| parent.map(str::to_owned))
        .unwrap_or_else(|| LOG_RECEIVER.to_owned());
    let matchers = matchers(d, &mut fields);
    let continues = fields
        .optional(d, "continue", Decoder::bool)
        .unwrap_or(false);
    if parent.is_none() {
        for field in ["matchers", "continue"]
            .into_iter()
            .filter(|field| fields.has(field))
        {
            let finding = Finding::new("the first route takes everything")
                .help("put this into one of its `routes`");
            d.error(fields.offset_of(field), &join(path, field), finding);
        }
    }
    let routes = fields
        .optional(d, "routes", |d, node, path| {
            d.list(node, path, |d, node, path| {
                route(d, node, path, Some(&receiver))
            })
        })
        .unwrap_or_default();
    fields.finish(d);
    Some(Route {
        receiver,
        matchers,
        continues,
        routes,
    })
}

fn receiver_use(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let name = d.text(node, path)?;
    d.references.receiver_uses.push(Use {
        name: name.clone(),
        offset: node.offset,
        path: path.to_owned(),
    });
    Some(name)
}

/// The matchers of one rule or route; whether anything can satisfy them is checked once all names are known.
fn matchers(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Vec<Matcher> {
    let mut group = Vec::new();
    fields.optional(d, "matchers", |d, node, path| {
        d.list(node, path, |d, node, path| {
            let text = d.text(node, path)?;
            match Matcher::parse(&text) {
                Ok(matcher) => group.push((matcher, node.offset, path.to_owned())),
                Err(error) => {
                    let finding =
                        Finding::new(format!("this is no matcher: {error}")).found(describe(node));
                    d.error(node.offset, path, finding);
                }
            }
            Some(())
        })
    });
    let matchers = group
        .iter()
        .map(|(matcher, _, _)| matcher.clone())
        .collect();
    d.references.matcher_groups.push(group);
    matchers
}

fn deadman(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Deadman> {
    let mut fields = d.fields(node, path)?;
    let url = fields.required(d, "url", Decoder::url);
    let interval =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND * 10, DAY);
    let interval = fields
        .optional(d, "interval", interval)
        .unwrap_or(MINUTE * 5);
    fields.finish(d);
    Some(Deadman {
        url: url?,
        interval,
    })
}
