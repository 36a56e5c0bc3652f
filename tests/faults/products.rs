//! The command lines that make images for products, and those that convert whole chains.

use super::table::{Case, make};

/// Every profile, from a file and from a chain.
pub const PROFILES: &[Case] = &[
    make("convert -f raw --profile azure plain.raw new.vhd"),
    make("convert --profile azure -t writeback top.qcow2 new.vhd"),
    make("convert -f raw --profile esxi plain.raw new.vmdk"),
    make("convert --profile esxi -t writeback top.qcow2 new.vmdk"),
    make("convert -f raw --profile esxi-datastore plain.raw new.vmdk"),
    make("convert --profile esxi-datastore -t writeback top.qcow2 new.vmdk"),
    make("convert -f raw --profile hyperv plain.raw new.vhdx"),
    make("convert --profile hyperv -t writeback top.qcow2 new.vhdx"),
    make("convert -f raw --profile ova plain.raw new.ova"),
    make("convert --profile ova -t writeback top.qcow2 new.ova"),
    make("convert -f raw --profile xen plain.raw new.vhd"),
    make("convert --profile xen -t writeback top.qcow2 new.vhd"),
];

/// Chains, whose layers come into a directory of their own.
pub const CHAINS: &[Case] = &[
    make("convert --chain -O qcow2 tip.qcow2 new.dir"),
    make("convert --chain -O qcow2 -t writeback child.vhdx new.dir"),
    make("convert --chain -O vmdk -t writeback top.qcow2 new.dir"),
    make("convert --chain -O vmdk -o subformat=twoGbMaxExtentSparse top.qcow2 new.dir"),
    make("convert --chain -O vhdx -o block_size=1M -t writeback tip.qcow2 new.dir"),
    make("convert --chain -O vpc -o force_size=on -t writeback child.vmdk new.dir"),
    make("convert --chain -O vdi -t writeback top.qcow2 new.dir"),
    make("convert --chain --profile hyperv top.qcow2 new.dir"),
    make("convert --chain --profile xen -t writeback child.vmdk new.dir"),
];
