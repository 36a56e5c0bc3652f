//! Flags of the handshake, the export, the commands, the chunks and the extents ("Values").
//! Bits that are not known are kept, so that the check sees them.

bitflags::bitflags! {
    /// What the server says first of itself ("Handshake flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct HandshakeFlags: u16 {
        /// It replies to options one by one.
        const FIXED_NEWSTYLE = 1;
        /// It leaves out the zeroes behind the reply to the name of an export.
        const NO_ZEROES = 1 << 1;
        const _ = !0;
    }

    /// What the client answers ("Client flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ClientFlags: u32 {
        /// It takes replies to options one by one.
        const FIXED_NEWSTYLE = 1;
        /// It expects no zeroes behind the reply to the name of an export.
        const NO_ZEROES = 1 << 1;
        const _ = !0;
    }

    /// What an export can do ("Transmission flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct TransmissionFlags: u16 {
        /// The flags mean something.
        const HAS_FLAGS = 1;
        /// No writes are taken.
        const READ_ONLY = 1 << 1;
        /// It takes flushes.
        const SEND_FLUSH = 1 << 2;
        /// It takes [`CommandFlags::FUA`].
        const SEND_FUA = 1 << 3;
        /// It is a disk with heads that move.
        const ROTATIONAL = 1 << 4;
        /// It takes trims.
        const SEND_TRIM = 1 << 5;
        /// It takes requests to write zeroes, and [`CommandFlags::NO_HOLE`] with them.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// It takes [`CommandFlags::DF`].
        const SEND_DF = 1 << 7;
        /// Several connections to it show the same bytes, and a flush on one counts for all.
        const CAN_MULTI_CONN = 1 << 8;
        /// It takes resizes; experimental.
        const SEND_RESIZE = 1 << 9;
        /// It takes requests to have a range at hand.
        const SEND_CACHE = 1 << 10;
        /// It takes [`CommandFlags::FAST_ZERO`].
        const SEND_FAST_ZERO = 1 << 11;
        /// It takes requests for block status that name contexts.
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
        const _ = !0;
    }

    /// How a command is to be carried out ("Command flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CommandFlags: u16 {
        /// The reply comes when what was written is durable.
        const FUA = 1;
        /// Zeroes are to take room on the host.
        const NO_HOLE = 1 << 1;
        /// A read is answered by one chunk.
        const DF = 1 << 2;
        /// Block status is answered by one extent per context.
        const REQ_ONE = 1 << 3;
        /// Zeroes are written faster than by sending them, or not at all.
        const FAST_ZERO = 1 << 4;
        /// With extended headers: the length is that of the payload that follows.
        const PAYLOAD_LEN = 1 << 5;
        const _ = !0;
    }

    /// Of a chunk of a structured reply ("Structured reply flags").
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ChunkFlags: u16 {
        /// It is the last of its reply.
        const DONE = 1;
        const _ = !0;
    }

    /// Of an extent in the context `base:allocation`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StateFlags: u64 {
        /// No room is taken on the host.
        const HOLE = 1;
        /// It reads as zeroes.
        const ZERO = 1 << 1;
        const _ = !0;
    }
}

impl StateFlags {
    /// Of an extent in the context of a dirty bitmap: it was written since the bitmap was last cleared.
    pub const DIRTY: u64 = 1;
}
