//! Files of servers that are read and written in pieces: what all protocols that have them share. A protocol says
//! how a file is opened and has pieces of it read and written; how requests are cut, what is done when a connection
//! is lost, and what a storage promises besides, is decided here.

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
