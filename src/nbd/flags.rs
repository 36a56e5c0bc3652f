//! Flags of the handshake, exports, commands, chunks and extents ("Values"). Unknown bits are retained, so that they
//! can be checked.

bitflags::bitflags! {
    /// The server's flags in the handshake ("Handshake flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct HandshakeFlags: u16 {
        /// It replies to options one by one.
        const FIXED_NEWSTYLE = 1;
        /// It omits the zeroes after the reply to `EXPORT_NAME`.
        const NO_ZEROES = 1 << 1;
        const _ = !0;
    }

    /// The client's flags in the handshake ("Client flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ClientFlags: u32 {
        /// It accepts replies to options one by one.
        const FIXED_NEWSTYLE = 1;
        /// It expects no zeroes after the reply to `EXPORT_NAME`.
        const NO_ZEROES = 1 << 1;
        const _ = !0;
    }

    /// The capabilities of an export ("Transmission flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct TransmissionFlags: u16 {
        /// The other flags are valid.
        const HAS_FLAGS = 1;
        /// It does not accept writes.
        const READ_ONLY = 1 << 1;
        /// It accepts flushes.
        const SEND_FLUSH = 1 << 2;
        /// It accepts [`CommandFlags::FUA`].
        const SEND_FUA = 1 << 3;
        /// It is a rotational medium.
        const ROTATIONAL = 1 << 4;
        /// It accepts trims.
        const SEND_TRIM = 1 << 5;
        /// It accepts requests to write zeroes, and [`CommandFlags::NO_HOLE`] with them.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// It accepts [`CommandFlags::DF`].
        const SEND_DF = 1 << 7;
        /// All connections to it see the same data, and a flush on one covers all of them.
        const CAN_MULTI_CONN = 1 << 8;
        /// It accepts resizes; experimental.
        const SEND_RESIZE = 1 << 9;
        /// It accepts requests to prefetch a range.
        const SEND_CACHE = 1 << 10;
        /// It accepts [`CommandFlags::FAST_ZERO`].
        const SEND_FAST_ZERO = 1 << 11;
        /// It accepts block status requests that list contexts.
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
        const _ = !0;
    }

    /// How to carry out a command ("Command flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CommandFlags: u16 {
        /// The reply is sent once the written data is durable.
        const FUA = 1;
        /// Zeroes must be allocated on the host.
        const NO_HOLE = 1 << 1;
        /// The reply to a read is a single chunk.
        const DF = 1 << 2;
        /// The reply to a block status request has one extent per context.
        const REQ_ONE = 1 << 3;
        /// Zeroes are written only if that is faster than sending them; otherwise the request fails.
        const FAST_ZERO = 1 << 4;
        /// With extended headers: the length is that of the payload.
        const PAYLOAD_LEN = 1 << 5;
        const _ = !0;
    }

    /// Flags of a chunk of a structured reply ("Structured reply flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ChunkFlags: u16 {
        /// It is the last of its reply.
        const DONE = 1;
        const _ = !0;
    }

    /// Flags of an extent in the context `base:allocation`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StateFlags: u64 {
        /// No space is allocated on the host.
        const HOLE = 1;
        /// It reads as zeroes.
        const ZERO = 1 << 1;
        const _ = !0;
    }
}

impl StateFlags {
    /// In the context of a dirty bitmap: the extent was written since the bitmap was last cleared.
    pub const DIRTY: u64 = 1;
}
