//! Names of resources: `projects/P/locations/L/customJobs/ID`.

use std::fmt;

use weir_sdk::{Failure, text};

use crate::kind::Kind;

/// Longer is no name of Google's.
const NAME_MAX: usize = 512;

/// One job. The project is a number in answers and may be an id in a configuration, so two names are compared by
/// location, kind and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub project: String,
    pub location: String,
    pub kind: Kind,
    pub id: String,
}

impl Name {
    pub fn parse(name: &str) -> Option<Name> {
        if name.len() > NAME_MAX {
            return None;
        }
        let mut segments = name.split('/');
        let mut next = |wanted: Option<&str>| {
            let segment = segments.next()?;
            match wanted {
                Some(wanted) => (segment == wanted).then_some(segment),
                None => is_segment(segment).then_some(segment),
            }
        };
        next(Some("projects"))?;
        let project = next(None)?.to_owned();
        next(Some("locations"))?;
        let location = next(None).filter(|location| is_location(location))?;
        let kind = Kind::of_collection(next(None)?)?;
        let id = next(None)?.to_owned();
        let parsed = Name {
            project,
            location: location.to_owned(),
            kind,
            id,
        };
        segments.next().is_none().then_some(parsed)
    }

    /// The name in `id` of a job that the host hands over.
    pub fn of_job(id: &str) -> Result<Name, Failure> {
        Name::parse(id).ok_or_else(|| Failure {
            message: format!(
                "{:?} is no name of a Vertex AI job (projects/…/locations/…/customJobs/…)",
                text::line(id, 200)
            ),
            kind: Some(weir_sdk::FailureKind::NotFound),
            retry_after_ms: None,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "projects/{}/locations/{}/{}/{}",
            self.project,
            self.location,
            self.kind.collection(),
            self.id
        )
    }
}

/// What may stand between two slashes of a path as it is: nothing that a URL would read differently.
fn is_segment(segment: &str) -> bool {
    !segment.trim_matches('.').is_empty()
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

/// A project's id or number; an id may begin with a domain (`example.com:studio`).
pub fn is_project(text: &str) -> bool {
    text.len() <= 100 && is_segment(text)
}

/// `us-central1`, `global`: it becomes a part of a host's name.
pub fn is_location(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 40
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Where jobs live: the unit of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub project: String,
    pub location: String,
    pub kind: Kind,
}

impl Scope {
    /// Quotas are counted per project and location.
    pub fn place(&self) -> String {
        format!("{}/{}", self.project, self.location)
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.place(), self.kind.word())
    }

    pub fn parent(&self) -> String {
        format!("projects/{}/locations/{}", self.project, self.location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_name_is_a_name() {
        let good = "projects/123456789012/locations/us-central1/customJobs/4000000000000000001";
        let name = Name::parse(good).unwrap();
        assert_eq!(name.to_string(), good);
        assert_eq!(
            (name.kind, name.location.as_str()),
            (Kind::Custom, "us-central1")
        );
        assert!(Name::parse("projects/example.com:p/locations/l1/pipelineJobs/a-b").is_some());
        for bad in [
            "",
            "4000000000000000001",
            "projects/1/locations/us-central1/customJobs/",
            "projects/1/locations/us-central1/customJobs/..",
            "projects/../locations/us-central1/customJobs/1",
            "projects/1/locations/us-central1/models/1",
            "projects/1/locations/us.evil.com/customJobs/1",
            "projects/1/locations/us-central1/customJobs/1/x",
            "projects/1/locations/us-central1/customJobs/1?alt=x",
            "projects/1/locations/us-central1/customJobs/1%2f",
        ] {
            assert!(Name::parse(bad).is_none(), "{bad}");
            assert!(Name::of_job(bad).is_err());
        }
    }
}
