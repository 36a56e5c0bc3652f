//! One client, from connect to disconnect.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::net::Stream;
use crate::serve::handshake::{Handshake, Link};
use crate::serve::outbox::{Awaited, Load, Outbox, Traffic};
use crate::serve::replies::Replies;
use crate::serve::shared::Shared;
use crate::serve::transmission::{Connection, Reader};

/// Size of the kernel's socket buffer, in each direction.
const SOCKET_BUFFERS: usize = 2 << 20;

/// Serves a client until it leaves.
///
/// # Errors
/// If the connection fails, or the client violates the protocol.
pub(super) fn serve(shared: &Arc<Shared>, id: u64, stream: Arc<Stream>) -> Result<()> {
    let time = shared.limits().handshake;
    let deadline = time.and_then(|time| Instant::now().checked_add(time));
    let Some(agreed) = Handshake::new(shared, id, stream, deadline).run()? else {
        return Ok(());
    };
    let Link { stream, mut input } = agreed.link;
    // Not before it is clear that the client is going to send requests.
    stream.set_buffers(SOCKET_BUFFERS);
    let connection = Arc::new(Connection {
        shared: shared.clone(),
        export: agreed.export,
        replies: Replies(agreed.headers),
        contexts: agreed.contexts,
        outbox: Outbox::new(stream),
        load: Arc::new(Load::default()),
    });
    let traffic = Traffic {
        outbox: connection.outbox.clone(),
        load: connection.load.clone(),
        patience: shared.limits().stall,
    };
    shared.begin_transmission(id, traffic.clone());
    let served = Reader::new(&connection, &mut input).run();
    // Requests received before are answered.
    if !traffic.wait_for_rest(Awaited::All, None) {
        traffic.outbox.give_up();
        connection.load.wait_for_rest(None);
    }
    connection.outbox.close();
    served
}
