//! Names of nodes that several images share.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::boundary::{self, Handle, Poison, call_out, check_flags};
use crate::capi::error::platter_error;
use crate::error::Result;
use crate::image::Nodes;

/// The named nodes of images that are opened one after another, each with this set in its options
/// (`platter_open_options_set_nodes()`). A node gets its name from `node-name` in a location. No two nodes in the set
/// have the same name. In place of a child, a location can name a node of an image that was opened before
/// (`"file":"NAME"`, `"backing":"NAME"`): the new image then reads through that node, and keeps it open even after the
/// earlier image is closed. A node that may be written to is not shared with another image, and a shared node is not
/// written to. A name is free again once its image is gone.
#[derive(Debug, Default)]
pub struct platter_nodes {
    poison: Poison,
    nodes: Nodes,
}

impl Handle for platter_nodes {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// The set to store in options: the set itself, not a copy.
pub(super) fn shared(nodes: Option<&platter_nodes>) -> Result<Option<Nodes>> {
    let Some(nodes) = nodes else {
        return Ok(None);
    };
    nodes.poison.check()?;
    Ok(Some(nodes.nodes.clone()))
}

/// Creates an empty set. The caller frees it with `platter_nodes_free()`; options on which it was set, and images that
/// were opened with them, continue to use it. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_nodes_new(
    out: Option<&mut MaybeUninit<*mut platter_nodes>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_nodes::default())))
    })
}

/// Frees a set. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The set is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_nodes_free(nodes: *mut platter_nodes) {
    // SAFETY: the caller owns the set, which came from `platter_nodes_new`.
    unsafe { boundary::free(nodes) }
}
