//! Everything out of a hosted database, in time windows, as Parquet, with proof. See ARCHITECTURE.md.

pub mod coverage;
pub mod error;
pub mod source;
pub mod window;
