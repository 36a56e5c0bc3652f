//! Both ends in one process, by hand and over sockets, with certificates that `openssl` makes.

mod pki;
mod psk;
mod sessions;
mod sockets;
