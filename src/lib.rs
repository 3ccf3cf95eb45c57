//! Everything out of a hosted database, in time windows, as Parquet, with proof. See ARCHITECTURE.md.

pub mod archive;
pub mod cli;
pub mod column_stats;
pub mod commands;
pub mod config;
pub mod coverage;
pub mod encode;
pub mod error;
pub mod export;
pub mod hash;
pub mod model;
pub mod progress;
pub mod range;
pub mod retry;
pub mod source;
pub mod store;
pub mod survey;
mod text;
pub mod window;
