//! System calls that std does not offer, each behind a safe function.

pub(crate) mod time;
