//! Files on servers that are read and written in pieces: the part common to all protocols that have them. A protocol
//! implements opening a file, and reading and writing pieces of it; splitting requests, handling a lost connection, and
//! the other guarantees of a storage are handled here.

mod creation;
mod lasting;
mod named;
mod protocol;
mod storage;

pub(super) use creation::claim;
pub(super) use lasting::{Lasting, Renew};
pub(super) use named::given_options;
pub(super) use protocol::{Found, How, Protocol, Room, make, no_preallocation, unmake};
pub(super) use storage::{RemoteFile, check_regular, open};
