//! One client, from its first byte to its last.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::net::Stream;
use crate::serve::handshake::{Handshake, Link};
use crate::serve::outbox::{Load, Outbox};
use crate::serve::replies::Replies;
use crate::serve::server::Shared;
use crate::serve::transmission::{Connection, Reader};

/// Memory of the kernel for what is under way, in each direction.
const SOCKET_BUFFERS: usize = 2 << 20;

/// Serves a client until it leaves.
///
/// # Errors
/// Of the connection, and where the client does not keep to the protocol.
pub(super) fn serve(shared: &Arc<Shared>, id: u64, stream: Arc<Stream>) -> Result<()> {
    let time = shared.limits().handshake;
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    let Some(agreed) = Handshake::new(shared, id, stream, deadline).run()? else {
        return Ok(());
    };
    let Link { stream, mut input } = agreed.link;
    // Not before it is known that the client wants something.
    stream.set_buffers(SOCKET_BUFFERS);
    let connection = Arc::new(Connection {
        shared: shared.clone(),
        export: agreed.export,
        replies: Replies(agreed.headers),
        contexts: agreed.contexts,
        outbox: Outbox::new(stream),
        load: Arc::new(Load::default()),
    });
    shared.begin_transmission(id, &connection);
    let served = Reader::new(&connection, &mut input).run();
    // What was asked for before is answered.
    connection.load.wait_for_rest(None);
    connection.outbox.close();
    served
}
