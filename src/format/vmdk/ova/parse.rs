//! Parses the description of a machine that was created elsewhere.

use roxmltree::Node;

use crate::xml::{self, Preamble};

/// Common beginning of the namespaces of all versions.
const ANY_VERSION: &str = "http://schemas.dmtf.org/ovf/envelope/";

/// The resource type of disks.
const DISK: &str = "17";

/// What a description says about files and disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// The namespace of its elements.
    pub(super) name_space: String,
    /// The files, in the order that they must have in the archive.
    pub(super) files: Vec<FileEntry>,
    /// The disks.
    pub(super) disks: Vec<DiskEntry>,
    /// Number of machines.
    pub(super) machines: usize,
    /// The identifiers of the disks that the machines use.
    pub(super) used: Vec<String>,
    /// A controller to which a disk is attached, but which no machine has.
    pub(super) lost_parent: Option<String>,
}

/// A file that belongs to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileEntry {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) len: Option<u64>,
    /// It is stored in parts, whose names end in a number.
    pub(super) in_parts: bool,
    /// The method with which it was compressed.
    pub(super) compression: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskEntry {
    pub(super) id: String,
    /// The identifier of its file; a blank disk has none.
    pub(super) file: Option<String>,
    pub(super) format: String,
    /// Size in bytes that the guest sees, if that can be determined.
    pub(super) capacity: Option<u64>,
}

impl Description {
    /// Parses the text.
    ///
    /// # Errors
    /// The reason why it is not a description, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document = xml::parse(text, Preamble::Bare)?;
        let root = document.root_element();
        let name_space = root.tag_name().namespace().unwrap_or_default();
        if root.tag_name().name() != "Envelope" || !name_space.starts_with(ANY_VERSION) {
            return Err("it is no OVF envelope".to_owned());
        }
        let mut found = Self {
            name_space: name_space.to_owned(),
            ..Self::default()
        };
        let mut controllers = Vec::new();
        let mut parents = Vec::new();
        for node in document.descendants().filter(Node::is_element) {
            match node.tag_name().name() {
                "File" => found.files.push(file(node)),
                "Disk" => found.disks.push(disk(node)),
                "VirtualSystem" => found.machines += 1,
                // In version 2, disks have elements of their own.
                "Item" | "StorageItem" => {
                    if let Some(id) = child(node, "InstanceID") {
                        controllers.push(id);
                    }
                    if child(node, "ResourceType").as_deref() == Some(DISK) {
                        found.used.extend(host_disk(node));
                        parents.extend(child(node, "Parent"));
                    }
                }
                _ => {}
            }
        }
        found.lost_parent = parents
            .into_iter()
            .find(|parent| !controllers.contains(parent));
        Ok(found)
    }

    /// The file with this identifier.
    pub(super) fn file(&self, id: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.id == id)
    }
}

fn file(node: Node<'_, '_>) -> FileEntry {
    FileEntry {
        id: attribute(node, "id").unwrap_or_default(),
        name: attribute(node, "href").unwrap_or_default(),
        len: attribute(node, "size").and_then(|len| len.trim().parse().ok()),
        in_parts: attribute(node, "chunkSize").is_some(),
        compression: attribute(node, "compression").filter(|name| name != "identity"),
    }
}

fn disk(node: Node<'_, '_>) -> DiskEntry {
    let capacity = attribute(node, "capacity").and_then(|text| text.trim().parse::<u64>().ok());
    let units = attribute(node, "capacityAllocationUnits");
    let units = units.as_deref().map_or(Some(1), bytes_of);
    DiskEntry {
        id: attribute(node, "diskId").unwrap_or_default(),
        file: attribute(node, "fileRef"),
        format: attribute(node, "format").unwrap_or_default(),
        capacity: capacity
            .zip(units)
            .and_then(|(capacity, units)| capacity.checked_mul(units)),
    }
}

/// Parses units in the notation of CIM: `byte`, `byte * 2^30`.
fn bytes_of(units: &str) -> Option<u64> {
    let units: String = units.chars().filter(|c| !c.is_whitespace()).collect();
    match units.strip_prefix("byte")? {
        "" => Some(1),
        rest => {
            let power = rest.strip_prefix("*2^")?.parse().ok()?;
            1u64.checked_shl(power)
        }
    }
}

/// The disk of an item: `ovf:/disk/ID`, or `/disk/ID` in old descriptions.
fn host_disk(node: Node<'_, '_>) -> Option<String> {
    let resource = child(node, "HostResource")?;
    let id = resource
        .trim()
        .trim_start_matches("ovf:")
        .strip_prefix("/disk/")?;
    Some(id.to_owned())
}

/// An attribute, regardless of its namespace.
fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    let found = node.attributes().find(|found| found.name() == name);
    found.map(|found| found.value().to_owned())
}

/// The text of a child element.
fn child(node: Node<'_, '_>, name: &str) -> Option<String> {
    let found = node
        .children()
        .find(|child| child.tag_name().name() == name);
    found
        .and_then(|found| found.text())
        .map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{Disk, NAME_SPACE, STREAM, envelope};
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let text = envelope(
            "a&b",
            &Disk {
                file: "a-disk1.vmdk",
                file_len: 512,
                capacity: 1 << 30,
                populated: 0,
            },
        );
        let found = Description::parse(&text).expect("a description");
        assert_eq!((&*found.name_space, found.machines), (NAME_SPACE, 1));
        let file = found.file("file1").expect("a file");
        assert_eq!((&*file.name, file.len), ("a-disk1.vmdk", Some(512)));
        let disk = &found.disks[0];
        assert_eq!((&*disk.format, disk.capacity), (STREAM, Some(1 << 30)));
        assert_eq!(
            (found.used, found.lost_parent),
            (vec!["vmdisk1".to_owned()], None)
        );
    }

    #[test]
    fn units_are_those_of_cim() {
        assert_eq!(bytes_of("byte * 2^30"), Some(1 << 30));
        assert_eq!(bytes_of("byte"), Some(1));
        assert_eq!(bytes_of("byte*2^64"), None);
        assert_eq!(bytes_of("MegaBytes"), None);
    }

    #[test]
    fn what_is_no_description_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\">]><Envelope/>";
        for text in ["", "<a/>", "<Envelope xmlns='x'/>", "<Envelope", bomb] {
            assert!(Description::parse(text).is_err(), "{text}");
        }
    }
}
