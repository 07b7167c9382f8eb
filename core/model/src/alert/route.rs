//! Routes: which receivers are told about an alert, and why those.

use crate::alert::matcher::{Labels, Matcher, all_match};

/// The receiver that always exists.
pub const LOG_RECEIVER: &str = "log";

/// A node of the route tree. Children are tried in order; the first that matches wins, unless it says `continue`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its own, or inherited from its parent. Always exists.
    pub receiver: String,
    /// None at the root: it takes everything.
    pub matchers: Vec<Matcher>,
    /// Written `continue`.
    pub continues: bool,
    pub routes: Vec<Route>,
}

/// One receiver that a route tree chose, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub receiver: String,
    /// Places in the tree from the root's children down; empty = the root itself.
    pub path: Vec<usize>,
    /// Why: the matchers on the way, in words.
    pub because: Vec<String>,
}

impl Route {
    /// A route that takes everything.
    pub fn to(receiver: &str) -> Self {
        Self {
            receiver: receiver.to_owned(),
            matchers: Vec::new(),
            continues: false,
            routes: Vec::new(),
        }
    }

    /// Where an alert with these labels goes, each receiver once, in the order of the tree. Never empty at the root.
    pub fn targets<L: Labels + ?Sized>(&self, labels: &L) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        self.collect(labels, &mut Vec::new(), &mut Vec::new(), &mut targets);
        targets
    }

    /// Adds this node's targets; returns whether there were any (a node whose children do not match is one itself).
    fn collect<L: Labels + ?Sized>(
        &self,
        labels: &L,
        path: &mut Vec<usize>,
        because: &mut Vec<String>,
        targets: &mut Vec<Target>,
    ) {
        let mut taken = false;
        for (index, child) in self.routes.iter().enumerate() {
            if !all_match(&child.matchers, labels) {
                continue;
            }
            taken = true;
            path.push(index);
            let depth = because.len();
            because.extend(child.matchers.iter().map(ToString::to_string));
            child.collect(labels, path, because, targets);
            because.truncate(depth);
            path.pop();
            if !child.continues {
                break;
            }
        }
        if !taken
            && targets
                .iter()
                .all(|target| target.receiver != self.receiver)
        {
            targets.push(Target {
                receiver: self.receiver.clone(),
                path: path.clone(),
                because: because.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(matcher: &str, receiver: &str, continues: bool, routes: Vec<Route>) -> Route {
        Route {
            matchers: vec![Matcher::parse(matcher).unwrap()],
            continues,
            routes,
            ..Route::to(receiver)
        }
    }

    fn receivers(root: &Route, labels: &[(&str, &str)]) -> Vec<String> {
        let labels: Vec<(String, String)> = labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        root.targets(&labels)
            .into_iter()
            .map(|target| target.receiver)
            .collect()
    }

    fn tree() -> Route {
        Route {
            routes: vec![
                route(
                    "severity=~error|critical",
                    "ops",
                    true,
                    vec![route("source=studio", "studio", false, vec![])],
                ),
                route("severity=critical", "pager", false, vec![]),
                route("severity=critical", "never", false, vec![]),
                route("source=studio", "ops", false, vec![]),
            ],
            ..Route::to("phone")
        }
    }

    #[test]
    fn the_root_takes_what_no_child_takes() {
        assert_eq!(receivers(&tree(), &[("severity", "info")]), ["phone"]);
        assert_eq!(receivers(&Route::to("log"), &[]), ["log"]);
    }

    #[test]
    fn the_first_match_wins_unless_it_continues() {
        assert_eq!(
            receivers(&tree(), &[("severity", "critical")]),
            ["ops", "pager"]
        );
        assert_eq!(receivers(&tree(), &[("severity", "error")]), ["ops"]);
    }

    #[test]
    fn a_child_takes_it_from_its_parent_and_a_receiver_is_told_once() {
        let tree = tree();
        assert_eq!(
            receivers(&tree, &[("severity", "error"), ("source", "studio")]),
            ["studio", "ops"]
        );
        let twice = Route {
            routes: vec![
                route("a=", "x", true, vec![]),
                route("b=", "x", false, vec![]),
            ],
            ..Route::to("y")
        };
        assert_eq!(receivers(&twice, &[]), ["x"]);
    }

    #[test]
    fn a_target_says_how_it_was_reached() {
        let labels = vec![
            ("severity".to_owned(), "error".to_owned()),
            ("source".to_owned(), "studio".to_owned()),
        ];
        let targets = tree().targets(&labels);
        assert_eq!(targets[0].path, [0, 0]);
        assert_eq!(
            targets[0].because,
            ["severity=~\"error|critical\"", "source=\"studio\""]
        );
    }
}
