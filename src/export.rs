//! Carries out an export: finds out what is to be done (`prepare`) and what is to be read again although it is there
//! (`again`, `stale`), divides it into chunks (`queue`, `window_sizing`), brings each chunk from its source into durable
//! files (`chunk_writer`, `dump_writer`, `dump_reader`, `worker`, `permits`), and checks what must be true before the
//! archive is sealed (`run`, `relist`, `recheck`).

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
