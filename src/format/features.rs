//! Sets of features of formats and open images.

bitflags::bitflags! {
    /// What a format or an open image can do, for introspection and early refusals. It is derived: for a format from
    /// the fields of its description, for an open image from its accessors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u32 {
        /// New images can be created.
        const CREATE = 1;
        /// Images can be written.
        const WRITE = 1 << 1;
        /// Images can name a backing file.
        const BACKING = 1 << 2;
        /// Clusters can be compressed.
        const COMPRESS = 1 << 3;
        /// Internal snapshots.
        const SNAPSHOTS = 1 << 4;
        /// Persistent dirty bitmaps.
        const BITMAPS = 1 << 5;
        /// `check`.
        const CHECK = 1 << 6;
        /// `check -r`.
        const REPAIR = 1 << 7;
        /// `resize`.
        const RESIZE = 1 << 8;
        /// `amend`.
        const AMEND = 1 << 9;
        /// `measure` as a target.
        const MEASURE = 1 << 10;
        /// Encryption.
        const ENCRYPT = 1 << 11;
    }
}
