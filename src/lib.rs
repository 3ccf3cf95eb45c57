//! moveout exports everything from a hosted database in time-based batches, as Parquet, into an archive that can be
//! checked without moveout. An export can be stopped at any moment.
//!
//! ```text
//! source ──list──▶ tables ──plan (requested − coverage)──▶ chunks, oldest first
//!                                                            │ a bounded number in flight
//! source.read(chunk) ─▶ record batches ─▶ Parquet encoder ─▶ hash ─▶ object store
//!                                                            │ read back: bytes, footer, rows
//!                                                            ▼
//!                                                          commit ─▶ … ─▶ seal ─▶ verify ─▶ report
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | source | one system to leave: an InfluxDB, PostgreSQL or MySQL server, a line-protocol file ([`source::Source`]) |
//! | table | a measurement or a relation ([`model::Table`]) |
//! | window | a half-open time range `[from, to)` in nanoseconds UTC ([`window::Window`]) |
//! | slice | what one query reads of a table: a window, the rows whose time is null, or the whole ([`window::Slice`]) |
//! | chunk | one table × one slice: the unit of work, retry and commit ([`model::Chunk`]) |
//! | commit | the record that a chunk is durable ([`archive::commit::Commit`]) |
//! | coverage | the slices of a table that are committed ([`coverage::Coverage`]) |
//! | requested | what a run was told to export ([`range::requested`]) |
//! | archive | the result at one URL, a BagIt bag ([`archive::Archive`]) |
//! | seal | closing the bag: catalog, manifests, tag manifest, in that order |
//! | identity | what must not change about a table between runs ([`model::Identity`]) |
//! | snapshot | the named state of a source that a chunk was read from |
//!
//! `docs/architecture.md` explains the layout of the code and its invariants.

pub mod archive;
pub mod cli;
pub mod column_stats;
pub mod commands;
pub mod compact;
pub mod config;
pub mod coverage;
pub mod encode;
pub mod error;
pub mod export;
pub mod fingerprint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hash;
pub mod model;
pub mod progress;
pub mod range;
pub mod report;
pub mod retry;
pub mod shards;
pub mod signature;
pub mod source;
pub mod store;
pub mod survey;
pub mod target;
pub mod text;
pub mod window;
