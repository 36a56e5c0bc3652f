//! What all formats share whose images are encrypted by a LUKS volume: where its header stands, the options of its
//! cipher and of its key slots, and what `info` and inspection say of it. Over `crypto::luks`, which knows no options.

mod chosen;
mod cipher;
mod header_area;
mod info;
mod judge;
mod keyslots;

pub(crate) use chosen::NewEncryption;
pub(crate) use cipher::{CipherOptions, OPTION_ITER_TIME, parse_cipher_options};
pub(crate) use header_area::HeaderArea;
pub(crate) use info::header_info;
pub(crate) use judge::{UNREAD, check_work, judge_header};
pub(crate) use keyslots::{KEYSLOT_OPTIONS, change_keyslots, changes_keyslots, keyslot_options};

/// What options and `info` call the encryption in other formats.
pub(crate) const METHOD: &str = "luks";
