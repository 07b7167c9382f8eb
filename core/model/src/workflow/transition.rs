//! The transition table: which status may follow which, on a provider's word.

use crate::status::Status;

/// What an observed status means for an execution in a given status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// Nothing changed.
    Stay,
    /// Another open status is entered.
    Enter,
    /// It was begun and waits again: the next start is a new attempt.
    Requeue,
    /// A final status is entered.
    Finish,
    /// One final verdict replaces another, on the provider's evidence, once.
    Correct,
    /// A lost job is shown again.
    Find,
    /// Late or contradictory evidence; the status stands.
    Ignore,
}

/// Where an observation saying `to` leads an execution in status `from`.
///
/// `corrected`: its verdict was already corrected once. A provider never says [`Status::Lost`]; that row is `Ignore`.
///
/// | from \ to | waiting | running, paused | completing | cancelling | final |
/// |---|---|---|---|---|---|
/// | waiting | Enter | Enter | Enter | Enter | Finish |
/// | running, paused | Requeue | Enter | Enter | Enter | Finish |
/// | completing | Ignore | Ignore | Stay | Enter | Finish |
/// | cancelling | Ignore | Ignore | Ignore | Stay | Finish |
/// | final | Ignore | Ignore | Ignore | Ignore | Correct, once |
/// | lost | Find | Find | Find | Find | Find |
pub fn transition(from: Status, to: Status, corrected: bool) -> Move {
    if to == Status::Lost {
        return Move::Ignore;
    }
    if from == to {
        return Move::Stay;
    }
    match from {
        Status::Lost => Move::Find,
        from if from.is_final() => {
            if to.is_final() && !corrected {
                Move::Correct
            } else {
                Move::Ignore
            }
        }
        _ if to.is_final() => Move::Finish,
        Status::Completing if to == Status::Cancelling => Move::Enter,
        Status::Completing | Status::Cancelling => Move::Ignore,
        Status::Running | Status::Paused if to.is_waiting() => Move::Requeue,
        _ => Move::Enter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair, on one page. A change of the table shows as a change of this text.
    #[test]
    fn every_pair_of_statuses_has_its_move() {
        let mut table = String::new();
        for from in Status::ALL {
            let moves: Vec<String> = Status::ALL
                .into_iter()
                .map(|to| format!("{:?}", transition(from, to, false)))
                .collect();
            table.push_str(&format!("{from:>12}: {}\n", moves.join(" ")));
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_second_correction_is_ignored() {
        assert_eq!(
            transition(Status::Failed, Status::Completed, true),
            Move::Ignore
        );
    }

    #[test]
    fn no_move_leaves_a_final_status_for_an_open_one() {
        for from in Status::ALL.into_iter().filter(|s| s.is_final()) {
            for to in Status::ALL.into_iter().filter(|s| !s.is_final()) {
                assert_eq!(transition(from, to, false), Move::Ignore, "{from} -> {to}");
            }
        }
    }
}
