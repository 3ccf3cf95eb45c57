//! Carries out an export: finds out what is to be done (`prepare`) and what is to be read again although it is there
//! (`again`, `stale`), divides it into chunks of a width and in streams of a number that are found while it runs (`queue`, `controller`), brings each chunk from its source into durable
//! files (`chunk_writer`, `dump_writer`, `dump_reader`, `worker`, `permits`, `steer`), and checks what must be true before the
//! archive is sealed (`run`, `relist`, `recheck`).

mod again;
pub mod chunk_writer;
mod closing;
pub mod controller;
pub mod dump_reader;
mod dump_writer;
mod listed;
mod permits;
pub mod prepare;
pub mod queue;
mod recheck;
mod relist;
pub mod run;
pub mod shard;
pub mod stale;
mod steer;
pub mod summary;
mod worker;
