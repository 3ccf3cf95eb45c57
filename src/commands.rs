//! One file for each verb of the command line. They alone know sources and archives.

pub mod doctor;
pub mod export;
pub mod plan;
pub mod report;
pub mod restore;
pub mod status;
pub mod verify;
