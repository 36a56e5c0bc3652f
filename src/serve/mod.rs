//! Images for other programs: an NBD server for anyone who speaks the protocol, and mounts on this machine.
//!
//! A [`Server`] offers any number of [`Export`]s to any number of clients. Each client has a thread that reads its
//! requests and carries out those that do not block; the rest go to a few threads that all clients share. A mount
//! ([`Server::mount`]) is a file on this machine, served by threads of its own; virtual machines get images as block
//! devices ([`Server::listen_vhost_user`]).

mod ahead;
mod budget;
mod door;
mod export;
mod fuse;
mod handshake;
mod input;
mod listen;
mod offer;
mod outbox;
mod replies;
mod server;
mod session;
mod shared;
mod status;
mod transmission;
mod vhost_user;
mod workers;

pub use export::{Export, ExportOptions};
pub use fuse::{MountOptions, Others};
pub use listen::address_from_text;
pub use offer::Tls;
pub use server::{Offered, Server, Statistics};
pub use shared::Limits;

#[cfg(test)]
mod tests;
