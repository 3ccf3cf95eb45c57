//! Carrying out an export: what is to be done (`prepare`), in which order and windows (`queue`, `window_sizing`), a
//! chunk from its source to durable files (`chunk_writer`, `dump_writer`, `dump_reader`, `worker`, `permits`), and what
//! has to be true before the archive is
//! sealed (`run`, `relist`, `recheck`). `stale` says what is read again although it is there.

mod again;
pub mod chunk_writer;
mod closing;
pub mod dump_reader;
mod dump_writer;
mod listed;
mod permits;
pub mod prepare;
pub mod queue;
mod recheck;
mod relist;
pub mod run;
pub mod stale;
pub mod summary;
pub mod window_sizing;
mod worker;
