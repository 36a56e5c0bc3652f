//! For storages over another storage: the methods that they pass on as they are.

/// Methods of [`crate::storage::Storage`] that do nothing but call the same method of a field. Written
/// inside an `impl Storage` as `forward!(field: name, driver, …);`. Every method is named, so that the
/// compiler asks each wrapper what a new one means to it: a filter that passed on what it should have
/// seen would be a hole in it.
macro_rules! forward {
    ($inner:ident: $($method:ident),+ $(,)?) => {
        $($crate::storage::forward::forward!(@$method $inner);)+
    };
    (@name $inner:ident) => {
        fn name(&self) -> &::bstr::BStr {
            self.$inner.name()
        }
    };
    (@driver $inner:ident) => {
        fn driver(&self) -> &'static str {
            self.$inner.driver()
        }
    };
    (@identity $inner:ident) => {
        fn identity(&self) -> Option<$crate::storage::Identity> {
            self.$inner.identity()
        }
    };
    (@read_only $inner:ident) => {
        fn read_only(&self) -> bool {
            self.$inner.read_only()
        }
    };
    (@read_at $inner:ident) => {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> $crate::Result<()> {
            self.$inner.read_at(buf, offset)
        }
    };
    (@read_vectored_at $inner:ident) => {
        fn read_vectored_at(
            &self,
            bufs: &mut [::std::io::IoSliceMut<'_>],
            offset: u64,
        ) -> $crate::Result<()> {
            self.$inner.read_vectored_at(bufs, offset)
        }
    };
    (@try_read $inner:ident) => {
        fn try_read(
            &self,
            bufs: &mut [::std::io::IoSliceMut<'_>],
            offset: u64,
        ) -> $crate::Result<bool> {
            self.$inner.try_read(bufs, offset)
        }
    };
    (@read_many_at $inner:ident) => {
        fn read_many_at(&self, ranges: &mut [$crate::storage::ReadRange<'_>]) -> $crate::Result<()> {
            self.$inner.read_many_at(ranges)
        }
    };
    (@write_at $inner:ident) => {
        fn write_at(&self, buf: &[u8], offset: u64) -> $crate::Result<()> {
            self.$inner.write_at(buf, offset)
        }
    };
    (@write_vectored_at $inner:ident) => {
        fn write_vectored_at(
            &self,
            bufs: &[::std::io::IoSlice<'_>],
            offset: u64,
        ) -> $crate::Result<()> {
            self.$inner.write_vectored_at(bufs, offset)
        }
    };
    (@len $inner:ident) => {
        fn len(&self) -> $crate::Result<u64> {
            self.$inner.len()
        }
    };
    (@set_len $inner:ident) => {
        fn set_len(
            &self,
            len: u64,
            preallocation: $crate::storage::Preallocation,
        ) -> $crate::Result<()> {
            self.$inner.set_len(len, preallocation)
        }

        fn check_shrink(&self, len: u64) -> $crate::Result<()> {
            self.$inner.check_shrink(len)
        }
    };
    (@write_zeroes $inner:ident) => {
        fn write_zeroes(
            &self,
            offset: u64,
            len: u64,
            flags: $crate::storage::ZeroFlags,
        ) -> $crate::Result<()> {
            self.$inner.write_zeroes(offset, len, flags)
        }
    };
    (@discard $inner:ident) => {
        fn discard(&self, offset: u64, len: u64) -> $crate::Result<()> {
            self.$inner.discard(offset, len)
        }
    };
    (@sync $inner:ident) => {
        fn sync(&self, durability: $crate::storage::Durability) -> $crate::Result<()> {
            self.$inner.sync(durability)
        }
    };
    (@extent $inner:ident) => {
        fn extent(&self, offset: u64, len: u64) -> $crate::Result<$crate::extent::StorageExtent> {
            self.$inner.extent(offset, len)
        }
    };
    (@compressor $inner:ident) => {
        fn compressor(&self) -> Option<&dyn $crate::storage::Compress> {
            self.$inner.compressor()
        }
    };
    (@prefetcher $inner:ident) => {
        fn prefetcher(&self) -> Option<&dyn $crate::storage::Prefetch> {
            self.$inner.prefetcher()
        }
    };
    (@limits $inner:ident) => {
        fn limits(&self) -> $crate::storage::Limits {
            self.$inner.limits()
        }
    };
    (@allocated_size $inner:ident) => {
        fn allocated_size(&self) -> Option<u64> {
            self.$inner.allocated_size()
        }
    };
    (@step_watcher $inner:ident) => {
        fn step_watcher(&self) -> Option<&dyn $crate::storage::StepWatcher> {
            self.$inner.step_watcher()
        }
    };
    (@lock $inner:ident) => {
        fn lock(&self, request: $crate::storage::LockRequest) -> $crate::Result<()> {
            self.$inner.lock(request)
        }
    };
    (@host $inner:ident) => {
        fn host(&self) -> Option<&dyn $crate::storage::HostFile> {
            self.$inner.host()
        }
    };
}

/// The methods of [`crate::storage::Storage`] that would change something, of a storage that is only read:
/// each gives the error that the named method makes. `made` adds what holds where the bytes are in no one
/// file of the host, because they are decoded or come from several; `solid` besides, where nothing is known of
/// holes among them.
macro_rules! read_only {
    ($refused:ident, made, solid) => {
        $crate::storage::forward::read_only!($refused, made);

        fn extent(&self, offset: u64, len: u64) -> $crate::Result<$crate::extent::StorageExtent> {
            let inside = self.len()?.saturating_sub(offset);
            Ok($crate::extent::StorageExtent {
                len: if inside == 0 { len } else { len.min(inside) },
                zero: inside == 0,
                allocated: inside != 0,
            })
        }
    };
    ($refused:ident, made) => {
        $crate::storage::forward::read_only!($refused);

        fn try_read(&self, _: &mut [::std::io::IoSliceMut<'_>], _: u64) -> $crate::Result<bool> {
            Ok(false)
        }

        fn sync(&self, _: $crate::storage::Durability) -> $crate::Result<()> {
            // Nothing was written.
            Ok(())
        }

        fn host(&self) -> Option<&dyn $crate::storage::HostFile> {
            None
        }
    };
    ($refused:ident) => {
        fn read_only(&self) -> bool {
            true
        }

        fn write_at(&self, _: &[u8], _: u64) -> $crate::Result<()> {
            Err(self.$refused())
        }

        fn write_zeroes(
            &self,
            _: u64,
            _: u64,
            _: $crate::storage::ZeroFlags,
        ) -> $crate::Result<()> {
            Err(self.$refused())
        }

        fn discard(&self, _: u64, _: u64) -> $crate::Result<()> {
            Err(self.$refused())
        }

        fn set_len(&self, _: u64, _: $crate::storage::Preallocation) -> $crate::Result<()> {
            Err(self.$refused())
        }
    };
}

pub(crate) use {forward, read_only};
