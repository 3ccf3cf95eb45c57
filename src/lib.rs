//! Everything out of a hosted database, in time windows, as Parquet, with proof. See ARCHITECTURE.md.

pub mod archive;
pub mod chunk;
pub mod cli;
pub mod config;
pub mod coverage;
pub mod doctor;
pub mod encode;
pub mod error;
pub mod export;
pub mod hash;
pub mod plan;
pub mod preview;
pub mod progress;
pub mod retry;
pub mod source;
pub mod stats;
pub mod status;
pub mod store;
pub mod survey;
mod text;
pub mod verify;
pub mod window;
