//! Where a client of the stream goes on, and what it missed for good.

use crate::api::errors::Problem;
use crate::api::params::Params;
use actix_web::HttpRequest;
use serde::Serialize;
use weir_model::id::Seq;

/// Where a client wants to go on.
#[derive(Debug, PartialEq)]
pub(super) enum Resume {
    /// From now on.
    Head,
    After {
        origin: Option<String>,
        seq: Seq,
    },
}

impl Resume {
    /// `Last-Event-ID` is newer than the address: a browser repeats the address when it comes back.
    pub(super) fn of(request: &HttpRequest, params: &Params) -> Result<Resume, Problem> {
        let header = request
            .headers()
            .get("last-event-id")
            .and_then(|value| value.to_str().ok());
        match header.filter(|id| !id.is_empty()) {
            Some(id) => Resume::parse(id, "Last-Event-ID"),
            None => params
                .text("since")
                .map_or(Ok(Resume::Head), |text| Resume::parse(text, "since")),
        }
    }

    fn parse(text: &str, name: &str) -> Result<Resume, Problem> {
        let (origin, seq) = match text.rsplit_once('-') {
            Some((origin, seq)) => (Some(origin), seq),
            None => (None, text),
        };
        let origin_fits =
            origin.is_none_or(|o| o.len() == 8 && o.bytes().all(|b| b.is_ascii_hexdigit()));
        match seq.parse::<i64>() {
            Ok(seq) if seq >= 0 && origin_fits => Ok(Resume::After {
                origin: origin.map(str::to_ascii_lowercase),
                seq: Seq(seq),
            }),
            _ => Err(Problem::bad_parameter(
                name,
                "wanted the number or the id of an event, like 17 or 0123abcd-17",
            )),
        }
    }
}

/// What a client missed for good: it has to fetch the state anew.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Gap {
    pub(super) reason: &'static str,
    /// The first and the last event that are not sent.
    pub(super) from: i64,
    pub(super) to: i64,
}

/// The cursor a client starts with, and what it missed.
pub(super) fn start(
    resume: &Resume,
    origin: &str,
    head: Seq,
    retained_from: Seq,
) -> (Seq, Option<Gap>) {
    match resume {
        Resume::Head => (head, None),
        Resume::After {
            origin: Some(other),
            seq,
        } if other != origin => (
            head,
            Some(Gap {
                reason: "other_origin",
                from: seq.0,
                to: head.0,
            }),
        ),
        Resume::After { seq, .. } if *seq > head => (
            head,
            Some(Gap {
                reason: "beyond_head",
                from: seq.0,
                to: head.0,
            }),
        ),
        Resume::After { seq, .. } => behind(*seq, retained_from),
    }
}

pub(super) fn behind(cursor: Seq, retained_from: Seq) -> (Seq, Option<Gap>) {
    if cursor.0 + 1 >= retained_from.0 {
        return (cursor, None);
    }
    let to = Seq(retained_from.0 - 1);
    (
        to,
        Some(Gap {
            reason: "not_retained",
            from: cursor.0 + 1,
            to: to.0,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(
        resume: &str,
        head: i64,
        retained_from: i64,
    ) -> (i64, Option<(&'static str, i64, i64)>) {
        let resume = Resume::parse(resume, "since").unwrap();
        let (cursor, gap) = start(&resume, "0123abcd", Seq(head), Seq(retained_from));
        (cursor.0, gap.map(|gap| (gap.reason, gap.from, gap.to)))
    }

    #[test]
    fn a_client_goes_on_where_it_was() {
        assert_eq!(started("5", 10, 1), (5, None));
        assert_eq!(started("0123ABCD-5", 10, 1), (5, None));
        assert_eq!(started("0", 10, 1), (0, None));
        assert_eq!(started("10", 10, 1), (10, None));
        assert_eq!(started("4", 10, 5), (4, None), "the next one is retained");
    }

    #[test]
    fn a_client_is_told_what_it_missed_for_good() {
        assert_eq!(started("3", 10, 5), (4, Some(("not_retained", 4, 4))));
        assert_eq!(started("0", 10, 5), (4, Some(("not_retained", 1, 4))));
        assert_eq!(started("11", 10, 1), (10, Some(("beyond_head", 11, 10))));
        assert_eq!(
            started("ffffffff-5", 10, 1),
            (10, Some(("other_origin", 5, 10)))
        );
    }

    #[test]
    fn what_is_no_event_id_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "0123abcd-",
            "0123abc-1",
            "0123abcd--1",
            "1.5",
            "99999999999999999999",
        ] {
            assert!(Resume::parse(text, "since").is_err(), "{text}");
        }
    }
}
