//! Identities: what names an entity inside the store and on every wire.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

integer_id!(
    /// Number of an event in the journal: given by its writer, ascending, unique within one origin.
    Seq
);
integer_id!(
    /// The integer of an execution (`execution_seq` on the wire), unique within one store.
    ExecutionSeq
);
integer_id!(
    /// The integer of a workflow, unique within one store.
    WorkflowId
);
integer_id!(
    /// The integer of a source, unique within one store.
    SourceId
);

/// The workspace every row belongs to until there are several.
pub const DEFAULT_WORKSPACE: i64 = 1;

/// Identity of a provider's run: what makes two observations be about the same execution.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub source: SourceId,
    pub external_id: String,
    /// Empty where the provider has no runs.
    pub run: String,
}

/// The UUID of an execution, passed in by whoever has a clock.
pub type ExecutionUuid = Uuid;
