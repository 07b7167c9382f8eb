//! What people touch: the command line, the HTTP API and the demo.
pub mod bundled;
pub mod replay;
