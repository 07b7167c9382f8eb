//! The kinds of job that Vertex AI runs, and what each calls its states.

/// One of the three resources that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Custom,
    Pipeline,
    Batch,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Custom, Kind::Pipeline, Kind::Batch];

    /// The segment of a resource's name, which is the field of a list too.
    pub fn collection(self) -> &'static str {
        match self {
            Kind::Custom => "customJobs",
            Kind::Pipeline => "pipelineJobs",
            Kind::Batch => "batchPredictionJobs",
        }
    }

    /// As the configuration and labels spell it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Custom => "custom_jobs",
            Kind::Pipeline => "pipeline_jobs",
            Kind::Batch => "batch_prediction_jobs",
        }
    }

    pub fn of_collection(segment: &str) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.collection() == segment)
    }

    /// Takes `custom_jobs`, `customJobs`, `custom-job` and `custom` alike.
    pub fn parse(text: &str) -> Option<Kind> {
        let letters: String = text
            .chars()
            .filter(char::is_ascii_alphabetic)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let stem = letters.strip_suffix('s').unwrap_or(&letters);
        match stem.strip_suffix("job").unwrap_or(stem) {
            "custom" => Some(Kind::Custom),
            "pipeline" => Some(Kind::Pipeline),
            "batchprediction" | "batch" => Some(Kind::Batch),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Kind::Custom | Kind::Batch => "JOB_STATE_",
            Kind::Pipeline => "PIPELINE_STATE_",
        }
    }

    /// The provider's name of a state; none where this kind has no such state.
    pub fn state_name(self, state: &State) -> Option<String> {
        let known = self != Kind::Pipeline
            || !matches!(
                state,
                State::Expired | State::Updating | State::PartiallySucceeded
            );
        (known && !matches!(state, State::Unknown(_)))
            .then(|| format!("{}{}", self.prefix(), state.word()))
    }
}

/// Where the provider says a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Unspecified,
    Queued,
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelling,
    Cancelled,
    Paused,
    Expired,
    Updating,
    PartiallySucceeded,
    /// A state of a newer API, without its prefix.
    Unknown(String),
}

/// In the order of their numbers in the API.
const STATES: [State; 12] = [
    State::Unspecified,
    State::Queued,
    State::Pending,
    State::Running,
    State::Succeeded,
    State::Failed,
    State::Cancelling,
    State::Cancelled,
    State::Paused,
    State::Expired,
    State::Updating,
    State::PartiallySucceeded,
];

impl State {
    /// By its number, as answers with `enum-encoding=int` have it; both enums agree on the numbers they share.
    pub fn of_number(number: i64) -> State {
        usize::try_from(number)
            .ok()
            .and_then(|number| STATES.get(number).cloned())
            .unwrap_or_else(|| State::Unknown(number.to_string()))
    }

    /// By its name, with or without the prefix of its enum, in any case.
    pub fn of_name(name: &str) -> State {
        let upper = name.trim().to_ascii_uppercase();
        let word = ["JOB_STATE_", "PIPELINE_STATE_"]
            .iter()
            .find_map(|prefix| upper.strip_prefix(prefix))
            .unwrap_or(&upper);
        let word = if word == "CANCELED" {
            "CANCELLED"
        } else {
            word
        };
        STATES
            .into_iter()
            .find(|state| state.word() == word)
            .unwrap_or_else(|| State::Unknown(weir_sdk::text::line(word, 64)))
    }

    pub fn word(&self) -> &str {
        match self {
            State::Unspecified => "UNSPECIFIED",
            State::Queued => "QUEUED",
            State::Pending => "PENDING",
            State::Running => "RUNNING",
            State::Succeeded => "SUCCEEDED",
            State::Failed => "FAILED",
            State::Cancelling => "CANCELLING",
            State::Cancelled => "CANCELLED",
            State::Paused => "PAUSED",
            State::Expired => "EXPIRED",
            State::Updating => "UPDATING",
            State::PartiallySucceeded => "PARTIALLY_SUCCEEDED",
            State::Unknown(word) => word,
        }
    }

    pub fn is_final(&self) -> bool {
        State::FINAL.contains(self)
    }

    /// What is never left again.
    pub const FINAL: [State; 5] = [
        State::Succeeded,
        State::Failed,
        State::Cancelled,
        State::Expired,
        State::PartiallySucceeded,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_every_usual_spelling() {
        for (text, kind) in [
            ("custom_jobs", Some(Kind::Custom)),
            ("customJobs", Some(Kind::Custom)),
            ("CustomJob", Some(Kind::Custom)),
            ("pipeline-jobs", Some(Kind::Pipeline)),
            ("batchPredictionJobs", Some(Kind::Batch)),
            ("batch", Some(Kind::Batch)),
            ("jobs", None),
            ("", None),
        ] {
            assert_eq!(Kind::parse(text), kind, "{text}");
        }
    }

    #[test]
    fn every_state_is_known_by_name_and_number() {
        for (number, state) in STATES.into_iter().enumerate() {
            assert_eq!(State::of_number(number as i64), state);
            let name = Kind::Custom.state_name(&state).unwrap();
            assert_eq!(State::of_name(&name), state);
            assert_eq!(State::of_name(&state.word().to_lowercase()), state);
        }
        assert_eq!(State::of_number(12), State::Unknown("12".into()));
        assert_eq!(State::of_number(-1), State::Unknown("-1".into()));
        assert_eq!(
            State::of_name("JOB_STATE_SUSPENDED"),
            State::Unknown("SUSPENDED".into())
        );
        assert_eq!(
            Kind::Pipeline.state_name(&State::Paused).unwrap(),
            "PIPELINE_STATE_PAUSED"
        );
        assert!(Kind::Pipeline.state_name(&State::Expired).is_none());
    }
}
