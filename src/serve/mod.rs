//! An NBD server: images for anyone who speaks the protocol.
//!
//! A [`Server`] offers any number of [`Export`]s to any number of clients. Each client has a thread that reads
//! its requests, which answers by itself what does not block; a few threads that all clients share do the rest.

mod budget;
mod export;
mod handshake;
mod input;
mod listen;
mod outbox;
mod replies;
mod server;
mod session;
mod status;
mod transmission;
mod workers;

pub use export::{Export, ExportOptions};
pub use listen::address_from_text;
pub use server::{Limits, Server, Statistics, Tls};

#[cfg(test)]
mod tests;
