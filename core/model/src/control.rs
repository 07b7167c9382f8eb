//! Control: what a provider answered to a request that reached it.

use crate::observation::JobRef;

/// The provider's own answer to a submitted job, passed through to whoever submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// None if the provider refused.
    pub job: Option<JobRef>,
    /// HTTP, 200 to 599.
    pub status: u16,
    /// A media type that a header can carry.
    pub content_type: String,
    pub body: Vec<u8>,
}
