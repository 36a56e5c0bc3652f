//! Parallels bundles: directories of several files and snapshots, made by hand over images of QEMU's tools.

use std::fmt::Write;

use crate::common::Dir;

pub const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
pub const ROOT: &str = "{11111111-1111-1111-1111-111111111111}";
const MIDDLE: &str = "{22222222-2222-2222-2222-222222222222}";
/// A snapshot that is no part of what the guest sees.
const ASIDE: &str = "{33333333-3333-3333-3333-333333333333}";
pub const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

const SECTOR: usize = 512;

/// What a bundle consists of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of a cluster.
    pub cluster: usize,
    /// Bytes of each part.
    pub parts: &'static [usize],
    /// The root of the second part is plain, and a snapshot is named whose files are not there.
    pub mixed: bool,
    /// The tables count sectors, as those of old programs.
    pub old: bool,
}

/// A disk of 4 MiB in two parts, with two snapshots.
pub const MIXED: Shape = Shape {
    cluster: 64 << 10,
    parts: &[3 << 20, 1 << 20],
    mixed: true,
    old: false,
};

/// The bundle `disk.hdd` in a directory.
pub struct Made {
    pub dir: Dir,
    /// What the guest sees.
    pub model: Vec<u8>,
    shape: Shape,
}

impl Made {
    pub fn new(shape: Shape) -> Self {
        let dir = Dir::new();
        std::fs::create_dir(dir.path("disk.hdd")).expect("a directory");
        let mut made = Self {
            dir,
            model: vec![0; shape.parts.iter().sum()],
            shape,
        };
        // Each covers what the one before has written in part.
        for (n, name) in ["root", "middle", "top"].iter().enumerate() {
            let mut start = 0;
            for (part, len) in shape.parts.iter().enumerate() {
                made.image(&format!("disk.hdd/{name}.{part}.hds"), (n, part), start);
                start += len;
            }
        }
        made.describe(&made.descriptor());
        made
    }

    /// Makes one file of it, whose part begins at `start`.
    fn image(&mut self, name: &str, (n, part): (usize, usize), start: usize) {
        let Shape { cluster, parts, .. } = self.shape;
        let len = parts[part];
        if self.is_plain(n, part) {
            std::fs::write(self.dir.path(name), vec![7; len]).expect("a file");
            self.model[start..start + len].fill(7);
            return;
        }
        let size = format!("cluster_size={cluster}");
        let create = ["create", "-q", "-f", "parallels", "-o", &size, name];
        self.dir
            .qemu_img_ok(&[&create[..], &[&len.to_string()]].concat());
        let mut lines = Vec::new();
        for at in (n * cluster..16 * cluster).step_by((n + 2) * cluster) {
            let byte = (n * 16 + part + 1) as u8;
            lines.push(format!("write -P {byte} {at} {cluster}"));
            self.model[start + at..][..cluster].fill(byte);
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.dir.qemu_io("parallels", name, &lines);
        if self.shape.old {
            let mut bytes = std::fs::read(self.dir.path(name)).expect("an image");
            bytes[..16].copy_from_slice(b"WithoutFreeSpace");
            let words = bytes[64..].chunks_exact_mut(4).take(len / cluster);
            for word in words {
                let number = u32::from_le_bytes(word.try_into().expect("4 bytes"));
                let sector = number * (cluster / SECTOR) as u32;
                word.copy_from_slice(&sector.to_le_bytes());
            }
            std::fs::write(self.dir.path(name), bytes).expect("an image");
        }
    }

    fn is_plain(&self, n: usize, part: usize) -> bool {
        self.shape.mixed && (n, part) == (0, 1)
    }

    /// Writes the descriptor.
    pub fn describe(&self, text: &str) {
        std::fs::write(self.dir.path("disk.hdd/DiskDescriptor.xml"), text).expect("a file");
    }

    /// The text of the descriptor, the last part first.
    pub fn descriptor(&self) -> String {
        let Shape { cluster, parts, .. } = self.shape;
        let sectors = self.model.len() / SECTOR;
        let mut text = format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n\
             <Disk_Parameters><Disk_size>{sectors}</Disk_size><Cylinders>16</Cylinders>\
             <PhysicalSectorSize>4096</PhysicalSectorSize><LogicSectorSize>512</LogicSectorSize>\
             <Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding>\
             <Encryption><Engine>{NONE}</Engine><Data></Data></Encryption><UID>{ROOT}</UID>\
             <Name>disk</Name><Miscellaneous><CompatLevel>level2</CompatLevel>\
             <Bootable>1</Bootable><SuspendState>0</SuspendState></Miscellaneous>\
             </Disk_Parameters>\n<StorageData>"
        );
        let snapshots = [
            (ROOT, "root"),
            (TOP, "top"),
            (MIDDLE, "middle"),
            (ASIDE, "aside"),
        ];
        let snapshots = &snapshots[..if self.shape.mixed { 4 } else { 3 }];
        let mut end = sectors;
        for (part, len) in parts.iter().enumerate().rev() {
            let (start, block) = (end - len / SECTOR, cluster / SECTOR);
            write!(
                text,
                "<Storage><Start>{start}</Start><End>{end}</End><Blocksize>{block}</Blocksize>"
            )
            .expect("text");
            end = start;
            for (id, name) in snapshots {
                let kind = match *name == "root" && self.is_plain(0, part) {
                    true => "Plain",
                    false => "Compressed",
                };
                let file = format!("{name}.{part}.hds");
                let image = format!(
                    "<Image><GUID>{id}</GUID><Type>{kind}</Type><File>{file}</File></Image>"
                );
                text += &image;
            }
            text += "</Storage>";
        }
        text += "</StorageData>\n<Snapshots>";
        let parents = [(TOP, MIDDLE), (MIDDLE, ROOT), (ROOT, NONE), (ASIDE, ROOT)];
        for (id, parent) in &parents[..snapshots.len()] {
            let shot = format!("<Shot><GUID>{id}</GUID><ParentGUID>{parent}</ParentGUID></Shot>");
            text += &shot;
        }
        text + "</Snapshots>\n</Parallels_disk_image>\n"
    }
}
