//! The verbs of the command line, each in a file of its own. Only they know both sources and archives.

pub mod doctor;
pub mod export;
pub mod plan;
pub mod report;
pub mod restore;
pub mod status;
pub mod verify;
