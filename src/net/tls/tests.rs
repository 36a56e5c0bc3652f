//! Both ends in one process, by hand and over sockets, with certificates created by `openssl`.

mod pki;
mod psk;
mod sessions;
mod sockets;
