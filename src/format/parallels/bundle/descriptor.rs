//! The text that lists the files of a bundle ("Description file").

use std::collections::BTreeMap;

use bstr::ByteSlice;
use roxmltree::Node;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::driver::Probe;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Storage, read_exact_at};
use crate::xml::{self, Preamble};

/// The element that contains everything.
const ROOT: &str = "Parallels_disk_image";

/// Maximum length of the text: far more than a disk needs with as many snapshots as any program allows.
const MAX_LEN: u64 = 1 << 20;

/// The identity of the image that the guest sees, unless another one is named.
const TOP: Uuid = Uuid::from_u128(0x5fbaabe3_6958_40ff_92a7_860e329aab41);

/// A file of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFile {
    pub(super) id: Uuid,
    /// It holds the bytes as they are; otherwise it is an image with a table.
    pub(super) is_plain: bool,
    pub(super) name: String,
    /// Offset of the name in the text.
    pub(super) at: u64,
}

/// A part of the disk, with one file per snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its offset in the guest, in bytes.
    pub(super) start: u64,
    pub(super) len: u64,
    /// Bytes per cluster of images with a table.
    pub(super) cluster: u64,
    pub(super) images: Vec<ImageFile>,
}

/// The contents of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// The virtual size in bytes.
    pub(super) size: u64,
    /// In guest order, without gaps.
    pub(super) parts: Vec<Part>,
    /// The parent of each snapshot.
    parents: BTreeMap<Uuid, Option<Uuid>>,
    top: Uuid,
}

/// Whether a file begins like such a text.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let mark = format!("<{ROOT}");
    head.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// See [`crate::format::Signature::fits`]: also by name, so that a disk to which a guest has written such a text is not
/// taken for one.
pub(in super::super) fn fits(file: &Probe<'_>) -> bool {
    let name = file
        .name
        .rsplit_once_str("/")
        .map_or(&**file.name, |(_, name)| name);
    name == super::DESCRIPTOR.as_bytes() && is_descriptor(file.head)
}

/// Reads the text of a file.
///
/// # Errors
/// [`ErrorKind::Limit`] if it is too long, [`ErrorKind::Corrupt`] if it is none, or if reading fails.
pub(super) fn read(storage: &dyn Storage) -> Result<String> {
    let len = storage.len()?;
    if len > MAX_LEN {
        return Err(Error::new(
            ErrorKind::Limit,
            format!("The disk descriptor has {len} bytes, {MAX_LEN} are allowed"),
        ));
    }
    let mut bytes = memory::zeroed(len as usize)?;
    read_exact_at(storage, &mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is no UTF-8"))?;
    Ok(text.to_owned())
}

fn bad(why: &str) -> Error {
    Error::corrupt(format!("The disk descriptor cannot be understood: {why}"))
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Result<Node<'a, 'a>> {
    let mut children = node.children();
    children
        .find(|child| child.has_tag_name(name))
        .ok_or_else(|| bad(&format!("it has no element '{name}'")))
}

fn children<'a>(node: Node<'a, 'a>, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children()
        .filter(move |child| child.has_tag_name(name))
}

fn text<'a>(node: Node<'a, 'a>, name: &str) -> Result<&'a str> {
    Ok(child(node, name)?.text().unwrap_or_default().trim())
}

fn number(node: Node<'_, '_>, name: &str) -> Result<u64> {
    let wrong = || bad(&format!("the element '{name}' is no number"));
    text(node, name)?.parse().map_err(|_| wrong())
}

fn id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| bad("an identity is no GUID"))
}

/// Converts a number of sectors to bytes.
fn bytes(sectors: u64) -> Result<u64> {
    let bytes = sectors.checked_mul(SECTOR);
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| bad("a number of sectors is too large"))
}

impl ImageFile {
    fn of(node: Node<'_, '_>) -> Result<Self> {
        let file = child(node, "File")?;
        let is_plain = match text(node, "Type")? {
            "Plain" => true,
            "Compressed" => false,
            _ => return Err(Error::unsupported("The type of an image is not known")),
        };
        Ok(Self {
            id: id(text(node, "GUID")?)?,
            is_plain,
            name: file.text().unwrap_or_default().trim().to_owned(),
            at: file.first_child().unwrap_or(file).range().start as u64,
        })
    }
}

impl Part {
    fn of(node: Node<'_, '_>) -> Result<Self> {
        let (start, end) = (number(node, "Start")?, number(node, "End")?);
        let len = end.checked_sub(start).filter(|len| *len > 0);
        let mut images = Vec::new();
        for image in children(node, "Image") {
            memory::push(&mut images, ImageFile::of(image)?)?;
        }
        Ok(Self {
            start: bytes(start)?,
            len: bytes(len.ok_or_else(|| bad("a part of the disk ends before it begins"))?)?,
            cluster: bytes(number(node, "Blocksize")?)?,
            images,
        })
    }
}

impl Descriptor {
    /// Parses the text.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], or [`ErrorKind::Unsupported`] if the kind of disk is not supported.
    pub(super) fn parse(text_of_all: &str) -> Result<Self> {
        let document = xml::parse(text_of_all, Preamble::Bare).map_err(|why| bad(&why))?;
        let root = document.root_element();
        if !root.has_tag_name(ROOT) {
            return Err(bad("it describes something else"));
        }
        if root.attribute("Version") != Some("1.0") {
            return Err(Error::unsupported(
                "The version of the disk descriptor is not 1.0",
            ));
        }
        let parameters = child(root, "Disk_Parameters")?;
        if number(parameters, "Padding")? != 0 {
            return Err(Error::unsupported("Disks with padding are not supported"));
        }
        if is_encrypted(parameters) {
            return Err(Error::unsupported("Encrypted disks are not supported"));
        }
        let mut parts = Vec::new();
        for part in children(child(root, "StorageData")?, "Storage") {
            memory::push(&mut parts, Part::of(part)?)?;
        }
        let snapshots = child(root, "Snapshots")?;
        let mut parents = BTreeMap::new();
        for shot in children(snapshots, "Shot") {
            let parent = id(text(shot, "ParentGUID")?)?;
            let parent = (!parent.is_nil()).then_some(parent);
            if parents.insert(id(text(shot, "GUID")?)?, parent).is_some() {
                return Err(bad("two snapshots have one identity"));
            }
        }
        let top = match child(snapshots, "TopGUID") {
            Ok(top) => id(top.text().unwrap_or_default().trim())?,
            Err(_) => TOP,
        };
        let mut found = Self {
            size: bytes(number(parameters, "Disk_size")?)?,
            parts,
            parents,
            top,
        };
        found.check_parts()?;
        Ok(found)
    }

    /// Checks that the parts are contiguous and add up to the disk.
    fn check_parts(&mut self) -> Result<()> {
        self.parts.sort_by_key(|part| part.start);
        let mut end = 0;
        for part in &self.parts {
            if part.start != end {
                return Err(bad("the parts of the disk do not follow each other"));
            }
            end += part.len;
        }
        match end == self.size && !self.parts.is_empty() {
            true => Ok(()),
            false => Err(bad("the parts of the disk do not add up to its size")),
        }
    }

    /// The number of snapshots, not counting what the guest sees.
    pub(super) fn snapshots(&self) -> u64 {
        (self.parents.len() as u64).saturating_sub(1)
    }

    /// The images that the guest sees of a part, from the top down; at most `most` of them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if one is missing, or cannot be where it is.
    pub(super) fn chain<'a>(&self, part: &'a Part, most: u32) -> Result<Vec<&'a ImageFile>> {
        let mut chain = Vec::new();
        let mut next = Some(self.top);
        while let Some(id) = next {
            if chain.len() >= most as usize {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!("A chain of more than {most} snapshots is not allowed"),
                ));
            }
            let mut images = part.images.iter().filter(|image| image.id == id);
            let (image, parent) = match (images.next(), images.next(), self.parents.get(&id)) {
                (Some(image), None, Some(parent)) => (image, *parent),
                _ => return Err(bad(&format!("it has no single image of the snapshot {id}"))),
            };
            if image.is_plain && parent.is_some() {
                return Err(bad("a plain image has a parent"));
            }
            memory::push(&mut chain, image)?;
            next = parent;
        }
        Ok(chain)
    }
}

/// Whether the parameters name a cipher.
fn is_encrypted(parameters: Node<'_, '_>) -> bool {
    let encryption = child(parameters, "Encryption");
    let engine = encryption.and_then(|node| text(node, "Engine"));
    match engine {
        Ok(engine) => !engine.is_empty() && !Uuid::try_parse(engine).is_ok_and(|id| id.is_nil()),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, kind: &str, file: &str) -> String {
        format!("<Image><GUID>{id}</GUID><Type>{kind}</Type><File>{file}</File></Image>")
    }

    fn shot(id: &str, parent: &str) -> String {
        format!("<Shot><GUID>{id}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
    }

    const ROOT_ID: &str = "{11111111-1111-1111-1111-111111111111}";
    const TOP_ID: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    const NONE: &str = "{00000000-0000-0000-0000-000000000000}";

    /// The text for a disk of 4096 sectors in two parts.
    fn text() -> String {
        let part = |start: u64, end: u64, n: u64| {
            format!(
                "<Storage><Start>{start}</Start><End>{end}</End><Blocksize>128</Blocksize>{}{}</Storage>",
                image(ROOT_ID, "Plain", &format!("root{n}.hds")),
                image(TOP_ID, "Compressed", &format!("top{n}.hds")),
            )
        };
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\
             <Disk_Parameters><Disk_size>4096</Disk_size><Padding>0</Padding></Disk_Parameters>\
             <StorageData>{}{}</StorageData><Snapshots>{}{}</Snapshots></Parallels_disk_image>",
            part(2048, 4096, 1),
            part(0, 2048, 0),
            shot(TOP_ID, ROOT_ID),
            shot(ROOT_ID, NONE),
        )
    }

    #[test]
    fn parts_and_chains_are_told_in_order() {
        let text = text();
        let found = Descriptor::parse(&text).unwrap();
        assert_eq!((found.size, found.snapshots()), (4096 * 512, 1));
        let names = |part| {
            let chain = found.chain(part, 9).unwrap();
            chain
                .iter()
                .map(|image| image.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&found.parts[0]), ["top0.hds", "root0.hds"]);
        assert_eq!(names(&found.parts[1]), ["top1.hds", "root1.hds"]);
        let at = found.parts[0].images[0].at as usize;
        assert!(text[at..].starts_with("root0.hds"));
        assert!(is_descriptor(text.as_bytes()));
    }

    #[test]
    fn another_top_can_be_named() {
        let named = format!("<Snapshots><TopGUID>{ROOT_ID}</TopGUID>");
        let text = text().replace("<Snapshots>", &named);
        let found = Descriptor::parse(&text).unwrap();
        let chain = found.chain(&found.parts[0], 9).unwrap();
        assert_eq!(chain.len(), 1);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (from, to, kind) in [
            ("<End>2048</End>", "<End>2047</End>", ErrorKind::Corrupt),
            ("<End>2048</End>", "<End>0</End>", ErrorKind::Corrupt),
            ("<Disk_size>4096", "<Disk_size>4097", ErrorKind::Corrupt),
            ("<Disk_size>4096", "<Disk_size>x", ErrorKind::Corrupt),
            ("<Padding>0", "<Padding>1", ErrorKind::Unsupported),
            ("Version=\"1.0\"", "Version=\"2.0\"", ErrorKind::Unsupported),
            ("<Type>Plain", "<Type>Other", ErrorKind::Unsupported),
            (
                "<Padding>",
                "<Encryption><Engine>x</Engine></Encryption><Padding>",
                ErrorKind::Unsupported,
            ),
            ("<Snapshots>", "<Snapshot>", ErrorKind::Corrupt),
        ] {
            let text = text().replace(from, to);
            let error = Descriptor::parse(&text).unwrap_err();
            assert_eq!(error.kind(), kind, "{from} {to}: {error}");
        }
        for (from, to, kind) in [
            (NONE, TOP_ID, ErrorKind::Corrupt),
            (
                NONE,
                "{22222222-1111-1111-1111-111111111111}",
                ErrorKind::Corrupt,
            ),
            ("<Type>Plain", "<Type>Compressed", ErrorKind::Limit),
        ] {
            let text = text().replace(from, to);
            let looped = text.replace(NONE, TOP_ID);
            let found = Descriptor::parse(match kind {
                ErrorKind::Limit => &looped,
                _ => &text,
            });
            let found = found.unwrap();
            let error = found.chain(&found.parts[0], 9).unwrap_err();
            assert_eq!(error.kind(), kind, "{from} {to}: {error}");
        }
    }
}
