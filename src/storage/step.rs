//! The steps of work on an image that fault injection knows by name: the events of QEMU's blkdebug, whose
//! names its documentation lists.
//!
//! Code that works on a storage says so before it takes the step. Only a storage that injects faults listens.

macro_rules! steps {
    ($($step:ident $name:literal $what:literal)*) => {
        /// A step that is about to be taken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $(#[doc = $what] $step,)*
        }

        impl Step {
            /// All steps, also those that no code here takes.
            pub const ALL: &'static [Self] = &[$(Self::$step),*];

            /// The name in configurations.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    L1Update "l1_update" "Writing entries of an L1 table."
    L1GrowAllocTable "l1_grow_alloc_table" "Allocating a larger L1 table."
    L1GrowWriteTable "l1_grow_write_table" "Writing a larger L1 table."
    L1GrowActivateTable "l1_grow_activate_table" "Letting the header name a larger L1 table."
    L2Load "l2_load" "Reading an L2 table."
    L2Update "l2_update" "Writing entries of an L2 table."
    L2UpdateCompressed "l2_update_compressed" "Letting an L2 entry name compressed bytes."
    L2AllocCowRead "l2_alloc_cow_read" "Reading an L2 table that is to be copied."
    L2AllocWrite "l2_alloc_write" "Writing a new L2 table."
    ReadAio "read_aio" "Reading guest data of the layer."
    ReadBackingAio "read_backing_aio" "Reading guest data of the layers below."
    ReadCompressed "read_compressed" "Reading compressed guest data."
    WriteAio "write_aio" "Writing guest data."
    WriteCompressed "write_compressed" "Writing compressed guest data."
    VmstateLoad "vmstate_load" "Reading the state of a virtual machine."
    VmstateSave "vmstate_save" "Writing the state of a virtual machine."
    CowRead "cow_read" "Reading what stands around written data."
    CowWrite "cow_write" "Writing what stands around written data."
    ReftableLoad "reftable_load" "Reading the refcount table."
    ReftableGrow "reftable_grow" "Making the refcount table larger."
    ReftableUpdate "reftable_update" "Writing the refcount table anew."
    RefblockLoad "refblock_load" "Reading a refcount block."
    RefblockUpdate "refblock_update" "Writing a whole refcount block."
    RefblockUpdatePart "refblock_update_part" "Writing refcounts of a block."
    RefblockAlloc "refblock_alloc" "Looking for the refcount block of a cluster that is to be allocated."
    RefblockAllocHookup "refblock_alloc_hookup" "Letting the refcount table name a new block."
    RefblockAllocWrite "refblock_alloc_write" "Writing a new refcount block."
    RefblockAllocWriteBlocks "refblock_alloc_write_blocks" "Writing the blocks of a new refcount table."
    RefblockAllocWriteTable "refblock_alloc_write_table" "Writing a new refcount table."
    RefblockAllocSwitchTable "refblock_alloc_switch_table" "Letting the header name a new refcount table."
    ClusterAlloc "cluster_alloc" "Allocating host clusters."
    ClusterAllocBytes "cluster_alloc_bytes" "Allocating host bytes for compressed data."
    ClusterFree "cluster_free" "Giving host clusters back."
    FlushToOs "flush_to_os" "Writing out what is cached above the storage."
    FlushToDisk "flush_to_disk" "Making what was written durable."
    PwritevRmwHead "pwritev_rmw_head" "Reading the block that a write begins within."
    PwritevRmwAfterHead "pwritev_rmw_after_head" "That block was read."
    PwritevRmwTail "pwritev_rmw_tail" "Reading the block that a write ends within."
    PwritevRmwAfterTail "pwritev_rmw_after_tail" "That block was read."
    Pwritev "pwritev" "Any write to the storage."
    PwritevZero "pwritev_zero" "Zeroing a range of the storage."
    PwritevDone "pwritev_done" "A write to the storage has ended."
    EmptyImagePrepare "empty_image_prepare" "Giving up all guest data of the layer."
    L1ShrinkWriteTable "l1_shrink_write_table" "Clearing the end of an L1 table."
    L1ShrinkFreeL2Clusters "l1_shrink_free_l2_clusters" "Giving the L2 tables behind the end back."
    CorWrite "cor_write" "Writing what was read from below into the layer."
    ClusterAllocSpace "cluster_alloc_space" "Zeroing what stands around written data."
    None "none" "No step: stands for every request."
}

impl Step {
    /// The step of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.name() == name)
    }
}

/// Listens to the steps that are taken on a storage.
pub trait StepWatcher: Send + Sync {
    /// The step is about to be taken. Locks of the image may be held: do not call into it.
    fn before(&self, step: Step);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(*step));
        }
        assert_eq!(Step::ALL.len(), 48);
        assert_eq!(Step::from_name("l3_load"), None);
    }
}
