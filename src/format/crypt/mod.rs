//! What the formats with images encrypted by a LUKS volume share: the location of its header, the options of its cipher
//! and of its key slots, and how `info` and inspection report it. Built on `crypto::luks`, which has no notion of
//! options.

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

/// The name of this encryption in the options and `info` of other formats.
pub(crate) const METHOD: &str = "luks";
